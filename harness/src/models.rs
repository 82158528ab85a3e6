//! The models of the matrix, ready to run: from the repository, from the fixtures, from a seed.
//!
//! Each (model, quant) is made once a process and shared. Quants other than the stored one are written by the engine's
//! own converter, in memory, so a cell also proves that what `bitnet convert` writes can be read.

use crate::axes::Cell;
use crate::context::Context;
use crate::failure::Failure;
use crate::generate;
use crate::vocabularies::{self, Vocabulary};
use bitnet_engine::convert::convert_stored_to_vec;
use bitnet_engine::device::Opened;
use bitnet_engine::gguf::{GgufFile, TensorView};
use bitnet_engine::inference::{Session, SessionOptions, Want};
use bitnet_engine::load::{Loaded, load};
use bitnet_engine::settings::Settings;
use bitnet_engine::tokenizer::EncodeOptions;
use bitnet_golden::differences::{self, Difference};
use bitnet_golden::matrix::{Model, Source};
use bitnet_kernels::quant::{self, I2sLayout, Storage};
use bitnet_kernels::{Kernels, Pool, best};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The form of a vocabulary as its converter writes it.
pub const VOCAB: &str = "vocab";
/// The form without the name of the pre-tokenizer, as Microsoft's converter writes BitNet-2B-4T.
pub const VOCAB_NO_PRE: &str = "vocab-no-pre";

type Slot = Arc<OnceLock<Result<Loaded, String>>>;

/// The model of a cell in its quant. Loading uses the best kernels of this machine: it computes nothing that a check
/// looks at (the layout of I2_S is said, not probed).
pub fn loaded(ctx: &Context, cell: &Cell) -> Result<Loaded, Failure> {
    static MODELS: OnceLock<Mutex<HashMap<String, Slot>>> = OnceLock::new();
    let slot = {
        let mut models = MODELS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(models.entry(format!("{}::{}", cell.model, cell.quant)).or_default())
    };
    let make = || -> Result<Loaded, Failure> {
        let file = file(ctx, ctx.model(cell)?, &cell.quant)?;
        Ok(load(file, Some(layout(&cell.quant)), best(), &pool(1)?)?)
    };
    slot.get_or_init(|| make().map_err(|failure| failure.message)).clone().map_err(Failure::new)
}

/// The GGUF of a model in a quant.
pub fn file(ctx: &Context, model: &Model, quant: &str) -> Result<GgufFile, Failure> {
    let stored = |file: GgufFile| -> Result<GgufFile, Failure> {
        let native = native_quant(&file);
        if native == Some(quant) {
            return Ok(file);
        }
        let loaded = load(file, Some(I2sLayout::X86), best(), &pool(1)?)?;
        Ok(GgufFile::from_vec(convert_stored_to_vec(&loaded.model, Storage::by_name(quant)?, None)?)?)
    };
    match &model.source {
        Source::Embedded { file } => stored(GgufFile::open(ctx.paths.golden.join(file))?),
        Source::Fixture { file } => stored(GgufFile::open(ctx.paths.fixtures.join(file))?),
        Source::Path { env } => {
            let path = std::env::var_os(env).ok_or_else(|| Failure::new(format_args!("{env} is not set")))?;
            stored(GgufFile::open(ctx.paths.root.join(path))?)
        }
        Source::Generated { seed, tokenizer, shape, weights } => {
            let vocabulary = GgufFile::open(ctx.paths.golden.join("models/tiny-bitnet.gguf"))?;
            // Ternary noise of BitNet's own families is one model in all of its formats: made in one, converted to the
            // others.
            let storage = Storage::by_name(quant)?;
            let i2s = &quant::i2_s::FORMAT;
            let direct = matches!(storage, Storage::Rows(format) if format.ggml_type == i2s.ggml_type);
            let converted = storage.is_ternary() && !direct && model.family.starts_with("bitnet");
            let made = if converted { i2s.name } else { quant };
            let bytes = generate::model(&model.family, made, *seed, tokenizer, shape, *weights, &vocabulary)?;
            let file = GgufFile::from_vec(bytes)?;
            if made == quant { Ok(file) } else { stored(file) }
        }
        Source::Vocabulary { .. } => {
            let mut vocabulary = vocabulary(ctx, model)?;
            match quant {
                VOCAB => {}
                VOCAB_NO_PRE => vocabulary.source.pre = None,
                _ => return Err(Failure::new(format_args!("a vocabulary is not written as `{quant}`"))),
            }
            vocabulary.gguf()
        }
        Source::Formats | Source::Hub => {
            Err(Failure::new(format_args!("`{}` is not a model and has no file", model.name)))
        }
    }
}

/// The vocabulary of a model that is nothing else, with the tokens of its known difference, if it has one.
///
/// # Errors
/// It cannot be read, or the difference is not one of `differences.toml` or belongs to another vocabulary.
pub fn vocabulary(ctx: &Context, model: &Model) -> Result<Vocabulary, Failure> {
    let Source::Vocabulary { vocabulary: name, difference } = &model.source else {
        return Err(Failure::new(format_args!("`{}` is not a vocabulary alone", model.name)));
    };
    let entry =
        vocabularies::by_name(name).ok_or_else(|| Failure::new(format_args!("there is no vocabulary `{name}`")))?;
    let mut vocabulary = entry.load(&ctx.paths)?;
    if let Some(difference) = difference {
        vocabulary.extend(&known_difference(ctx, difference, name)?)?;
    }
    Ok(vocabulary)
}

/// An entry of `differences.toml` that is about a vocabulary.
///
/// # Errors
/// There is none of that name, or it is about another vocabulary.
pub fn known_difference(ctx: &Context, name: &str, vocabulary: &str) -> Result<Difference, Failure> {
    let all = differences::read(&ctx.paths.golden)?;
    all.into_iter()
        .find(|d| d.name == name && d.vocabulary == vocabulary)
        .ok_or_else(|| Failure::new(format_args!("differences.toml has no `{name}` of the vocabulary `{vocabulary}`")))
}

/// Format of the first linear layer.
fn native_quant(file: &GgufFile) -> Option<&'static str> {
    let ggml_type = first_linear(file)?.info.ggml_type;
    quant::by_ggml_type(ggml_type, I2sLayout::X86).ok().map(|format| format.name)
}

/// The first linear layer, which stands for the format of a file.
pub fn first_linear(file: &GgufFile) -> Option<TensorView<'_>> {
    ["blk.0.attn_q.weight", "blk.0.attn_qkv.weight"].into_iter().find_map(|name| file.tensor(name))
}

/// The layout that a quant's name says.
pub fn layout(quant: &str) -> I2sLayout {
    match quant {
        name if name == quant::i2_s_arm::FORMAT.name => I2sLayout::Arm,
        name if name == quant::i2_s_rows4::FORMAT.name => I2sLayout::Rows4,
        _ => I2sLayout::X86,
    }
}

/// The kernels of a cell's device, which is a processor.
///
/// # Errors
/// The device is unknown, not here, or a card.
pub fn kernels(cell: &Cell) -> Result<&'static dyn Kernels, Failure> {
    Ok(bitnet_engine::device::kernels(&cell.device)?)
}

/// A cell's device. A card is opened once a process, so that its cells share what was compiled and uploaded; the emulation, which
/// does one launch at a time, for each cell.
pub fn device(cell: &Cell) -> Result<Opened, Failure> {
    static OPENED: Mutex<Vec<(String, Opened)>> = Mutex::new(Vec::new());
    let open = || -> Result<Opened, Failure> { Ok(bitnet_engine::device::open(&cell.device, &Settings::from_env()?)?) };
    if cell.device == bitnet_engine::device::cuda::EMULATED {
        return open();
    }
    let mut all = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, opened)) = all.iter().find(|(name, _)| *name == cell.device) {
        return Ok(opened.clone());
    }
    let opened = open()?;
    all.push((cell.device.clone(), opened.clone()));
    Ok(opened)
}

/// A pool of threads, made once a process for each size. Sessions of several cells take turns in it.
pub fn pool(threads: usize) -> Result<Arc<Pool>, Failure> {
    static POOLS: OnceLock<Mutex<HashMap<usize, Arc<Pool>>>> = OnceLock::new();
    let mut pools = POOLS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = pools.get(&threads) {
        return Ok(Arc::clone(pool));
    }
    let pool = Arc::new(Pool::new(threads)?);
    pools.insert(threads, Arc::clone(&pool));
    Ok(pool)
}

/// An empty sequence of a model.
pub fn session(
    loaded: &Loaded,
    device: impl Into<Opened>,
    threads: usize,
    chunk: usize,
    context: usize,
) -> Result<Session, Failure> {
    let Opened { kernels, card } = device.into();
    let options = SessionOptions {
        chunk,
        context: Some(context.min(loaded.model.config.context_length)),
        card,
        ..SessionOptions::new(kernels, pool(threads)?)
    };
    Ok(Session::new(Arc::clone(&loaded.model), options)?)
}

/// The first `limit` tokens of a text, the beginning-of-sequence token included.
///
/// # Errors
/// The text is shorter than that, or cannot be encoded.
pub fn ids(loaded: &Loaded, text: &str, limit: usize) -> Result<Vec<u32>, Failure> {
    let mut ids = loaded.tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: false })?;
    ids.truncate(limit);
    if ids.len() < limit || limit < 2 {
        return Err(Failure::new(format_args!(
            "the passage has {} tokens, {limit} (at least 2) are needed",
            ids.len()
        )));
    }
    Ok(ids)
}

/// SHA-256 over the logits of every position, as little-endian f32.
pub fn digest(loaded: &Loaded, device: &Opened, ids: &[u32], threads: usize, chunk: usize) -> Result<String, Failure> {
    let mut session = session(loaded, device.clone(), threads, chunk, ids.len())?;
    let mut hash = Sha256::new();
    session.forward(ids, Want::All, &mut |_, logits| {
        for logit in logits {
            hash.update(logit.to_le_bytes());
        }
    })?;
    Ok(hex::encode(hash.finalize()))
}
