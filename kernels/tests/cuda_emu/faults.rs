//! What the emulation finds: every fault that is planted here must be noticed, or the other tests prove nothing.

use bitnet_kernels::Matrix;
use bitnet_kernels::cuda::device::{self, Device};
use bitnet_kernels::cuda::emu::{Arg, Buffer, EmuError, Emulation, Launch, entries};
use bitnet_kernels::cuda::sources;
use bitnet_kernels::quant::{f16, i2_s};
use std::process::Command;
use std::sync::Arc;

use super::attention::Case;
use super::common::{Fill, Random, matrix};
use super::products::{Input, gemm, head};
use super::rows::norm_quant;
use super::token::{Row, Ternary, store};
use super::tokenize::{Pieces, Toy, gather, offsets, scattered, words};
use super::{How, ORDERS, of, room};

/// The text of a fault.
fn fault(result: Result<(), EmuError>) -> String {
    match result {
        Err(EmuError::Fault(text)) => text,
        other => panic!("a planted fault was not found: {other:?}"),
    }
}

/// Whether this process is the test's own; if not, it runs once more, in one. A kernel without a barrier reads what was not written
/// yet: an index of that jumps over the guarded pages, and what it hits would be another test's.
pub(crate) fn alone() -> bool {
    const ALONE: &str = "BITNET_EMU_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let thread = std::thread::current();
    // One test at a time runs on the main thread, with nobody beside it.
    let Some(test) = thread.name().filter(|name| *name != "main") else { return true };
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let [out, err] = [&child.stdout, &child.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(child.status.success() && out.contains("1 passed"), "{out}\n{err}");
    false
}

#[test]
fn every_entry_is_compiled() {
    let compiled = entries();
    let listed: Vec<&str> = sources().iter().flat_map(|s| s.entries).copied().collect();
    for name in &listed {
        assert!(compiled.iter().any(|c| c == name), "{name} is in sources() and not in the emulation");
    }
    for name in compiled.iter().filter(|name| !name.starts_with("fault_")) {
        assert!(listed.contains(&name.as_str()), "{name} is in the emulation and not in sources()");
    }
}

#[test]
fn accesses_beyond_a_buffer() {
    if !alone() {
        return;
    }
    for n in [31, 32] {
        // 31 floats: the write of the last lane goes to the page behind only if it jumps the 12 bytes of canary.
        let y = room::<f32>(n);
        let args = [Arg::Buffer(&y), Arg::U32(n as u32)];
        let text = fault(Launch::new("fault_write_beyond", 1, 32).run(&args));
        assert!(text.starts_with("fault_write_beyond"), "{text}");
        assert!(n == 31 || text.contains("block (0, 0, 0), thread (31, 0, 0)"), "{text}");
        assert!(text.contains("beyond") || text.contains("beside"), "{text}");
    }
    let (x, y) = (of(&[1.0f32; 32]), room::<f32>(32));
    let args = [Arg::Buffer(&x), Arg::Buffer(&y), Arg::U32(32)];
    let text = fault(Launch::new("fault_read_beyond", 1, 32).run(&args));
    assert!(text.contains("thread (31, 0, 0): an access beyond what is there"), "{text}");
    // And all is well afterwards.
    Launch::new("fault_read_beyond", 1, 32).run(&[Arg::Buffer(&x), Arg::Buffer(&y), Arg::U32(31)]).unwrap();
}

#[test]
fn accesses_beyond_a_shared_array() {
    if !alone() {
        return;
    }
    let y = room::<f32>(32);
    let text = fault(Launch::new("fault_shared_beyond", 1, 32).run(&[Arg::Buffer(&y)]));
    assert!(text.contains("thread (31, 0, 0): an access beyond what is there"), "{text}");
}

#[test]
fn misaligned_accesses() {
    let (x, y) = (of(&[1u32; 8]), room::<u32>(32));
    let text = fault(Launch::new("fault_misaligned", 1, 32).run(&[Arg::Buffer(&x), Arg::Buffer(&y)]));
    assert!(text.contains("misaligned"), "{text}");
}

#[test]
fn barriers_and_shuffles_that_some_do_not_reach() {
    if !alone() {
        return;
    }
    let y = room::<f32>(64);
    let text = fault(Launch::new("fault_some_at_barrier", 2, 64).run(&[Arg::Buffer(&y)]));
    assert!(text.contains("block (0, 0, 0): only 32 of 64 threads reach the barrier"), "{text}");
    let text = fault(Launch::new("fault_absent_lane", 1, 32).run(&[Arg::Buffer(&y)]));
    assert!(text.contains("lane 16 of the mask ffffffff is not there"), "{text}");
}

#[test]
fn a_missing_barrier_changes_the_result() {
    if !alone() {
        return;
    }
    let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let want: Vec<f32> = values.iter().rev().copied().collect();
    for order in ORDERS {
        let (x, y) = (of(&values), room::<f32>(64));
        Launch { order, ..Launch::new("fault_no_barrier", 1, 64) }.run(&[Arg::Buffer(&x), Arg::Buffer(&y)]).unwrap();
        assert_ne!(y.read::<f32>(), want, "order {order}");
    }
}

#[test]
fn launches_that_overlap_and_do_not_wait() {
    if !alone() {
        return;
    }
    let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let run = |entry: &str, order: u32, overlap: Option<&[usize]>| {
        let (x, y) = (of(&values), room::<f32>(64));
        let done = Launch { order, overlap, ..Launch::new(entry, 3, 64) }.run(&[Arg::Buffer(&x), Arg::Buffer(&y)]);
        done.map(|()| y.read::<f32>())
    };
    for order in ORDERS {
        let fault = |entry, early| fault(run(entry, order, Some(early)).map(drop));
        let text = fault("fault_reads_early", &[]);
        assert!(text.starts_with("fault_reads_early") && text.contains(": an access before the wait"), "{text}");
        let text = fault("fault_writes_early", &[0]);
        let who = "fault_writes_early, block (2, 0, 0), thread (63, 0, 0): an access before the wait";
        assert!(text.starts_with(who), "{text}");
        let text = fault("fault_does_not_wait", &[]);
        assert!(text.contains("thread (5, 0, 0): it ends without having waited"), "{text}");
        let text = fault("fault_waits_apart", &[]);
        assert!(text.contains("only 32 of 64 threads reach the wait"), "{text}");
        let text = fault("fault_holds_up", &[]);
        assert!(text.contains("it never lets the next launch begin"), "{text}");
        // An argument that may be read early may be; and after a fault nothing stays guarded.
        assert_eq!(run("fault_reads_early", order, Some(&[0])).as_ref(), Ok(&values));
        // Launched one after the other there is nothing to wait for.
        for entry in ["fault_reads_early", "fault_writes_early"] {
            assert_eq!(run(entry, order, None).as_ref(), Ok(&values));
        }
    }
    // What may be read early and what may not are one buffer: it may not.
    let x = of(&values);
    let twice = Launch { overlap: Some(&[0]), ..Launch::new("fault_reads_early", 1, 64) };
    let text = fault(twice.run(&[Arg::Buffer(&x), Arg::Buffer(&x)]));
    assert!(text.contains("an access before the wait"), "{text}");
}

/// What a kernel wrote, at a place where the next reads before it waits: only once somebody waited for the device.
#[test]
fn memory_that_is_read_too_early() {
    let device: Arc<dyn Device> = Arc::new(Emulation::new().unwrap());
    let buffer = |n: usize| device::Buffer::of(&device, &vec![0_u32; n], "words").unwrap();
    let (table, tokens, x) = (buffer(8), buffer(1), buffer(16));
    let run = |entry: &'static str, args: &[device::Arg<'_>]| {
        let launch = device::Launch { entry, grid: [1, 1, 1], block: 32, shared: 0 };
        // SAFETY: arguments by the table of entries, for 16 elements at most.
        unsafe { device::start(&*device, &launch, args) }
    };
    let embed = || {
        let sizes = [1, 16, 1].map(device::Arg::U32);
        let [table, tokens, x] = [&table, &tokens, &x].map(device::Arg::Buffer);
        run("bn_embed_f16", &[&[table, tokens, x], &sizes[..], &[device::Arg::F32(1.0)]].concat())
    };
    let write = || run("bn_add", &[device::Arg::Buffer(&table), device::Arg::Buffer(&x), device::Arg::U64(8)]);
    embed().unwrap();
    write().unwrap();
    let text = embed().unwrap_err().to_string();
    assert!(text.contains("bn_embed_f16: argument 0 is read before it waits"), "{text}");
    device.finish().unwrap();
    embed().unwrap();
    // The same where launches are kept and started again.
    let kept = device::record(&*device, &mut || write().and_then(|()| embed())).unwrap();
    let text = kept.start().unwrap_err().to_string();
    assert!(text.contains("argument 0 is read before it waits"), "{text}");
}

#[test]
fn wrong_launches() {
    let y = room::<f32>(32);
    let (buffer, n) = (Arg::Buffer(&y), Arg::U64(32));
    for (launch, args, says) in [
        (Launch::new("bn_nothing", 1, 32), &[buffer, n][..], "no such entry"),
        (Launch::new("bn_add", 1, 32), &[buffer, n], "takes the arguments `ppl`, given `pl`"),
        (Launch::new("bn_add", 1, 32), &[buffer, buffer, Arg::U32(32)], "given `ppu`"),
        (Launch::new("bn_add", 1, 33), &[buffer, buffer, n], "a block of 33 threads"),
        (Launch::new("bn_add", 1, 2048), &[buffer, buffer, n], "a block of 2048 threads"),
        (Launch::new("bn_add", 0, 32), &[buffer, buffer, n], "a grid of 0 x 1 x 1"),
        (Launch { shared: 300 << 10, ..Launch::new("bn_add", 1, 32) }, &[buffer, buffer, n], "shared memory"),
        (Launch::new("bn_add", 1, 32), &[Arg::Null, buffer, n], "a null pointer"),
        (Launch::new("bn_add", 1, 32), &[Arg::At(&y, 129), buffer, n], "129 bytes into a buffer of 128"),
    ] {
        let text = fault(launch.run(args));
        assert!(text.contains(says), "{text}");
    }
}

/// One output element less than a kernel writes: each of them must be stopped.
#[test]
fn every_kernel_is_stopped_at_the_end_of_its_output() {
    let (a, b) = (of(&[1.0f32; 256]), of(&[1.0f32; 252]));
    let text = fault(Launch::new("bn_add", 1, 32).run(&[Arg::Buffer(&a), Arg::Buffer(&b), Arg::U64(256)]));
    assert!(text.starts_with("bn_add"), "{text}");
    let text =
        fault(Launch::new("bn_gate", 2, 32).run(&[Arg::U32(0), Arg::Buffer(&b), Arg::Buffer(&a), Arg::U64(256)]));
    assert!(text.starts_with("bn_gate"), "{text}");
    let (w, q) = (of(&[0x55u8; 5 * 32 + 32]), of(&[1i8; 128]));
    let (scale, isum, y) = (of(&[1.0f32]), of(&[128i32]), room::<f32>(4));
    let row = Row::new(vec![1.0; 128], None);
    let none = [Arg::Null, Arg::U32(0), Arg::F32(1.0), Arg::Null];
    let store = |shared: usize, y: &Buffer| {
        let mut rest = vec![Arg::Buffer(&w), Arg::U32(5), Arg::F32(1.0), Arg::Buffer(y)];
        rest.extend(none.iter().chain(&none));
        row.run_with("bn_gemv_store", (How::new([1, 1, 1], 64, 0), 8), shared, &rest)
    };
    let text = fault(store(640, &y));
    assert!(text.starts_with("bn_gemv_store, block (0, 0, 0), thread (16, 0, 0)"), "{text}");
    // And too little shared memory.
    let whole = room::<f32>(5);
    let text = fault(store(624, &whole));
    assert!(text.contains("beyond"), "{text}");
    store(640, &whole).unwrap();
    let args = [&w, &w, &q, &scale, &isum].map(Arg::Buffer);
    let args =
        [args[0], Arg::U32(5), Arg::U32(128), Arg::F32(1.0), args[2], args[3], args[4], Arg::U32(1), Arg::Buffer(&y)];
    let text = fault(Launch::new("bn_gemm_i2s", 1, 256).run(&args));
    assert!(text.starts_with("bn_gemm_i2s, block (0, 0, 0)"), "{text}");
}

/// Bits of what a kernel made, for a barrier that nobody waits at.
pub(crate) type Plant<'a> = dyn Fn(How) -> Result<Vec<u32>, EmuError> + 'a;

/// Takes away one barrier after the other: each of `barriers` must be missed in some order, and there must be no more. But for
/// those of `quiet`: they order what one block writes before another reads it (here blocks run one after the other), or
/// values that are what they were before.
pub(crate) fn every_barrier_is_missed(
    what: &str,
    (barriers, quiet): (u32, &[u32]),
    (grid, block): ([u32; 3], u32),
    run: &Plant<'_>,
) {
    let plain = How::new(grid, block, 0);
    let want = run(plain).unwrap_or_else(|e| panic!("{what}: {e}"));
    for skip in 1..=barriers + 1 {
        let missed = ORDERS.iter().any(|&order| run(How { order, skip, ..plain }).as_ref() != Ok(&want));
        let needed = skip <= barriers && !quiet.contains(&skip);
        assert_eq!(missed, needed, "{what}: barrier {skip} of {barriers}");
    }
}

pub(crate) fn bits(values: &[f32]) -> impl Iterator<Item = u32> {
    values.iter().map(|v| v.to_bits())
}

#[test]
fn every_barrier_of_the_kernels_is_needed_and_missed() {
    if !alone() {
        return;
    }
    let mut r = Random::new(30);
    let x = r.floats(2 * 512, 3.0);
    // Two tokens by one block.
    every_barrier_is_missed("bn_norm_quant", (10, &[]), ([1, 1, 1], 256), &|how| {
        let n = norm_quant(how, (0, 1e-5, true), (&x, &x), Some(&x[..512]), 512)?;
        Ok(bits(&n.values)
            .chain(bits(&n.scale))
            .chain(n.q.iter().map(|&q| q as u32))
            .chain(n.isum.iter().map(|&s| s as u32))
            .collect())
    });

    let row = Row::new(r.floats(384, 3.0), Some(r.floats(384, 1.0)));
    let parts = [Ternary::new(140, 384, &mut r)];
    every_barrier_is_missed("bn_gemv_store", (5, &[]), ([1, 1, 1], 128), &|how| {
        Ok(store((how, 8), &row, &parts)?.iter().flat_map(|y| bits(y)).collect())
    });

    let w = matrix(&i2_s::FORMAT, 140, 384, Fill::Wild, &mut r);
    // Two tiles by one block, three steps each; behind the last nothing waits for anything.
    let input = Input::new(3, 384, &mut r);
    let w = Matrix::new(&i2_s::FORMAT, 140, 384, &w).unwrap();
    every_barrier_is_missed("bn_gemm_i2s", (7, &[]), ([1, 1, 1], 256), &|how| {
        Ok(bits(&gemm(how, &w, &input)?).collect())
    });

    let w = matrix(&f16::FORMAT, 70, 256, Fill::Packed, &mut r);
    let w = Matrix::new(&f16::FORMAT, 70, 256, &w).unwrap();
    // Two tokens by one block; behind the second nothing waits for anything.
    every_barrier_is_missed("bn_head_f16", (3, &[]), ([1, 1, 1], 128), &|how| {
        Ok(bits(&head(how, &w, &x[..512], true)?.0).collect())
    });

    // Two tiles and two chunks by one block. A tile's second chunk has the maxima of its first.
    let case = Case::new((64, 8, 1), (150, 1, 192), &mut r);
    every_barrier_is_missed("bn_attention_scores_4", (8, &[]), ([1, 1, 1], 256), &|how| {
        Ok(bits(&case.run(4, how, true)?).collect())
    });
    every_barrier_is_missed("bn_attention_values_4", (20, &[3, 5, 7, 13, 15, 17]), ([1, 1, 1], 256), &|how| {
        Ok(bits(&case.run(4, how, false)?).collect())
    });

    // Three tiles by one block.
    let toy = Toy::new(&mut r);
    let pieces = Pieces::new(&toy, &mut r);
    every_barrier_is_missed("bn_tokens_words", (12, &[]), ([1, 1, 1], 128), &|how| {
        words(how, &toy, &pieces, &[0, 3072])
    });
    let totals: Vec<u32> = (0..300).map(|_| r.below(1000) as u32).collect();
    // Behind the last step nothing waits for anything.
    every_barrier_is_missed("bn_tokens_offsets", (7, &[7]), ([1, 1, 1], 64), &|how| offsets(how, &totals));
    let (counts, ids) = scattered(&mut r);
    every_barrier_is_missed("bn_tokens_gather", (24, &[24]), ([1, 1, 1], 128), &|how| {
        gather(how, &counts, &ids, &[0, 3072])
    });
}
