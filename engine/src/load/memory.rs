//! Layouts that were found out, remembered in a folder of the user's cache, one small file for each model.
//!
//! An entry belongs to a file if path, length and time of change are the same, and so are some sampled blocks of its bytes; of
//! all its parts, where it is split. Anything else, and an entry that cannot be read, is as good as none. That nothing could be
//! found out is remembered too, but only for the same tokenizer: with another the text of the probe has other ids.
//!
//! An entry is JSON and one line behind it with the SHA-256 of these bytes, so that one that was damaged or edited is none.

use super::LayoutReport;
use super::layout::probe_ids;
use crate::gguf::GgufFile;
use crate::hub::write_whole;
use crate::tokenizer::Tokenizer;
use bitnet_kernels::quant::I2sLayout;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Entries of another version are not read: how a layout is found out may have become better.
const VERSION: u32 = 2;
/// Blocks of a file that are sampled, the first and the last among them, and the bytes of each.
const BLOCKS: u64 = 16;
const BLOCK: u64 = 4096;
/// Longer entries are not ours.
const MAX_BYTES: u64 = 1 << 20;

/// Where the layout of a model is remembered.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    path: PathBuf,
    parts: Vec<Mark>,
}

/// What a file is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    path: String,
    bytes: u64,
    /// Nanoseconds since 1970.
    changed: u64,
    /// SHA-256 of the sampled blocks.
    sample: String,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Found {
    version: u32,
    parts: Vec<Mark>,
    layout: String,
    decided: bool,
    why: String,
    /// SHA-256 of the ids of the probe.
    probe: String,
}

impl Found {
    /// The layout, if anything spoke for it.
    pub(super) fn layout(&self) -> Option<I2sLayout> {
        I2sLayout::from_name(&self.layout).filter(|_| self.decided)
    }

    /// The report, if it holds with this tokenizer.
    pub(super) fn report(&self, tokenizer: &dyn Tokenizer) -> Option<LayoutReport> {
        let why = format!("{} (remembered)", self.why);
        match self.layout() {
            Some(layout) => Some(LayoutReport::decided(layout, why)),
            None => (self.probe == digest(tokenizer)).then(|| LayoutReport::undecided(why)),
        }
    }
}

impl Memory {
    /// The place of a model; `None` for one that is not a file.
    pub(super) fn of(folder: &Path, file: &GgufFile) -> Option<Self> {
        let parts = file.parts().map(|part| mark(part.path?).ok()).collect::<Option<Vec<_>>>()?;
        let mut name = Sha256::new();
        for part in &parts {
            name.update(part.path.as_bytes());
            name.update([0]);
        }
        Some(Self { path: folder.join(format!("{}.json", hex::encode(&name.finalize()[..16]))), parts })
    }

    /// What is remembered of this very file.
    pub(super) fn read(&self) -> Option<Found> {
        // Asked before opening, because to open a named pipe would wait for its writer.
        std::fs::metadata(&self.path).ok().filter(Metadata::is_file)?;
        let mut text = String::new();
        File::open(&self.path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
        let found: Found = serde_json::from_str(unsealed(&text)?).ok()?;
        let known = I2sLayout::from_name(&found.layout).is_some();
        (known && found.version == VERSION && found.parts == self.parts).then_some(found)
    }

    /// Remembers a report. Where that fails, it is found out again the next time.
    pub(super) fn write(&self, report: &LayoutReport, tokenizer: &dyn Tokenizer) {
        let found = Found {
            version: VERSION,
            parts: self.parts.clone(),
            layout: report.layout.to_owned(),
            decided: report.decided,
            why: report.why.clone(),
            probe: digest(tokenizer),
        };
        let written = serde_json::to_string_pretty(&found)
            .map_err(Into::into)
            .and_then(|text| write_whole(&self.path, sealed(text).as_bytes()));
        if let Err(error) = written {
            tracing::info!("the I2_S layout is not remembered in {}: {error}", self.path.display());
        }
    }
}

/// The text with the line of its checksum.
fn sealed(text: String) -> String {
    let sum = hex::encode(Sha256::digest(&text));
    text + "\nsha256 " + &sum + "\n"
}

/// The text before the line of its checksum, if the checksum is right.
fn unsealed(text: &str) -> Option<&str> {
    let (text, sum) = text.strip_suffix('\n')?.rsplit_once("\nsha256 ")?;
    (sum == hex::encode(Sha256::digest(text))).then_some(text)
}

/// What the built-in text is for a tokenizer.
fn digest(tokenizer: &dyn Tokenizer) -> String {
    let ids: Vec<u8> = probe_ids(tokenizer).into_iter().flat_map(u32::to_le_bytes).collect();
    hex::encode(Sha256::digest(ids))
}

fn mark(path: &Path) -> std::io::Result<Mark> {
    let path = path.canonicalize()?;
    let mut file = File::open(&path)?;
    let about = file.metadata()?;
    let bytes = about.len();
    let changed = about.modified()?.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let mut hash = Sha256::new();
    let last = bytes.saturating_sub(BLOCK);
    for block in 0..BLOCKS {
        file.seek(SeekFrom::Start(last / (BLOCKS - 1) * block))?;
        let mut some = Vec::new();
        (&mut file).take(BLOCK).read_to_end(&mut some)?;
        hash.update(&some);
    }
    file.seek(SeekFrom::Start(last))?;
    let mut some = Vec::new();
    file.take(BLOCK).read_to_end(&mut some)?;
    hash.update(&some);
    let path = path.display().to_string();
    Ok(Mark { path, bytes, changed, sample: hex::encode(hash.finalize()) })
}
