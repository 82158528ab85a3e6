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
    // What the outer cargo says of xtask is not said of other packages. Build scripts look at it (ring's at CARGO_MANIFEST_DIR), and
    // one that sees another value runs again: with it all that depends on its crate is built again, here and at the next plain cargo.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
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
