//! Compiled files that somebody wrote on purpose: nonsense with the right checksums. They may give wrong ids or an error, nothing else.

use super::form::{Form, HEAD, seal};
use super::{compile, open_bytes, tokenizer};
use crate::gguf::FileBytes;
use crate::tokenizer::normalize::Normalizing;
use crate::tokenizer::{EncodeOptions, Loaded, TokenKind, VocabSource, from_source};
use proptest::prelude::*;
use std::sync::OnceLock;

fn opened(bytes: &[u8]) -> Option<Loaded> {
    let path = tempfile::NamedTempFile::new().expect("a temporary file").into_temp_path();
    std::fs::write(&path, bytes).expect("a file");
    let form = Form::open(FileBytes::map(&path).ok()?).ok()?;
    assert!(form.is_whole());
    tokenizer(&form).ok()
}

fn samples() -> &'static [Vec<u8>] {
    static SAMPLES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let texts = |list: &[&str]| list.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        let kinds = |list: &[i64]| list.iter().filter_map(|n| TokenKind::from_gguf(*n)).collect::<Vec<_>>();
        let bpe = VocabSource {
            model: "gpt2".into(),
            pre: Some("gpt-2".into()),
            tokens: texts(&["a", "b", "c", "Ġ", "ab", "abc", "Ġab", "abcabcabc", "aa", "<|end|>", "<x>"]),
            token_types: kinds(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 4]),
            merges: texts(&["a b", "ab c", "Ġ ab", "a a"]),
            eos: Some(9),
            ..VocabSource::default()
        };
        let spm = VocabSource {
            model: "llama".into(),
            tokens: texts(&["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "▁a", "ab", "▁ab", "aabbaabbaa", "<x>"]),
            token_types: kinds(&[2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 4]),
            scores: (0..12).map(|n| -(n as f32)).collect(),
            ..VocabSource::default()
        };
        let inline = Normalizing { inline: vec![11], dummy_prefix: true, remove_extra: true, ..Normalizing::default() };
        // One unit that is a leaf, one that has it as a child.
        let mut charsmap = 1024u32.to_le_bytes().to_vec();
        (0..256u32).for_each(|unit| charsmap.extend_from_slice(&(unit | 1 << 10).to_le_bytes()));
        charsmap.extend_from_slice(b"x\0yz\0");
        let mapped = VocabSource { normalizing: Some(Normalizing { charsmap, ..inline.clone() }), ..spm.clone() };
        let unigram =
            VocabSource { model: "t5".into(), eos: Some(2), unk: Some(0), normalizing: Some(inline), ..spm.clone() };
        let compiled = |source: VocabSource| compile(&from_source(source).expect("a tokenizer")).expect("its file");
        [bpe, spm, mapped, unigram].map(compiled).to_vec()
    })
}

fn use_it(loaded: &Loaded) {
    let long = "abcaabb  <x>é\n".repeat(200);
    let one = "a".repeat(300);
    for text in ["", "a", " ab abc", "<|end|><x>a", "aabbaabbaa \u{1f600}\n", &long, &one] {
        for (add_special, parse_special) in [(true, true), (false, false)] {
            if let Ok(ids) = loaded.tokenizer.encode(text, EncodeOptions { add_special, parse_special }) {
                loaded.tokenizer.decode(&ids, true);
            }
        }
    }
    for id in (0..50).chain([u32::MAX, u32::MAX - 1]) {
        loaded.tokenizer.token_bytes(id, true);
        loaded.tokenizer.is_eog(id);
    }
    loaded.tokenizer.pre();
}

#[test]
fn the_samples_are_sound() {
    for sample in samples() {
        let mut again = sample.clone();
        seal(&mut again);
        assert_eq!(&again, sample);
        use_it(&opened(sample).expect("a sound file"));
        use_it(&open_bytes(again.clone()).expect("sound bytes"));
        *again.last_mut().expect("a byte") ^= 1;
        assert!(open_bytes(again).expect_err("damaged").to_string().contains("checksum"));
    }
}

/// Tables without an empty entry: the search for what is not there ends all the same.
#[test]
fn full_tables_end_a_search() {
    let mut used = 0;
    for sample in samples() {
        for byte in [0x01, 0x7F, 0xFF] {
            let mut bytes = sample.clone();
            let values = bytes.len() - 400;
            bytes[HEAD..values].fill(byte);
            seal(&mut bytes);
            if let Some(loaded) = opened(&bytes) {
                use_it(&loaded);
                used += 1;
            }
        }
    }
    assert!(used > 4, "{used} files could be opened");
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), 0u32..300, Just(u32::MAX), Just(u32::MAX - 1), Just(i32::MAX as u32), Just(1 << 31)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nonsense_is_an_error_or_wrong_ids(
        which in 0..4usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), number(), any::<bool>()), 1..12),
    ) {
        let mut bytes = samples()[which].clone();
        for (index, number, near_the_end) in changes {
            // Half of the changes hit the table of sections and the small values.
            let from = if near_the_end { bytes.len() - 400 } else { 64 };
            let at = (from + index.index(bytes.len() - from - 3)) / 4 * 4;
            bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
        }
        seal(&mut bytes);
        if let Some(loaded) = opened(&bytes) {
            use_it(&loaded);
        }
    }
}
