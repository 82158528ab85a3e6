//! Damaged files never panic, never loop for long, and never make the reader allocate more than a small
//! multiple of the file. The allocator of this test program counts what each thread holds.

mod gguf_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bitnet_engine::gguf::{GgufError, GgufFile, Value};
use gguf_support::{ARRAY, Raw, STRING, sample};
use proptest::prelude::*;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(change: isize) {
    // A thread that is ending has no counter any more, and nobody who asks.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches thread-local cells only,
// which are made without an allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `work` held at most, beyond what was held before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before).max(0) as usize)
}

/// Touches everything that a caller could.
fn walk(file: &GgufFile) -> usize {
    fn value(v: Value<'_>) -> usize {
        match v {
            Value::Array(a) => {
                a.iter().map(value).sum::<usize>() + a.strs().map_or(0, |s| s.flatten().map(str::len).sum())
            }
            Value::Str(s) => s.len(),
            Value::Bytes(b) => b.len(),
            _ => 1,
        }
    }
    let keys: usize = file.metadata().iter().map(|(k, v)| k.len() + value(v)).sum();
    let data: usize = file.views().map(|v| v.data.len() + v.data.iter().map(|b| usize::from(*b)).sum::<usize>()).sum();
    for t in file.tensors() {
        let view = file.tensor(&t.name).expect("a listed tensor is found by name");
        assert_eq!(view.data.len() as u64, t.size);
        assert!(t.file_offset + t.size <= file.file_len());
        assert!(!file.type_name(t).is_empty());
    }
    keys + data
}

/// Opens and walks; the peak does not count the bytes of the file themselves.
fn judge(bytes: Vec<u8>) -> (Result<usize, GgufError>, usize) {
    peak_of(move || GgufFile::from_vec(bytes).map(|f| walk(&f)))
}

const MOST: usize = 1 << 20;

#[test]
fn the_counter_counts() {
    let (v, peak) = peak_of(|| vec![0_u8; 5 << 20]);
    assert!(peak >= 5 << 20, "{peak}");
    drop(v);
    let ((), peak) = peak_of(|| ());
    assert_eq!(peak, 0);
}

#[test]
fn every_byte_set_to_telling_values() {
    let bytes = sample().bytes;
    let (mut refused, mut accepted) = (0, 0);
    for i in 0..bytes.len() {
        for flip in [1_u8, 0x80, 0xff, bytes[i], bytes[i] ^ 0x7f] {
            let mut damaged = bytes.clone();
            damaged[i] ^= flip;
            let (result, peak) = judge(damaged);
            assert!(peak < MOST, "byte {i} ^ {flip}: {peak} bytes held");
            match result {
                Ok(_) => accepted += 1,
                Err(e) => {
                    refused += 1;
                    assert!(!e.to_string().is_empty());
                }
            }
        }
    }
    // Damage in tensor data and scalar values is not visible; damage in the structure is.
    assert!(refused > 500 && accepted > 500, "{refused} refused, {accepted} accepted");
}

#[test]
fn every_length_field_made_absurd() {
    let raw = sample();
    let lengths = raw.fields.iter().filter(|(n, _)| n.contains("length") || n.contains("count"));
    let mut tried = 0;
    for (name, range) in lengths.filter(|(_, r)| r.len() == 8) {
        for absurd in [u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 61, 5 << 30, (1 << 32) + 1, 1 << 20] {
            let mut damaged = raw.bytes.clone();
            damaged[range.clone()].copy_from_slice(&absurd.to_le_bytes());
            let (result, peak) = judge(damaged);
            assert!(result.is_err(), "{name} = {absurd}");
            assert!(peak < 64 << 10, "{name} = {absurd}: {peak} bytes held");
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn a_large_vocabulary_costs_nothing_at_open() {
    const TOKENS: usize = 128_256;
    let mut raw = Raw::header(3, 0, 1);
    raw.key(0, "tokenizer.ggml.tokens", ARRAY).u32("element", STRING).u64("count", TOKENS as u64);
    let mut elements = Vec::new();
    for i in 0..TOKENS {
        let token = format!("token{i}");
        elements.extend((token.len() as u64).to_le_bytes());
        elements.extend(token.as_bytes());
    }
    raw.field("elements", &elements);
    let bytes = raw.bytes;
    let (file, peak) = peak_of(|| GgufFile::from_vec(bytes).unwrap());
    assert!(peak < 16 << 10, "{peak} bytes held for {TOKENS} tokens");
    let tokens = file.metadata().array("tokenizer.ggml.tokens").unwrap().unwrap();
    let (n, peak) = peak_of(|| tokens.strings().unwrap().filter(|t| t.starts_with(b"token1")).count());
    assert_eq!((n, peak), (39_367, 0));
}

#[test]
fn a_file_that_is_all_header_stays_within_a_multiple_of_itself() {
    // The costliest bytes: as many tiny tensors, or keys, as fit.
    let mut tensors = Raw::header(3, 20_000, 0);
    let mut keys = Raw::header(3, 0, 20_000);
    for i in 0..20_000_u32 {
        tensors.fields.clear();
        tensors.tensor(0, format!("{i}"), &[1], 24, u64::from(i) * 32);
        keys.fields.clear();
        keys.key(0, &format!("{i}"), 0).field("value", &[0]);
    }
    tensors.pad(32).data(20_000 * 32);
    for raw in [tensors, keys] {
        let len = raw.bytes.len();
        let (result, peak) = judge(raw.bytes);
        assert!(result.is_ok());
        assert!(peak < 16 * len, "{peak} bytes held for a file of {len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn several_bytes_flipped(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in 0_usize..40) {
        let mut bytes = sample().bytes;
        for (at, with) in &flips {
            let i = at.index(bytes.len());
            bytes[i] = *with;
        }
        bytes.truncate(bytes.len() - cut);
        let (result, peak) = judge(bytes);
        prop_assert!(peak < MOST, "{} bytes held, {:?}", peak, result);
    }

    #[test]
    fn a_field_replaced(field in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 0..24)) {
        let raw = sample();
        let range = raw.fields[field.index(raw.fields.len())].1.clone();
        let mut bytes = raw.bytes;
        bytes.splice(range, with);
        let (result, peak) = judge(bytes);
        prop_assert!(peak < MOST, "{} bytes held, {:?}", peak, result);
    }

    #[test]
    fn noise_behind_a_valid_start(noise in prop::collection::vec(any::<u8>(), 0..400), tensors in 0_u64..3, keys in 0_u64..3) {
        let mut raw = Raw::header(3, tensors, keys);
        raw.field("noise", &noise);
        let (result, peak) = judge(raw.bytes);
        prop_assert!(peak < MOST, "{} bytes held, {:?}", peak, result);
    }
}
