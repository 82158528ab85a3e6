//! What a cubin holds: an ELF file, with a section `.text.NAME` and a global function symbol for every entry, and a section
//! `.nv.constantN.NAME` for what it finds in constant memory (its parameters, what the driver keeps there, constants of the
//! compiler). NVIDIA's `cuobjdump -elf` and `readelf -S` show the same.

use object::elf::FileHeader64;
use object::read::elf::ElfFile;
use object::{Endianness, Object, ObjectSection, ObjectSymbol, SymbolKind};
use std::collections::BTreeMap;

/// Entries by name, with their bytes of constant memory.
pub(super) fn entries(cubin: &[u8]) -> Result<BTreeMap<String, u64>, object::Error> {
    let file = ElfFile::<FileHeader64<Endianness>>::parse(cubin)?;
    let mut constants = BTreeMap::<String, u64>::new();
    let mut code = Vec::new();
    for section in file.sections() {
        let name = section.name()?;
        if let Some(function) = name.strip_prefix(".text.") {
            code.push(function.to_owned());
        } else if let Some((bank, function)) = name.strip_prefix(".nv.constant").and_then(|rest| rest.split_once('.'))
            && bank.bytes().all(|byte| byte.is_ascii_digit())
        {
            *constants.entry(function.to_owned()).or_default() += section.size();
        }
    }
    let mut entries = BTreeMap::new();
    for symbol in file.symbols() {
        let name = symbol.name()?;
        let function = symbol.kind() == SymbolKind::Text && symbol.is_global() && !symbol.is_undefined();
        if function && code.iter().any(|with_code| with_code == name) {
            entries.insert(name.to_owned(), constants.get(name).copied().unwrap_or(0));
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Real cubins: tests/cuda_check.rs.
    #[test]
    fn what_is_no_cubin_is_an_error() {
        for bytes in [&b""[..], b"\x7fELF", b"// a text", &[0; 200]] {
            assert!(entries(bytes).is_err(), "{bytes:?}");
        }
    }
}
