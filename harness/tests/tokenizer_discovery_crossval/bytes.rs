//! What is not UTF-8, through the byte API.
//!
//! The documented meaning: a byte that is not part of well-formed UTF-8 is a character of its own without properties. A
//! byte-level BPE splits around it as around any such character and keeps the byte; SPM writes it as `<0xXX>`.

use crate::compare::OPTIONS;
use crate::setup::Stage;
use bitnet_engine::tokenizer::{byte_alphabet, pretokenize};
use bitnet_harness::Failure;
use bitnet_harness::strings::{Random, make};
use std::ops::Range;

const STRINGS: usize = 600;

/// Ways to be wrong: lone and surplus continuation bytes, cut characters, overlong forms, surrogates, beyond U+10FFFF.
static BROKEN: &[&[u8]] = &[
    b"\x80",
    b"\xBF\xBF",
    b"\xC3",
    b"\xE6\x97",
    b"\xF0\x9F\x98",
    b"\xC0\x80",
    b"\xC1\xBF",
    b"\xE0\x80\xAF",
    b"\xED\xA0\x80\xED\xB0\x80",
    b"\xF4\x90\x80\x80",
    b"\xF5\xFE\xFF",
    b"\xFF",
    b"\xE6\x97\xA5\x97",
    b"\xE2\x96",
];

pub(crate) fn run(stage: &Stage, way: &str) -> Result<(), Failure> {
    let ours = stage.ours(way)?;
    let texts = make("mixed", STRINGS, &[]);
    let mut random = Random::new("bytes");
    let dropped = dropped(stage);
    let mut broken = 0;
    for text in &texts {
        let bytes = spoil(text, &mut random);
        broken += usize::from(std::str::from_utf8(&bytes).is_err());
        for options in OPTIONS {
            let ids = ours.encode_bytes(&bytes, options)?;
            if let Some(id) = ids.iter().find(|id| **id as usize >= ours.vocab_size()) {
                return Err(Failure::new(format_args!("{bytes:02x?} becomes {id}, which is not a token")));
            }
            if stage.vocabulary.is_spm() && options.parse_special {
                // A special token that happens to be spelled out brings a space of its own.
                continue;
            }
            let mut want: Vec<u8> = bytes.iter().copied().filter(|byte| !dropped.contains(byte)).collect();
            if stage.vocabulary.is_spm() {
                want = String::into_bytes(unspace(&want));
            }
            let mut found = ours.decode(&ids, false);
            if stage.vocabulary.is_spm() {
                found = String::into_bytes(unspace(&found));
            }
            if found != want {
                return Err(Failure::new(format_args!("{want:02x?} comes back as {found:02x?}")));
            }
        }
        if let Some(spec) = stage.vocabulary.source.pre.as_deref().and_then(pretokenize::by_name) {
            split(spec.pre, &bytes)?;
        }
    }
    if broken < STRINGS / 2 {
        return Err(Failure::new(format_args!("only {broken} of {STRINGS} strings are not UTF-8")));
    }
    Ok(())
}

/// Puts wrong bytes into a text.
fn spoil(text: &str, random: &mut Random) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(3) {
            0 => {
                let wrong = *random.pick(BROKEN);
                bytes.splice(at..at, wrong.iter().copied());
            }
            1 if at < bytes.len() => bytes[at] = random.bits() as u8,
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// SPM cannot tell `▁` from a space: both are written as one here, bytes as Latin-1.
fn unspace(bytes: &[u8]) -> String {
    let text: String = bytes.iter().map(|b| char::from(*b)).collect();
    text.replace("\u{E2}\u{96}\u{81}", " ")
}

/// Bytes that the vocabulary has no token for, which a byte-level BPE leaves out.
fn dropped(stage: &Stage) -> Vec<u8> {
    if stage.vocabulary.is_spm() {
        return Vec::new();
    }
    let vocab = &stage.vocabulary.json["model"]["vocab"];
    (0..=255).filter(|byte| vocab[byte_alphabet::to_char(*byte).to_string()].is_null()).collect()
}

/// The pieces are those of the same text with a character without properties for every wrong byte.
fn split(pre: pretokenize::Pre, bytes: &[u8]) -> Result<(), Failure> {
    const STAND_IN: char = '\u{E000}';
    let mut text = String::new();
    // For every byte of `text` the place in `bytes`.
    let mut place = Vec::new();
    let mut at = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        place.extend(at..at + chunk.valid().len());
        at += chunk.valid().len();
        for _ in chunk.invalid() {
            text.push(STAND_IN);
            place.extend([at; STAND_IN.len_utf8()]);
            at += 1;
        }
    }
    place.push(at);
    let want: Vec<Range<usize>> =
        pre.split(text.as_bytes()).into_iter().map(|piece| place[piece.start]..place[piece.end]).collect();
    let found = pre.split(bytes);
    if found == want {
        return Ok(());
    }
    Err(Failure::new(format_args!("{bytes:02x?} is split at {found:?}, not at {want:?}")))
}
