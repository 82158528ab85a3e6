//! The cache, with a compiler that is a function. With NVRTC: ci/xtask/tests/cuda_check.rs.

use super::*;
use std::convert::Infallible;
use std::sync::atomic::AtomicUsize;

const CUBIN: &[u8] = b"\x7fELF and so on";

fn key(text: &str) -> Key {
    Key::new(&Program { name: "k.cu", text, headers: &[] }, "sm_80".parse().unwrap(), &[], (13, 5))
}

/// The cubin, made of these bytes if it must be made.
fn get(cache: &Cache, key: &Key, bytes: &[u8]) -> Cubin {
    cache.get_or_make::<Infallible>(key, || Ok(bytes.to_vec())).unwrap()
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn what_was_made_once_is_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path().join("deep/folder"));
    let first = get(&cache, &key("a"), CUBIN);
    assert_eq!(first, Cubin { bytes: CUBIN.to_vec(), cached: false, note: None });
    let again = cache.get_or_make(&key("a"), || Err("made again")).unwrap();
    assert_eq!(again, Cubin { bytes: CUBIN.to_vec(), cached: true, note: None });
    // Another process finds it too.
    assert!(get(&Cache::new(cache.folder()), &key("a"), b"x").cached);
    assert_eq!(files(cache.folder()), 1);
}

#[test]
fn whatever_decides_about_the_bytes_is_in_the_key() {
    let program = Program { name: "k.cu", text: "text", headers: &[("h", "1")] };
    let sm = |name: &str| name.parse().unwrap();
    let base = Key::new(&program, sm("sm_80"), &[], (13, 5));
    assert_eq!(base, Key::new(&program, sm("sm_80"), &[], (13, 5)));
    assert!(base.name().len() == 64 && base.name().bytes().all(|b| b.is_ascii_hexdigit()));
    let others = [
        Key::new(&Program { text: "texts", ..program }, sm("sm_80"), &[], (13, 5)),
        Key::new(&Program { headers: &[("h", "2")], ..program }, sm("sm_80"), &[], (13, 5)),
        Key::new(&Program { headers: &[("h1", "")], ..program }, sm("sm_80"), &[], (13, 5)),
        Key::new(&Program { headers: &[("", "h1")], ..program }, sm("sm_80"), &[], (13, 5)),
        Key::new(&program, sm("sm_90"), &[], (13, 5)),
        Key::new(&program, sm("sm_90a"), &[], (13, 5)),
        Key::new(&program, sm("sm_80"), &["-G"], (13, 5)),
        Key::new(&program, sm("sm_80"), &[], (13, 4)),
        Key::new(&program, sm("sm_80"), &[], (12, 5)),
    ];
    let all: std::collections::HashSet<&Key> = others.iter().chain([&base]).collect();
    assert_eq!(all.len(), others.len() + 1);
}

#[test]
fn a_damaged_entry_is_made_anew_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path());
    let (key, other) = (key("a"), key("b"));
    get(&cache, &key, CUBIN);
    get(&cache, &other, b"another");
    let (path, whole) = (cache.path(&key), std::fs::read(cache.path(&key)).unwrap());
    let mut damaged: Vec<(Vec<u8>, &str)> = (0..whole.len()).map(|len| (whole[..len].to_vec(), "")).collect();
    damaged.extend((0..whole.len()).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        (bytes, "")
    }));
    damaged.push((Vec::new(), "it is cut off"));
    damaged.push((whole[..MAGIC.len() + DIGEST].to_vec(), "it is cut off"));
    damaged.push((b"a text, and no entry of this cache at all".to_vec(), "does not begin"));
    damaged.push(([&whole[..], b"more"].concat(), "checksum"));
    damaged.push((std::fs::read(cache.path(&other)).unwrap(), "checksum"));
    for (bytes, why) in damaged {
        std::fs::write(&path, &bytes).unwrap();
        let cubin = get(&cache, &key, CUBIN);
        let note = cubin.note.clone().unwrap_or_default();
        assert!(!cubin.cached && cubin.bytes == CUBIN, "{bytes:?}");
        assert!(note.contains("was damaged") && note.contains(why), "{bytes:?}: {note}");
        assert!(note.contains(&path.display().to_string()), "{note}");
        assert_eq!(std::fs::read(&path).unwrap(), whole, "it was repaired");
    }
    assert_eq!(files(dir.path()), 2);
}

#[test]
fn a_failed_compilation_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path().join("c"));
    assert_eq!(cache.get_or_make(&key("a"), || Err("no")), Err("no"));
    assert!(!cache.folder().exists());
}

#[test]
fn a_folder_that_cannot_be_used_costs_only_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let cubin = get(&Cache::new(&file), &key("a"), CUBIN);
    let note = cubin.note.unwrap();
    assert!(cubin.bytes == CUBIN && !cubin.cached && note.contains("cannot be written"), "{note}");
    // A folder where the entry should be.
    let cache = Cache::new(dir.path());
    std::fs::create_dir(cache.path(&key("a"))).unwrap();
    let cubin = get(&cache, &key("a"), CUBIN);
    let note = cubin.note.unwrap();
    assert!(cubin.bytes == CUBIN && note.contains("cannot be read") && note.contains("cannot be written"), "{note}");
    assert_eq!(files(dir.path()), 2, "no part is left");
}

/// Many writers of two entries, and readers, on one folder: whoever reads finds all of an entry or none.
#[test]
fn writers_at_once_do_not_tear_an_entry() {
    let dir = tempfile::tempdir().unwrap();
    let keys = [key("a"), key("b")];
    let long: Vec<u8> = (0..200_000_u32).map(|i| i as u8).collect();
    let made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (keys, long, made, folder) = (&keys, &long, &made, dir.path());
            scope.spawn(move || {
                for round in 0..40 {
                    let cache = Cache::new(folder);
                    let key = &keys[(thread + round) % 2];
                    let cubin = cache
                        .get_or_make::<Infallible>(key, || {
                            made.fetch_add(1, Ordering::Relaxed);
                            Ok(long.clone())
                        })
                        .unwrap();
                    assert!(cubin.bytes == *long && cubin.note.is_none(), "{:?}", cubin.note);
                    if thread == 0 && round % 5 == 0 {
                        // Gone under the readers' hands: the next one makes it again.
                        let _ = std::fs::remove_file(cache.path(key));
                    }
                }
            });
        }
    });
    assert!(made.load(Ordering::Relaxed) >= 2);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().ends_with(".cubin")), "{left:?}");
}
