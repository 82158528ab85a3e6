//! A real vocabulary whose file forgot `tokenizer.ggml.pre`: recognised, used right, and repaired.

use crate::discovery_support::*;
use bitnet_engine::convert::set;
use bitnet_engine::discovery::repair::plan;
use bitnet_engine::discovery::{DiscoverySettings, StepKind, StepOutcome, TokenizerDiscovery, TokenizerFallbackChain};
use bitnet_engine::tokenizer::{EncodeOptions, Severity, from_gguf};
use std::ops::ControlFlow;

/// The beginning is known from everywhere: "Hello", " world", "!".
const TEXT: &str = "Hello world! It's 2024.";
const IDS: [u32; 3] = [15496, 995, 0];

fn found(keys: &Keys) -> TokenizerDiscovery {
    TokenizerDiscovery::from_file(&open(keys, Some(50_257))).unwrap()
}

#[test]
fn the_vocabulary_names_the_pre_tokenizer() {
    for keys in
        [gpt2_keys(), with(gpt2_keys(), "tokenizer.ggml.pre", "default"), with(gpt2_keys(), "tokenizer.ggml.pre", "x")]
    {
        let found = found(&keys);
        let recognised = found.recognised().unwrap();
        assert_eq!(recognised.line.family, "gpt-2", "whatever architecture the file names");
        // Certain, so that strict mode takes it too.
        for strict in [false, true] {
            let settings = DiscoverySettings { strict, ..DiscoverySettings::default() };
            let looked = found.chain(&settings);
            let walked = TokenizerFallbackChain::new(settings).run(&found);
            for chain in [&looked, &walked.chain] {
                let step = chain.step(StepKind::Embedded).unwrap();
                assert_eq!(step.outcome, StepOutcome::Won);
                assert!(step.why.contains("`gpt-2`"), "{}", step.why);
            }
            let resolved = walked.resolved.unwrap();
            let told = resolved.diagnostics.iter().find(|d| d.code == "pre_from_fingerprint").unwrap();
            assert_eq!(
                (told.severity, told.hint.as_str()),
                (Severity::Warning, "bitnet repair-tokenizer FILE -o FIXED")
            );
            let ids = resolved.tokenizer.encode(TEXT, EncodeOptions::default()).unwrap();
            assert_eq!(ids[..3], IDS);
            assert_eq!(resolved.tokenizer.decode(&ids, true), TEXT.as_bytes());
            let special = resolved.tokenizer.special();
            assert_eq!((special.bos, special.eos), (Some(50_256), Some(50_256)));
        }
    }
}

#[test]
fn what_is_certain_is_written_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "model.gguf", gguf(&gpt2_keys(), Some(50_257)));
    let broken = TokenizerDiscovery::from_gguf(&path).unwrap();
    let repairs = plan(&broken);
    let texts: Vec<String> = repairs.iter().map(|r| r.assignment()).collect();
    assert_eq!(
        texts,
        [
            "tokenizer.ggml.pre=gpt-2",
            "tokenizer.ggml.bos_token_id=50256",
            "tokenizer.ggml.eos_token_id=50256",
            "tokenizer.ggml.add_bos_token=false"
        ]
    );
    assert!(repairs.iter().all(|r| r.old.is_none() && !r.why.is_empty()));
    let file = bitnet_engine::gguf::GgufFile::open(&path).unwrap();
    let assignments = set::parse(&texts, file.metadata()).unwrap();
    let out = dir.path().join("repaired.gguf");
    set::set_metadata(&file, &assignments, &out, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let repaired = TokenizerDiscovery::from_gguf(&out).unwrap();
    assert_eq!((repaired.pre(), repaired.special().eos), (Some("gpt-2"), Some(50_256)));
    assert!(plan(&repaired).is_empty());
    let repaired = bitnet_engine::gguf::GgufFile::open(&out).unwrap();
    let built = from_gguf(repaired.metadata()).unwrap();
    assert!(built.diagnostics.iter().all(|d| d.severity == Severity::Info), "{:?}", built.diagnostics);
    assert_eq!(repaired.tensor("token_embd.weight").unwrap().data, file.tensor("token_embd.weight").unwrap().data);

    // What the file says already stays, unless it cannot be.
    let repairs = |keys: &Keys| plan(&found(keys)).iter().map(|r| r.assignment()).collect::<Vec<_>>();
    let with_id = |id: u32| with(with(gpt2_keys(), "tokenizer.ggml.pre", "phi-2"), "tokenizer.ggml.eos_token_id", id);
    assert_eq!(
        repairs(&with_id(7)),
        ["tokenizer.ggml.bos_token_id=50256", "tokenizer.ggml.add_bos_token=false"],
        "a synonym"
    );
    assert!(repairs(&with_id(60_000)).contains(&"tokenizer.ggml.eos_token_id=50256".to_owned()));
    assert_eq!(repairs(&with(gpt2_keys(), "tokenizer.ggml.pre", "llama-bpe"))[0], "tokenizer.ggml.pre=gpt-2");
    // An unknown vocabulary is left alone.
    let mut unknown = arch("gpt2");
    unknown.extend(bpe_keys(50_257, None));
    assert!(plan(&found(&unknown)).is_empty());
}
