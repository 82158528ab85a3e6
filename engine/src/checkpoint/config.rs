//! config.json, read key by key: a value of another type is an error that names the key.

use super::CheckpointError;
use super::defaults::Defaults;
use super::error::{config, unsupported};
use serde_json::Value;

/// Sizes above this are refused before anything is multiplied.
const MAX_SIZE: u64 = 1 << 31;

/// A JSON object with a name for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'a> {
    value: &'a Value,
    /// What stands before a key in messages, e.g. `rope_scaling.`.
    place: &'static str,
}

impl<'a> Object<'a> {
    pub(super) fn new(value: &'a Value) -> Self {
        Self { value, place: "" }
    }

    fn name(self, key: &str) -> String {
        format!("{}{key}", self.place)
    }

    /// The value of a key; `null` is none.
    pub(super) fn get(self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// Whether the class's default holds: `null` is a value there.
    pub(super) fn absent(self, key: &str) -> bool {
        self.value.get(key).is_none()
    }

    fn typed<T>(
        self,
        key: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        let read = |value| read(value).ok_or_else(|| config(&self.name(key), format!("is not {what}")));
        self.get(key).map(read).transpose()
    }

    /// A count from 0 to 2^31.
    pub(super) fn count(self, key: &str) -> Result<Option<usize>, CheckpointError> {
        self.typed(key, "a count", |value| value.as_u64().filter(|n| *n <= MAX_SIZE).map(|n| n as usize))
    }

    /// A count that must be there and is not 0.
    pub(super) fn required(self, key: &str) -> Result<usize, CheckpointError> {
        self.count(key)?.filter(|n| *n > 0).ok_or_else(|| config(&self.name(key), "is missing or 0"))
    }

    /// A finite number.
    pub(super) fn float(self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.typed(key, "a number", |value| value.as_f64().filter(|x| x.is_finite()))
    }

    /// Numbers.
    pub(super) fn floats(self, key: &str) -> Result<Option<Vec<f32>>, CheckpointError> {
        let number = |value: &Value| value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
        self.typed(key, "a list of numbers", |value| value.as_array()?.iter().map(number).collect())
    }

    pub(super) fn text(self, key: &str) -> Result<Option<&'a str>, CheckpointError> {
        self.typed(key, "a text", Value::as_str)
    }

    pub(super) fn texts(self, key: &str) -> Result<Option<Vec<&'a str>>, CheckpointError> {
        self.typed(key, "a list of texts", |value| value.as_array()?.iter().map(Value::as_str).collect())
    }

    pub(super) fn flag(self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn object(self, key: &'static str, place: &'static str) -> Result<Option<Self>, CheckpointError> {
        self.typed(key, "an object", |value| value.is_object().then_some(Object { value, place }))
    }

    /// Refuses a flag that is on.
    pub(super) fn refuse(self, keys: &[&str]) -> Result<(), CheckpointError> {
        match keys.iter().find(|key| !matches!(self.get(key), None | Some(Value::Bool(false)))) {
            Some(key) => Err(unsupported(format!("`{}` in config.json", self.name(key)))),
            None => Ok(()),
        }
    }
}

/// Sizes of the graph, from config.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) vocab: usize,
    pub(super) context: usize,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) ffn: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head: usize,
}

/// The widest head. Tables of the rotation have half as many numbers, whatever tensors the checkpoint has.
const MOST_HEAD: usize = 1 << 16;

impl Sizes {
    /// Reads them; GPT-2 has names of its own.
    ///
    /// # Errors
    /// A key that is missing or no count, or heads that do not divide the width.
    pub(super) fn read(config_json: Object<'_>, defaults: &Defaults, gpt2: bool) -> Result<Self, CheckpointError> {
        let key = |usual: &'static str, old: &'static str| if gpt2 { old } else { usual };
        let hidden = config_json.required(key("hidden_size", "n_embd"))?;
        let heads_key = key("num_attention_heads", "n_head");
        let heads = config_json.required(heads_key)?;
        let or = |key: &str, default: Option<usize>| match config_json.count(key) {
            _ if gpt2 => Ok(None),
            Ok(None) if config_json.absent(key) => Ok(default),
            found => found,
        };
        let kv_heads = or("num_key_value_heads", defaults.kv_heads)?.unwrap_or(heads);
        let head = match or("head_dim", defaults.head_dim)? {
            Some(head) => head,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => return Err(config(heads_key, format!("{heads} does not divide the width {hidden}"))),
        };
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(config("num_key_value_heads", format!("{kv_heads} does not divide {heads} heads")));
        }
        if head == 0 || head > MOST_HEAD || !head.is_multiple_of(2) {
            return Err(config("head_dim", format!("{head} is not an even width of at most {MOST_HEAD}")));
        }
        let ffn = if gpt2 {
            config_json.count("n_inner")?.unwrap_or(4 * hidden)
        } else {
            config_json.required("intermediate_size")?
        };
        Ok(Self {
            vocab: config_json.required("vocab_size")?,
            context: match key("max_position_embeddings", "n_positions") {
                context if config_json.absent(context) => defaults.context,
                context => config_json.required(context)?,
            },
            layers: config_json.required(key("num_hidden_layers", "n_layer"))?,
            hidden,
            ffn,
            heads,
            kv_heads,
            head,
        })
    }
}
