//! Changing metadata and nothing else: repairs a file whose header is wrong without touching a weight.
//!
//! A key that is there keeps its type, so that no reader meets a surprise. A new key gets the type that the GGUF
//! specification gives it (the tokenizer's and the general ones); any other is a bool, an integer, a float or a string, whichever
//! its text is first.

use super::{ConvertError, ConvertReport, Output, Progress, Steps};
use crate::gguf::split::is_split_key;
use crate::gguf::{GgufFile, GgufWriter, KEY_ALIGNMENT, MetaValue, Metadata, Value, ValueType, with_numbers};

/// A key and its new value.
pub type Assignment = (String, MetaValue);

/// Why metadata cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SetError {
    #[error("`{text}` is not KEY=VALUE, as in tokenizer.ggml.pre=llama-bpe")]
    NotAssignment { text: String },
    #[error("`{key}` is set twice; say which of the values is meant")]
    Twice { key: String },
    #[error("`{key}` is {found} and cannot be set on a command line; convert the model again from its source")]
    Array { key: String, found: String },
    #[error("`{key}` says where the tensors lie and cannot be changed by itself")]
    Alignment { key: String },
    #[error("`{key}` is of type {expected}, and `{value}` is none")]
    Type { key: String, value: String, expected: ValueType },
}

/// Reads `KEY=VALUE` texts; types are those that `metadata` has, else the usual ones (see the module).
///
/// # Errors
/// A text without `=`, a key given twice, an array, or a value that is not of the key's type.
pub fn parse(texts: &[String], metadata: &Metadata) -> Result<Vec<Assignment>, SetError> {
    let mut out: Vec<Assignment> = Vec::with_capacity(texts.len());
    for text in texts {
        let (key, value) = text
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
            .ok_or_else(|| SetError::NotAssignment { text: text.clone() })?;
        let key = key.trim();
        if key == KEY_ALIGNMENT {
            return Err(SetError::Alignment { key: key.to_owned() });
        }
        if out.iter().any(|(other, _)| other == key) {
            return Err(SetError::Twice { key: key.to_owned() });
        }
        let found = metadata.get(key);
        let ty = found.map(|v| v.value_type()).or_else(|| known_type(key));
        let parsed = match ty {
            Some(ValueType::Array) => {
                let found = found.map_or_else(|| "an array".to_owned(), |v| v.describe());
                return Err(SetError::Array { key: key.to_owned(), found });
            }
            Some(ty) => typed(value, ty).ok_or_else(|| SetError::Type {
                key: key.to_owned(),
                value: value.to_owned(),
                expected: ty,
            })?,
            None => guessed(value),
        };
        out.push((key.to_owned(), parsed));
    }
    Ok(out)
}

/// The type that the GGUF specification gives a key, where guessing could go wrong.
fn known_type(key: &str) -> Option<ValueType> {
    if let Some(name) = key.strip_prefix("tokenizer.ggml.") {
        return Some(match name {
            "tokens" | "scores" | "token_type" | "merges" | "added_tokens" => ValueType::Array,
            _ if name.ends_with("_token_id") => ValueType::U32,
            _ if name.starts_with("add_") || matches!(name, "remove_extra_whitespaces" | "escape_whitespaces") => {
                ValueType::Bool
            }
            "token_type_count" => ValueType::U32,
            _ => ValueType::String,
        });
    }
    match key {
        "general.file_type" | "general.quantization_version" => Some(ValueType::U32),
        "general.tags" | "general.languages" | "general.datasets" => Some(ValueType::Array),
        _ if key.starts_with("general.") || key.starts_with("tokenizer.") => Some(ValueType::String),
        _ if key.ends_with(".rope.freq_base") || key.ends_with("_epsilon") || key.ends_with(".rope.scaling.factor") => {
            Some(ValueType::F32)
        }
        _ => None,
    }
}

macro_rules! typed {
    ([$($t:ident $variant:ident),*]) => {
        fn typed(text: &str, ty: ValueType) -> Option<MetaValue> {
            match ty {
                $(ValueType::$variant => text.trim().parse::<$t>().ok().map(Into::into),)*
                ValueType::Bool => text.trim().parse::<bool>().ok().map(Into::into),
                ValueType::String => Some(text.into()),
                ValueType::Array => None,
            }
        }
    };
}
with_numbers!(typed);

fn guessed(text: &str) -> MetaValue {
    [ValueType::Bool, ValueType::U32, ValueType::I32, ValueType::U64, ValueType::I64]
        .into_iter()
        .find_map(|ty| typed(text, ty))
        .or_else(|| text.contains(|c: char| c.is_ascii_digit()).then(|| typed(text, ValueType::F32)).flatten())
        .unwrap_or_else(|| text.into())
}

/// Writes `file` to `output` with `assignments` in its metadata: replaced where they stand, new ones at the end. Every
/// tensor is copied byte for byte, and the model is not looked at, so that a file that cannot be loaded can be repaired.
///
/// # Errors
/// An output that cannot be written, or `progress` did not want to go on; what was at `output` stays then. `output` may be the file itself.
pub fn set_metadata<'o>(
    file: &GgufFile,
    assignments: &[Assignment],
    output: impl Into<Output<'o>>,
    progress: &mut Progress<'_>,
) -> Result<ConvertReport, ConvertError> {
    let metadata = file.metadata();
    let steps = Steps::new(file.tensors().len(), progress);
    let mut writer = GgufWriter::new(file.version(), file.alignment())?;
    // One file is written, whatever was read.
    for (key, old) in metadata.iter().filter(|(key, _)| !is_split_key(key)) {
        match assignments.iter().find(|(name, _)| name == key) {
            Some((_, value)) => writer.meta(key, value.clone())?,
            // The writer has one form for it, and its own if this is another.
            None if key == KEY_ALIGNMENT && !matches!(old, Value::U32(_)) => continue,
            None => writer.copy_meta(metadata, key)?,
        };
    }
    for (key, value) in assignments.iter().filter(|(key, _)| !metadata.contains(key)) {
        writer.meta(key, value.clone())?;
    }
    for view in file.views() {
        steps.copy(&mut writer, view)?;
    }
    let written = output.into().write(writer);
    steps.report(0, written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(existing: &[(&str, MetaValue)], texts: &[&str]) -> Result<Vec<Assignment>, SetError> {
        let mut writer = GgufWriter::new(3, 32).unwrap();
        for (key, value) in existing {
            writer.meta(key, value.clone()).unwrap();
        }
        let bytes = writer.into_vec().unwrap();
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        parse(&texts, GgufFile::from_vec(bytes).unwrap().metadata())
    }

    fn one(existing: &[(&str, MetaValue)], text: &str) -> MetaValue {
        parsed(existing, &[text]).unwrap().remove(0).1
    }

    #[test]
    fn an_existing_key_keeps_its_type() {
        for (value, text, expected) in [
            (MetaValue::U64(1), "k=7", MetaValue::U64(7)),
            (MetaValue::I8(1), "k= -7 ", MetaValue::I8(-7)),
            (MetaValue::F32(1.0), "k=7", MetaValue::F32(7.0)),
            (MetaValue::Str("a".into()), "k=7", MetaValue::Str("7".into())),
            (MetaValue::Str("a".into()), "k=a=b ", MetaValue::Str("a=b ".into())),
            (MetaValue::Bool(true), "k=false", MetaValue::Bool(false)),
        ] {
            assert_eq!(one(&[("k", value)], text), expected, "{text}");
        }
        let wrong = parsed(&[("k", MetaValue::U32(1))], &["k=many"]).unwrap_err().to_string();
        assert!(wrong.contains("`k`") && wrong.contains("u32") && wrong.contains("many"), "{wrong}");
        let array = parsed(&[("k", vec![1u32].into())], &["k=1"]).unwrap_err();
        assert!(matches!(array, SetError::Array { .. }), "{array}");
    }

    #[test]
    fn a_new_key_gets_the_usual_type() {
        for (text, expected) in [
            ("tokenizer.ggml.pre=1", MetaValue::Str("1".into())),
            ("tokenizer.ggml.eos_token_id=3", MetaValue::U32(3)),
            ("tokenizer.ggml.add_bos_token=true", MetaValue::Bool(true)),
            ("tokenizer.chat_template=true", MetaValue::Str("true".into())),
            ("general.version=2", MetaValue::Str("2".into())),
            ("llama.rope.freq_base=500000", MetaValue::F32(500_000.0)),
            ("a=true", MetaValue::Bool(true)),
            ("a=12", MetaValue::U32(12)),
            ("a=-12", MetaValue::I32(-12)),
            ("a=5000000000", MetaValue::U64(5_000_000_000)),
            ("a=1.5", MetaValue::F32(1.5)),
            ("a=nan", MetaValue::Str("nan".into())),
            ("a=text", MetaValue::Str("text".into())),
            ("a=", MetaValue::Str(String::new())),
        ] {
            assert_eq!(one(&[], text), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_set() {
        for (texts, expected) in [
            (&["pre"][..], "KEY=VALUE"),
            (&["=1"], "KEY=VALUE"),
            (&["a=1", "a=2"], "twice"),
            (&["general.alignment=64"], "alignment"),
            (&["tokenizer.ggml.tokens=a"], "array"),
            (&["tokenizer.ggml.eos_token_id=-1"], "u32"),
        ] {
            let message = parsed(&[], texts).unwrap_err().to_string();
            assert!(message.contains(expected), "{texts:?}: {message}");
        }
    }
}
