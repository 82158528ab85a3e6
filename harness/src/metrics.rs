//! What a check measured: figures for the record, never for the verdict.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A figure of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Bool(bool),
    Int(i64),
    /// A measurement. A value that is not finite is kept as text, since JSON has no such number.
    Float(f64),
    /// A name or digest.
    Text(String),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Bool(value) => value.fmt(f),
            Value::Int(value) => value.fmt(f),
            Value::Float(value) => value.fmt(f),
            Value::Text(value) => value.fmt(f),
        }
    }
}

macro_rules! from {
    ($($kind:ty => $variant:ident),*) => { $(impl From<$kind> for Value {
        fn from(value: $kind) -> Self {
            Value::$variant(value.into())
        }
    })* };
}
from!(bool => Bool, i64 => Int, &str => Text, String => Text);

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        i64::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Int)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        if value.is_finite() { Value::Float(value) } else { Value::Text(value.to_string()) }
    }
}

/// The figures of one run, and what it ran with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// Figures by name; the unit is part of the name (`tokens`, `tokens_per_s`, `max_abs`).
    pub values: BTreeMap<String, Value>,
    /// The kernel set that really ran.
    pub kernel: Option<String>,
    /// SHA-256 of the model file, in hex.
    pub model_sha256: Option<String>,
    /// Version of the reference it was compared with.
    pub reference: Option<String>,
}

impl Metrics {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces one figure.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn ran(mut self, kernel: &str) -> Self {
        self.kernel = Some(kernel.to_owned());
        self
    }

    #[must_use]
    pub fn of_model(mut self, sha256: &str) -> Self {
        self.model_sha256 = Some(sha256.to_owned());
        self
    }

    /// Adds one figure, for building in one expression.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_json() {
        let metrics =
            Metrics::new().with("a", 3usize).with("b", 0.5).with("c", "x").with("d", true).with("e", f64::NAN);
        let text = serde_json::to_string(&metrics.values).expect("json");
        assert_eq!(text, r#"{"a":3,"b":0.5,"c":"x","d":true,"e":"NaN"}"#);
        let back: BTreeMap<String, Value> = serde_json::from_str(&text).expect("json");
        assert_eq!(back, metrics.values);
    }
}
