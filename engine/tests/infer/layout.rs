//! The layout of I2_S tensors that nothing tells: found by the prompt, for nothing, or by a built-in text; remembered.

use crate::model_support::*;
use bitnet_engine::convert::{ConvertOptions, convert_to_vec};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::inference::{GenerateOptions, Session, SessionOptions, extend, generate};
use bitnet_engine::load::{LAYOUT_KEY, LayoutReport, LoadOptions, Loaded, load_with};
use bitnet_engine::tokenizer::EncodeOptions;
use sha2::Digest;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const TEXT: &str =
    "God said, \"Let there be light,\" and there was light. God saw the light, and saw that it was good.";

fn ids(text: &str) -> Vec<u32> {
    tiny().tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: false }).unwrap()
}

/// The tiny model in a layout, without the key that says which.
fn untold(layout: &str) -> Vec<u8> {
    let options = ConvertOptions { linear: format(layout), embedding: None };
    let bytes = convert_to_vec(&tiny().model, &options).unwrap();
    with_keys(&GgufFile::from_vec(bytes).unwrap(), |key| key != LAYOUT_KEY)
}

fn open(file: GgufFile, layouts: Option<&Path>, by_prompt: bool) -> Loaded {
    load_with(file, LoadOptions { layouts, by_prompt, ..LoadOptions::default() }, kernels(), &pool(2)).unwrap()
}

fn new_session(loaded: &Loaded, chunk: usize) -> Session {
    let options = SessionOptions { context: Some(256), chunk, ..SessionOptions::new(kernels(), pool(2)) };
    Session::new(Arc::clone(&loaded.model), options).unwrap()
}

fn greedy() -> GenerateOptions {
    GenerateOptions { max_tokens: Some(12), ..GenerateOptions::default() }
}

/// What the model says in the layout that its file records.
fn expected(ids: &[u32]) -> Vec<u32> {
    let mut session = session(&tiny().model, Some(256), 64);
    generate(&mut session, &*tiny().tokenizer, ids, &greedy(), &AtomicBool::new(false), &mut |_| {}).unwrap().tokens
}

/// Settles the layout by a prompt and goes on; the report, and how many tokens the session that said it computed.
fn answered(loaded: &mut Loaded, ids: &[u32], chunk: usize) -> (LayoutReport, u64) {
    let before = loaded.diagnostics.len();
    let session = new_session(loaded, chunk);
    let mut settled = loaded.settle(session, ids).unwrap();
    let none = AtomicBool::new(false);
    let mut made = extend(&mut settled.session, &*loaded.tokenizer, ids, &greedy(), &none, &mut |_| {}).unwrap();
    assert_eq!(made.tokens, expected(ids));
    settled.count(&mut made.timings);
    assert_eq!(made.timings.prompt_tokens, ids.len(), "counted once, wherever it was computed");
    assert_eq!(loaded.diagnostics[before..].iter().filter(|d| d.code == "i2s_layout").count(), 1);
    (loaded.layout.clone().unwrap(), settled.session.computed())
}

#[test]
fn the_prompt_tells_and_costs_no_token() {
    let bytes = untold("i2_s");
    let ids = ids(TEXT);
    // In one chunk, and with a prompt that goes on after the first.
    for chunk in [128, ids.len(), 16] {
        let mut loaded = open(GgufFile::from_vec(bytes.clone()).unwrap(), None, true);
        assert!(!loaded.layout.as_ref().unwrap().decided);
        let (report, computed) = answered(&mut loaded, &ids, chunk);
        assert_eq!((report.layout, report.decided), ("x86", true), "{report:?}");
        assert!(report.why.contains("tokens of the prompt have"), "{report:?}");
        assert_eq!(computed as usize, ids.len() + 11, "the prompt once, and a token for each step");
        // It is settled: nothing is found out a second time.
        let again = loaded.settle(new_session(&loaded, chunk), &ids).unwrap();
        assert_eq!((again.tokens, again.session.position()), (0, 0));
    }
    // A short prompt, or one that makes no sense, is not evidence; then a built-in text is.
    for text in ["And", "zq zq zq zq zq zq zq zq", "%%% ((( 77 ;; ]]"] {
        let mut loaded = open(GgufFile::from_vec(bytes.clone()).unwrap(), None, true);
        let (report, computed) = answered(&mut loaded, &self::ids(text), 64);
        assert_eq!((report.layout, report.decided), ("x86", true), "{report:?}");
        assert!(report.why.starts_with("a probe text has"), "{text}: {report:?}");
        assert_eq!(computed as usize, self::ids(text).len() + 11, "the session goes on");
    }
}

#[test]
fn a_prompt_in_the_wrong_layout_is_no_evidence() {
    for layout in ["i2_s-arm", "i2_s-rows4"] {
        let bytes = if layout == "i2_s-arm" { untold(layout) } else { rows4() };
        for text in [TEXT, "And the sons of Levi, by their names, were these: and he said to them, Go now."] {
            let mut loaded = open(GgufFile::from_vec(bytes.clone()).unwrap(), None, true);
            let (report, _) = answered(&mut loaded, &ids(text), 64);
            assert_eq!((report.layout, report.decided), (layout.trim_start_matches("i2_s-"), true), "{report:?}");
            assert!(report.why.starts_with("a probe text has"), "{report:?}");
        }
    }
    // A prompt that does not fit is refused where it always was.
    let mut loaded = open(GgufFile::from_vec(untold("i2_s")).unwrap(), None, true);
    let session = new_session(&loaded, 64);
    let settled = loaded.settle(session, &[5; 300]).unwrap();
    assert_eq!((settled.tokens, loaded.layout.unwrap().decided), (0, false));
}

fn rows4() -> Vec<u8> {
    let to = bitnet_kernels::quant::Storage::by_name("i2_s-rows4").unwrap();
    let bytes = bitnet_engine::convert::convert_stored_to_vec(&tiny().model, to, None).unwrap();
    with_keys(&GgufFile::from_vec(bytes).unwrap(), |key| key != LAYOUT_KEY)
}

/// A folder with a model and the memory of layouts.
struct Kept {
    dir: tempfile::TempDir,
    model: PathBuf,
}

impl Kept {
    fn new(bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model.gguf");
        std::fs::write(&model, bytes).unwrap();
        Self { dir, model }
    }

    fn layouts(&self) -> PathBuf {
        self.dir.path().join("layouts")
    }

    fn load(&self, by_prompt: bool) -> Loaded {
        open(GgufFile::open(&self.model).unwrap(), Some(&self.layouts()), by_prompt)
    }

    fn report(&self) -> LayoutReport {
        self.load(false).layout.unwrap()
    }

    fn entry(&self) -> PathBuf {
        let mut all: Vec<_> = std::fs::read_dir(self.layouts()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(all.len(), 1, "one entry and nothing beside it");
        all.remove(0)
    }
}

#[test]
fn what_was_found_out_is_remembered_for_that_file() {
    for layout in ["i2_s", "i2_s-arm"] {
        let kept = Kept::new(&untold(layout));
        let name = if layout == "i2_s" { "x86" } else { "arm" };
        let first = kept.report();
        assert_eq!((first.layout, first.why.contains("(remembered)")), (name, false), "{first:?}");
        for by_prompt in [false, true] {
            let mut loaded = kept.load(by_prompt);
            let report = loaded.layout.clone().unwrap();
            assert_eq!((report.layout, report.decided), (name, true));
            assert_eq!(report.why, format!("{} (remembered)", first.why));
            assert!(loaded.diagnostics.iter().any(|d| d.message.contains("(remembered)")));
            assert!(logits_bits(&mut session(&loaded.model, None, 16), &ids(TEXT)) == expected_bits(), "{layout}");
            let session = new_session(&loaded, 16);
            assert_eq!(loaded.settle(session, &ids(TEXT)).unwrap().tokens, 0, "nothing is left to settle");
        }
        if name == "x86" {
            // What follows matters most where the usual layout would be wrong.
            continue;
        }
        let remembered = |what: &str| {
            let report = kept.report();
            assert_eq!((report.layout, report.decided), (name, true), "{what}");
            report.why.contains("(remembered)")
        };
        // Damaged entries, those of another version, and those of other files are as good as none, and are replaced.
        let good = std::fs::read_to_string(kept.entry()).unwrap();
        let sealed = |text: &str| {
            let (text, _) = text.rsplit_once("\nsha256 ").unwrap();
            format!("{text}\nsha256 {}\n", hex::encode(sha2::Sha256::digest(text)))
        };
        assert_eq!(sealed(&good), good);
        let other = good.replace(&format!("\"{name}\""), "\"x86\"");
        for (what, text) in [
            ("empty", String::new()),
            ("cut off", good[..good.len() / 2].to_owned()),
            ("no JSON", "layout: arm".to_owned()),
            ("another version", sealed(&good.replace("\"version\": 2", "\"version\": 1"))),
            ("another layout", other),
            ("no such layout", sealed(&good.replace(&format!("\"{name}\""), "\"z80\""))),
            ("another length", sealed(&good.replace("\"bytes\": ", "\"bytes\": 1"))),
            ("another sample", sealed(&good.replace("\"sample\": \"", "\"sample\": \"0"))),
            ("another path", sealed(&good.replace("model.gguf", "other.gguf").replace(name, "x86"))),
        ] {
            assert_ne!(text, good, "{what}");
            std::fs::write(kept.entry(), text).unwrap();
            assert!(!remembered(what), "{what}");
            assert!(remembered(what), "{what}: rebuilt");
            assert_eq!(std::fs::read_to_string(kept.entry()).unwrap(), good, "{what}");
        }
        // What is not a regular file is not opened: a named pipe would wait for its writer.
        #[cfg(unix)]
        {
            let pipe = kept.entry();
            std::fs::remove_file(&pipe).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            assert!(!remembered("a pipe") && remembered("a pipe: rebuilt"));
        }
        // Another time of change, or other bytes with the same time and length.
        let changed = std::fs::metadata(&kept.model).unwrap().modified().unwrap();
        let set = |time| std::fs::File::options().append(true).open(&kept.model).unwrap().set_modified(time).unwrap();
        set(changed + std::time::Duration::from_secs(1));
        assert!(!remembered("touched"));
        let mut bytes = std::fs::read(&kept.model).unwrap();
        let time = std::fs::metadata(&kept.model).unwrap().modified().unwrap();
        // The reserved bytes behind the last scale, or the last norm weight: whatever it is, the sample holds the end.
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&kept.model, bytes).unwrap();
        set(time);
        assert!(!remembered("rewritten"));
    }
    // By a prompt too.
    let kept = Kept::new(&untold("i2_s"));
    let mut loaded = kept.load(true);
    answered(&mut loaded, &ids(TEXT), 64);
    assert!(kept.report().why.contains("tokens of the prompt have"));
    // Where nothing can be kept, it is found out each time.
    std::fs::remove_dir_all(kept.layouts()).unwrap();
    std::fs::write(kept.layouts(), "a file").unwrap();
    assert!(!kept.report().why.contains("(remembered)") && !kept.report().why.contains("(remembered)"));
}

fn expected_bits() -> Vec<Vec<u32>> {
    logits_bits(&mut session(&tiny().model, None, 16), &ids(TEXT))
}

#[test]
fn that_nothing_tells_is_remembered_for_that_tokenizer() {
    // Noise in every layout.
    let mut small = Small::new();
    small.remove(LAYOUT_KEY);
    let kept = Kept::new(&small.bytes());
    let first = kept.report();
    assert!(!first.decided && !first.why.contains("(remembered)"), "{first:?}");
    let second = kept.load(true);
    assert_eq!(second.layout.unwrap().why, format!("{} (remembered)", first.why));
    assert!(second.diagnostics.iter().any(|d| d.code == "i2s_layout" && d.to_string().starts_with("warning")));
    // As another tokenizer would find it: the digest of its ids is another.
    let text = std::fs::read_to_string(kept.entry()).unwrap();
    std::fs::write(kept.entry(), text.replace("\"probe\": \"", "\"probe\": \"0")).unwrap();
    assert!(!kept.report().why.contains("(remembered)"));
}
