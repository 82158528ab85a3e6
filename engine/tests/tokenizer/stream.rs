//! Streaming decode: any chunking gives the text that the whole would give.

use crate::tokenizer_support::*;
use bitnet_engine::tokenizer::{EncodeOptions, StreamDecoder, from_source};
use proptest::prelude::*;

fn stream<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut decoder = StreamDecoder::new();
    let mut out = String::new();
    for chunk in chunks {
        out += &decoder.push(chunk);
        assert!(decoder.held() <= 3, "no more is held back than may become one character");
    }
    out + &decoder.finish()
}

#[test]
fn text_comes_as_soon_as_it_is_certain() {
    let mut decoder = StreamDecoder::new();
    assert_eq!(decoder.push(b"a\xF0\x9F"), "a");
    assert_eq!(decoder.push(b"\x98"), "");
    assert_eq!(decoder.held(), 3);
    assert_eq!(decoder.push(b"\x80b"), "😀b");
    assert_eq!(decoder.push(b"\xE4"), "");
    assert_eq!(decoder.push(b"x"), "\u{fffd}x", "a broken character is known to be broken at the next byte");
    assert_eq!(decoder.push(b"\xE4\xBD"), "");
    assert_eq!(decoder.finish(), "\u{fffd}");
    assert_eq!(decoder.finish(), "");
    assert_eq!(
        decoder.push(b"\xFF\xC0\x80"),
        "\u{fffd}\u{fffd}\u{fffd}",
        "what cannot begin a character is not held back"
    );
}

#[test]
fn tokens_that_cut_characters_stream_whole() {
    let file = byte_level_json_file(train_byte_level("gpt-2", 300, true), "gpt-2", SPECIALS);
    let tokenizer = from_source(source_of(&file, "gpt2", Some("gpt-2"))).unwrap().tokenizer;
    let text = "日本語 👩‍👩‍👧‍👦<|eot_id|>é";
    let ids = tokenizer.encode(text, EncodeOptions { add_special: false, parse_special: true }).unwrap();
    let mut decoder = StreamDecoder::new();
    let pieces: Vec<String> = ids.iter().map(|&id| decoder.push_token(&*tokenizer, id)).collect();
    assert_eq!(pieces.concat() + &decoder.finish(), text.replace("<|eot_id|>", ""));
    assert!(pieces.iter().any(String::is_empty), "some tokens end inside a character");
    assert_eq!(decoder.push_token(&*tokenizer, u32::MAX), "", "an id that does not exist is nothing");
}

/// A text that a prompt begins has a space in front that SentencePiece put there; what continues one has it from the text.
#[test]
fn the_first_space_is_the_tokenizers() {
    let tokenizer = from_source(super::spm::source()).unwrap().tokenizer;
    let ids = tokenizer.encode("the dog", EncodeOptions { add_special: false, parse_special: true }).unwrap();
    let text = |mut decoder: StreamDecoder, before: &[&[u8]]| {
        let mut out: String = before.iter().map(|bytes| decoder.push(bytes)).collect();
        out.extend(ids.iter().map(|&id| decoder.push_token(&*tokenizer, id)));
        out + &decoder.finish()
    };
    assert_eq!(text(StreamDecoder::new(), &[]), " the dog");
    assert_eq!(text(StreamDecoder::at_text_start(&*tokenizer), &[]), "the dog");
    assert_eq!(text(StreamDecoder::at_text_start(&*tokenizer), &[b""]), "the dog", "nothing is not the front");
    assert_eq!(text(StreamDecoder::at_text_start(&*tokenizer), &[b"x"]), "x the dog");
    assert_eq!(text(StreamDecoder::at_text_start(&*tokenizer), &[b"  "]), "  the dog");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chunking_of_any_bytes_is_the_lossy_text(
        parts in prop::collection::vec(prop_oneof![
            prop::sample::select(vec![&b"a"[..], b"\xC3\xA9", b"\xE2\x82\xAC", b"\xF0\x9F\x98\x80", b"\xC3", b"\xE2\x82", b"\xF0\x9F\x98", b"\xF0\x9F",
                b"\x80", b"\xFF", b"\xC0\xAF", b"\xE0\x80", b"\xED\xA0\x80", b"\xF4\x90", b"\xF8\x88"]).prop_map(<[u8]>::to_vec),
            prop::collection::vec(any::<u8>(), 0..4),
        ], 0..20),
        sizes in prop::collection::vec(1usize..5, 1..40),
    ) {
        let bytes = parts.concat();
        let mut chunks = Vec::new();
        let (mut rest, mut sizes) = (bytes.as_slice(), sizes.into_iter().cycle());
        while !rest.is_empty() {
            let (chunk, tail) = rest.split_at(sizes.next().unwrap().min(rest.len()));
            chunks.push(chunk);
            rest = tail;
        }
        prop_assert_eq!(stream(chunks), String::from_utf8_lossy(&bytes));
    }
}
