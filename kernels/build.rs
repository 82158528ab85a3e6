//! Compiles the CUDA sources as C++ for the feature `cuda-emu` (see `src/cuda/emu`). Without a C++ compiler the crate still
//! builds, and the emulation is unavailable, with the reason.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(cuda_emu)");
    #[cfg(feature = "cuda-emu")]
    emulation();
}

#[cfg(feature = "cuda-emu")]
fn emulation() {
    const FOLDER: &str = "src/cuda";
    println!("cargo::rerun-if-changed={FOLDER}");
    let unavailable = |reason: String| {
        // One line: it becomes an environment variable of the compilation.
        println!("cargo::rustc-env=BITNET_CUDA_EMU={}", reason.replace(['\n', '\r'], " "));
        // A file that is never there: the next build looks once more.
        println!("cargo::rerun-if-changed={FOLDER}/emu/no-compiler");
    };
    if std::env::var("CARGO_CFG_UNIX").is_err() {
        return unavailable("it needs a Unix: memory is guarded with mmap".into());
    }
    let mut build = cc::Build::new();
    build.cpp(true).cpp_link_stdlib(None).std("c++17").opt_level(2).debug(false).warnings(true).extra_warnings(true);
    let clang = match build.try_get_compiler() {
        Ok(tool) => tool.is_like_clang(),
        Err(e) => return unavailable(format!("no C++ compiler ({e}); get one with `apt-get install g++`")),
    };
    // The contract's arithmetic: nothing fused, nothing reordered. Undefined behaviour traps, without a runtime library.
    for flag in ["-ffp-contract=off", "-fno-exceptions", "-fno-rtti", "-fno-strict-aliasing", "-fsanitize=undefined"] {
        build.flag(flag);
    }
    build.flag(if clang { "-fsanitize-trap=undefined" } else { "-fsanitize-undefined-trap-on-error" });
    build.flag("-fno-sanitize=vptr").flag("-Wno-unknown-pragmas");
    for file in ["entries", "machine", "fiber"] {
        build.file(format!("{FOLDER}/emu/{file}.cpp"));
    }
    match build.try_compile("bitnet_cuda_emu") {
        Ok(()) => {
            println!("cargo::rustc-link-lib=m");
            println!("cargo::rustc-cfg=cuda_emu");
        }
        // No compiler also ends here.
        Err(e) => unavailable(format!(
            "the C++ compiler failed ({e}); `apt-get install g++` (2020 or later), or look at its output in the build's warnings"
        )),
    }
}
