//! The cache of compiled tokenizers: used without reading the source, rebuilt where anything is wrong, never in the way.

use super::compiled::{same, small_bpe};
use super::{files_forms, spm};
use crate::tokenizer_support::*;
use bitnet_engine::gguf::{GgufFile, GgufWriter};
use bitnet_engine::tokenizer::compiled::{self, CompiledCache, compile};
use bitnet_engine::tokenizer::files::{self, FileSet, Hints};
use bitnet_engine::tokenizer::{Loaded, TokenizerError, from_gguf, from_source};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const USED: &str = "tokenizer_compiled";
const NOT_KEPT: &str = "tokenizer_not_kept";

fn has(loaded: &Loaded, code: &str) -> bool {
    loaded.diagnostics.iter().any(|d| d.code == code)
}

struct Place {
    dir: tempfile::TempDir,
    source: PathBuf,
    cache: CompiledCache,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("tokenizer.json");
        let file = byte_level_json_file(train_byte_level("gpt-2", 400, true), "gpt-2", SPECIALS);
        std::fs::write(&source, file.to_string()).unwrap();
        Self { cache: CompiledCache::new(dir.path().join("cache")), source, dir }
    }

    /// The tokenizer, and whether the source was read.
    fn load(&self) -> (Loaded, bool) {
        let mut read = false;
        let loaded = self.cache.files(
            &self.source,
            &Hints::default(),
            |error| error,
            || {
                read = true;
                FileSet::from_path(&self.source)
            },
        );
        (loaded.unwrap(), read)
    }

    fn files(&self, end: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path().join("cache")).unwrap();
        entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|own| own == end)).collect()
    }

    fn compiled(&self) -> PathBuf {
        let [path] = <[PathBuf; 1]>::try_from(self.files("tokenizer")).unwrap();
        path
    }
}

/// Until a change would have another time.
fn settle() {
    std::thread::sleep(Duration::from_millis(2100));
}

#[test]
fn a_tokenizer_is_built_once() {
    let place = Place::new();
    let (built, read) = place.load();
    assert!(read && !has(&built, USED) && !has(&built, NOT_KEPT), "{built:?}");
    let (second, _) = place.load();
    assert!(has(&second, USED), "{second:?}");
    same(&built, &second, "second");
    let without: Vec<_> = second.diagnostics.iter().filter(|d| d.code != USED).cloned().collect();
    assert_eq!(without, built.diagnostics);
    // Other hints are another tokenizer.
    let hints = Hints { expected_vocab: Some(1), ..Hints::default() };
    let told = place.cache.files(&place.source, &hints, |e| e, || FileSet::from_path(&place.source)).unwrap();
    assert!(!has(&told, USED) && has(&told, "vocab_size_unexpected"), "{told:?}");
    let again = place.cache.in_memory(&FileSet::from_path(&place.source).unwrap(), &hints).unwrap();
    assert!(has(&again, USED) && has(&again, "vocab_size_unexpected"), "{again:?}");
    assert_eq!(place.files("tokenizer").len(), 2);
}

#[cfg(unix)]
#[test]
fn a_source_that_is_known_is_not_read() {
    let place = Place::new();
    settle();
    let (built, read) = place.load();
    assert!(read);
    settle();
    // The compiled file is checked once more, and then known to be whole.
    let (second, read) = place.load();
    assert!(!read && has(&second, USED), "{second:?}");
    let (third, read) = place.load();
    assert!(!read && has(&third, USED));
    same(&built, &third, "third");
    // Any change of the compiled file is seen.
    let path = place.compiled();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (fourth, read) = place.load();
    assert!(read && !has(&fourth, USED), "{fourth:?}");
    same(&built, &fourth, "fourth");
    assert!(has(&place.load().0, USED));
    // And any change of the source, though it has the same size and time.
    let about = std::fs::metadata(&place.source).unwrap();
    let text = std::fs::read_to_string(&place.source).unwrap().replace("<|end_of_text|>", "<|and_of_text|>");
    std::fs::write(&place.source, text).unwrap();
    std::fs::File::options().append(true).open(&place.source).unwrap().set_modified(about.modified().unwrap()).unwrap();
    assert_eq!(std::fs::metadata(&place.source).unwrap().len(), about.len());
    let (other, read) = place.load();
    assert!(read && !has(&other, USED), "{other:?}");
}

#[test]
fn what_is_damaged_or_foreign_is_made_again() {
    let place = Place::new();
    let (built, _) = place.load();
    let path = place.compiled();
    let good = std::fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        bytes
    };
    let foreign = compile(&from_source(spm::source()).unwrap()).unwrap();
    let cases = [
        ("empty", Vec::new()),
        ("cut", good[..good.len() / 2].to_vec()),
        ("head", flipped(50)),
        ("version", flipped(12)),
        ("table", flipped(3000)),
        ("end", flipped(good.len() - 1)),
        ("foreign", foreign),
        ("text", b"no tokenizer".to_vec()),
    ];
    for (what, bytes) in cases {
        std::fs::write(&path, bytes).unwrap();
        let (again, _) = place.load();
        assert!(!has(&again, USED) && !has(&again, NOT_KEPT), "{what}: {again:?}");
        same(&built, &again, what);
        assert!(std::fs::read(&path).unwrap() == good, "{what}: written again");
        assert!(has(&place.load().0, USED), "{what}");
    }
    // Notes that are nonsense are read over.
    for note in place.files("known") {
        std::fs::write(note, b"nonsense").unwrap();
    }
    assert!(has(&place.load().0, USED));
}

#[test]
fn a_folder_that_cannot_be_written_costs_one_diagnostic() {
    let place = Place::new();
    let file = place.dir.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let cache = CompiledCache::new(file.join("cache"));
    let built = cache.files(&place.source, &Hints::default(), |e| e, || FileSet::from_path(&place.source)).unwrap();
    let said: Vec<_> = built.diagnostics.iter().filter(|d| d.code == NOT_KEPT).collect();
    assert_eq!(said.len(), 1, "{built:?}");
    assert!(said[0].message.contains("a file"), "{}", said[0]);
    // The folder of downloads is another one.
    assert!(said[0].hint.contains("BITNET_COMPILED_TOKENIZERS=DIR"), "{}", said[0]);
    assert!(!said[0].to_string().contains("BITNET_TOKENIZER_CACHE"), "{}", said[0]);
    same(&place.load().0, &built, "not kept");
}

/// To open it would wait for its reader.
#[cfg(unix)]
#[test]
fn a_pipe_in_the_place_of_the_lock_costs_one_diagnostic() {
    use std::os::unix::fs::FileTypeExt;
    let place = Place::new();
    let lock = place.dir.path().join("cache/lock");
    std::fs::create_dir(place.dir.path().join("cache")).unwrap();
    assert!(Command::new("mkfifo").arg(&lock).status().unwrap().success());
    let (built, _) = place.load();
    let said: Vec<_> = built.diagnostics.iter().filter(|d| d.code == NOT_KEPT).collect();
    assert_eq!(said.len(), 1, "{built:?}");
    assert!(said[0].message.contains("lock: it is not a regular file"), "{}", said[0]);
    assert!(std::fs::symlink_metadata(&lock).unwrap().file_type().is_fifo());
}

#[test]
fn the_oldest_are_removed() {
    let place = Place::new();
    let (old, new) = (place.dir.path().join("cache/.tmp-1-0"), place.dir.path().join("cache/.tmp-1-1"));
    std::fs::create_dir(place.dir.path().join("cache")).unwrap();
    for path in [&old, &new] {
        std::fs::write(path, "half").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(7200);
    std::fs::File::options().append(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    for n in 0..20 {
        let hints = Hints { expected_vocab: Some(n), ..Hints::default() };
        place.cache.in_memory(&FileSet::from_path(&place.source).unwrap(), &hints).unwrap();
    }
    assert_eq!(place.files("tokenizer").len(), 16);
    assert!(!old.exists() && new.exists(), "what was left long ago is removed, what may be written now is not");
}

#[test]
fn a_gguf_is_known_by_its_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    let cache = CompiledCache::new(dir.path().join("cache"));
    let gguf = |weights: u32, pre: &str| {
        let source = small_bpe();
        let text = |list: &[Vec<u8>]| list.iter().map(|t| String::from_utf8(t.clone()).unwrap()).collect::<Vec<_>>();
        let kinds: Vec<i32> = source.token_types.iter().map(|kind| kind.number()).collect();
        let mut writer = GgufWriter::new(3, 32).unwrap();
        writer.meta("general.file_type", weights).unwrap();
        writer.meta("tokenizer.ggml.model", "gpt2").unwrap();
        writer.meta("tokenizer.ggml.pre", pre).unwrap();
        writer.meta("tokenizer.ggml.tokens", text(&source.tokens)).unwrap();
        writer.meta("tokenizer.ggml.token_type", kinds).unwrap();
        writer.meta("tokenizer.ggml.merges", text(&source.merges)).unwrap();
        let mut bytes = Vec::new();
        writer.write_to(&mut bytes).unwrap();
        bytes
    };
    let open = |name: &str, bytes: Vec<u8>| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        cache.gguf(&GgufFile::open(path).unwrap()).unwrap()
    };
    let built = open("one.gguf", gguf(1, "gpt-2"));
    assert!(!has(&built, USED), "{built:?}");
    let other = open("other weights.gguf", gguf(2, "gpt-2"));
    assert!(has(&other, USED), "{other:?}");
    same(&built, &other, "other weights");
    let rule = open("other rule.gguf", gguf(1, "llama-bpe"));
    assert!(!has(&rule, USED) && rule.tokenizer.pre() == Some("llama-bpe"), "{rule:?}");
    let memory = cache.gguf(&GgufFile::from_vec(gguf(1, "gpt-2")).unwrap()).unwrap();
    assert!(!has(&memory, USED), "what has no place is built");
    // Errors are those of the build.
    let bad = GgufFile::from_vec(gguf(1, "nobody")).unwrap();
    let file = dir.path().join("bad.gguf");
    std::fs::write(&file, gguf(1, "nobody")).unwrap();
    let error = cache.gguf(&GgufFile::open(file).unwrap()).unwrap_err();
    assert_eq!(error, from_gguf(bad.metadata()).unwrap_err());
}

#[test]
fn a_named_file_is_checked_until_it_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let (path, cache) = (dir.path().join("a.tokenizer"), CompiledCache::new(dir.path().join("cache")));
    let mut set = FileSet::new();
    set.add(
        "tokenizer.model",
        crate::tokenizer_support::sentencepiece::model(&files_forms::pieces(), &Default::default()),
    );
    let built = files::load(&set, &Hints::default()).unwrap();
    compiled::write(&built, &path).unwrap();
    settle();
    for _ in 0..2 {
        same(&built, &cache.open(&path).unwrap(), "named");
    }
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = cache.open(&path).unwrap_err();
    assert!(matches!(error, TokenizerError::Compiled { .. }) && error.to_string().contains("checksum"), "{error}");
}

const CHILD: &str = "COMPILED_CHILD";

/// In a child: load by the cache in this folder, and say in a file what was noticed.
fn be_child_if_told() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let folder = Path::new(&folder);
    let (cache, source) = (CompiledCache::new(folder.join("cache")), folder.join("tokenizer.json"));
    let loaded = cache.files(&source, &Hints::default(), |e| e, || FileSet::from_path(&source)).unwrap();
    let ids = loaded.tokenizer.encode(CORPUS, Default::default()).unwrap();
    assert_eq!(loaded.tokenizer.decode(&ids, true), CORPUS.as_bytes());
    if has(&loaded, NOT_KEPT) {
        println!("{NOT_KEPT}");
    }
    std::process::exit(0);
}

fn child(place: &Place, test: &str, shell: &str) -> std::process::Child {
    Command::new("sh")
        .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("tokenizer::compiled_cache::{test}"), "--test-threads=1", "--nocapture"])
        .env(CHILD, place.dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[cfg(unix)]
#[test]
fn processes_that_compile_at_once_leave_one_whole_file() {
    be_child_if_told();
    let place = Place::new();
    let children: Vec<_> =
        (0..5).map(|_| child(&place, "processes_that_compile_at_once_leave_one_whole_file", "")).collect();
    for child in children {
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        assert!(!String::from_utf8_lossy(&done.stdout).contains(NOT_KEPT));
    }
    assert!(compiled::open(&place.compiled()).is_ok());
    let names = std::fs::read_dir(place.dir.path().join("cache")).unwrap();
    let left: Vec<_> = names.map(|e| e.unwrap().file_name()).filter(|n| n.to_string_lossy().contains("tmp")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(has(&place.load().0, USED));
}

/// A limit on the size of files stands for a disk that is full: the write fails in the middle.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    be_child_if_told();
    let place = Place::new();
    let done =
        child(&place, "a_full_disk_leaves_nothing_behind", "trap '' XFSZ; ulimit -f 8;").wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains(NOT_KEPT), "{said}");
    let names = std::fs::read_dir(place.dir.path().join("cache")).unwrap();
    let left: Vec<_> = names.map(|e| e.unwrap().file_name()).filter(|n| n != "lock").collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!has(&place.load().0, USED));
    assert!(has(&place.load().0, USED));
}
