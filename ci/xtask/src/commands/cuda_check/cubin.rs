//! What a cubin holds: an ELF file, with a section `.text.NAME` and a global function symbol for every entry, and a section
//! `.nv.constantN.NAME` for what it finds in constant memory (its parameters, what the driver keeps there, constants of the
//! compiler). NVIDIA's `cuobjdump -elf` and `readelf -S` show the same.

use object::elf::FileHeader64;
use object::read::elf::ElfFile;
use object::{Endianness, Object, ObjectSection, ObjectSymbol, SymbolKind};
use std::collections::BTreeMap;

/// What a cubin has of an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Bytes of constant memory.
    pub(super) constant: u64,
    /// Loads and prefetches of global memory before it waits for earlier launches; none if it has no such wait.
    pub(super) early: Option<u64>,
}

pub(super) fn entries(cubin: &[u8]) -> Result<BTreeMap<String, Entry>, object::Error> {
    let file = ElfFile::<FileHeader64<Endianness>>::parse(cubin)?;
    let mut constants = BTreeMap::<String, u64>::new();
    let mut code = BTreeMap::new();
    for section in file.sections() {
        let name = section.name()?;
        if let Some(function) = name.strip_prefix(".text.") {
            code.insert(function.to_owned(), early(section.data()?));
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
        if let Some(early) = code.get(name).filter(|_| function) {
            let constant = constants.get(name).copied().unwrap_or(0);
            entries.insert(name.to_owned(), Entry { constant, early: *early });
        }
    }
    Ok(entries)
}

// `ld.global`, `prefetch.global` and `griddepcontrol.wait` as machine code: `LDG`, `CCTL` and `ACQBULK` of the "CUDA Binary
// Utilities" manual. An instruction has 16 bytes since compute capability 7.0, and the lowest 12 bits are the operation, as
// `nvdisasm -hex` shows.
const LOAD: u16 = 0x981;
const PREFETCH: u16 = 0x98f;
const WAIT: u16 = 0x82e;

/// Loads and prefetches before the first wait, in the order of the text: a compiler may move what is asked for early behind it.
fn early(text: &[u8]) -> Option<u64> {
    let operations = text.chunks_exact(16).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]) & 0xfff);
    let mut fetches = 0;
    for operation in operations {
        match operation {
            WAIT => return Some(fetches),
            LOAD | PREFETCH => fetches += 1,
            _ => {}
        }
    }
    None
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

    /// As `nvdisasm -hex` shows a kernel for sm_90a: LDG.E under a predicate, PREEXIT, CCTL.E.PF1, ACQBULK, LDG.E.
    #[test]
    fn fetches_before_the_wait() {
        let words: [u64; 5] =
            [0x0000_000e_0400_0981, 0x782d, 0x0000_0000_0600_798f, 0x0000_0000_0000_782e, 0x0000_0004_0408_7981];
        let text = |words: &[u64]| words.iter().flat_map(|w| [w.to_le_bytes(), [0; 8]].concat()).collect::<Vec<_>>();
        assert_eq!(early(&text(&words)), Some(2));
        assert_eq!(early(&text(&words[..3])), None);
        assert_eq!(early(&text(&words[3..])), Some(0));
    }
}
