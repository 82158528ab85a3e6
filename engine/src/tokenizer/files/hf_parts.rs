//! The steps of a tokenizer.json that are known: what splits text, what changes it, what frames it.
//!
//! Every function gives either what the step means to our engine or a reason why the crate must do it.

use super::super::pretokenize::{Pre, by_expressions};
use serde_json::Value;

/// A part that our engine does not have: why.
pub(super) type Other = String;

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or("?")
}

fn flag(step: &Value, name: &str, default: bool) -> bool {
    step.get(name).and_then(Value::as_bool).unwrap_or(default)
}

/// The steps of a part: none, one, or those of a `Sequence` under `list`.
fn steps<'a>(part: &'a Value, list: &str) -> Vec<&'a Value> {
    match part {
        Value::Null => Vec::new(),
        part if kind(part) == "Sequence" => part.get(list).and_then(Value::as_array).into_iter().flatten().collect(),
        part => vec![part],
    }
}

/// How text is cut.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Byte-level, by this name of `tokenizer.ggml.pre`.
    ByteLevel(&'static str),
    /// Not at all.
    Whole,
    /// Not at all, and `▁` for spaces without one in front.
    Metaspace,
}

/// The expression of a `Split` that keeps all of the text.
fn split(step: &Value) -> Option<&str> {
    let behavior = step.get("behavior").and_then(Value::as_str);
    let keeps = match flag(step, "invert", false) {
        false => behavior == Some("Isolated"),
        true => matches!(behavior, Some("Removed" | "Isolated")),
    };
    step.get("pattern")?.get("Regex")?.as_str().filter(|_| kind(step) == "Split" && keeps)
}

/// What `pre_tokenizer` is.
pub(super) fn cut(part: &Value) -> Result<Cut, Other> {
    let steps = steps(part, "pretokenizers");
    let other = || format!("pre-tokenizer {}", short(part));
    let [before @ .., last] = &steps[..] else {
        return Ok(Cut::Whole);
    };
    if kind(last) == "Metaspace" && before.is_empty() {
        let never = last.get("prepend_scheme").and_then(Value::as_str) == Some("never");
        let space = last.get("replacement").and_then(Value::as_str) == Some("\u{2581}");
        return if never && space && !flag(last, "split", true) { Ok(Cut::Metaspace) } else { Err(other()) };
    }
    if kind(last) != "ByteLevel" || flag(last, "add_prefix_space", true) {
        return Err(other());
    }
    let mut passes: Vec<&str> = before.iter().map(|step| pass(step)).collect::<Option<_>>().ok_or_else(other)?;
    if flag(last, "use_regex", true) {
        passes.push(Pre::GPT2);
    }
    let name = by_expressions(&passes).ok_or_else(other)?;
    // With `invert` an expression that leaves text between its matches would lose it; these leave none.
    let whole = ["gpt-2", "llama-bpe", "qwen2", "qwen35", "tekken", "gpt-4o"].contains(&name);
    if !whole && before.iter().any(|step| flag(step, "invert", false)) {
        return Err(other());
    }
    Ok(Cut::ByteLevel(name))
}

/// A step as the expression of a pass.
fn pass(step: &Value) -> Option<&str> {
    match kind(step) {
        "Digits" if flag(step, "individual_digits", false) => Some(r"\p{N}"),
        "Digits" => Some(r"\p{N}+"),
        _ => split(step),
    }
}

/// What `normalizer` does to spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spaces {
    /// Nothing.
    Kept,
    /// `▁` for every space.
    Replaced,
    /// The same, and one in front.
    Prefixed,
}

/// What `normalizer` is.
pub(super) fn spaces(part: &Value) -> Result<Spaces, Other> {
    let replaces = |step: &Value| {
        kind(step) == "Replace"
            && step.get("pattern").and_then(|p| p.get("String")).and_then(Value::as_str) == Some(" ")
            && step.get("content").and_then(Value::as_str) == Some("\u{2581}")
    };
    let prepends =
        |step: &Value| kind(step) == "Prepend" && step.get("prepend").and_then(Value::as_str) == Some("\u{2581}");
    match steps(part, "normalizers")[..] {
        [] => Ok(Spaces::Kept),
        [one] if replaces(one) => Ok(Spaces::Replaced),
        [one, two] if prepends(one) && replaces(two) => Ok(Spaces::Prefixed),
        _ => Err(format!("normalizer {}", short(part))),
    }
}

/// Whether our byte-level decoding is what `decoder` does.
pub(super) fn decodes_bytes(part: &Value) -> Result<(), Other> {
    match steps(part, "decoders")[..] {
        [] => Ok(()),
        [one] if kind(one) == "ByteLevel" => Ok(()),
        _ => Err(format!("decoder {}", short(part))),
    }
}

/// Whether our decoding of pieces is what `decoder` does: `▁` to spaces, byte tokens to bytes, and with `prefix` one
/// space off the front.
pub(super) fn decodes_pieces(part: &Value, prefix: bool) -> Result<(), Other> {
    let steps = steps(part, "decoders");
    let names: Vec<&str> = steps.iter().map(|s| kind(s)).collect();
    let number = |step: &Value, key: &str| step.get(key).and_then(Value::as_u64);
    let known = match names[..] {
        [] => true,
        ["Replace", "ByteFallback", "Fuse"] => !prefix,
        ["Replace", "ByteFallback", "Fuse", "Strip"] => {
            let strip = steps[3];
            let space = strip.get("content").and_then(Value::as_str) == Some(" ");
            space && number(strip, "start") == Some(u64::from(prefix)) && number(strip, "stop") == Some(0)
        }
        _ => false,
    };
    let back = steps.first().is_none_or(|replace| {
        replace.get("pattern").and_then(|p| p.get("String")).and_then(Value::as_str) == Some("\u{2581}")
            && replace.get("content").and_then(Value::as_str) == Some(" ")
    });
    if known && back { Ok(()) } else { Err(format!("decoder {}", short(part))) }
}

/// Ids around every text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) front: Option<u32>,
    pub(super) back: Option<u32>,
}

/// What `post_processor` puts around a text.
pub(super) fn frame(part: &Value) -> Result<Frame, Other> {
    let other = || format!("post-processor {}", short(part));
    let mut frames = Vec::new();
    for step in steps(part, "processors") {
        match kind(step) {
            "ByteLevel" => {}
            "TemplateProcessing" => frames.push(template(step).ok_or_else(other)?),
            "RobertaProcessing" | "BertProcessing" => {
                let id = |key: &str| step.get(key)?.get(1)?.as_u64().and_then(|id| u32::try_from(id).ok());
                frames.push(Frame {
                    front: Some(id("cls").ok_or_else(other)?),
                    back: Some(id("sep").ok_or_else(other)?),
                });
            }
            _ => return Err(other()),
        }
    }
    match frames[..] {
        [] => Ok(Frame::default()),
        [one] => Ok(one),
        _ => Err(other()),
    }
}

/// `TemplateProcessing`: special tokens, the text, special tokens.
fn template(step: &Value) -> Option<Frame> {
    let (mut front, mut back, mut seen) = (Vec::new(), Vec::new(), false);
    for piece in step.get("single")?.as_array()? {
        if let Some(special) = piece.get("SpecialToken") {
            let name = special.get("id")?.as_str()?;
            let ids = step.get("special_tokens")?.get(name)?.get("ids")?.as_array()?;
            let side = if seen { &mut back } else { &mut front };
            for id in ids {
                side.push(u32::try_from(id.as_u64()?).ok()?);
            }
        } else {
            let first = piece.get("Sequence")?.get("id")?.as_str()? == "A";
            if seen || !first {
                return None;
            }
            seen = true;
        }
    }
    let one = |ids: &[u32]| match *ids {
        [] => Some(None),
        [id] => Some(Some(id)),
        _ => None,
    };
    if seen { Some(Frame { front: one(&front)?, back: one(&back)? }) } else { None }
}

/// A part for a message: its types.
fn short(part: &Value) -> String {
    let lists = ["pretokenizers", "normalizers", "decoders", "processors"];
    let inner: Vec<&str> = lists.iter().filter_map(|l| part.get(l)?.as_array()).flatten().take(8).map(kind).collect();
    if inner.is_empty() { kind(part).to_owned() } else { format!("{}[{}]", kind(part), inner.join(", ")) }
}
