//! Builds llama.cpp from the crate, straight from cargo's registry, or from `LLAMA_CPP_DIR`.

use std::error::Error;

use cpp_sys::CppBackend;
use shared::{Origin, Recipe};

#[path = "../shared/build.rs"]
mod shared;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=LLAMA_CPP_DIR");
    let backend = CppBackend::Llama;
    let recipe = match std::env::var_os("LLAMA_CPP_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => {
            let origin = Origin::checkout(dir.into())?;
            Recipe {
                backend,
                root: origin.folder.clone(),
                llama: String::new(),
                origin,
                edits: Vec::new(),
                flags: vec![],
            }
        }
        None => {
            let origin = Origin::package(backend.package())?;
            let root = origin.folder.join("llama.cpp");
            Recipe { backend, root, llama: String::new(), origin, edits: Vec::new(), flags: vec![] }
        }
    };
    recipe.build()
}
