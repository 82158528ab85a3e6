//! Answers that are kept for the length of a process: cells of all backends ask the same of our engine, and cells of all devices the
//! same of a reference.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Answers by what was asked. One that is being made makes others wait for it; one that failed is made again.
#[derive(Debug)]
pub struct Answers<T>(OnceLock<Mutex<HashMap<String, Slot<T>>>>);

type Slot<T> = Arc<Mutex<Option<Arc<T>>>>;

impl<T> Answers<T> {
    /// None yet.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The answer to `key`, from `make` if nobody has asked before.
    pub fn get<E>(&self, key: String, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let slot = {
            let mut slots = self.0.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(key).or_default())
        };
        let mut answer = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = &*answer {
            return Ok(Arc::clone(answer));
        }
        let made = Arc::new(make()?);
        *answer = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_and_failures_are_not() {
        let answers = Answers::new();
        assert_eq!(answers.get("a".into(), || Err::<u32, _>("dead")), Err("dead"));
        assert_eq!(answers.get("a".into(), || Ok::<_, ()>(1)), Ok(Arc::new(1)));
        assert_eq!(answers.get("a".into(), || Err::<u32, _>("asked again")), Ok(Arc::new(1)));
        assert_eq!(answers.get("b".into(), || Ok::<_, ()>(2)), Ok(Arc::new(2)));
    }
}
