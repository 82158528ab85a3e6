//! Builds bitnet.cpp from a copy of the crate's sources, to which `edits.rs` adds an architecture, or from
//! `BITNET_CPP_DIR` as it is.
//!
//! The crate's own build script is not used: it forces TL2 kernels, which need a model's shapes, and its compiler fails
//! on them. Without TL2 the sources build; the header of the generated kernels is then empty.

use std::error::Error;
use std::path::Path;

use cpp_sys::CppBackend;
use shared::{Origin, Recipe};

mod edits;
#[path = "../shared/build.rs"]
mod shared;

const LLAMA: &str = "3rdparty/llama.cpp";
const EDITED: &str = "3rdparty/llama.cpp/src/llama.cpp";
const EXAMPLES: &str = "3rdparty/llama.cpp/examples/CMakeLists.txt";
const KERNELS: &str = "include/bitnet-lut-kernels.h";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=BITNET_CPP_DIR");
    let (origin, root, edits) = match std::env::var_os("BITNET_CPP_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => {
            let origin = Origin::checkout(dir.into())?;
            let root = origin.folder.clone();
            for (file, how) in [
                (KERNELS.to_owned(), "run its setup_env.py, or copy one of its preset_kernels there"),
                (format!("{LLAMA}/include/llama.h"), "run `git submodule update --init --recursive` there"),
            ] {
                if !root.join(&file).is_file() {
                    return Err(format!("BITNET_CPP_DIR: {} has no {file}: {how}", root.display()).into());
                }
            }
            (origin, root, Vec::new())
        }
        None => {
            let origin = Origin::package(CppBackend::BitNet.package())?;
            let (from, root) = (origin.folder.join("bitnet"), shared::out_dir()?.join("source"));
            shared::copy(&from, &root, &[from.join(EDITED)])?;
            let edits = complete(&from, &root)?;
            (origin, root, edits)
        }
    };
    let flags = vec!["-DBITNET_X86_TL2=OFF".to_owned(), "-DBITNET_ARM_TL1=OFF".to_owned()];
    Recipe { backend: CppBackend::BitNet, root, llama: LLAMA.to_owned(), origin, edits, flags }.build()
}

/// Adds what the crate leaves out and what it does not know. Returns a sentence for each.
fn complete(from: &Path, root: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    shared::write(&root.join(KERNELS), b"// TL1 and TL2 are off: no kernels.\n")?;
    shared::write(&root.join(EXAMPLES), b"# The crate ships no examples.\n")?;
    let text = std::fs::read_to_string(from.join(EDITED))?;
    let text = edits::apply(&text).map_err(|problem| format!("{EDITED}: {problem}"))?;
    shared::write(&root.join(EDITED), text.as_bytes())?;
    Ok(vec![
        format!("{KERNELS}: added, empty (the crate ships no generated kernels)"),
        format!("{EXAMPLES}: added, empty (the crate ships no examples, its CMakeLists.txt names them)"),
        format!("{EDITED}: the architecture bitnet-b1.58 added, which is bitnet with a squared ReLU"),
    ])
}
