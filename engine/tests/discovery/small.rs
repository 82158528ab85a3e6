//! The ends of what fits, what is vouched for, and what is repaired.

use crate::discovery_support::*;
use bitnet_engine::discovery::{
    Chain, DiscoverySettings, StepKind, StepOutcome, TokenizerDiscovery, TokenizerFallbackChain, TokenizerStrategy,
    TokenizerStrategyResolver, repair,
};
use bitnet_engine::tokenizer::compiled::CompiledCache;
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
    let chain = TokenizerFallbackChain::new(strict);
    assert!(chain.settings().strict && format!("{chain:?}").contains("strict: true"), "{chain:?}");
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
    let zero = of(&with(arch("llama"), "llama.vocab_size", 0u32), 640);
    assert_eq!((zero.vocab_size(), zero.sizes().metadata), (640, None));
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

/// GPT-2's tokens with some roles: what is right stays as it is, what is missing or wrong is set right and told.
#[test]
fn roles_are_those_of_the_family() {
    let (bos, eos) = ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id");
    let (right, other) = (Some(50_256u32), Some(7u32));
    for (first, last, add, told) in [
        (right, right, None, false),
        (right, None, None, true),
        (None, right, None, true),
        (other, right, None, true),
        (right, other, None, true),
        (right, right, Some(false), false),
        // What a file says of its frame itself is its own business.
        (right, right, Some(true), false),
    ] {
        let mut keys = with(gpt2_keys(), "tokenizer.ggml.pre", "gpt-2");
        keys.extend(first.map(|id| key(bos, id)));
        keys.extend(last.map(|id| key(eos, id)));
        keys.extend(add.map(|add| key("tokenizer.ggml.add_bos_token", add)));
        let discovery = TokenizerDiscovery::from_file(&open(&keys, Some(50_257))).unwrap();
        let resolved = TokenizerFallbackChain::new(DiscoverySettings::default()).resolve(&discovery).unwrap();
        let special = resolved.tokenizer.special();
        let case = format!("{first:?} {last:?} {add:?}: {:?}", resolved.diagnostics);
        assert_eq!((special.bos, special.eos, special.add_bos), (right, right, add == Some(true)), "{case}");
        assert_eq!(resolved.diagnostics.iter().any(|d| d.code == "family_ids_set"), told, "{case}");
        assert_eq!(resolved.family, Some("gpt-2"));
    }
}

/// What the model says of its frame is about its own tokenizer, not about one that was named.
#[test]
fn a_named_tokenizer_has_the_frame_of_the_family() {
    let dir = tempfile::tempdir().unwrap();
    let ids = [key("tokenizer.ggml.bos_token_id", 50_256u32), key("tokenizer.ggml.eos_token_id", 50_256u32)];
    let framed = [key("tokenizer.ggml.add_bos_token", true)];
    let named = [with(gpt2_keys(), "tokenizer.ggml.pre", "gpt-2"), ids.to_vec(), framed.to_vec()].concat();
    let exact = write(dir.path(), "named.gguf", gguf(&named, None));
    let settings = DiscoverySettings { exact: Some(exact), ..DiscoverySettings::default() };
    let discovery =
        TokenizerDiscovery::from_file(&open(&[arch("gpt2"), framed.to_vec()].concat(), Some(50_257))).unwrap();
    let resolved = TokenizerFallbackChain::new(settings.clone()).resolve(&discovery).unwrap();
    assert!(!resolved.tokenizer.special().add_bos);
    assert!(resolved.diagnostics.iter().any(|d| d.code == "family_ids_set"), "{:?}", resolved.diagnostics);
    // Looking alone tells the same of it.
    let chain = discovery.chain(&settings);
    assert_eq!(chain.step(StepKind::Named).map(|step| step.outcome), Some(StepOutcome::Won), "{chain}");
}

/// The size of a family and its ids, but another token there.
#[test]
fn a_tokenizer_of_the_familys_size_alone_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for (end, told) in [("<|endoftext|>", false), ("<|end|>", true)] {
        let mut tokens = bpe_tokens(50_257);
        tokens[50_256] = end.to_owned();
        let mut named = with(bpe_keys(50_257, Some("gpt-2")), "tokenizer.ggml.tokens", tokens);
        named.push(key("tokenizer.ggml.bos_token_id", 50_256u32));
        let exact = write(dir.path(), "named.gguf", gguf(&named, None));
        let settings = DiscoverySettings { exact: Some(exact), ..DiscoverySettings::default() };
        let discovery = TokenizerDiscovery::from_file(&open(&arch("gpt2"), Some(50_257))).unwrap();
        let resolved = TokenizerFallbackChain::new(settings).resolve(&discovery).unwrap();
        let codes: Vec<_> = resolved.diagnostics.iter().map(|d| d.code).collect();
        assert_eq!(codes.contains(&"not_of_family"), told, "{codes:?}");
    }
}

/// Files that do not say how text is split are read as the model's family does it.
#[test]
fn files_are_read_as_the_models_family() {
    for (architecture, tokens, family) in [("gpt2", 50_257, Some("gpt-2")), ("llama", 700, None)] {
        let dir = tempfile::tempdir().unwrap();
        let model = write(dir.path(), "model.gguf", gguf(&arch(architecture), Some(tokens)));
        write(dir.path(), "vocab.json", vocab_json(tokens).to_string());
        write(dir.path(), "merges.txt", merges_txt());
        let discovery = TokenizerDiscovery::from_gguf(&model).unwrap();
        let resolved = TokenizerFallbackChain::new(DiscoverySettings::default()).resolve(&discovery).unwrap();
        let assumed = resolved.diagnostics.iter().any(|d| d.code == "pre_assumed");
        assert_eq!((resolved.family, assumed), (family, family.is_none()));
    }
}

/// LLaMA-2 by the tokens that tell it from others: a kind without a pre-tokenizer is vouched for by them.
#[test]
fn a_vocabulary_of_sentencepiece_is_repaired() {
    let keys = |texts: &[(usize, &str)]| {
        let mut tokens: Vec<String> = (0..32_000).map(|id| format!("word{id}")).collect();
        texts.iter().for_each(|(id, text)| tokens[*id] = (*text).to_owned());
        let named = [(0, "<unk>"), (1, "<s>"), (2, "</s>")];
        named.iter().for_each(|(id, text)| tokens[*id] = (*text).to_owned());
        with(with(arch("llama"), "tokenizer.ggml.model", "llama"), "tokenizer.ggml.tokens", tokens)
    };
    let of = |keys: &Keys| TokenizerDiscovery::from_file(&open(keys, Some(32_000))).unwrap();
    let known = keys(&[(278, "\u{2581}the"), (3186, "\u{2581}world"), (15_043, "\u{2581}Hello")]);
    let assignments = |keys: &Keys| repair::plan(&of(keys)).iter().map(|r| r.assignment()).collect::<Vec<_>>();
    assert_eq!(repair::vouched(&of(&known)), Some("LLaMA-2"));
    let all = [
        "tokenizer.ggml.bos_token_id=1",
        "tokenizer.ggml.eos_token_id=2",
        "tokenizer.ggml.unknown_token_id=0",
        "tokenizer.ggml.add_bos_token=true",
    ];
    assert_eq!(assignments(&known), all);
    let other = keys(&[(278, "\u{2581}the")]);
    assert_eq!((repair::vouched(&of(&other)), assignments(&other)), (None, Vec::new()));
    // By its size alone a model is recognised, but nothing of it is vouched for.
    let keys =
        with(with(arch("llama"), "tokenizer.ggml.model", "llama"), "tokenizer.ggml.tokens", Vec::<String>::new());
    let empty = TokenizerDiscovery::from_file(&open(&keys, Some(CODELLAMA.1))).unwrap();
    assert!(empty.recognised().is_some());
    assert_eq!((repair::vouched(&empty), repair::plan(&empty)), (None, Vec::new()));
    // A placeholder in place of the template is replaced, whatever the vocabulary.
    const PLACEHOLDER: &str = "BITNETAssistant: {{ messages }}";
    let key = "tokenizer.chat_template";
    let placeholder = with(other.clone(), key, PLACEHOLDER);
    let repairs = repair::plan(&of(&placeholder));
    assert_eq!((repairs.len(), repairs[0].key.as_str(), repairs[0].old.as_deref()), (1, key, Some(PLACEHOLDER)));
    assert_eq!(repairs[0].new, bitnet_engine::chat::source::BITNET_2B_4T);
    assert!(repair::plan(&of(&with(other, key, "{{ messages }}"))).is_empty());
}

/// What was compiled is opened, even where only a look was asked for. (A file that was just written is not known by its marks yet:
/// this one was not.)
#[test]
fn a_compiled_tokenizer_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let compiled = Some(CompiledCache::new(dir.path().join("compiled")));
    let settings = DiscoverySettings { compiled, ..DiscoverySettings::default() };
    let discovery = TokenizerDiscovery::from_gguf(&crate::model_support::tiny_path()).unwrap();
    let told = |chain: &Chain| chain.step(StepKind::Embedded).unwrap().why.ends_with(", compiled before");
    let looked = || told(&discovery.chain(&settings));
    let built = || told(&TokenizerFallbackChain::new(settings.clone()).run(&discovery).chain);
    assert_eq!((looked(), built()), (false, false));
    assert_eq!((built(), looked()), (true, true));
}

#[test]
fn what_came_of_it_can_be_printed() {
    let file = open(&[arch("llama"), bpe_keys(700, Some("gpt-2"))].concat(), Some(700));
    let discovery = TokenizerDiscovery::from_file(&file).unwrap();
    let resolver = TokenizerStrategyResolver::new(discovery, DiscoverySettings::default());
    assert!(format!("{resolver:?}").contains("settings: DiscoverySettings"), "{resolver:?}");
    let resolved = resolver.resolve_tokenizer(&TokenizerStrategy::EmbeddedGguf).unwrap();
    let text = format!("{resolved:?}");
    let expected = "Resolved { strategy: EmbeddedGguf, kind: \"bpe\", vocab_size: 700, family: None, diagnostics: [";
    assert!(text.starts_with(expected), "{text}");
}
