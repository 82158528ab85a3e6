//! The program as its user meets it: exit codes, what goes to stdout and what to stderr, pipes, signals, environment.

use crate::support::*;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const PROMPT: &str = "In the beginning";

fn infer<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["infer", "--prompt", PROMPT, "--max-tokens", "12"][..], more].concat()
}

#[test]
fn results_on_stdout_the_rest_on_stderr() {
    let first = run(&infer(&["--seed", "1"])).ok();
    assert!(first.out.starts_with(PROMPT) && first.out.ends_with('\n') && first.out.len() > PROMPT.len() + 5);
    assert!(first.err.contains("[tiny-bitnet (embedded) on cpu-") && first.err.contains("seed 1"), "{}", first.err);
    assert!(!first.out.contains("tokens/s"), "{}", first.out);
    let again = run(&infer(&["--seed", "1"])).ok();
    assert_eq!(first.out, again.out, "a seed repeats its text");
    let others: Vec<String> = (2..6).map(|seed| run(&infer(&["--seed", &seed.to_string()])).ok().out).collect();
    assert!(others.iter().any(|other| *other != first.out), "other seeds give other texts");
    let added = run(&infer(&["--seed", "1", "--no-echo"])).ok();
    assert_eq!(format!("{PROMPT}{}", added.out), first.out);
    let file = run(&infer(&["--seed", "1", "--model", text(&tiny())])).ok();
    assert_eq!(file.out, first.out, "the file is the embedded model");
    for most in ["8", "auto"] {
        let guessed = run(&infer(&["--seed", "1", "--speculate", most])).ok();
        assert_eq!(guessed.out, first.out, "guessing ahead changes no text");
    }
}

#[test]
fn exit_codes_of_wrong_usage() {
    let conflicting = ["tokenize", "--text", "a", "--text-file", "b"];
    for args in [
        &[][..],
        &["--bogus"],
        &["dream"],
        &["infer", "--threads", "0"],
        &["infer", "--context", "0"],
        &["infer", "--speculate", "65"],
        &["infer", "--huge-pages", "perhaps"],
        &["infer", "--speculate=-1"],
        &["infer", "--stop-id=-1"],
        &["perplexity"],
        &["convert", "model.gguf", "--to", "f16"],
        &["convert", "model.gguf", "-o", "out.gguf"],
        &["completions", "cmd.exe"],
        &["download"],
        &["cache"],
        &["devices", "--format", "yaml"],
        &["infer", "--device", "bogus"],
        &["bench", "--device", "cpu-"],
        &["convert", "model.gguf", "--to", "f17", "-o", "out.gguf"],
        &["convert", "model.gguf", "--embedding", "q9_0", "-o", "out.gguf"],
        &conflicting,
    ] {
        let run = run(args).code(2);
        assert!(run.out.is_empty() && run.err.contains("--help"), "{args:?}: {}{}", run.out, run.err);
    }
    assert!(run(&["--version"]).ok().out.starts_with("bitnet "));
    run(&["bench", "-p", "0", "-n", "0"]).refused_with(&["nothing to measure"]);
}

/// Who asked for JSON gets JSON, whatever goes wrong, with the words of stderr.
#[test]
fn errors_are_documents_where_json_was_asked_for() {
    for (code, args) in [
        (1, &["inspect", "nowhere.gguf", "--format", "json"][..]),
        (1, &["infer", "--model", "nowhere.gguf", "--prompt", "a", "--format=json"]),
        (1, &["bench", "--model", "nowhere.gguf", "-o", "json"]),
        (1, &["bench", "--model", "nowhere.gguf", "-ojson"]),
        (2, &["infer", "--device", "bogus", "--format", "json"]),
        (2, &["devices", "--format", "json", "--bogus"]),
        (2, &["bench", "-p", "0", "-n", "0", "--output=json"]),
    ] {
        let run = run(args).code(code);
        let document = run.json();
        let error = document["error"].as_str().unwrap_or_else(|| panic!("{args:?}: {document}"));
        assert!(!error.is_empty() && run.err.contains(error) && !error.starts_with("error"), "{args:?}: {error}");
    }
    // A file of that name is not a format.
    let run = run(&["convert", "nowhere.gguf", "--to", "f16", "-o", "json"]).code(1);
    assert_eq!(run.out, "");
    assert!(run_with(b"", &["devices", "--format", "json", "--help"]).ok().out.contains("Usage"));
}

#[test]
fn bench_measures_what_was_asked() {
    let json = run(&["bench", "-p", "16", "-n", "4", "-t", "1,2", "-r", "2", "-o", "json"]).ok().out;
    let tests: Vec<serde_json::Value> = serde_json::from_str(&json).expect("one JSON document");
    let asked: Vec<_> = tests.iter().map(|t| ["n_threads", "n_prompt", "n_gen"].map(|key| t[key].as_u64())).collect();
    let expected = [[1, 16, 0], [1, 0, 4], [2, 16, 0], [2, 0, 4]];
    assert_eq!(asked, expected.map(|test| test.map(Some)));
    for test in &tests {
        let samples = test["samples_ts"].as_array().expect("samples");
        assert!(samples.len() == 2 && samples.iter().all(|s| s.as_f64() > Some(0.0)), "{test}");
        let mean = samples.iter().filter_map(serde_json::Value::as_f64).sum::<f64>() / 2.0;
        assert!((mean - test["avg_ts"].as_f64().expect("a mean")).abs() < 1e-6 * mean, "{test}");
    }
    let table = run(&["bench", "-p", "16", "-n", "0", "-t", "1", "-r", "1"]).ok().out;
    assert!(table.contains("| prompt 16 | 1 |") && !table.contains("generate"), "{table}");
    let table = run(&["bench", "-p", "0", "-n", "2", "-d", "0,40", "-t", "1", "-r", "1"]).ok().out;
    assert!(table.contains("| generate 2 | 1 |") && table.contains("| generate 2 at depth 40 | 1 |"), "{table}");
}

#[test]
fn every_command_has_help_with_examples() {
    let overview = run(&["--help"]).ok().out;
    for command in [
        "infer",
        "chat",
        "tokenize",
        "detokenize",
        "inspect",
        "perplexity",
        "bench",
        "convert",
        "download",
        "cache",
        "devices",
        "completions",
    ] {
        assert!(overview.contains(&format!("\n  {command} ")), "{command} is not in: {overview}");
        let help = run(&[command, "--help"]).ok().out;
        assert!(help.contains("Example") && help.contains(&format!("bitnet {command}")), "{help}");
    }
    assert!(overview.contains("Examples:"));
}

/// The tiny model with metadata of its own.
fn with_keys(folder: &Path, keys: &[&str]) -> std::path::PathBuf {
    let out = folder.join("with-keys.gguf");
    let tiny = tiny();
    let mut args = vec!["convert", text(&tiny), "-o", text(&out)];
    args.extend(keys.iter().flat_map(|key| ["--set", key]));
    run(&args).ok();
    out
}

#[test]
fn a_question_is_asked_in_the_models_own_template() {
    let dir = tempfile::tempdir().unwrap();
    let ask = |model: &Path, more: &[&str]| {
        let options = ["infer", "--model", text(model), "--prompt", PROMPT, "-n", "4", "--temperature", "0"];
        run(&[&options[..], &["--format", "json"], more].concat())
    };
    // Without a template the text is continued, which is said of a file and not of the embedded model.
    let tiny = tiny();
    let plain = ask(&tiny, &[]).ok();
    assert_eq!((&plain.json()["template"], &plain.json()["prompt"]), (&"raw".into(), &PROMPT.into()));
    assert_eq!(plain.err.matches("no_chat_template").count(), 1, "{}", plain.err);
    assert!(!ask(&tiny, &["--prompt-template", "raw"]).ok().err.contains("no_chat_template"));
    assert!(!run(&infer(&["--seed", "1"])).ok().err.contains("no_chat_template"));
    let asked = run(&infer(&["--prompt-template", "auto"])).ok();
    assert!(asked.err.contains("no_chat_template") && asked.out.starts_with(PROMPT), "{}", asked.err);

    let template = "tokenizer.chat_template=Q {{ messages[-1].content }} {{ strftime_now('%Y') }} A";
    let brief = "tokenizer.chat_template.brief={{ messages[0].role }}: {{ messages[-1].content }}";
    let model = with_keys(dir.path(), &[template, brief]);
    let env = [("BITNET_DETERMINISTIC", "1")];
    let options = ["infer", "--model", text(&model), "--prompt", PROMPT, "-n", "4"];
    let answer = run_env(&env, &[&options[..], &["--format", "json"]].concat()).ok();
    assert_eq!(answer.json()["prompt"], "Q In the beginning 2025 A");
    assert_eq!((&answer.json()["template"], answer.err.contains("warning")), (&"gguf".into(), false), "{}", answer.err);
    assert!(!run(&options).ok().out.contains(PROMPT), "an answer is shown without its question");
    let named = ask(&model, &["--prompt-template", "brief", "--system", "S"]).ok();
    assert_eq!(named.json()["prompt"], "system: In the beginning");
    ask(&model, &["--prompt-template", "long"]).fails_with(&["`long`", "llama3-chat, brief"]);

    let file = dir.path().join("mine.jinja");
    std::fs::write(&file, "<{{ messages[-1].content }}>").unwrap();
    assert_eq!(ask(&model, &["--chat-template-file", text(&file)]).ok().json()["prompt"], "<In the beginning>");
    std::fs::write(&file, "{{ raise_exception('no such thing') }}").unwrap();
    ask(&model, &["--chat-template-file", text(&file)]).fails_with(&["mine.jinja", "no such thing"]);
}

#[test]
fn the_placeholder_of_bitnet_2b_4t_is_replaced_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let placeholder = include_str!("../../../../golden/chat/templates/bitnet-placeholder.jinja").trim_end();
    let model = with_keys(dir.path(), &[&format!("tokenizer.chat_template={placeholder}")]);
    let ask = |model: &Path| {
        let options = ["infer", "--model", text(model), "--system", "Be brief.", "--prompt", " Why? ", "-n", "2"];
        run(&[&options[..], &["--temperature", "0", "--format", "json"]].concat()).ok()
    };
    let before = ask(&model);
    assert_eq!(before.json()["prompt"], "System: Be brief.<|eot_id|>User: Why?<|eot_id|>Assistant: ");
    assert_eq!(before.json()["template"], "bitnet-2b-4t");
    assert_eq!(before.err.matches("placeholder_template").count(), 1, "{}", before.err);
    assert!(before.err.contains("bitnet repair-tokenizer"), "{}", before.err);
    let repaired = dir.path().join("repaired.gguf");
    let repair = run(&["repair-tokenizer", text(&model), "-o", text(&repaired)]).ok();
    assert!(repair.out.contains("tokenizer.chat_template: ") && repair.out.contains("Assistant: "), "{}", repair.out);
    let after = ask(&repaired);
    assert!(!after.err.contains("warning"), "{}", after.err);
    assert_eq!(after.json()["template"], "gguf");
    assert_eq!(after.json()["prompt_tokens"], before.json()["prompt_tokens"]);
    // Nothing is left to repair, and nothing can be vouched for: the vocabulary is this project's own.
    run(&["repair-tokenizer", text(&repaired), "-o", text(&dir.path().join("again.gguf"))]).code(1);
    assert!(!dir.path().join("again.gguf").exists());
}

#[test]
fn control_tokens_of_a_prompt_and_stop_tokens() {
    let greedy = |more: &[&str]| {
        let options = ["infer", "--prompt", PROMPT, "-n", "12", "--temperature", "0", "--format", "json"];
        run(&[&options[..], more].concat())
    };
    let whole = greedy(&[]).ok().json();
    let fifth = whole["tokens"][4].to_string();
    let stopped = greedy(&["--stop-id", &fifth]).ok().json();
    let made = stopped["tokens"].as_array().unwrap();
    assert!(made.len() <= 5 && made.last() == Some(&whole["tokens"][4]), "{stopped}");
    assert_eq!(stopped["stop"], "stop_text");
    assert!(whole["text"].as_str().unwrap().starts_with(stopped["text"].as_str().unwrap()));
    greedy(&["--stop-id", "99999999"]).fails_with(&["--stop-id 99999999", "vocabulary"]);

    let ids = |more: &[&str]| {
        let options = ["infer", "--prompt", "And<|endoftext|>", "-n", "1", "--format", "json"];
        run(&[&options[..], more].concat()).ok().json()["prompt_tokens"].as_array().unwrap().clone()
    };
    assert_eq!(ids(&["--parse-special"]).last(), Some(&0.into()));
    assert!(ids(&[]).len() > ids(&["--parse-special"]).len() && ids(&[]).last() != Some(&0.into()));
}

#[test]
fn json_is_the_only_thing_on_stdout() {
    let model = tiny();
    let dir = tempfile::tempdir().unwrap();
    let book = dir.path().join("book.txt");
    std::fs::write(&book, "And the earth was without form, and void.").unwrap();

    let infer = run(&infer(&["--seed", "3", "--format", "json"])).ok().json();
    assert_eq!(infer["seed"], 3);
    assert_eq!(infer["tokens"].as_array().unwrap().len(), 12);
    assert_eq!(infer["stop"], "max_tokens");
    assert!(infer["text"].as_str().is_some_and(|t| !t.is_empty()) && infer["timings"]["decode_steps"] == 11);

    if cfg!(target_os = "linux") {
        let bytes = |what: &str| infer["memory"][what].as_u64().unwrap();
        assert!(bytes("peak_rss_bytes") >= bytes("rss_bytes") && bytes("rss_bytes") > 1 << 20, "{infer}");
        assert_eq!(bytes("copied_bytes"), 0);
    }
    let options = ["--seed", "3", "--format", "json", "--huge-pages", "on", "-v"];
    let copied = run(&[&["infer", "--prompt", PROMPT, "--max-tokens", "12"][..], &options].concat()).ok();
    assert!(copied.err.contains("MiB of weights were copied into huge pages"), "{}", copied.err);
    assert_eq!(copied.json()["tokens"], infer["tokens"]);
    assert!(copied.json()["memory"]["copied_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 16));

    let song = "holy, holy, holy, holy, holy, holy,";
    let options = ["infer", "--prompt", song, "--temperature", "0", "--speculate", "8", "--format", "json"];
    let guessed = run(&options).ok();
    let speculation = &guessed.json()["timings"]["speculation"];
    let count = |what: &str| speculation[what].as_u64().unwrap();
    assert!(count("drafted") >= count("accepted") && count("drafted") >= count("batches"), "{speculation}");
    assert!(count("batches") > 0 && guessed.err.contains("guessed tokens were right"), "{}", guessed.err);

    let tokens = run(&["tokenize", "--text", PROMPT, "--format", "json"]).ok().json();
    assert_eq!(tokens["ids"].as_array().unwrap().len(), tokens["pieces"].as_array().unwrap().len());
    let inspect = run(&["inspect", text(&model), "--tensors", "--format", "json"]).ok().json();
    assert_eq!(inspect["metadata"]["general.architecture"], "string \"bitnet-b1.58\"");
    assert_eq!(inspect["tensors"].as_array().unwrap().len(), 46);
    assert_eq!(inspect["run"]["ok"]["steps"], 76);
    let perplexity = run(&["perplexity", "--text-file", text(&book), "--format", "json"]).ok().json();
    let bits = perplexity["bits_per_character"].as_f64().unwrap();
    assert!((0.1..4.0).contains(&bits), "{perplexity}");
    let devices = run(&["devices", "--format", "json"]).ok().json();
    assert!(devices.as_array().unwrap().iter().any(|d| d["name"] == "cpu-scalar" && d["unavailable"].is_null()));
    for action in ["list", "verify", "evict", "clear", "path"] {
        let env = [("BITNET_TOKENIZER_CACHE", text(dir.path()))];
        assert!(run_env(&env, &["cache", action, "--format", "json"]).ok().json().is_object(), "{action}");
    }
}

#[test]
fn tokens_and_back_through_pipes() {
    let original = "In the beginning \u{2014} Gr\u{fc}\u{df}e, \u{4f60}\u{597d}!\n\tTabs  and two spaces";
    let ids = run_with(original.as_bytes(), &["tokenize", "--no-bos"]).ok();
    assert_eq!(ids.out.lines().count(), 1);
    assert!(ids.out.split_whitespace().all(|id| id.parse::<u32>().is_ok()), "{}", ids.out);
    assert_eq!(run_with(ids.out.as_bytes(), &["detokenize"]).ok().out, format!("{original}\n"));
    let json = format!("[{}]", ids.out.split_whitespace().collect::<Vec<_>>().join(", "));
    assert_eq!(run(&["detokenize", &json]).ok().out, format!("{original}\n"));

    let framed = run_with(original.as_bytes(), &["tokenize"]).ok().out;
    assert_eq!(framed.split_whitespace().count(), ids.out.split_whitespace().count() + 1, "with its first token");
    assert_eq!(run_with(framed.as_bytes(), &["detokenize", "--no-special"]).ok().out, format!("{original}\n"));
    let pieces = run_with(original.as_bytes(), &["tokenize", "--no-bos", "--format", "pieces"]).ok().out;
    assert_eq!(pieces.lines().count(), ids.out.split_whitespace().count());

    // Each line for itself, wherever.
    let lines = ["In the beginning", "", "it's 1984,  isn't it?", "\u{4f60}\u{597d}!"];
    let want: Vec<String> =
        lines.iter().map(|line| run_with(line.as_bytes(), &["tokenize", "--no-bos"]).ok().out).collect();
    let text = lines.join("\n");
    for device in ["auto", "cpu", "cuda-emu"] {
        let args = ["tokenize", "--no-bos", "--lines", "--device", device];
        let done = run_with(text.as_bytes(), &args);
        if device == "cuda-emu" && done.code == Some(1) {
            // Of the features of the build, which the whole workspace has, and of a C++ compiler.
            done.fails_with(&["device `cuda-emu` is not available: "]);
            continue;
        }
        let done = done.ok();
        assert_eq!(done.out, want.concat(), "{device}");
        assert_eq!(done.err.contains("4 texts on the device"), device == "cuda-emu", "{}", done.err);
        let json = run_with(text.as_bytes(), &[&args[..], &["--format", "json"]].concat()).ok().json();
        assert_eq!(json["ids"].as_array().map(Vec::len), Some(4));
    }
    run_with(b"a", &["tokenize", "--lines", "--format", "pieces"]).refused_with(&["--lines has no --format pieces"]);
    run_with(b"a", &["tokenize", "--lines", "--device", "gpu"]).refused_with(&["unknown device `gpu`"]);

    run(&["detokenize", "1", "two"]).fails_with(&["`two` is not a token id"]);
    run(&["detokenize", "999999"]).fails_with(&["token 999999", "2048"]);
    run_with(b"\xFF\xFE", &["tokenize"]).fails_with(&["stdin is not UTF-8"]);
}

#[test]
fn prompts_from_stdin_and_files() {
    let expected = run(&infer(&["--seed", "1"])).ok().out;
    let options = ["infer", "--max-tokens", "12", "--seed", "1"];
    assert_eq!(run_with(PROMPT.as_bytes(), &options).ok().out, expected);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prompt.txt");
    std::fs::write(&file, PROMPT).unwrap();
    assert_eq!(run(&[&options[..], &["--prompt-file", text(&file)]].concat()).ok().out, expected);
    assert_eq!(run_with(PROMPT.as_bytes(), &[&options[..], &["--prompt-file", "-"]].concat()).ok().out, expected);

    run(&["infer", "--prompt", ""]).fails_with(&["the prompt is empty"]);
    run(&options).fails_with(&["the prompt is empty"]);
    run(&["infer", "--prompt-file", "no/such/file"]).fails_with(&["no/such/file"]);
    let long = "word ".repeat(2000);
    run_with(long.as_bytes(), &["infer"]).fails_with(&["the prompt has", "--context", "room for 511"]);
    run(&["infer", "--prompt", "a", "--temperature=-1"]).fails_with(&["temperature", "-1"]);
    run(&["infer", "--prompt", "a", "--context", "4294967295"]).fails_with(&[
        "4294967295 tokens",
        "memory",
        "--context",
    ]);
    run(&["infer", "--prompt", "a", "--top-p", "2"]).fails_with(&["top_p", "2"]);
}

#[test]
fn models_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let whole = std::fs::read(tiny()).unwrap();
    std::fs::write(path("truncated.gguf"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(path("short.gguf"), &whole[..100]).unwrap();
    std::fs::write(path("empty.gguf"), b"").unwrap();
    std::fs::write(path("text.gguf"), "Dear reader, I am not a model at all.").unwrap();
    std::fs::create_dir(path("folder.gguf")).unwrap();
    for (name, word) in [
        ("missing.gguf", "missing.gguf"),
        ("folder.gguf", "directory"),
        ("truncated.gguf", "truncated"),
        ("short.gguf", "short.gguf"),
        ("empty.gguf", "empty"),
        ("text.gguf", "GGUF"),
    ] {
        let model = path(name);
        let model = text(&model);
        for args in [
            &["infer", "--model", model, "--prompt", "a"][..],
            &["tokenize", "--model", model, "--text", "a"],
            &["inspect", model],
            &["convert", model, "--to", "f16", "-o", "never.gguf"],
            &["convert", model, "--set", "general.name=x", "-o", "never.gguf"],
        ] {
            // A folder may be a checkpoint, which `convert` reads: what it lacks is said then.
            let word = if args[0] == "convert" && word == "directory" { "folder" } else { word };
            run(args).fails_with(&[name, word]);
        }
    }
    let folder = path("folder.gguf");
    run(&["convert", text(&folder), "--to", "f16", "-o", "never.gguf"]).fails_with(&["config.json"]);
    assert!(!Path::new("never.gguf").exists());
}

#[cfg(unix)]
#[test]
fn a_file_without_permission() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("secret.gguf");
    std::fs::copy(tiny(), &model).unwrap();
    std::fs::set_permissions(&model, std::fs::Permissions::from_mode(0o000)).unwrap();
    let result = run(&["inspect", text(&model)]);
    // Root may read everything; then the program may too.
    if std::fs::read(&model).is_ok() {
        result.ok();
    } else {
        result.fails_with(&["secret.gguf", "permission"]);
    }
}

#[test]
fn devices_by_name() {
    run(&infer(&["--device", "nonsense"])).refused_with(&["`nonsense`", "auto", "cpu-scalar", "cpu-avx2"]);
    let listed = run(&["devices"]).ok().out;
    assert!(listed.contains("cpu-scalar") && listed.contains("chosen by auto"), "{listed}");
    let scalar = run(&infer(&["--seed", "1", "--device", "cpu-scalar", "--threads", "2"])).ok();
    assert!(scalar.err.contains("on cpu-scalar, 2 threads"), "{}", scalar.err);
    assert_eq!(scalar.out, run(&infer(&["--seed", "1"])).ok().out, "another device, the same text");
}

#[test]
fn the_environment() {
    let said = |env: &[(&str, &str)], more: &[&str]| run_env(env, &infer(more)).ok();
    let seeded = said(&[("BITNET_SEED", "7")], &[]);
    assert!(seeded.err.contains("seed 7"), "{}", seeded.err);
    assert_eq!(seeded.out, said(&[], &["--seed", "7"]).out);
    assert!(said(&[("BITNET_SEED", "7")], &["--seed", "8"]).err.contains("seed 8"), "the argument wins");
    let pinned = said(&[("BITNET_DETERMINISTIC", "1")], &[]);
    assert!(pinned.err.contains("seed 0"), "{}", pinned.err);
    assert_eq!(pinned.out, said(&[("BITNET_DETERMINISTIC", "true")], &[]).out);
    assert!(said(&[("BITNET_DEVICE", "cpu-scalar")], &[]).err.contains("on cpu-scalar"));
    assert!(said(&[("BITNET_THREADS", "1")], &[]).err.contains(" 1 thread,"));
    let model = tiny();
    let named = said(&[("BITNET_GGUF", text(&model)), ("BITNET_SEED", "7")], &[]);
    assert!(named.err.contains("tiny-bitnet.gguf on"), "{}", named.err);
    assert_eq!(named.out, seeded.out);

    run_env(&[("BITNET_GGUF", "/no/such.gguf")], &infer(&[])).fails_with(&["/no/such.gguf"]);
    run_env(&[("BITNET_SEED", "seven")], &infer(&[])).fails_with(&["BITNET_SEED", "`seven`"]);
    run_env(&[("BITNET_THREADS", "0")], &infer(&[])).fails_with(&["BITNET_THREADS", "`0`"]);
    run_env(&[("BITNET_DEVICE", "abacus")], &infer(&[])).fails_with(&["`abacus`", "cpu-scalar"]);
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]).ok().out;
        for word in ["bitnet", "infer", "prompt-template", "download"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
}

/// More tokens than anybody waits for.
const ENDLESS: &[&str] =
    &["infer", "--prompt", PROMPT, "--max-tokens", "1000000", "--context", "1000100", "--ignore-eos", "--seed", "1"];

#[test]
fn a_reader_that_has_enough() {
    for args in [ENDLESS, &["inspect", "--tensors"], &["completions", "bash"], &["tokenize", "--text", PROMPT]] {
        let mut child = bitnet(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0];
        if args == ENDLESS {
            child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        }
        drop(child.stdout.take());
        let started = Instant::now();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {err}");
        assert!(!err.contains("panicked") && !err.contains("error"), "{args:?}: {err}");
        assert!(started.elapsed() < Duration::from_secs(30), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn interrupted_by_the_user() {
    for format in ["text", "json"] {
        let mut child = bitnet(&[ENDLESS, &["--format", format]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut first = vec![0; if format == "text" { PROMPT.len() + 20 } else { 0 }];
        stdout.read_exact(&mut first).unwrap();
        wait_for_handler(child.id());
        interrupt(child.id());
        stdout.read_to_end(&mut first).unwrap();
        let out = String::from_utf8(first).unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{err}");
        assert!(err.contains("| cancelled]") && err.contains("tokens/s"), "{err}");
        assert!(!err.contains("panicked"), "{err}");
        if format == "text" {
            assert!(out.starts_with(PROMPT) && out.ends_with('\n'), "what was made is there");
        } else {
            let report: serde_json::Value = serde_json::from_str(&out).unwrap();
            assert_eq!(report["stop"], "cancelled");
        }
    }
}

#[test]
fn texts_without_anything_to_predict() {
    for (input, words) in [(&b""[..], &["0 tokens"][..]), (b"\xFF", &["not UTF-8"])] {
        run_with(input, &["perplexity", "--text-file", "-"]).fails_with(words);
    }
    run_with(b"a text", &["perplexity", "--text-file", "-", "--context", "1"]).fails_with(&["two tokens", "--context"]);
    run(&["perplexity", "--text-file", "no/such.txt"]).fails_with(&["no/such.txt"]);
}

#[test]
fn an_error_of_a_model_names_its_file_once() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("broken.gguf");
    let whole = std::fs::read(tiny()).unwrap();
    std::fs::write(&model, &whole[..whole.len() / 2]).unwrap();
    for command in [&["infer", "--prompt", "a"][..], &["tokenize", "--text", "a"], &["discover"], &["chat"]] {
        let named = if command[0] == "discover" { vec![text(&model)] } else { vec!["--model", text(&model)] };
        let run = run(&[command, &named].concat()).fails_with(&["broken.gguf"]);
        assert_eq!(run.err.matches("broken.gguf").count(), 1, "{}", run.err);
    }
}

/// Nobody reads stderr, or it cannot be written: commands do what they do, and end as they end.
#[cfg(target_os = "linux")]
#[test]
fn stderr_that_cannot_be_written_changes_nothing() {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let with = |args: &[&str]| finish(bitnet(args).stderr(full()));
    let infer = ["infer", "--prompt", "In the beginning", "-n", "4", "--seed", "1", "-vv"];
    assert_eq!(with(&infer).ok().out, run(&infer).ok().out);
    with(&["infer", "--model", "no-such-file.gguf", "--prompt", "a"]).code(1);
}
