//! GGUFs of recorded checkpoints: their logits, and that two forms of one model are one.

use super::{check, convert, folder, pool, trial};
use bitnet_engine::checkpoint::CheckpointError;
use bitnet_engine::convert::ConvertError;
use bitnet_engine::device;
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::inference::{Session, SessionOptions, Want};
use bitnet_engine::model::Model;
use bitnet_golden::checkpoint::{BACKENDS, Checkpoint, names, read};
use bitnet_golden::thresholds;
use bitnet_harness::Failure;
use bitnet_harness::crossval::distance;
use bitnet_harness::paths::Paths;
use bitnet_harness::roster::Named;
use bitnet_kernels::quant::I2sLayout;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of numpy's recordings.
const NUMPY: &str = "checkpoint";
/// Formats that hold the weights exactly: of ternary models, and of others.
const TERNARY: [&str; 4] = ["i2_s", "i2_s-arm", "tq2_0", "tl2"];
const FLOATS: [&str; 2] = ["f32", "f16"];

/// Formats that round.
const ROUNDED: [&str; 9] = ["q8_0", "q6_k", "q5_0", "q4_0", "q4_1", "iq4_nl", "mxfp4", "q3_k", "q2_k"];

pub(crate) fn trials(paths: &Paths) -> Result<Vec<Named>, Failure> {
    let golden = paths.golden.clone();
    let mut out = Vec::new();
    for backend in BACKENDS {
        for name in names(&golden, backend)? {
            let recorded = read(&golden, backend, &name)?;
            let formats: &[&str] = if recorded.activations == "float" { &FLOATS } else { &TERNARY };
            // What numpy and transformers say of one checkpoint differs by some 1e-6: one format of theirs is enough.
            let (label, count) = if backend == NUMPY { ("logits", formats.len()) } else { (backend, 1) };
            for format in &formats[..count] {
                let (golden, name) = (golden.clone(), name.clone());
                out.push(trial(format!("{label}::{name}::{format}"), move || logits(&golden, backend, &name, format)));
            }
        }
    }
    for (packed, master) in [("bitnet-packed", "bitnet-master"), ("llama-packed", "llama-master")] {
        let golden = golden.clone();
        out.push(trial(format!("same::{packed}::{master}"), move || same(&golden, packed, master)));
    }
    for (name, from, to) in [("bitnet-packed", "autobitlinear", "bitlinear"), ("llama-packed", "", "autobitlinear")] {
        let golden = golden.clone();
        out.push(trial(format!("planted::scale-{name}"), move || planted(&golden, name, from, to)));
    }
    for name in ["llama-plain", "qwen2-plain"] {
        for format in ROUNDED {
            let golden = golden.clone();
            out.push(trial(format!("verified::{name}::{format}"), move || verified(&golden, name, format)));
        }
    }
    for format in ["f16", "q8_0", "q2_k"] {
        let golden = golden.clone();
        out.push(trial(format!("planted::other-tensors-{format}"), move || other_tensors(&golden, format)));
    }
    Ok(out)
}

/// A recorded checkpoint as a folder.
fn made(golden: &Path, backend: &str, name: &str) -> Result<(tempfile::TempDir, Checkpoint), Failure> {
    let (dir, recorded) = (tempfile::tempdir()?, read(golden, backend, name)?);
    folder::write(dir.path(), &recorded.config, &folder::tensors(&recorded)?, recorded.files)?;
    Ok((dir, recorded))
}

fn logits(golden: &Path, backend: &str, name: &str, format: &str) -> Result<(), Failure> {
    let (dir, recorded) = made(golden, backend, name)?;
    // The engine's own comparison too: it must not refuse what numpy agrees with.
    convert(dir.path(), format, true, dir.path())?;
    let limits = thresholds::crossval(golden, "checkpoint", name, format)?;
    let (cosine, abs) = apart(&dir.path().join("model.gguf"), &recorded)?;
    let message = format!(
        "least cosine {cosine} (limit {}), largest difference {abs} (limit {})",
        limits.least_cosine, limits.largest_abs
    );
    check(cosine >= limits.least_cosine && abs <= limits.largest_abs, message)
}

/// The engine's own comparison lets a format that rounds pass, whose limit is for trained weights too.
fn verified(golden: &Path, name: &str, format: &str) -> Result<(), Failure> {
    let (dir, _) = made(golden, NUMPY, name)?;
    let written = convert(dir.path(), format, true, dir.path())?;
    let found = written.comparison.ok_or_else(|| Failure::new("nothing was compared"))?;
    check(found.least_cosine >= found.limit && found.least_cosine < 1.0, found)
}

/// The least cosine of a position and the largest difference of a logit; NaN is neither.
fn apart(gguf: &Path, recorded: &Checkpoint) -> Result<(f64, f64), Failure> {
    let file = GgufFile::open(gguf)?;
    let layout = file.metadata().str("bitnet.i2_s.layout")?.and_then(I2sLayout::from_name).unwrap_or_default();
    let model = Arc::new(Model::load(&file, layout, pool())?);
    let ternary = model.weights.storages().any(|(_, storage)| storage.is_ternary());
    check(
        !ternary || model.rounding.name() == recorded.activations,
        format_args!("activations are rounded as {}, recorded {}", model.rounding.name(), recorded.activations),
    )?;
    let kernels = device::kernels("cpu-scalar")?;
    let context = Some(recorded.ids.len());
    let mut session =
        Session::new(model, SessionOptions { context, ..SessionOptions::new(kernels, Arc::clone(pool())) })?;
    let mut ours = Vec::new();
    session.forward(&recorded.ids, Want::All, &mut |_, row| ours.extend_from_slice(row))?;
    let theirs = &recorded.logits.values;
    check(ours.len() == theirs.len() && !ours.is_empty(), "another number of logits")?;
    let vocab = ours.len() / recorded.ids.len();
    let (mut least, mut largest) = (1.0_f64, 0.0_f64);
    for (a, b) in ours.chunks_exact(vocab).zip(theirs.chunks_exact(vocab)) {
        let cosine = distance::cosine(a, b);
        least = if cosine >= least { least } else { cosine };
        largest = largest.max(distance::max_abs(a, b));
    }
    Ok((least, largest))
}

fn same(golden: &Path, packed: &str, master: &str) -> Result<(), Failure> {
    let (a, recorded) = made(golden, NUMPY, packed)?;
    let (b, _) = made(golden, NUMPY, master)?;
    // A scale that divides was rounded twice.
    let divides = recorded.config["quantization_config"]["linear_class"].is_null();
    for format in ["i2_s", "tq1_0", "tl1"] {
        convert(a.path(), format, false, a.path())?;
        convert(b.path(), format, false, b.path())?;
        let load = |dir: &Path| -> Result<Model, Failure> {
            Ok(Model::load(&GgufFile::open(dir.join("model.gguf"))?, I2sLayout::X86, pool())?)
        };
        let (a, b) = (load(a.path())?, load(b.path())?);
        check(a.weights.matrices().count() == b.weights.matrices().count(), "another number of matrices")?;
        for ((name, a), (_, b)) in
            a.weights.matrices().zip(b.weights.matrices()).filter(|((_, m), _)| m.format.is_ternary())
        {
            let (mut x, mut y) = (vec![0.0; a.cols], vec![0.0; b.cols]);
            for row in 0..a.rows {
                a.unpack_row(row, &mut x);
                b.unpack_row(row, &mut y);
                let near = |(x, y): (&f32, &f32)| x == y || divides && (x / y - 1.0).abs() < 2e-7;
                check(x.iter().zip(&y).all(near), format_args!("{format}: row {row} of {name} differs"))?;
            }
        }
    }
    Ok(())
}

/// The scale taken the other way round: the recorded logits tell.
fn planted(golden: &Path, name: &str, from: &str, to: &str) -> Result<(), Failure> {
    let (dir, recorded) = made(golden, NUMPY, name)?;
    let mut config = recorded.config.clone();
    let class = &mut config["quantization_config"]["linear_class"];
    check(class.as_str().unwrap_or_default() == from, format_args!("the class was {class}"))?;
    *class = json!(to);
    std::fs::write(dir.path().join("config.json"), config.to_string())?;
    convert(dir.path(), "i2_s", false, dir.path())?;
    let (cosine, abs) = apart(&dir.path().join("model.gguf"), &recorded)?;
    let limits = thresholds::crossval(golden, "checkpoint", name, "i2_s")?;
    let seen = cosine < limits.least_cosine || abs > limits.largest_abs;
    check(seen, format_args!("nobody noticed: cosine {cosine}, difference {abs}"))
}

/// A checkpoint whose files change between writing and comparing: `verify` refuses, and nothing is left.
fn other_tensors(golden: &Path, format: &str) -> Result<(), Failure> {
    let (dir, _) = made(golden, NUMPY, "llama-plain")?;
    let weights: PathBuf = dir.path().join("model.safetensors");
    let checkpoint = bitnet_engine::checkpoint::open(dir.path())?;
    let output = dir.path().join("model.gguf");
    std::fs::write(&output, "what was there")?;
    let options = bitnet_engine::checkpoint::ToGguf {
        linear: bitnet_kernels::quant::Storage::by_name(format)?,
        embedding: None,
        verify: true,
        context: None,
        kernels: device::kernels("cpu-scalar")?,
        pool: pool(),
    };
    // At the last tensor the mapped file is overwritten in place: halves of heads change places.
    let spoil = |done: usize, total: usize| {
        if done == total {
            let mut bytes = std::fs::read(&weights).unwrap_or_default();
            let middle = bytes.len() / 2;
            bytes[middle..].reverse();
            let opened = std::fs::OpenOptions::new().write(true).open(&weights);
            if let Ok(mut file) = opened {
                use std::io::Write as _;
                let _ = file.write_all(&bytes);
            }
        }
        std::ops::ControlFlow::Continue(())
    };
    let mut spoil = spoil;
    let result = checkpoint.to_gguf(&options, &output, &mut spoil);
    let different = matches!(&result, Err(CheckpointError::Convert(ConvertError::Different(_))));
    check(different, format_args!("{result:?}"))?;
    check(std::fs::read(&output)? == b"what was there", "what was there has gone")?;
    let left = std::fs::read_dir(dir.path())?.flatten().filter(|f| f.file_name().to_string_lossy().ends_with(".part"));
    check(left.count() == 0, "a temporary file is left")
}
