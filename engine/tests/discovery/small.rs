//! The ends of what fits, what is vouched for, and what is repaired.

use crate::discovery_support::*;
use bitnet_engine::discovery::{
    DiscoverySettings, StepKind, StepOutcome, TokenizerDiscovery, TokenizerFallbackChain, repair,
};
use std::path::Path;

/// What comes of a tokenizer of so many tokens beside a model.
#[track_caller]
fn beside(model: &Path, cases: [(usize, StepOutcome); 3]) {
    for (tokens, outcome) in cases {
        write(model.parent().unwrap(), "tokenizer.json", tokenizer_json(tokens));
        let chain = TokenizerFallbackChain::new(DiscoverySettings::default());
        let walked = chain.run(&TokenizerDiscovery::from_gguf(model).unwrap());
        let step = walked.chain.step(StepKind::Beside).unwrap();
        assert_eq!(step.outcome, outcome, "{tokens}: {}", step.why);
    }
}

/// Embeddings are padded by a sixteenth at most, where nothing says how many tokens there are.
#[test]
fn a_sixteenth_may_be_missing_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), "model.gguf", gguf(&arch("llama"), Some(4800)));
    beside(&model, [(4800, StepOutcome::Won), (4500, StepOutcome::Won), (4499, StepOutcome::Rejected)]);
}

/// Where the model has a list of its own, a tokenizer of more tokens is another one, whatever room the embedding has.
#[test]
fn no_more_tokens_than_the_models_own_list() {
    let dir = tempfile::tempdir().unwrap();
    let broken = without([arch("llama"), bpe_keys(700, None)].concat(), "tokenizer.ggml.merges");
    let model = write(dir.path(), "model.gguf", gguf(&broken, Some(750)));
    beside(&model, [(700, StepOutcome::Won), (720, StepOutcome::Rejected), (699, StepOutcome::Rejected)]);
}

#[test]
fn names_are_those_of_the_json() {
    use StepOutcome::{Absent, Doubtful, NotAllowed, NotNeeded, Rejected, Won};
    let names = [Won, Doubtful, Rejected, Absent, NotAllowed, NotNeeded].map(|outcome| outcome.to_string());
    assert_eq!(names, ["won", "doubtful", "rejected", "absent", "not-allowed", "not-needed"]);
    let strict = DiscoverySettings { strict: true, ..DiscoverySettings::default() };
    assert!(TokenizerFallbackChain::new(strict).settings().strict);
}

#[test]
fn a_vocabulary_is_vouched_for_by_its_tokens_and_its_ids_are_repaired() {
    let discovery = |keys: &Keys| TokenizerDiscovery::from_file(&open(keys, Some(50_257))).unwrap();
    let known = discovery(&gpt2_keys());
    assert_eq!(repair::vouched(&known), known.recognised().map(|r| r.line.label));
    assert!(repair::vouched(&known).is_some());
    let key = "tokenizer.ggml.eos_token_id";
    let repaired = |keys: &Keys| repair::plan(&discovery(keys)).into_iter().find(|repair| repair.key == key);
    let missing = repaired(&gpt2_keys()).unwrap();
    assert_eq!((missing.old, missing.new.as_str()), (None, "50256"));
    // What is an id stays, and what says "none" on purpose; what is no id is replaced.
    for (said, kept) in [(0i64, true), (50_256, true), (-1, true), (50_257, false), (99_999, false)] {
        let found = repaired(&with(gpt2_keys(), key, said));
        assert_eq!(found.is_none(), kept, "{said}: {found:?}");
        assert!(found.is_none_or(|repair| repair.old == Some(said.to_string()) && repair.new == "50256"));
    }
    // Another vocabulary of the same kind.
    let other =
        TokenizerDiscovery::from_file(&open(&[arch("llama"), bpe_keys(700, None)].concat(), Some(700))).unwrap();
    assert_eq!(repair::vouched(&other), None);
}

#[test]
fn kinds_and_sizes_of_the_models_own_list() {
    let of = |keys: &Keys, rows: usize| TokenizerDiscovery::from_file(&open(keys, Some(rows))).unwrap();
    let keys = [arch("llama"), bpe_keys(700, None)].concat();
    for (model, kind) in
        [("gpt2", "bpe"), ("llama", "spm"), ("gemma4", "spm"), ("t5", "unigram"), ("bert", "huggingface")]
    {
        assert_eq!(of(&with(keys.clone(), "tokenizer.ggml.model", model), 700).kind(), Some(kind));
    }
    assert_eq!(of(&arch("llama"), 700).kind(), None);
    // An empty list says nothing of the size.
    let empty = of(&with(keys, "tokenizer.ggml.tokens", Vec::<String>::new()), 640);
    assert_eq!((empty.vocab_size(), empty.sizes().tokens), (640, None));
    // GPT-2's tokens with others behind them are another vocabulary.
    let file = open(&gpt2_keys(), Some(50_257));
    let mut tokens: Vec<String> = file
        .metadata()
        .array("tokenizer.ggml.tokens")
        .unwrap()
        .unwrap()
        .strs()
        .unwrap()
        .map(|t| t.unwrap().to_owned())
        .collect();
    assert!(of(&gpt2_keys(), 50_257).recognised().is_some());
    tokens.extend((0..40).map(|i| format!("another{i}")));
    assert!(of(&with(gpt2_keys(), "tokenizer.ggml.tokens", tokens), 50_297).recognised().is_none());
}
