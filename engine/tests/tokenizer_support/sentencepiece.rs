//! Writing SentencePiece files, by the proto's field numbers.

use bitnet_engine::tokenizer::VocabSource;

pub struct Spec {
    pub model_type: u64,
    pub bos: i64,
    pub eos: i64,
    pub pad: i64,
    pub dummy_prefix: bool,
    pub remove_extra: bool,
    pub suffix: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self { model_type: 2, bos: 1, eos: 2, pad: -1, dummy_prefix: true, remove_extra: false, suffix: false }
    }
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

pub fn number(out: &mut Vec<u8>, field: u64, n: i64) {
    varint(out, field << 3);
    varint(out, n as u64);
}

pub fn bytes(out: &mut Vec<u8>, field: u64, data: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, data.len() as u64);
    out.extend_from_slice(data);
}

pub fn model(source: &VocabSource, spec: &Spec) -> Vec<u8> {
    let mut out = Vec::new();
    for ((text, score), kind) in source.tokens.iter().zip(&source.scores).zip(&source.token_types) {
        let mut piece = Vec::new();
        bytes(&mut piece, 1, text);
        varint(&mut piece, 2 << 3 | 5);
        piece.extend_from_slice(&score.to_le_bytes());
        // Normal, unknown, control, user-defined, unused, byte: 1 to 6.
        if *kind as i64 != 0 {
            number(&mut piece, 3, *kind as i64 + 1);
        }
        bytes(&mut out, 1, &piece);
    }
    let mut trainer = Vec::new();
    bytes(&mut trainer, 1, b"corpus.txt");
    for (field, n) in [
        (3, spec.model_type as i64),
        (24, i64::from(spec.suffix)),
        (35, 1),
        (40, 0),
        (41, spec.bos),
        (42, spec.eos),
        (43, spec.pad),
    ] {
        number(&mut trainer, field, n);
    }
    bytes(&mut out, 2, &trainer);
    let mut normalizer = Vec::new();
    bytes(&mut normalizer, 1, b"identity");
    for (field, on) in [(3, spec.dummy_prefix), (4, spec.remove_extra), (5, true)] {
        number(&mut normalizer, field, i64::from(on));
    }
    bytes(&mut out, 3, &normalizer);
    out
}
