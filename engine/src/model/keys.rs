//! The keys `<architecture>.*` of a file: typed, in range, named in every error.

use super::ModelError;
use crate::gguf::{Metadata, Value};

/// Sizes above this are refused: no known model comes near, and the products of two stay far from overflow.
pub(super) const MAX_DIM: u64 = 1 << 20;

/// The hyper-parameters of a file.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'m> {
    meta: &'m Metadata,
    architecture: &'m str,
}

impl<'m> Keys<'m> {
    /// Those of the file's architecture.
    ///
    /// # Errors
    /// `general.architecture` is missing or not a string.
    pub fn of(meta: &'m Metadata) -> Result<Self, ModelError> {
        let key = "general.architecture";
        let architecture = meta.str(key)?.ok_or(ModelError::MissingKey { key: key.into() })?;
        Ok(Self { meta, architecture })
    }

    /// `general.architecture`.
    pub fn architecture(self) -> &'m str {
        self.architecture
    }

    /// All metadata.
    pub fn metadata(self) -> &'m Metadata {
        self.meta
    }

    /// The full name of a key.
    pub fn name(self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// The error that a key is missing.
    pub fn missing(self, key: &str) -> ModelError {
        ModelError::MissingKey { key: self.name(key) }
    }

    /// A count in `min..=max`, if it is there.
    ///
    /// # Errors
    /// A value of another type, or out of range.
    pub fn count(self, key: &str, min: u64, max: u64) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.meta.u64(&self.name(key))? else { return Ok(None) };
        if !(min..=max).contains(&value) {
            return Err(ModelError::OutOfRange { key: self.name(key), value: value.to_string(), min, max });
        }
        Ok(Some(value as usize))
    }

    /// A count in `1..=max`.
    ///
    /// # Errors
    /// As [`Keys::count`], or it is missing.
    pub fn required(self, key: &str, max: u64) -> Result<usize, ModelError> {
        self.count(key, 1, max)?.ok_or_else(|| self.missing(key))
    }

    /// A number in `min..=max`, if it is there.
    ///
    /// # Errors
    /// A value of another type, or out of range.
    pub fn float(self, key: &str, min: f32, max: f32) -> Result<Option<f32>, ModelError> {
        let Some(value) = self.meta.f32(&self.name(key))? else { return Ok(None) };
        // NaN is in no range.
        if !(min..=max).contains(&value) {
            return Err(ModelError::BadFloat { key: self.name(key), value, min, max });
        }
        Ok(Some(value))
    }

    /// A number in `min..=max`.
    ///
    /// # Errors
    /// As [`Keys::float`], or it is missing.
    pub fn required_float(self, key: &str, min: f32, max: f32) -> Result<f32, ModelError> {
        self.float(key, min, max)?.ok_or_else(|| self.missing(key))
    }

    /// A text, if it is there.
    ///
    /// # Errors
    /// A value of another type.
    pub fn text(self, key: &str) -> Result<Option<&'m str>, ModelError> {
        Ok(self.meta.str(&self.name(key))?)
    }

    /// A flag for each of `count` blocks, if the key is there and is an array.
    ///
    /// # Errors
    /// Another number of flags, or other elements.
    pub fn flags(self, key: &str, count: usize) -> Result<Option<Vec<bool>>, ModelError> {
        let name = self.name(key);
        let Some(Value::Array(array)) = self.meta.get(&name) else { return Ok(None) };
        let flags = array.iter().map(|value| match value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        });
        let flags = flags.collect::<Option<Vec<_>>>();
        flags.filter(|flags| flags.len() == count).map(Some).ok_or_else(|| ModelError::Mismatch {
            what: format!("`{name}` has {} elements, expected true or false for each of {count} blocks", array.len()),
        })
    }

    /// A number for each of `count` blocks: an array, or one number for all.
    ///
    /// # Errors
    /// Another count, or elements that are not finite numbers.
    pub fn floats(self, key: &str, count: usize) -> Result<Option<Vec<f32>>, ModelError> {
        let name = self.name(key);
        let Some(Value::Array(array)) = self.meta.get(&name) else {
            return Ok(self.float(key, f32::MIN, f32::MAX)?.map(|value| vec![value; count]));
        };
        let values: Vec<f32> = array.f32s()?.collect();
        if values.len() != count || values.iter().any(|value| !value.is_finite()) {
            let what =
                format!("`{name}` has {} elements, expected a finite number for each of {count} blocks", array.len());
            return Err(ModelError::Mismatch { what });
        }
        Ok(Some(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{GgufFile, GgufWriter, MetaValue};

    fn file(value: impl Into<MetaValue>) -> GgufFile {
        let mut writer = GgufWriter::new(3, 32).unwrap();
        writer.meta("general.architecture", "a").unwrap();
        writer.meta("a.k", value).unwrap();
        GgufFile::from_vec(writer.into_vec().unwrap()).unwrap()
    }

    #[test]
    fn values_are_in_range_or_named() {
        for (value, sound) in [(1u32, false), (2, true), (5, true), (6, false)] {
            let file = file(value);
            let keys = Keys::of(file.metadata()).unwrap();
            assert_eq!(keys.count("k", 2, 5).ok(), sound.then_some(Some(value as usize)));
            assert_eq!(keys.required("k", 5).is_ok(), value <= 5);
            assert!(keys.text("k").is_err() && keys.floats("k", 2).is_err());
            assert_eq!((keys.flags("k", 1).ok(), keys.architecture(), keys.name("x")), (Some(None), "a", "a.x".into()));
        }
        for (value, sound) in [(0.4, false), (0.5, true), (2.0, true), (2.1, false), (f32::NAN, false)] {
            let file = file(value);
            let keys = Keys::of(file.metadata()).unwrap();
            assert_eq!(keys.float("k", 0.5, 2.0).is_ok(), sound, "{value}");
            assert_eq!(keys.required_float("k", 0.5, 2.0).ok(), sound.then_some(value), "{value}");
            assert_eq!(keys.floats("k", 3).ok(), (!value.is_nan()).then(|| Some(vec![value; 3])));
        }
        let (list, text) = (file(vec![1f32, 2.0]), file("text"));
        let keys = Keys::of(list.metadata()).unwrap();
        assert_eq!(keys.floats("k", 2).unwrap(), Some(vec![1.0, 2.0]));
        assert!(
            keys.floats("k", 3).unwrap_err().to_string().contains("`a.k` has 2 elements, expected a finite number")
        );
        assert!(Keys::of(file(vec![1f32, f32::NAN]).metadata()).unwrap().floats("k", 2).is_err());
        assert_eq!(Keys::of(text.metadata()).unwrap().text("k").unwrap(), Some("text"));
        // What is not there is nothing, or missing.
        assert!(matches!(
            (keys.count("x", 0, 1), keys.float("x", 0.0, 1.0), keys.text("x")),
            (Ok(None), Ok(None), Ok(None))
        ));
        assert!(matches!((keys.flags("x", 1), keys.floats("x", 1)), (Ok(None), Ok(None))));
        for error in [keys.required("x", 1).unwrap_err(), keys.required_float("x", 0.0, 1.0).unwrap_err()] {
            assert!(error.to_string().contains("lacks `a.x`"), "{error}");
        }
    }
}
