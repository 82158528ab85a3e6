//! `bitnet discover`, `bitnet repair-tokenizer` and the tokenizer flags of the other commands: a model with a tokenizer,
//! one without `pre`, one with files beside it, one that needs a download, one with the wrong vocabulary.

use crate::models::*;
use crate::support::{Run, finish, text};
use bitnet_mock_hub::{MockHub, Repo, Storage};
use std::path::Path;

/// Runs with caches and home in `dir`, and the hub, or none.
fn at(dir: &Path, hub: Option<&MockHub>, env: &[(&str, &str)], args: &[&str]) -> Run {
    finish(&mut crate::support::at(hub.map_or("http://127.0.0.1:9", MockHub::endpoint), dir, env, args))
}

fn discover(dir: &Path, hub: Option<&MockHub>, args: &[&str]) -> (Option<i32>, serde_json::Value) {
    let run = at(dir, hub, &[], &[&["discover", "--format", "json"], args].concat());
    assert!(!run.err.contains("panicked"), "{}", run.err);
    (run.code, run.json())
}

fn outcomes(report: &serde_json::Value) -> Vec<String> {
    let steps = report["steps"].as_array().unwrap();
    steps.iter().map(|s| format!("{} {}", s["step"].as_str().unwrap(), s["outcome"].as_str().unwrap())).collect()
}

#[test]
fn an_embedded_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = crate::support::tiny();
    let run = at(dir.path(), None, &[], &["discover", text(&tiny)]).ok();
    for word in [
        "embedded",
        "won",
        "not-needed",
        "embedded wins: embedded in the GGUF",
        "looked at tokenizer.ggml.tokens",
        " ms",
    ] {
        assert!(run.out.contains(word), "no `{word}` in {}", run.out);
    }
    assert!(at(dir.path(), None, &[], &["discover"]).ok().out.contains("tiny-bitnet (embedded)"));
    let (code, report) = discover(dir.path(), None, &[text(&tiny)]);
    assert_eq!((code, report["winner"].as_str(), report["usable"].as_bool()), (Some(0), Some("embedded"), Some(true)));
    assert!(report["built"].is_null());
    assert_eq!(outcomes(&report)[0], "embedded won");
    assert!(outcomes(&report)[1..].iter().all(|o| o.ends_with(" not-needed")), "{report}");
    let (_, built) = discover(dir.path(), None, &[text(&tiny), "--build"]);
    assert_eq!(built["built"]["vocab_size"], built["vocab_size"]);
    assert_eq!(built["winner"], "embedded");
    let table = at(dir.path(), None, &[], &["discover", "--format", "table"]).ok();
    assert!(table.out.starts_with("tiny-bitnet"));
}

#[test]
fn one_without_pre() {
    let dir = tempfile::tempdir().unwrap();
    let mut keys = arch("llama");
    keys.extend(bpe_keys(700, None));
    let model = write(dir.path(), "model.gguf", gguf(&keys, Some(700)));
    let (code, report) = discover(dir.path(), None, &[text(&model), "--build"]);
    assert_eq!((code, report["winner"].as_str()), (Some(0), Some("embedded")));
    assert!(report["steps"][0]["why"].as_str().unwrap().contains("a guess"), "{report}");
    assert!(report["diagnostics"].as_array().unwrap().iter().any(|d| d["code"] == "pre_unknown"), "{report}");
    let tokenize = ["tokenize", "--model", text(&model), "--text", "hello", "--no-bos"];
    let run = at(dir.path(), None, &[], &tokenize).ok();
    assert_eq!(run.out, "259\n");
    assert!(run.err.contains("warning[pre_unknown]"), "{}", run.err);
    // Strict mode, by flag or by environment.
    for (env, flag) in [(&[][..], &["--strict"][..]), (&[("BITNET_STRICT_TOKENIZERS", "1")][..], &[][..])] {
        let run = at(dir.path(), None, env, &[&tokenize[..], flag].concat());
        run.fails_with(&["strict mode", "tokenizer.ggml.pre", "Three ways out"]);
    }
    let (code, report) = discover(dir.path(), None, &[text(&model), "--strict"]);
    assert_eq!((code, outcomes(&report)[0].as_str()), (Some(1), "embedded rejected"));
    // Nothing is known of this vocabulary.
    let out = dir.path().join("out.gguf");
    let run = at(dir.path(), None, &[], &["repair-tokenizer", text(&model), "-o", text(&out)]).code(1);
    assert!(run.err.contains("not a known one") && !out.exists(), "{}", run.err);
}

#[test]
fn files_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), "model.gguf", gguf(&arch("llama"), Some(700)));
    let tokenize = ["tokenize", "--model", text(&model), "--text", HELLO];
    write(dir.path(), "merges.txt", merges_txt());
    let (code, report) = discover(dir.path(), None, &[text(&model)]);
    assert_eq!(code, Some(1));
    assert_eq!(outcomes(&report)[..2], ["embedded absent", "beside rejected"]);
    assert!(report["steps"][1]["why"].as_str().unwrap().contains("not a tokenizer"));
    assert!(report["ways_out"]["named"].as_str().unwrap().contains("--tokenizer FILE"));
    at(dir.path(), None, &[], &tokenize).fails_with(&["no usable tokenizer", "merges.txt", "not a tokenizer"]);

    write(dir.path(), "vocab.json", vocab_json(700).to_string());
    let (code, report) = discover(dir.path(), None, &[text(&model)]);
    assert_eq!((code, report["winner"].as_str()), (Some(0), Some("beside")));
    assert_eq!(at(dir.path(), None, &[], &tokenize).ok().out, "259 32 259\n");
    let back = at(dir.path(), None, &[], &["detokenize", "--model", text(&model), "259", "32", "259"]).ok();
    assert_eq!(back.out, "hello hello\n");
    // One that is named counts more.
    let named = write(dir.path(), "elsewhere/t.json", tokenizer_json(690));
    let (_, report) = discover(dir.path(), None, &[text(&model), "--tokenizer", text(&named)]);
    assert_eq!(report["strategy"]["kind"], "exact");
    at(dir.path(), None, &[], &[&tokenize[..], &["--tokenizer", "/nowhere"]].concat())
        .fails_with(&["/nowhere does not exist"]);
}

#[test]
fn files_beside_it_in_its_repository() {
    let repo = Repo::new("org/bare")
        .file("sub/bare-f16.gguf", gguf(&arch("llama"), Some(700)), Storage::Lfs)
        .file("sub/vocab.json", vocab_json(700).to_string(), Storage::Git)
        .file("sub/merges.txt", merges_txt(), Storage::Git)
        .file("tokenizer.json", "of another model", Storage::Git);
    let (hub, dir) = (MockHub::builder().repo(repo).start().unwrap(), tempfile::tempdir().unwrap());
    let tokenize = ["tokenize", "--model", "hf:org/bare", "--text", HELLO];
    let got = at(dir.path(), Some(&hub), &[], &[&tokenize[..], &["--auto-download"]].concat()).ok();
    assert_eq!(got.out, "259 32 259\n");
    hub.log().clear();
    assert_eq!(at(dir.path(), Some(&hub), &[("BITNET_OFFLINE", "1")], &tokenize).ok().out, got.out);
    let (code, report) = discover(dir.path(), Some(&hub), &["hf:org/bare"]);
    assert_eq!((code, report["winner"].as_str()), (Some(0), Some("beside")), "{report}");
    assert!(hub.log().is_empty(), "{:?}", hub.log().entries());
}

#[test]
fn a_wrong_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), "model.gguf", bare(CODELLAMA));
    write(dir.path(), "tokenizer.json", tokenizer_json(700));
    let run = at(dir.path(), None, &[], &["discover", text(&model)]).code(1);
    assert!(run.out.contains("the tokenizer has 700 tokens and the model 32016 (as CodeLlama)"), "{}", run.out);
    assert!(run.out.contains("nothing usable"), "{}", run.out);
    for way in
        ["bitnet infer --auto-download --model", "bitnet download codellama/CodeLlama-7b-hf --to", "--tokenizer FILE"]
    {
        assert!(run.err.contains(way), "no `{way}` in {}", run.err);
    }
    // The embedding of another model: its own tokenizer has more tokens than there are rows.
    let mut keys = arch("llama");
    keys.extend(spm_keys(700));
    let model = write(dir.path(), "mixed.gguf", gguf(&keys, Some(600)));
    let (code, report) = discover(dir.path(), None, &[text(&model)]);
    assert_eq!((code, outcomes(&report)[0].as_str()), (Some(1), "embedded rejected"));
    assert_eq!(report["disagreements"][0]["harmful"], true);
}

#[test]
fn one_that_needs_a_download() {
    let (hub, dir) = (hub(CODELLAMA.2, CODELLAMA.1), tempfile::tempdir().unwrap());
    let model = write(dir.path(), "model.gguf", bare(CODELLAMA));
    let (code, report) = discover(dir.path(), Some(&hub), &[text(&model)]);
    assert_eq!((code, report["usable"].as_bool()), (Some(1), Some(false)));
    assert_eq!(report["needs_download"]["repo"], CODELLAMA.2);
    assert_eq!(report["family"]["family"], "codellama");
    assert_eq!(outcomes(&report)[4], "download not-allowed");
    let tokenize = ["tokenize", "--model", text(&model), "--text", HELLO];
    at(dir.path(), Some(&hub), &[], &tokenize).fails_with(&[
        "no usable tokenizer",
        "1. let it be fetched",
        "--auto-download",
    ]);
    let offline = [&tokenize[..], &["--auto-download", "--offline"]].concat();
    at(dir.path(), Some(&hub), &[], &offline).fails_with(&["offline"]);
    assert_eq!(hub.log().len(), 0, "{:?}", hub.log().entries());

    let (code, report) = discover(dir.path(), Some(&hub), &[text(&model), "--auto-download"]);
    assert_eq!((code, report["winner"].as_str()), (Some(0), Some("download")), "{report}");
    assert_eq!(report["built"]["vocab_size"], CODELLAMA.1);
    assert_eq!(hub.log().requests("GET", "/tokenizer.json"), 1);
    hub.log().clear();
    for env in [&[][..], &[("BITNET_OFFLINE", "1")][..], &[("HF_HUB_OFFLINE", "1")][..]] {
        assert_eq!(at(dir.path(), Some(&hub), env, &tokenize).ok().out, "259 32 259\n");
    }
    let (_, report) = discover(dir.path(), Some(&hub), &[text(&model)]);
    assert_eq!(report["winner"], "cache");
    assert!(hub.log().is_empty(), "{:?}", hub.log().entries());
}

/// A model that really runs, but has no tokenizer: an error with the ways out, then a download, then the cache.
#[test]
fn infer_fetches_what_is_missing_only_if_told_to() {
    const REPO: &str = "NousResearch/Llama-2-7b-hf";
    let (hub, dir) = (hub(REPO, 32_000), tempfile::tempdir().unwrap());
    let mut model = crate::small::Small::new();
    // bitnet with 32,000 tokens is LLaMA-2's vocabulary, and nobody else's.
    for (key, _) in &mut model.keys {
        *key = key.replace("bitnet-b1.58.", "bitnet.");
    }
    model.set("general.architecture", "bitnet");
    model.set("bitnet.vocab_size", 32_000u32);
    model.keys.retain(|(key, _)| !key.starts_with("tokenizer."));
    model.put(
        "token_embd.weight",
        &[crate::small::HIDDEN as u64, 32_000],
        1,
        vec![0u8; 2 * crate::small::HIDDEN * 32_000],
    );
    let path = write(dir.path(), "bare.gguf", model.bytes());
    let infer =
        ["infer", "--model", text(&path), "--prompt", "hello", "-n", "2", "--temperature", "0", "--format", "json"];
    let run = at(dir.path(), Some(&hub), &[], &infer);
    run.fails_with(&[
        "no usable tokenizer",
        "bitnet infer --auto-download",
        &format!("bitnet download {REPO} --to"),
        "--tokenizer FILE",
    ]);
    assert_eq!(hub.log().len(), 0);
    let report = at(dir.path(), Some(&hub), &[], &[&infer[..], &["--auto-download"]].concat()).ok().json();
    assert_eq!(report["prompt_tokens"], serde_json::json!([259]));
    assert!(report["tokenizer"].as_str().unwrap().contains(REPO), "{report}");
    hub.log().clear();
    let report = at(dir.path(), Some(&hub), &[], &[&infer[..], &["--offline", "--strict"]].concat()).ok().json();
    assert!(report["tokenizer"].as_str().unwrap().starts_with("cached: "), "{report}");
    assert_eq!(hub.log().len(), 0);
    let book = write(dir.path(), "book.txt", "hello hello hello");
    let perplexity = ["perplexity", "--model", text(&path), "--text-file", text(&book), "--offline"];
    assert!(at(dir.path(), Some(&hub), &[], &perplexity).ok().out.contains("perplexity"));
}

#[test]
fn a_mock_must_be_asked_for_and_is_loud() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), "model.gguf", gguf(&arch("llama"), Some(700)));
    let tokenize = ["tokenize", "--model", text(&model), "--text", "ab", "--allow-mock-tokenizer"];
    let run = at(dir.path(), None, &[], &tokenize).ok();
    assert_eq!(run.out, "97 98\n");
    assert!(run.err.contains("MOCK TOKENIZER"), "{}", run.err);
    at(dir.path(), None, &[], &[&tokenize[..], &["--strict"]].concat()).fails_with(&["strict"]);
    at(dir.path(), None, &[("BITNET_STRICT_TOKENIZERS", "yes")], &tokenize).fails_with(&["strict"]);
}

#[test]
fn repair_never_touches_the_input() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), "model.gguf", bare(CODELLAMA));
    let before = std::fs::read(&model).unwrap();
    let same = dir.path().join("./model.gguf");
    let run = at(dir.path(), None, &[], &["repair-tokenizer", text(&model), "-o", text(&same)]);
    run.fails_with(&["never overwritten"]);
    let out = dir.path().join("out.gguf");
    let run =
        at(dir.path(), None, &[], &["repair-tokenizer", text(&model), "-o", text(&out), "--format", "json"]).code(1);
    assert!(run.json()["output"].is_null() && run.json()["repairs"].as_array().unwrap().is_empty());
    assert!(run.err.contains("no vocabulary to repair") && !out.exists());
    assert_eq!(std::fs::read(&model).unwrap(), before);
    at(dir.path(), None, &[], &["repair-tokenizer", "/nowhere", "-o", text(&out)]).fails_with(&["/nowhere"]);
}

#[test]
fn repair_writes_what_the_vocabulary_vouches_for() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), "model.gguf", gguf(&gpt2_keys(), Some(50_257)));
    let tokenize =
        |path: &Path| at(dir.path(), None, &[], &["tokenize", "--model", text(path), "--text", "Hello world!"]).ok();
    let before = tokenize(&model);
    assert_eq!(before.out, "15496 995 0\n");
    assert!(
        before.err.contains("pre_from_fingerprint") && before.err.contains("bitnet repair-tokenizer"),
        "{}",
        before.err
    );
    let run = at(dir.path(), None, &[], &["discover", text(&model)]).ok();
    assert!(run.out.contains("family gpt-2 (GPT-2), by tokens"), "{}", run.out);
    assert!(run.out.contains("tokenizer.ggml.pre is missing, but the vocabulary is that of GPT-2"), "{}", run.out);

    let (bytes, out) = (std::fs::read(&model).unwrap(), dir.path().join("repaired.gguf"));
    let repair = ["repair-tokenizer", text(&model), "-o", text(&out)];
    let run = at(dir.path(), None, &[], &repair).ok();
    assert!(run.out.starts_with("tokenizer.ggml.pre: absent -> gpt-2 (the vocabulary is that of GPT-2"), "{}", run.out);
    assert_eq!(std::fs::read(&model).unwrap(), bytes);
    let after = tokenize(&out);
    assert_eq!((after.out.as_str(), after.err.as_str()), ("15496 995 0\n", ""));
    let again = dir.path().join("again.gguf");
    let run = at(dir.path(), None, &[], &["repair-tokenizer", text(&out), "-o", text(&again)]).ok();
    assert!(run.err.contains("nothing to repair (its keys are those of GPT-2)") && !again.exists(), "{}", run.err);
}
