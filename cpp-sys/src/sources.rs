//! The workers' own sources, hashed: a program that was built from others is stale.

use sha2::{Digest, Sha256};

use crate::CppBackend;

macro_rules! sources {
    ($($path:literal),* $(,)?) => { &[$(($path, include_str!(concat!("../", $path)))),*] };
}

/// What both workers are made of.
const SHARED: &[(&str, &str)] = sources![
    "src/build.rs",
    "src/frame.rs",
    "src/serve.rs",
    "src/wire.rs",
    "workers/shared/build.rs",
    "workers/shared/main.rs",
    "workers/shared/shim.cpp",
    "workers/shared/shim.h",
    "workers/shared/steps.h",
    "workers/shared/vintage.h",
];
const BITNET: &[(&str, &str)] = sources![
    "workers/bitnet/Cargo.toml",
    "workers/bitnet/Cargo.lock",
    "workers/bitnet/build.rs",
    "workers/bitnet/edits.rs",
    "workers/bitnet/src/main.rs",
];
const LLAMA: &[(&str, &str)] = sources![
    "workers/llama/Cargo.toml",
    "workers/llama/Cargo.lock",
    "workers/llama/build.rs",
    "workers/llama/src/main.rs",
];

/// SHA-256 over the names and texts of a worker's sources, as they were when this crate was built.
pub fn fingerprint(backend: CppBackend) -> String {
    let own = match backend {
        CppBackend::BitNet => BITNET,
        CppBackend::Llama => LLAMA,
    };
    let mut hash = Sha256::new();
    for (path, text) in SHARED.iter().chain(own) {
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hex::encode(hash.finalize())
}
