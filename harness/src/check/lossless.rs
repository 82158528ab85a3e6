//! `lossless`: a ternary model keeps every bit in every ternary format: weights, logits, and the way back.
//!
//! A format is read and written by its own code, whatever the other is. So a format's cell goes to I2_S and back, and the cell of I2_S to
//! the formats that have no cell of their own: each is written and read, and all have the bits of I2_S.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::metrics::Metrics;
use crate::models::{self, digest, ids};
use bitnet_engine::convert::convert_stored_to_vec;
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::load::{LAYOUT_KEY, Loaded, load};
use bitnet_golden::texts;
use bitnet_kernels::best;
use bitnet_kernels::quant::{Storage, i2_s};

pub struct Lossless;

impl Check for Lossless {
    fn name(&self) -> &'static str {
        "lossless"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let loaded = models::loaded(ctx, cell)?;
        let own = Storage::by_name(&cell.quant)?;
        let plan = texts::plan(&ctx.paths.golden, &cell.model)?;
        let ids = ids(&loaded, &texts::passage(&ctx.paths.golden)?, plan.digest_tokens)?;
        let logits = digest(&loaded, &best().into(), &ids, 2, 64)?;
        let hub = Storage::by_name(i2_s::FORMAT.name)?;
        let mut formats = Vec::new();
        let declared =
            |format: Storage| ctx.is_declared(&Cell { quant: format.name().to_owned(), ..cell.clone() }, &cell.device);
        let other = |format: &Storage| if own == hub { !declared(*format) } else { *format == hub };
        for format in Storage::all().filter(|s| s.is_ternary() && *s != own && other(s)) {
            let at = |what: &str| format!("{} to {}: {what}", own.name(), format.name());
            let there = converted(&loaded, format)?;
            same_weights(&loaded, &there).map_err(|failure| Failure::new(at(&failure.message)))?;
            let found = digest(&there, &best().into(), &ids, 2, 64)?;
            if found != logits {
                return Err(Failure::new(at(&format!("the logits are {found}, they were {logits}"))));
            }
            let back = converted(&there, own)?;
            same_file(&loaded.file, &back.file).map_err(|failure| Failure::new(at(&failure.message)))?;
            formats.push(format.name());
        }
        if formats.is_empty() {
            return Err(Failure::new("there is no other ternary format"));
        }
        Ok(Metrics::new()
            .with("formats", formats.join(" "))
            .with("tokens", ids.len())
            .with("digest", logits)
            .ran(best().name())
            .of_model(loaded.file.content_hash()))
    }
}

fn converted(loaded: &Loaded, linear: Storage) -> Result<Loaded, Failure> {
    let bytes = convert_stored_to_vec(&loaded.model, linear, None)?;
    Ok(load(GgufFile::from_vec(bytes)?, None, best(), &models::pool(2)?)?)
}

/// Every weight of every matrix has the same bits.
fn same_weights(a: &Loaded, b: &Loaded) -> Result<(), Failure> {
    for ((name, a), (_, b)) in a.model.weights.matrices().zip(b.model.weights.matrices()) {
        let (mut left, mut right) = (vec![0.0; a.cols], vec![0.0; b.cols]);
        for row in 0..a.rows {
            a.unpack_row(row, &mut left);
            b.unpack_row(row, &mut right);
            if let Some(col) = (0..a.cols).find(|&col| left[col].to_bits() != right[col].to_bits()) {
                let (was, is) = (left[col], right[col]);
                return Err(Failure::new(format_args!("{name}, row {row}, column {col} was {was:e}, is {is:e}")));
            }
        }
    }
    Ok(())
}

/// The same tensors, byte for byte, and the same metadata but for what conversion is to record.
fn same_file(a: &GgufFile, b: &GgufFile) -> Result<(), Failure> {
    if a.tensors().len() != b.tensors().len() {
        return Err(Failure::new(format_args!("{} tensors came back as {}", a.tensors().len(), b.tensors().len())));
    }
    for view in a.views() {
        let back = b.tensor(&view.info.name);
        if back.is_none_or(|back| back.info.ggml_type != view.info.ggml_type || back.data != view.data) {
            return Err(Failure::new(format_args!("{} did not come back as it was", view.info.name)));
        }
    }
    for (key, _) in a.metadata().iter().filter(|(key, _)| *key != LAYOUT_KEY) {
        if a.metadata().raw(key) != b.metadata().raw(key) {
            return Err(Failure::new(format_args!("the key `{key}` did not come back as it was")));
        }
    }
    Ok(())
}
