//! Patterns over cell names, as the data files use them.
//!
//! Five segments joined by `::`, in the order of a cell's name. A segment is `*` (any value) or one or
//! more exact values joined by `|`. Deliberately no substrings and no regular expressions: a pattern
//! names axis values, so that the harness can check that each of them exists.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Number of axes, and so of segments.
pub const SEGMENTS: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// `*`
    Any,
    /// One of these values.
    OneOf(Vec<String>),
}

/// `model::quant::device::backend::check`, each segment `*` or `a|b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    segments: [Segment; SEGMENTS],
}

/// A text that is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a cell pattern: {problem}; write model::quant::device::backend::check, each part `*`, a value, or values joined by `|`"
)]
pub struct PatternError {
    pub text: String,
    pub problem: String,
}

impl Pattern {
    /// The segments in the order of a cell's name.
    pub fn segments(&self) -> &[Segment; SEGMENTS] {
        &self.segments
    }

    /// Whether a cell with these parts is meant.
    pub fn matches(&self, parts: &[&str; SEGMENTS]) -> bool {
        self.segments.iter().zip(parts).all(|(segment, part)| match segment {
            Segment::Any => true,
            Segment::OneOf(values) => values.iter().any(|value| value == part),
        })
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let error = |problem: String| PatternError { text: text.to_owned(), problem };
        let segments = text
            .split("::")
            .map(|part| {
                if part == "*" {
                    return Ok(Segment::Any);
                }
                let values: Vec<String> = part.split('|').map(str::to_owned).collect();
                if values.iter().any(|v| v.is_empty() || v.contains('*')) {
                    return Err(error(format!("the part `{part}` is empty or mixes `*` with text")));
                }
                Ok(Segment::OneOf(values))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let count = segments.len();
        let segments = segments.try_into().map_err(|_| error(format!("it has {count} parts, not {SEGMENTS}")))?;
        Ok(Self { segments })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.segments.iter().enumerate() {
            if i > 0 {
                f.write_str("::")?;
            }
            match segment {
                Segment::Any => f.write_str("*")?,
                Segment::OneOf(values) => f.write_str(&values.join("|"))?,
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_by_whole_values() {
        let pattern: Pattern = "m::q4_0|q4_1::*::native::greedy".parse().expect("pattern");
        assert!(pattern.matches(&["m", "q4_1", "cpu-avx2", "native", "greedy"]));
        assert!(!pattern.matches(&["m", "q4", "cpu-avx2", "native", "greedy"]));
        assert!(!pattern.matches(&["mm", "q4_0", "cpu-avx2", "native", "greedy"]));
    }

    #[test]
    fn display_is_the_source_text() {
        let text = "a|b::*::c::*::d";
        assert_eq!(text.parse::<Pattern>().expect("pattern").to_string(), text);
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for text in ["", "a::b", "a::b::c::d::e::f", "a::::c::d::e", "a*::*::*::*::*", "a|::*::*::*::*"] {
            let error = text.parse::<Pattern>().expect_err(text);
            assert!(error.to_string().contains("is not a cell pattern"), "{error}");
        }
    }
}
