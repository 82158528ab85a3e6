//! Running xtask.

use bitnet_harness::Failure;
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a run left.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// stdout as one JSON document.
    pub(crate) fn json(&self) -> Result<Value, Failure> {
        serde_json::from_str(&self.out)
            .map_err(|e| Failure::new(format_args!("stdout is not one JSON document ({e}): {}{}", self.out, self.err)))
    }

    /// Fails unless it ended with this code.
    pub(crate) fn expect(self, code: i32) -> Result<Self, Failure> {
        if self.code == code {
            return Ok(self);
        }
        Err(Failure::new(format_args!("exit {} instead of {code}\n{}\n{}", self.code, self.out, self.err)))
    }
}

/// Runs xtask; `target` stands in for the build folder, in which workers are looked for.
pub(crate) fn xtask(args: &[&str], target: Option<&Path>) -> Result<Ran, Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(args);
    for twin in ["BITNET_GGUF", "BITNET_DEVICE", "BITNET_THREADS"] {
        command.env_remove(twin);
    }
    if let Some(target) = target {
        command.env("CARGO_TARGET_DIR", target);
    }
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().ok_or_else(|| Failure::new("xtask was killed"))?;
    Ok(Ran { code, out: text(&output.stdout), err: text(&output.stderr) })
}

/// The checkout.
pub(crate) fn paths() -> Paths {
    Paths::discover(&Env::read())
}

/// A file of the golden folder, as an argument.
pub(crate) fn golden(file: &str) -> String {
    paths().golden.join(file).to_string_lossy().into_owned()
}

/// A path as an argument.
pub(crate) fn arg(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A copy of a model with one wrong weight.
pub(crate) fn flipped(folder: &Path, model: &str, tensor: &str, row: usize, column: usize) -> Result<PathBuf, Failure> {
    let path = folder.join("flipped.gguf");
    let (row, column) = (row.to_string(), column.to_string());
    let args =
        ["flip-weight", "--model", model, "--tensor", tensor, "--row", &row, "--column", &column, "-o", &arg(&path)];
    xtask(&args, None)?.expect(0)?;
    Ok(path)
}
