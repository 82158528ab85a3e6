//! The target that `BITNET_FUZZ_TARGET` names.
#![no_main]

use bitnet_fuzz::{ALL, Target, by_name};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

fn target() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("BITNET_FUZZ_TARGET").unwrap_or_default();
        by_name(&name).unwrap_or_else(|| {
            let names: Vec<&str> = ALL.iter().map(|target| target.name).collect();
            eprintln!("BITNET_FUZZ_TARGET is `{name}`; it must be one of {}", names.join(", "));
            std::process::exit(2)
        })
    })
}

fuzz_target!(|data: &[u8]| {
    std::hint::black_box((target().run)(data));
});
