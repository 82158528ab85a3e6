//! A compiled tokenizer that somebody forged: nonsense with the right checksums, asked for the ids of a short text and its bytes back.

use super::files;
use crate::Target;
use bitnet_engine::tokenizer::EncodeOptions;
use bitnet_engine::tokenizer::compiled::{compile, open_bytes, seal};
use bitnet_engine::tokenizer::files::{FileSet, Hints, load};

pub const TARGET: Target = Target {
    name: "compiled-tokenizer",
    about: "a file of tables that are used as they lie, with checksums that are right",
    seeds,
    run,
};

fn run(bytes: &[u8]) -> String {
    let mut forged = bytes.to_vec();
    seal(&mut forged);
    let tokenizer = match open_bytes(forged) {
        Ok(loaded) => loaded.tokenizer,
        Err(error) => return error.to_string(),
    };
    let mut words = format!("{} ", tokenizer.kind());
    for (add_special, parse_special) in [(true, true), (false, false)] {
        match tokenizer.encode_bytes("Hello, wörld! <s>\n  12".as_bytes(), EncodeOptions { add_special, parse_special })
        {
            Ok(ids) => {
                std::hint::black_box(tokenizer.decode(&ids, true));
                words.push_str("ids ");
            }
            Err(error) => words.push_str(&error.to_string()),
        }
    }
    for id in [0, 7, u32::MAX] {
        std::hint::black_box((tokenizer.token_bytes(id, true), tokenizer.is_eog(id)));
    }
    words
}

/// The small vocabularies of SentencePiece, one of each kind of normalizing, and a pair of GPT-2.
fn seeds() -> Vec<Vec<u8>> {
    let mut sets: Vec<Vec<(&str, Vec<u8>)>> =
        files("sentencepiece", "model", 10_000).into_iter().map(|model| vec![("tokenizer.model", model)]).collect();
    let pair = super::tokenizers::pair();
    sets.push(vec![("vocab.json", pair.0), ("merges.txt", pair.1)]);
    let compiled = |files: Vec<(&str, Vec<u8>)>| {
        let mut set = FileSet::new();
        for (name, bytes) in files {
            set.add(name, bytes);
        }
        compile(&load(&set, &Hints::default()).ok()?).ok()
    };
    sets.into_iter().filter_map(compiled).collect()
}
