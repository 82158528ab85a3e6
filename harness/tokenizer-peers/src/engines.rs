//! The engines, behind one interface. To add a peer: a crate in `Cargo.toml`, a line in [`ALL`], a function here.

use crate::staged::Staged;
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::tokenizer::files::{Hints, load_path};
use bitnet_engine::tokenizer::{EncodeOptions, Tokenizer, byte_alphabet, from_gguf};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// A loaded tokenizer: appends the ids of a text. Special tokens in the text are read as such, none is put around it.
pub(crate) type Encode = Box<dyn Fn(&str, &mut Vec<u32>) -> Result<(), String>>;

/// One that can be measured and compared.
#[derive(Clone, Copy)]
pub(crate) struct Engine {
    /// In tables.
    pub(crate) name: &'static str,
    /// Where it comes from.
    pub(crate) about: &'static str,
    /// So slow that it is given an eighth of the text.
    pub(crate) slow: bool,
    /// Only its loading is measured: it encodes as another of the list does.
    pub(crate) load_only: bool,
    /// From the files of a vocabulary.
    load: fn(&Staged) -> Result<Encode, String>,
}

pub(crate) const OURS: &str = "ours";
/// The fast implementation whose ids all others are held against.
pub(crate) const REFERENCE: &str = "tokenizers 1.0.0-rc.3";
/// The slow one that nobody doubts.
pub(crate) const ORACLE: &str = "tokenizers 0.23.2";

/// All, ours first.
pub(crate) static ALL: &[Engine] = &[
    Engine { name: OURS, about: "this checkout, from a GGUF", slow: false, load_only: false, load: ours },
    Engine {
        name: "ours, tokenizer.json",
        about: "this checkout, from HuggingFace's file",
        slow: false,
        load_only: true,
        load: ours_json,
    },
    Engine { name: REFERENCE, about: "crates.io, HuggingFace", slow: false, load_only: false, load: huggingface_1 },
    Engine { name: "fastokens 0.3.5", about: "crates.io", slow: false, load_only: false, load: fastokens },
    Engine { name: "snaptokens 0.2.6", about: "crates.io", slow: false, load_only: false, load: snaptokens },
    Engine {
        name: "tiktoken-rs 0.12.1",
        about: "crates.io; loaded from ranks in memory",
        slow: true,
        load_only: false,
        load: tiktoken,
    },
    Engine {
        name: ORACLE,
        about: "crates.io, HuggingFace, with Oniguruma",
        slow: true,
        load_only: false,
        load: huggingface_0,
    },
];

/// Peers that are not measured, and why.
pub(crate) static ABSENT: &[(&str, &str)] =
    &[("gigatoken 0.10", "not on crates.io; PyPI's source needs Python, pyo3, parquet and icu to build")];

impl Engine {
    /// Loads it. A panic is an error: peers have some.
    pub(crate) fn load(&self, staged: &Staged) -> Result<Encode, String> {
        guarded(|| (self.load)(staged))
    }
}

pub(crate) fn by_name(name: &str) -> Option<&'static Engine> {
    ALL.iter().find(|engine| engine.name == name)
}

/// What `run` says, or that it panicked.
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
        Err(format!("panicked: {}", text.lines().next().unwrap_or_default()))
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

const OPTIONS: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };

/// Our tokenizer as the engine opens it: a GGUF that is mapped.
pub(crate) fn open_ours(path: &Path) -> Result<Arc<dyn Tokenizer>, String> {
    Ok(from_gguf(GgufFile::open(path).map_err(text)?.metadata()).map_err(text)?.tokenizer)
}

fn ours(staged: &Staged) -> Result<Encode, String> {
    Ok(of_ours(open_ours(&staged.gguf)?))
}

fn ours_json(staged: &Staged) -> Result<Encode, String> {
    Ok(of_ours(load_path(&staged.json, &Hints::default()).map_err(text)?.tokenizer))
}

fn of_ours(tokenizer: Arc<dyn Tokenizer>) -> Encode {
    Box::new(move |input, out| {
        out.extend(tokenizer.encode(input, OPTIONS).map_err(text)?);
        Ok(())
    })
}

fn huggingface_0(staged: &Staged) -> Result<Encode, String> {
    let tokenizer = hf_0::Tokenizer::from_file(&staged.json).map_err(text)?;
    Ok(Box::new(move |input, out| {
        out.extend_from_slice(tokenizer.encode_fast(input, false).map_err(text)?.get_ids());
        Ok(())
    }))
}

fn huggingface_1(staged: &Staged) -> Result<Encode, String> {
    let json = hf_1::canonicalize_file(&staged.json).map_err(text)?;
    let tokenizer = hf_1::from_json(&json).map_err(text)?;
    let options = hf_1::pipeline::EncodeOptions::no_specials();
    Ok(Box::new(move |input, out| {
        let mut tokens = Vec::with_capacity(input.len() / 4);
        tokenizer.encode_into(input, &options, &mut tokens).map_err(text)?;
        out.extend_from_slice(hf_1::pipeline::PipelineToken::cast_slice(&tokens));
        Ok(())
    }))
}

fn fastokens(staged: &Staged) -> Result<Encode, String> {
    let tokenizer = fastokens::Tokenizer::from_file(&staged.json).map_err(text)?;
    Ok(Box::new(move |input, out| {
        out.extend(tokenizer.encode(input).map_err(text)?);
        Ok(())
    }))
}

fn snaptokens(staged: &Staged) -> Result<Encode, String> {
    let tokenizer = snaptokens::Tokenizer::from_file(&staged.json).map_err(text)?;
    Ok(Box::new(move |input, out| {
        out.extend(tokenizer.encode(input).map_err(text)?);
        Ok(())
    }))
}

/// Needs ranks that are ids and one splitting expression.
fn tiktoken(staged: &Staged) -> Result<Encode, String> {
    let expression = staged.expression.ok_or("this kind of vocabulary cannot be said in its terms")?;
    let (mut ranks, mut specials) = (Vec::new(), Vec::new());
    for (id, token) in staged.source.tokens.iter().enumerate() {
        let id = u32::try_from(id).map_err(text)?;
        let plain = staged.source.token_types.get(id as usize) == Some(&bitnet_engine::tokenizer::TokenKind::Normal);
        if plain {
            ranks.push((byte_alphabet::decode(token).ok_or("a token outside of the byte alphabet")?, id));
        } else {
            specials.push((String::from_utf8(token.clone()).map_err(text)?, id));
        }
    }
    let tokenizer = tiktoken_rs::CoreBPE::new(ranks.into_iter().collect(), specials.into_iter().collect(), expression)
        .map_err(text)?;
    Ok(Box::new(move |input, out| {
        out.extend(tokenizer.encode_with_special_tokens(input));
        Ok(())
    }))
}
