//! Figures in JSON, which has no word for what is not a number: NaN is written as `null`, infinities as text.

use serde::{Deserialize, Deserializer, Serializer};

/// Writes a figure.
pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        serializer.serialize_f64(*value)
    } else if value.is_nan() {
        serializer.serialize_none()
    } else {
        serializer.serialize_str(if *value > 0.0 { "inf" } else { "-inf" })
    }
}

/// Reads a figure.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Figure {
        Number(f64),
        Word(String),
        Nothing(()),
    }
    match Figure::deserialize(deserializer)? {
        Figure::Number(value) => Ok(value),
        Figure::Nothing(()) => Ok(f64::NAN),
        Figure::Word(word) if word == "inf" => Ok(f64::INFINITY),
        Figure::Word(word) if word == "-inf" => Ok(f64::NEG_INFINITY),
        Figure::Word(word) => Err(serde::de::Error::custom(format!("`{word}` is not a figure"))),
    }
}

#[cfg(test)]
mod tests {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct One(#[serde(with = "super")] f64);

    #[test]
    fn every_figure_survives() {
        for value in [0.5, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let text = serde_json::to_string(&One(value)).expect("json");
            let back: One = serde_json::from_str(&text).expect("json");
            assert!(back.0.to_bits() == value.to_bits() || back.0.is_nan() && value.is_nan(), "{text}");
        }
        assert!(serde_json::from_str::<One>("\"x\"").is_err());
    }
}
