//! Wrappers of families, and encoding many texts at once. The vocabularies are made up around the tokens that decide.

use crate::tokenizer_support::nasty;
use bitnet_engine::tokenizer::wrappers::{
    BitNetTokenizerWrapper, BitNetVariant, Gpt2TokenizerWrapper, Infill, LlamaTokenizerWrapper, LlamaVariant,
};
use bitnet_engine::tokenizer::{
    EncodeOptions, Severity, TokenKind, Tokenizer, TokenizerError, VocabSource, byte_alphabet, from_source,
};
use bitnet_kernels::Pool;
use std::sync::Arc;

const FRAMED: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };
const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

/// SentencePiece: `<unk> <s> </s>`, bytes, fillers, then `last` as control tokens.
fn spm(size: usize, last: &[&str]) -> VocabSource {
    let mut tokens: Vec<Vec<u8>> = ["<unk>", "<s>", "</s>"].map(|t| t.as_bytes().to_vec()).to_vec();
    tokens.extend((0..256).map(|b| format!("<0x{b:02X}>").into_bytes()));
    tokens.extend((259..size).map(|i| format!("\u{e000}{i}").into_bytes()));
    let mut kinds = vec![TokenKind::Normal; size];
    kinds[0] = TokenKind::Unknown;
    kinds[1..3].fill(TokenKind::Control);
    kinds[3..259].fill(TokenKind::Byte);
    for (i, text) in last.iter().enumerate() {
        tokens[size - last.len() + i] = text.as_bytes().to_vec();
        kinds[size - last.len() + i] = TokenKind::Control;
    }
    let scores = (0..size).map(|i| -(i as f32)).collect();
    VocabSource { model: "llama".into(), tokens, token_types: kinds, scores, ..VocabSource::default() }
}

/// Byte-level BPE with tokens at fixed places.
fn bpe(size: usize, pre: &str, texts: &[(usize, &str)], control: &[(usize, &str)]) -> VocabSource {
    let mut tokens: Vec<Vec<u8>> =
        (0..size).map(|i| byte_alphabet::encode(format!("\u{e000}{i}").as_bytes()).into_bytes()).collect();
    let mut kinds = vec![TokenKind::Normal; size];
    for byte in 0..=255u8 {
        tokens[300 + usize::from(byte)] = byte_alphabet::to_char(byte).to_string().into_bytes();
    }
    // `!` is the first token in both real vocabularies.
    tokens[300 + usize::from(b'!')] = b"unused".to_vec();
    for &(id, text) in texts {
        tokens[id] = byte_alphabet::encode(text.as_bytes()).into_bytes();
    }
    for &(id, text) in control {
        tokens[id] = text.as_bytes().to_vec();
        kinds[id] = TokenKind::Control;
    }
    let merges = vec![b"a b".to_vec()];
    tokens[600] = b"ab".to_vec();
    VocabSource {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        tokens,
        token_types: kinds,
        merges,
        ..VocabSource::default()
    }
}

const LLAMA3_TEXTS: &[(usize, &str)] = &[(0, "!"), (1000, "indow"), (100_769, " vi\u{1ec7}c")];
const LLAMA3_CONTROL: &[(usize, &str)] = &[
    (128_000, "<|begin_of_text|>"),
    (128_001, "<|end_of_text|>"),
    (128_006, "<|start_header_id|>"),
    (128_007, "<|end_header_id|>"),
    (128_009, "<|eot_id|>"),
];
const GPT2_TEXTS: &[(usize, &str)] = &[(0, "!"), (1000, "ale"), (50_255, " gazed")];

fn llama3(pre: &str) -> VocabSource {
    bpe(128_256, pre, LLAMA3_TEXTS, LLAMA3_CONTROL)
}

fn gpt2() -> VocabSource {
    bpe(50_257, "gpt-2", GPT2_TEXTS, &[(50_256, "<|endoftext|>")])
}

fn ready(source: VocabSource) -> Arc<dyn Tokenizer> {
    from_source(source).unwrap().tokenizer
}

fn wrong_family(error: TokenizerError, part: &str) {
    match &error {
        TokenizerError::WrongFamily { .. } => assert!(error.to_string().contains(part), "{error}"),
        other => panic!("{other}"),
    }
}

#[test]
fn test_llama_tokenizer_wrapper() {
    // LLaMA-2: 1 / 2 / 0.
    let two = LlamaTokenizerWrapper::new(ready(spm(32_000, &[]))).unwrap();
    assert_eq!((two.variant(), two.infill()), (LlamaVariant::Llama2, None));
    assert!(two.diagnostics().is_empty(), "{:?}", two.diagnostics());
    let s = two.special();
    assert_eq!((s.bos, s.eos, s.eot, s.unk, s.add_bos, s.add_eos), (Some(1), Some(2), None, Some(0), true, false));
    assert_eq!(two.encode("A", FRAMED).unwrap(), [1, 3 + 0xE2, 3 + 0x96, 3 + 0x81, 3 + 0x41]);
    assert_eq!(two.encode("</s>", FRAMED).unwrap(), [1, 2]);
    assert!(two.is_eog(2) && !two.is_eog(1));

    // CodeLlama: the same, and the tokens for infilling.
    let marks = ["\u{2581}<PRE>", "\u{2581}<SUF>", "\u{2581}<MID>", "\u{2581}<EOT>", "a1", "a2", "a3", "a4", "a5"];
    let code = LlamaTokenizerWrapper::new(ready(spm(32_016, &marks))).unwrap();
    assert_eq!(code.variant(), LlamaVariant::CodeLlama);
    assert_eq!(code.infill(), Some(Infill { prefix: 32_007, suffix: 32_008, middle: 32_009, eot: 32_010 }));
    assert_eq!((code.special().bos, code.special().eos, code.special().eot), (Some(1), Some(2), Some(32_010)));
    assert!(code.is_eog(32_010) && code.is_eog(2));

    // LLaMA-3: not 1 and 2.
    let three = LlamaTokenizerWrapper::new(ready(llama3("llama-bpe"))).unwrap();
    assert_eq!(three.variant(), LlamaVariant::Llama3);
    let s = three.special();
    assert_eq!((s.bos, s.eos, s.eot), (Some(128_000), Some(128_001), Some(128_009)));
    assert_eq!(three.encode("!<|eot_id|>", FRAMED).unwrap(), [128_000, 0, 128_009]);
    assert_eq!(three.decode(&[128_000, 0, 128_009], true), b"!");
    assert!(three.is_eog(128_001) && three.is_eog(128_009) && !three.is_eog(2));
    assert!(!three.adds_prefix_space() && two.adds_prefix_space());

    // What a careless converter writes is set right, and said.
    let mut source = llama3("llama-bpe");
    (source.bos, source.eos, source.add_bos) = (Some(1), Some(2), Some(false));
    let repaired = LlamaTokenizerWrapper::new(ready(source)).unwrap();
    assert_eq!(repaired.encode("!", FRAMED).unwrap(), [128_000, 0]);
    assert!(repaired.is_eog(128_001) && !repaired.is_eog(2), "2 is an ordinary token");
    let said = &repaired.diagnostics()[0];
    assert_eq!((said.code, said.severity), ("family_ids_set", Severity::Warning));
    assert!(said.message.contains("BOS was 1, is 128000") && said.message.contains("EOS was 2, is 128001"), "{said}");
    let other_pre = LlamaTokenizerWrapper::new(ready(llama3("gpt-2"))).unwrap();
    assert!(other_pre.diagnostics().iter().any(|d| d.code == "family_pre_differs"));

    // Another family is refused.
    wrong_family(LlamaTokenizerWrapper::new(ready(gpt2())).unwrap_err(), "not SentencePiece");
    wrong_family(LlamaTokenizerWrapper::new(ready(spm(31_999, &[]))).unwrap_err(), "31999 tokens");
    wrong_family(
        LlamaTokenizerWrapper::with_variant(ready(spm(32_000, &[])), LlamaVariant::CodeLlama).unwrap_err(),
        "32007",
    );
    wrong_family(
        LlamaTokenizerWrapper::with_variant(ready(spm(32_000, &[])), LlamaVariant::Llama3).unwrap_err(),
        "not byte-level BPE",
    );
    let mut other = llama3("llama-bpe");
    other.tokens[1000] = b"elsewhere".to_vec();
    wrong_family(LlamaTokenizerWrapper::new(ready(other)).unwrap_err(), "token 1000 is `elsewhere`, not `indow`");
    let mut shifted = spm(32_000, &[]);
    shifted.tokens.swap(10, 11);
    wrong_family(LlamaTokenizerWrapper::new(ready(shifted)).unwrap_err(), "token 10 is not the byte 0x07");
}

#[test]
fn test_gpt2_tokenizer_wrapper() {
    let wrapped = Gpt2TokenizerWrapper::new(ready(gpt2())).unwrap();
    let s = wrapped.special();
    assert_eq!([s.bos, s.eos, s.eot, s.unk, s.pad], [Some(50_256); 5]);
    assert!(!s.add_bos && !s.add_eos && !wrapped.adds_prefix_space());
    let ids = wrapped.encode("ab!", FRAMED).unwrap();
    assert_eq!(ids, [600, 0], "nothing around it, no space in front");
    assert_eq!(wrapped.decode(&ids, true), b"ab!");
    assert_eq!(wrapped.encode(" ab", PLAIN).unwrap(), [300 + 0x20, 600], "and its own space is kept");
    assert!(wrapped.is_eog(50_256) && !wrapped.is_eog(11));
    assert!(wrapped.diagnostics().iter().all(|d| d.severity == Severity::Info), "{:?}", wrapped.diagnostics());
    assert_eq!((wrapped.kind(), wrapped.pre(), wrapped.vocab_size()), ("bpe", Some("gpt-2"), 50_257));
    assert_eq!(wrapped.token_bytes(50_256, false).unwrap().as_ref(), b"");
    assert_eq!(wrapped.token_bytes(50_256, true).unwrap().as_ref(), b"<|endoftext|>");

    // llama.cpp's default ids (11, the comma) and a BOS in front are set right.
    let mut source = gpt2();
    (source.bos, source.eos, source.add_bos) = (Some(11), Some(11), Some(true));
    let repaired = Gpt2TokenizerWrapper::new(ready(source)).unwrap();
    assert_eq!(repaired.encode("ab", FRAMED).unwrap(), [600]);
    assert!(!repaired.is_eog(11) && repaired.is_eog(50_256));
    assert!(repaired.diagnostics()[0].message.contains("EOS was 11, is 50256"), "{:?}", repaired.diagnostics());

    wrong_family(Gpt2TokenizerWrapper::new(ready(spm(32_000, &[]))).unwrap_err(), "not byte-level BPE");
    wrong_family(
        Gpt2TokenizerWrapper::new(ready(llama3("llama-bpe"))).unwrap_err(),
        "token 1000 is `indow`, not `ale`",
    );
}

#[test]
fn bitnet_wrapper_knows_both_vocabularies() {
    let three = BitNetTokenizerWrapper::new(ready(llama3("llama-bpe"))).unwrap();
    assert_eq!(three.variant(), BitNetVariant::Llama3);
    assert_eq!(three.encode("!", FRAMED).unwrap(), [128_000, 0]);
    assert!(three.is_eog(128_009) && three.is_eog(128_001));
    for size in [32_000, 32_002] {
        let two = BitNetTokenizerWrapper::new(ready(spm(size, &[]))).unwrap();
        assert_eq!((two.variant(), two.special().bos, two.special().eos), (BitNetVariant::Llama2, Some(1), Some(2)));
    }
    wrong_family(BitNetTokenizerWrapper::new(ready(gpt2())).unwrap_err(), "50257 tokens");
    wrong_family(BitNetTokenizerWrapper::new(ready(spm(32_003, &[]))).unwrap_err(), "32003 tokens");
}

#[test]
fn a_batch_has_the_ids_of_its_texts() {
    let texts = nasty();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let tokenizer = ready(spm(32_000, &[]));
    let alone: Vec<Vec<u32>> = texts.iter().map(|t| tokenizer.encode(t, FRAMED).unwrap()).collect();
    for threads in [1, 2, 4] {
        let pool = Pool::new(threads).unwrap();
        assert_eq!(tokenizer.encode_batch(&texts, FRAMED, &pool).unwrap(), alone, "{threads} threads");
        assert_eq!(tokenizer.encode_batch(&[], FRAMED, &pool).unwrap(), [] as [Vec<u32>; 0]);
    }
    let wrapped = LlamaTokenizerWrapper::new(tokenizer).unwrap();
    assert_eq!(wrapped.encode_batch(&texts, FRAMED, &Pool::new(2).unwrap()).unwrap(), alone);
}

#[test]
fn a_text_that_fails_is_named_by_its_index() {
    // Without bytes and without an unknown token some text has no ids.
    let mut source = spm(300, &[]);
    for id in 3..259 {
        source.tokens[id] = format!("\u{e000}x{id}").into_bytes();
        source.token_types[id] = TokenKind::Unused;
    }
    source.unk = Some(u32::MAX);
    source.tokens[299] = b"a".to_vec();
    source.tokens[298] = "\u{2581}".as_bytes().to_vec();
    let tokenizer = ready(source);
    let pool = Pool::new(2).unwrap();
    assert_eq!(tokenizer.encode_batch(&["a", "aa"], PLAIN, &pool).unwrap(), [vec![298, 299], vec![298, 299, 299]]);
    let error = tokenizer.encode_batch(&["a", "a", "ab", "c"], PLAIN, &pool).unwrap_err();
    let inner = TokenizerError::NoTokenForText { text: "b".into(), offset: 1 };
    assert_eq!(error, TokenizerError::InBatch { index: 2, error: Box::new(inner) });
    assert!(error.to_string().starts_with("text 2 of the batch: "), "{error}");
}
