//! The crate `tokenizers`, with special tokens read in text and without.

use bitnet_harness::Failure;
use serde_json::Value;
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use tokenizers::Tokenizer;

pub(crate) struct Oracle {
    reading: Tokenizer,
    plain: Tokenizer,
    /// Answers to long texts, asked once for all ways.
    long: Mutex<HashMap<String, Arc<Vec<u32>>>>,
}

impl Oracle {
    /// From the text of `tokenizer.json`.
    pub(crate) fn new(json: &Value) -> Result<Self, Failure> {
        let reading = Tokenizer::from_str(&json.to_string()).map_err(|e| Failure::new(format_args!("oracle: {e}")))?;
        let mut plain = reading.clone();
        plain.set_encode_special_tokens(true);
        Ok(Self { reading, plain, long: Mutex::default() })
    }

    /// Ids of `text`, nothing put around it.
    pub(crate) fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, Failure> {
        let tokenizer = if parse_special { &self.reading } else { &self.plain };
        let encoding = tokenizer.encode_fast(text, false).map_err(|e| Failure::new(format_args!("oracle: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids of a long text without special tokens, computed once.
    pub(crate) fn encode_once(&self, text: &str) -> Result<Arc<Vec<u32>>, Failure> {
        let mut long = self.long.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ids) = long.get(text) {
            return Ok(Arc::clone(ids));
        }
        let ids = Arc::new(self.encode(text, false)?);
        long.insert(text.to_owned(), Arc::clone(&ids));
        Ok(ids)
    }

    /// Text of `ids`, special tokens spelled out.
    pub(crate) fn decode(&self, ids: &[u32]) -> Result<String, Failure> {
        self.reading.decode(ids, false).map_err(|e| Failure::new(format_args!("oracle: {e}")))
    }
}
