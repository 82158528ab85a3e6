//! The files of `golden/` that steer the suite. The first byte of an input chooses the reader.

use super::{folder, golden, put, said};
use crate::Target;
use bitnet_golden::{differences, expect, faults, fixtures, gates, matrix, overhead, targets, texts, thresholds};
use std::path::Path;

pub const TARGET: Target =
    Target { name: "matrix-data", about: "matrix.toml, expect.toml, thresholds, targets, gates", seeds, run };

/// A file below the golden folder, and its reader.
type Reader = (&'static str, fn(&Path) -> String);

const READERS: [Reader; 12] = [
    ("matrix.toml", |golden| said(matrix::Matrix::read(&golden.join("matrix.toml")))),
    ("expect.toml", |golden| said(expect::Expectations::read(&golden.join("expect.toml")))),
    ("thresholds.toml", |golden| {
        said(thresholds::crossval(golden, "llama", "tiny-bitnet", "i2_s")) + &said(thresholds::trainer(golden))
    }),
    ("targets.toml", |golden| said(targets::read(golden))),
    ("faults.toml", |golden| said(faults::read(golden))),
    ("differences.toml", |golden| said(differences::read(golden))),
    ("fixtures.toml", |golden| said(fixtures::read(golden))),
    ("overhead.toml", |golden| said(overhead::tokenizer_discovery(golden))),
    ("gates/cuda.toml", |golden| said(bitnet_golden::cuda::read(golden))),
    ("gates/instructions-x86_64.toml", |golden| said(gates::instructions(golden, "x86_64"))),
    ("gates/ratios-x86_64.toml", |golden| said(gates::ratios(golden, "x86_64"))),
    ("texts/plan.toml", |golden| said(texts::plan(golden, "tiny-bitnet"))),
];

fn run(bytes: &[u8]) -> String {
    let Some((choice, text)) = bytes.split_first() else { return "nothing".to_owned() };
    let (file, read) = READERS[usize::from(*choice) % READERS.len()];
    let folder = folder().join("golden");
    put(&folder.join(file), text);
    format!("{file}: {}", read(&folder)).replace(folder.to_string_lossy().as_ref(), "")
}

fn seeds() -> Vec<Vec<u8>> {
    let one = |(number, (file, _)): (usize, &Reader)| {
        let text = std::fs::read(golden().join(file)).ok()?;
        Some([&[number as u8][..], &text].concat())
    };
    READERS.iter().enumerate().filter_map(one).collect()
}
