//! What discovery says of each step, word for word: this is what a person reads who has no tokenizer.

use crate::discovery_support::*;
use bitnet_engine::discovery::{
    Chain, DiscoverySettings, Step, StepKind, StepOutcome, TokenizerDiscovery, TokenizerFallbackChain,
};
use std::path::{Path, PathBuf};

/// A model in a folder of its own.
struct Case {
    dir: tempfile::TempDir,
    model: PathBuf,
}

impl Case {
    fn new(keys: &Keys, rows: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = write(dir.path(), "m.gguf", gguf(keys, Some(rows)));
        Self { dir, model }
    }

    fn beside(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        write(self.dir.path(), name, text);
        self
    }

    fn discovery(&self) -> TokenizerDiscovery {
        TokenizerDiscovery::from_gguf(&self.model).unwrap()
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn without_folder(&self, text: &str) -> String {
        text.replace(&self.dir.path().display().to_string(), "DIR")
    }

    /// The steps that came to something, each as `step outcome [looked at]: why`.
    fn steps(&self, chain: &Chain) -> Vec<String> {
        let said = |step: &Step| format!("{} {} {:?}: {}", step.step, step.outcome, step.looked_at, step.why);
        chain.steps.iter().map(|step| self.without_folder(&said(step))).collect()
    }

    /// What looking says of the first steps, and then what building says of the last of them.
    #[track_caller]
    fn says(&self, settings: &DiscoverySettings, looking: &[&str], building: &str) {
        let at = looking.len();
        let discovery = self.discovery();
        assert_eq!(self.steps(&discovery.chain(settings))[..at], *looking);
        let walked = TokenizerFallbackChain::new(settings.clone()).run(&discovery);
        let built = self.steps(&walked.chain);
        assert_eq!(built[..at - 1], looking[..at - 1]);
        assert_eq!(built[at - 1], if building.is_empty() { looking[at - 1] } else { building });
    }
}

fn strict() -> DiscoverySettings {
    DiscoverySettings { strict: true, ..DiscoverySettings::default() }
}

const NOTHING: [&str; 2] = [
    "embedded absent []: neither tokenizer.ggml.model nor tokenizer.ggml.tokens is there",
    r#"beside absent ["DIR/"]: no tokenizer.json, tokenizer.model, or vocab.json with merges.txt"#,
];

#[test]
fn no_tokenizer_anywhere() {
    let case = Case::new(&arch("llama"), 777);
    let none = "not-allowed []: a download of `?` cannot be tried: there are no settings for hub and cache";
    let (cache, theirs) = (format!("cache {none}"), format!("huggingface-cache {none}"));
    let steps = [
        NOTHING[0],
        NOTHING[1],
        &cache,
        &theirs,
        "download absent []: no repository is known for architecture `llama` with 777 tokens",
        "mock not-allowed []: made only where somebody asks for it (--allow-mock-tokenizer)",
    ];
    case.says(&DiscoverySettings::default(), &steps, "");
    let chain = TokenizerFallbackChain::new(DiscoverySettings::default());
    let error = case.without_folder(&chain.resolve(&case.discovery()).unwrap_err().to_string());
    let expected = "DIR/m.gguf has no usable tokenizer
  tried embedded: neither tokenizer.ggml.model nor tokenizer.ggml.tokens is there (absent)
  tried beside: no tokenizer.json, tokenizer.model, or vocab.json with merges.txt (absent)
  tried cache: a download of `?` cannot be tried: there are no settings for hub and cache (not-allowed)
  tried huggingface-cache: a download of `?` cannot be tried: there are no settings for hub and cache (not-allowed)
  tried download: no repository is known for architecture `llama` with 777 tokens (absent)
  tried mock: made only where somebody asks for it (--allow-mock-tokenizer) (not-allowed)
Three ways out:
  1. (a download) not here:           no repository is known for architecture `llama` with 777 tokens (known: bitnet-2b-4t 128256, llama-3 128256, llama-2 32000, mistral 32000, codellama 32016, bitnet-b1.58-3b 32002, falcon3 131072, gpt-2 50257, smollm2 49152)
  2. put the files beside it:         bitnet download ORG/NAME --to DIR
  3. name a tokenizer yourself:       bitnet infer --tokenizer FILE --model DIR/m.gguf --prompt TEXT";
    assert_eq!(error, expected);
    assert_eq!(case.without_folder(&case.discovery().model_name()), "DIR/m.gguf");
    let memory = TokenizerDiscovery::from_file(&open(&arch("llama"), Some(777))).unwrap();
    assert_eq!(memory.model_name(), "the model");
    assert_eq!(
        memory.chain(&DiscoverySettings::default()).step(StepKind::Beside).unwrap().why,
        "the model is not a file on a disk: nothing lies beside it"
    );
}

#[test]
fn what_is_broken_is_passed_over_and_told() {
    let keys = without([arch("llama"), bpe_keys(700, Some("gpt-2"))].concat(), "tokenizer.ggml.merges");
    let case = Case::new(&keys, 700)
        .beside("tokenizer.json", tokenizer_json(699))
        .beside("vocab.json", vocab_json(700).to_string())
        .beside("merges.txt", merges_txt());
    let broken = "embedded rejected [\"tokenizer.ggml.model\", \"tokenizer.ggml.pre\", \"tokenizer.ggml.tokens\"]: \
        the tokenizer inside of DIR/m.gguf cannot be used: the vocabulary says byte-level BPE (`gpt2`) but has no merges \
        (`tokenizer.ggml.merges`). Convert the model again with its tokenizer";
    let beside = r#"beside won ["DIR/tokenizer.json", "DIR/vocab.json"]: DIR/vocab.json: "#;
    case.says(
        &DiscoverySettings::default(),
        &[broken, &format!("{beside}vocabulary with merges, 700 tokens")],
        &format!("{beside}bpe, 700 tokens, pre-tokenizer `gpt-2`"),
    );
    case.says(&DiscoverySettings::default(), &[broken], "");
    case.says(&strict(), &[broken, "beside not-needed []: an earlier error ends the chain"], "");
    let codes = |case: &Case, settings: &DiscoverySettings| {
        let resolved = TokenizerFallbackChain::new(settings.clone()).resolve(&case.discovery()).unwrap();
        let told = resolved.diagnostics.iter().map(|d| case.without_folder(&d.to_string()));
        told.filter(|text| text.contains("passed over")).collect::<Vec<_>>()
    };
    let told = codes(&case, &DiscoverySettings::default());
    assert!(told.len() == 1 && told[0].starts_with("warning[embedded_tokenizer_unusable]: passed over: "), "{told:?}");
    // What lies beside it is told in the same way.
    let mock = DiscoverySettings { allow_mock: true, ..DiscoverySettings::default() };
    let case = Case::new(&arch("llama"), 777).beside("tokenizer.json", "{}");
    let told = codes(&case, &mock);
    assert!(told.len() == 1 && told[0].starts_with("warning[tokenizer_beside_refused]: passed over: "), "{told:?}");
}

#[test]
fn guesses_are_called_so() {
    let plain = DiscoverySettings::default();
    let keys = r#"["tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"]"#;
    let case = |keys: Keys, rows| Case::new(&[arch("llama"), keys].concat(), rows);
    case(bpe_keys(700, None), 700).says(
        &plain,
        &[&format!("embedded won {keys}: bpe, 700 tokens, tokenizer.ggml.pre is missing and the vocabulary is unknown: the pre-tokenizer is a guess")],
        &format!("embedded won {keys}: bpe, 700 tokens, pre-tokenizer `default` (a guess)"),
    );
    let named = r#"["tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"]"#;
    case(bpe_keys(700, Some("falcon_e")), 700).says(
        &plain,
        &[&format!("embedded won {named}: bpe, 700 tokens, pre-tokenizer `falcon_e`, a name that llama.cpp does not know: its rule is a guess")],
        &format!("embedded won {named}: bpe, 700 tokens, pre-tokenizer `falcon_e` (a guess)"),
    );
    case(bpe_keys(700, Some("gpt-2")), 700).says(
        &plain,
        &[
            &format!("embedded won {named}: bpe, 700 tokens, pre-tokenizer `gpt-2`"),
            "beside not-needed []: embedded has it",
        ],
        "",
    );
    Case::new(&gpt2_keys(), 50_257).says(
        &plain,
        &[&format!("embedded won {keys}: bpe, 50257 tokens, tokenizer.ggml.pre is missing, but the vocabulary is that of GPT-2 (50,256 ordinary tokens): pre-tokenizer `gpt-2`")],
        &format!("embedded won {keys}: bpe, 50257 tokens, pre-tokenizer `gpt-2` (from the vocabulary's fingerprint)"),
    );
    // A guess beside a guess is no better, and what is embedded is better than the network.
    let guess = case(bpe_keys(700, None), 700).beside("tokenizer.model", gguf(&bpe_keys(700, None), None));
    let chain = TokenizerFallbackChain::new(plain).run(&guess.discovery()).chain;
    assert_eq!(chain.winner, Some(StepKind::Embedded));
    let beside = r#"beside rejected ["DIR/tokenizer.model"]: DIR/tokenizer.model: its pre-tokenizer is a guess too"#;
    assert_eq!(guess.steps(&chain)[1], beside);
    let step = chain.step(StepKind::Download).unwrap();
    assert_eq!((step.outcome, step.why.as_str()), (StepOutcome::NotNeeded, "what is embedded is better than that"));
}

#[test]
fn what_the_hub_would_be_asked_for() {
    let case = Case::new(&arch(CODELLAMA.0), CODELLAMA.1);
    let absent = "tokenizer.json of codellama/CodeLlama-7b-hf or meta-llama/CodeLlama-7b-hf is not there";
    let (cache, theirs) =
        (format!("cache absent [\"DIR/cache\"]: {absent}"), format!("huggingface-cache absent []: {absent}"));
    let download =
        "download not-allowed [\"codellama/CodeLlama-7b-hf (main)\", \"meta-llama/CodeLlama-7b-hf (main)\"]: ";
    let may_not = format!(
        "{download}nothing is fetched without --auto-download; it would be tokenizer.json of codellama/CodeLlama-7b-hf"
    );
    let plain = settings(None, &case.cache());
    case.says(&plain, &[NOTHING[0], NOTHING[1], &cache, &theirs, &may_not], "");
    let no_hub =
        DiscoverySettings { auto_download: true, no_hub: Some("no home".into()), ..DiscoverySettings::default() };
    let why = "a download of `codellama/CodeLlama-7b-hf` cannot be tried: no home";
    let (cache, theirs) = (format!("cache not-allowed []: {why}"), format!("huggingface-cache not-allowed []: {why}"));
    let may_not = format!("{download}{why}; it would be tokenizer.json of codellama/CodeLlama-7b-hf");
    case.says(&no_hub, &[NOTHING[0], NOTHING[1], &cache, &theirs, &may_not], "");
    // A size that two families share.
    let case = Case::new(&arch("llama"), 32_000);
    let guess = DiscoverySettings { auto_download: true, strict: true, ..settings(None, &case.cache()) };
    let chain = case.discovery().chain(&guess);
    assert_eq!(
        case.steps(&chain)[4].split_once("]: ").unwrap().1,
        "strict mode (--strict, BITNET_STRICT_TOKENIZERS): the family is a guess (taken for llama-2, may be mistral as well); \
         name the right one: bitnet infer --tokenizer FILE"
    );
    let offline = DiscoverySettings { offline: true, auto_download: true, ..settings(None, &case.cache()) };
    let error = case.discovery().discover_tokenizer_strategy(&offline).unwrap_err();
    let text = case.without_folder(&error.to_string());
    let (_, ways) = text.split_once("\nThree ways out:\n").unwrap();
    assert_eq!(
        ways,
        "  1. name a tokenizer yourself:       bitnet infer --tokenizer FILE --model DIR/m.gguf --prompt TEXT
  2. online, put the files beside it: bitnet download NousResearch/Llama-2-7b-hf --to DIR
  3. online, let it be fetched:       bitnet infer --auto-download --model DIR/m.gguf --prompt TEXT"
    );
    assert!(
        text.contains("this run is offline (--offline, BITNET_OFFLINE, HF_HUB_OFFLINE); it would be tokenizer.json of")
    );
}

#[test]
fn the_chain_as_a_table() {
    let case = Case::new(&arch(CODELLAMA.0), CODELLAMA.1);
    let mut chain = case.discovery().chain(&settings(None, &case.cache()));
    chain.steps.iter_mut().zip(1..).for_each(|(step, micros)| step.micros = micros);
    let table = case.without_folder(&chain.to_string());
    let at = |n: usize| table.lines().nth(n).unwrap();
    assert_eq!(at(0), "step               outcome             us  why");
    assert_eq!(
        at(1),
        "embedded           absent               1  neither tokenizer.ggml.model nor tokenizer.ggml.tokens is there"
    );
    assert_eq!(at(3), format!("{:43}looked at DIR/", ""));
    assert_eq!(table.lines().count(), 1 + 6 + 4);
    assert_eq!(chain.model.as_deref(), Some(Path::new(&case.model)));
}
