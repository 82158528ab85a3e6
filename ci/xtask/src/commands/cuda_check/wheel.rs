//! NVRTC out of its Python wheel, through pip, pinned by version and SHA-256. It is fetched into the build folder once, and
//! never committed: it is NVIDIA's.

use crate::commands::fixtures::package;
use anyhow::{Context, ensure};
use bitnet_golden::cuda::{Cuda, Wheel};
use bitnet_golden::fixtures::Package;
use cpp_sys::workers::sha256;
use std::path::{Path, PathBuf};

/// Why there is no NVRTC, and what fixes it.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) reason: String,
    pub(super) remedy: String,
}

/// The path of the library: what the user names, else the one in the build folder, which is fetched if it is not there.
///
/// The outer error is a wheel whose bytes are not the pinned ones, or a build folder that cannot be written; that is no
/// lack of something but wrong.
pub(super) fn library(golden: &Cuda, given: Option<&Path>, target: &Path) -> anyhow::Result<Result<PathBuf, Missing>> {
    if let Some(path) = given {
        return Ok(Ok(path.to_owned()));
    }
    let (processor, system) = (std::env::consts::ARCH, std::env::consts::OS);
    let wheel = golden.wheel(processor, system);
    let Some((wheel, library)) = wheel.and_then(|wheel| Some((wheel, wheel.library(target)?))) else {
        return Ok(Err(Missing {
            reason: format!("golden/gates/cuda.toml pins no NVRTC for {processor}-{system}"),
            remedy: "cargo xtask cuda-check --nvrtc PATH".to_owned(),
        }));
    };
    let folder = wheel.folder(target);
    if whole(wheel, &folder)? {
        return Ok(Ok(library));
    }
    // Beside the folder, so that the last step is a rename.
    let beside = target.join("nvrtc");
    std::fs::create_dir_all(&beside).with_context(|| format!("cannot create {}", beside.display()))?;
    let kept = tempfile::Builder::new().prefix(".fetch-").tempdir_in(&beside)?;
    let work = kept.path();
    let unpacked = match package::fetch(&Package::Pip(wheel.pip.clone()), work) {
        Ok(unpacked) => unpacked,
        Err(error) => {
            return Ok(Err(Missing {
                reason: format!("NVRTC ({}) is not here and cannot be fetched: {error:#}", wheel.pip),
                remedy:
                    "cargo xtask cuda-check, with Python 3, pip and its package index within reach; or --nvrtc PATH"
                        .to_owned(),
            }));
        }
    };
    let made = work.join("made");
    std::fs::create_dir(&made)?;
    for file in &wheel.files {
        let from = unpacked.join(&file.member);
        let found = sha256(&from).with_context(|| format!("{} has no {}", wheel.pip, file.member))?;
        ensure!(
            found == file.sha256,
            "{} of {} has the sha256 {found}, golden/gates/cuda.toml pins {}; nothing was kept",
            file.member,
            wheel.pip,
            file.sha256
        );
        std::fs::rename(&from, made.join(file.name()))?;
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    if let Err(error) = std::fs::rename(&made, &folder) {
        // Another process may have been quicker.
        ensure!(whole(wheel, &folder)?, "cannot write {}: {error}", folder.display());
    }
    eprintln!("{}: {} ({}), sha256 right", wheel.pip, library.display(), wheel.licence);
    Ok(Ok(library))
}

/// Whether every file is there with the pinned bytes.
fn whole(wheel: &Wheel, folder: &Path) -> anyhow::Result<bool> {
    for file in &wheel.files {
        let path = folder.join(file.name());
        if !path.is_file() {
            return Ok(false);
        }
        if sha256(&path)? != file.sha256 {
            eprintln!("{} is not what it should be, fetching it again", path.display());
            return Ok(false);
        }
    }
    Ok(true)
}

/// What fixes a library that cannot be used.
pub(super) fn remedy(given: Option<&Path>, library: &Path) -> String {
    match (given, library.parent()) {
        (None, Some(folder)) => format!("rm -r {} && cargo xtask cuda-check", folder.display()),
        _ => "cargo xtask cuda-check, without --nvrtc or with that of another NVRTC".to_owned(),
    }
}
