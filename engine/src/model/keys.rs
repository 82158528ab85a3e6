//! The keys `<architecture>.*` of a file: typed, in range, named in every error.

use super::ModelError;
use crate::gguf::Metadata;

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
    #[must_use]
    pub fn architecture(self) -> &'m str {
        self.architecture
    }

    /// All metadata.
    #[must_use]
    pub fn metadata(self) -> &'m Metadata {
        self.meta
    }

    /// The full name of a key.
    #[must_use]
    pub fn name(self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// The error that a key is missing.
    #[must_use]
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
}
