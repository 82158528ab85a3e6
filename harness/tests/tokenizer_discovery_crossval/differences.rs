//! `golden/differences.toml`: every entry recomputed on both sides.

use crate::compare::OPTIONS;
use crate::llama_cpp::{Bpe, DEFAULT_PASSES, Part, by_length, split};
use crate::oracle::Oracle;
use bitnet_engine::tokenizer::{from_gguf, pretokenize};
use bitnet_harness::Failure;
use bitnet_harness::data::differences::{Difference, Rule, Side, read};
use bitnet_harness::paths::Paths;
use bitnet_harness::roster::Named;
use bitnet_harness::vocabularies::{Vocabulary, by_name};
use serde_json::{Value, json};
use std::sync::Arc;

/// One trial an entry.
pub(crate) fn trials(paths: &Arc<Paths>) -> Result<Vec<Named>, Failure> {
    let mut trials = Vec::new();
    for difference in read(&paths.golden)? {
        let name = difference.vocabulary.as_str();
        let entry = by_name(name).ok_or_else(|| {
            Failure::new(format_args!("differences.toml: `{}`: no vocabulary `{name}`", difference.name))
        })?;
        let paths = Arc::clone(paths);
        trials.push(Named {
            name: format!("differences::{}", difference.name),
            availability: entry.availability(&paths),
            run: Arc::new(move || show(&difference, entry.load(&paths)?)),
        });
    }
    Ok(trials)
}

fn show(difference: &Difference, mut vocabulary: Vocabulary) -> Result<(), Failure> {
    vocabulary.extend(difference)?;
    let text = difference.text.as_str();
    let oracle = Oracle::new(&vocabulary.json)?.encode(text, true)?;
    let other = other(difference, &vocabulary)?;
    if oracle == other {
        return Err(Failure::new(format_args!("{text:?} is {oracle:?} on both sides: it shows no difference")));
    }
    let want = match difference.we {
        Side::Oracle => &oracle,
        Side::Other => &other,
    };
    if difference.rule == Rule::DefaultSplit {
        vocabulary.source.pre = None;
    }
    let ours = from_gguf(vocabulary.gguf()?.metadata())?.tokenizer.encode(text, OPTIONS[1])?;
    if ours == *want {
        return Ok(());
    }
    Err(Failure::new(format_args!(
        "{text:?}: the oracle says {oracle:?}, {} {other:?}, we {ours:?}, which should be those of {:?}\n{}",
        difference.other, difference.we, difference.why
    )))
}

/// The ids of the other side.
fn other(difference: &Difference, vocabulary: &Vocabulary) -> Result<Vec<u32>, Failure> {
    let text = difference.text.as_str();
    let source = &vocabulary.source;
    let pre = source.pre.as_deref().and_then(pretokenize::by_name);
    let bpe = || Bpe::new(source, pre.is_some_and(|spec| spec.ignore_merges));
    let merged = |pieces: &[String]| -> Result<Vec<u32>, Failure> {
        let bpe = bpe()?;
        Ok(pieces.iter().flat_map(|piece| bpe.encode(piece)).collect())
    };
    let usual = |text: &str| -> Result<Vec<String>, Failure> {
        let spec = pre.ok_or_else(|| Failure::new("the vocabulary has no known pre-tokenizer"))?;
        spec.pre.split(text.as_bytes()).into_iter().map(|piece| Ok(text[piece].to_owned())).collect()
    };
    match difference.rule {
        Rule::DefaultSplit => merged(&split(text, &DEFAULT_PASSES)?),
        Rule::Expression => merged(&split(text, &[difference.expression.as_deref().unwrap_or_default()])?),
        Rule::BytesAfterMerging => merged(&usual(text)?),
        Rule::SpecialByLength => {
            let mut ids = Vec::new();
            for part in by_length(source, text)? {
                match part {
                    Part::Token(id) => ids.push(id),
                    Part::Text(text) => ids.extend(merged(&usual(&text)?)?),
                }
            }
            Ok(ids)
        }
        Rule::PrependFirst => {
            let mut json = vocabulary.json.clone();
            json["normalizer"] = Value::Null;
            json["pre_tokenizer"] =
                json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false});
            Oracle::new(&json)?.encode(text, true)
        }
    }
}
