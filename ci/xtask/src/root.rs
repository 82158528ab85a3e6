//! The checkout that xtask works on, and the cargo that builds it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Root of the checkout in which xtask was built.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs this command, to be called in the checkout.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Builds a workspace of its own beside the checkout's into the folder `build`, as its lock says.
pub(crate) fn cargo_build(manifest: &Path, build: &Path) -> Command {
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--locked", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(build);
    // The toolchain's own variables are those of the workspace that runs this command.
    cargo.env_remove("CARGO_TARGET_DIR").stdin(Stdio::null()).stdout(Stdio::null());
    cargo
}
