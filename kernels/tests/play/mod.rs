//! Libraries that play NVIDIA's driver and NVRTC, compiled where a test runs. They show that what we call is in order and what
//! is answered is understood; they do not show that a real driver answers so.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// This folder, from whichever crate.
fn sources() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of = |root: &Path| root.join("kernels/tests/play");
    here.ancestors().map(of).find(|folder| folder.is_dir()).expect("kernels/tests/play")
}

fn build(compiler: &str, args: &[&str], files: &[PathBuf], out: &Path) {
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-Wl,-Bsymbolic", "-o"]).arg(out).args(args).args(files);
    let built = command.output().expect("a C and a C++ compiler, `apt-get install g++`");
    assert!(built.status.success(), "{command:?}: {}", String::from_utf8_lossy(&built.stderr));
}

/// Puts a driver into the folder, whose kernels do nothing. The defines are those of `driver.c`.
pub(crate) fn driver(folder: &Path, defines: &[&str]) {
    build("cc", defines, &[sources().join("driver.c")], &folder.join("libcuda.so"));
}

/// Whether there is a C++ compiler, which [`emulating_driver`] needs. Where there is none, a test says so, past the test
/// runner's capture.
#[allow(dead_code)]
pub(crate) fn emulates() -> bool {
    let here = Command::new("c++").arg("--version").output().is_ok();
    if !here {
        let _ = writeln!(
            std::io::stderr(),
            "unavailable, not run: no C++ compiler (c++); get one with `apt-get install g++`"
        );
    }
    here
}

/// Puts a driver into the folder, whose kernels are those of the emulation.
#[allow(dead_code)] // Not every test that includes this has kernels run.
pub(crate) fn emulating_driver(folder: &Path, defines: &[&str]) {
    let play = sources();
    let object = folder.join("driver.o");
    build("cc", &[&["-c", "-O1", "-DEMULATION"], defines].concat(), &[play.join("driver.c")], &object);
    let emulation = play.join("../../src/cuda/emu");
    let include = format!("-I{}", emulation.display());
    let flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-fno-exceptions", "-fno-rtti", "-fno-strict-aliasing"];
    let flags = [&flags[..], &["-Wno-unknown-pragmas", &include]].concat();
    let files = ["entries.cpp", "machine.cpp", "fiber.cpp"].map(|file| emulation.join(file));
    build("c++", &flags, &[&[object, play.join("kinds.cpp")], &files[..]].concat(), &folder.join("libcuda.so"));
}

/// Puts an NVRTC into the folder. The defines are those of `nvrtc.c`.
#[allow(dead_code)]
pub(crate) fn nvrtc(folder: &Path, defines: &[&str]) -> PathBuf {
    let library = folder.join("libnvrtc.so.13");
    build("cc", defines, &[sources().join("nvrtc.c")], &library);
    library
}
