//! `load`: the model opens, validates and names what it is; damaged copies of it are refused, each with its place.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::metrics::Metrics;
use crate::models;
use bitnet_engine::gguf::{GgufFile, GgufWriter};
use bitnet_engine::load::{LAYOUT_KEY, Loaded, load};
use bitnet_engine::model::Model;
use bitnet_golden::matrix::{Model as Declared, Source};
use bitnet_kernels::best;
use bitnet_kernels::quant;

pub struct Load;

impl Check for Load {
    fn name(&self) -> &'static str {
        "load"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let model = ctx.model(cell)?;
        let file = models::file(ctx, model, &cell.quant)?;
        let pool = models::pool(2)?;
        // The layout of I2_S is found, not said.
        let loaded = load(file.clone(), None, best(), &pool)?;
        let family = &loaded.model.config.architecture;
        if *family != model.family {
            return Err(Failure::new(format_args!("the architecture is {family}, declared as {}", model.family)));
        }
        let opened = Model::open(&file, models::layout(&cell.quant))?;
        let matrices = opened.weights.storages();
        // A matrix that chooses experts is never quantised.
        let linear = |name: &str| name.starts_with("blk.") && !name.contains("ffn_gate_inp");
        let linear: Vec<(&str, &str)> =
            matrices.filter(|(name, _)| linear(name)).map(|(name, s)| (name, s.name())).collect();
        // A model may mix formats (Q4_1 files do), but what we made is what its quant says.
        if let Some((name, format)) = linear.iter().find(|(_, f)| *f != cell.quant)
            && !matches!(model.source, Source::Fixture { .. } | Source::Path { .. })
        {
            return Err(Failure::new(format_args!("{name} is {format}, not {}", cell.quant)));
        }
        let i2s = quant::Storage::by_name(&cell.quant)?.ggml_type() == quant::i2_s::FORMAT.ggml_type;
        if i2s {
            layout_is_found(&file, &loaded, models::layout(&cell.quant).name(), model)?;
        }
        let refused = damages(&file, models::layout(&cell.quant))?;
        Ok(Metrics::new()
            .with("tensors", file.tensors().len())
            .with("linear_layers", linear.len())
            .with("steps", loaded.model.plan.len())
            .with("layout", loaded.layout.map_or_else(String::new, |l| l.layout.to_owned()))
            .with("damages_refused", refused)
            .of_model(file.content_hash()))
    }
}

/// The layout is reported as recorded; and a trained model's is found by the probe where nothing is recorded.
fn layout_is_found(file: &GgufFile, loaded: &Loaded, expected: &str, model: &Declared) -> Result<(), Failure> {
    let mut reports = vec![loaded.layout.clone()];
    if file.metadata().contains(LAYOUT_KEY) {
        let mut writer = GgufWriter::new(3, file.alignment())?;
        writer.copy_all_meta(file.metadata(), |key| key != LAYOUT_KEY)?;
        for view in file.views() {
            writer.copy_tensor(view)?;
        }
        let mut bytes = Vec::new();
        writer.write_to(&mut bytes)?;
        reports.push(load(GgufFile::from_vec(bytes)?, None, best(), &models::pool(2)?)?.layout);
    }
    let trained = !matches!(model.source, Source::Generated { .. });
    for report in reports {
        let report = report.ok_or_else(|| Failure::new("no layout is reported for I2_S tensors"))?;
        // Noise has no right layout: there the loader must say that it does not know.
        let right = if report.decided { report.layout == expected } else { !trained };
        if !right {
            return Err(Failure::new(format_args!(
                "I2_S taken for {}, it is {expected}: {}",
                report.layout, report.why
            )));
        }
    }
    Ok(())
}

/// Copies of the file, each broken in one way, must be refused with a message that holds the given words.
fn damages(file: &GgufFile, layout: quant::I2sLayout) -> Result<usize, Failure> {
    let mut bytes = Vec::new();
    file.copy_to(&mut bytes)?;
    let mut refused = 0;
    let mut refuse = |what: &str, bytes: Vec<u8>, words: &[&str]| -> Result<(), Failure> {
        let result = GgufFile::from_vec(bytes).map_err(|e| e.to_string()).and_then(|file| {
            load(file, Some(layout), best(), &models::pool(1).map_err(|f| f.message)?).map_err(|e| e.to_string())
        });
        let Err(message) = result else {
            return Err(Failure::new(format_args!("accepted although {what}")));
        };
        if let Some(word) = words.iter().find(|w| !message.contains(**w)) {
            return Err(Failure::new(format_args!("{what}: the message lacks `{word}`: {message}")));
        }
        refused += 1;
        Ok(())
    };
    let data = file.data_start() as usize;
    // Behind the last tensor there may be padding that nobody misses.
    let end = file.tensors().iter().map(|t| t.file_offset + t.size).max().unwrap_or_default() as usize;
    for (what, cut) in [
        ("only the magic is left", 4),
        ("the header is cut", 20),
        ("the metadata is cut", data / 2),
        ("the tensor data begins and ends", data + 1),
        ("the last byte of the last tensor is gone", end.saturating_sub(1)),
    ] {
        refuse(what, bytes[..cut].to_vec(), &["truncated"])?;
    }
    let changed = |at: usize, with: &[u8]| {
        let mut copy = bytes.clone();
        copy[at..at + with.len()].copy_from_slice(with);
        copy
    };
    refuse("the magic is wrong", changed(0, b"GGML"), &["GGUF"])?;
    refuse("the version is 77", changed(4, &77u32.to_le_bytes()), &["77"])?;
    refuse("2^63 tensors are announced", changed(8, &(1u64 << 63).to_le_bytes()), &["tensor"])?;
    let nan = f32::NAN.to_le_bytes();
    let norm = "blk.0.attn_norm.weight";
    // By the type's name: some numbers have two meanings.
    let place = |name: &str| -> Result<(usize, usize, &str), Failure> {
        let view = file.tensor(name).ok_or_else(|| Failure::new(format_args!("no tensor {name}")))?;
        Ok((view.info.file_offset as usize, view.info.size as usize, file.type_name(view.info)))
    };
    refuse("a norm is NaN", changed(place(norm)?.0 + 8, &nan), &[norm, "element 2"])?;
    let dense = "blk.0.ffn_up.weight";
    let linear = if file.tensor(dense).is_some() { dense } else { "blk.0.ffn_up_exps.weight" };
    let (at, size, type_name) = place(linear)?;
    if type_name == quant::i2_s::FORMAT.name {
        let scale = at + size - quant::I2S_TRAILER;
        refuse("a code is 3", changed(at + 5, &[0b1100_0000]), &[linear, "code"])?;
        refuse("the scale is NaN", changed(scale, &nan), &[linear, "scale"])?;
        refuse("the scale is zero", changed(scale, &[0; 4]), &[linear, "scale"])?;
    } else if let Some(tiled) = quant::TILED.iter().find(|t| t.name == type_name) {
        let shape = file.tensor(linear).map_or((0, 0), |view| (view.info.rows() as usize, view.info.cols() as usize));
        let scale = at + (tiled.matrix_bytes)(shape.0, shape.1)? - quant::I2S_TRAILER;
        refuse("a code is none", changed(at + 5, &[0xf0]), &[linear, "code"])?;
        refuse("the scale is NaN", changed(scale, &nan), &[linear, "scale"])?;
        refuse("the scale is zero", changed(scale, &[0; 4]), &[linear, "scale"])?;
    } else {
        // Every other format begins with a float or a power of two, or its blocks have an f16.
        let format = quant::by_name(type_name)?;
        let half = at + format.halves.first().map_or(0, |(at, _)| *at);
        let nan: &[u8] = match (format.name, format.row_head) {
            ("f32", _) | (_, 4) => &nan,
            ("bf16", _) => &[0xC0, 0x7F],
            ("mxfp4", _) => &[0xFF],
            _ => &[0x00, 0x7E],
        };
        refuse("a scale or weight is NaN", changed(half, nan), &[linear])?;
        // A two-bit code 3; a byte that no five trits give.
        if format.is_ternary() {
            let byte = if format.block_bytes * 4 >= format.block_len { 0b1100_0000 } else { 1 };
            refuse("a code is none", changed(at + format.row_head + 5, &[byte]), &[linear, "code"])?;
        }
    }
    let scale = "blk.0.ffn_up.scale";
    if file.tensor(scale).is_some() {
        refuse("the scale beside a matrix is zero", changed(place(scale)?.0, &[0; 4]), &[scale, "positive"])?;
    }
    Ok(refused)
}
