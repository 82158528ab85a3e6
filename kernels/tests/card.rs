//! A card as a device, before a library that plays the driver and runs the kernels by the emulation.
//!
//! The system's loader takes the library from LD_LIBRARY_PATH, which counts from the start of a process: each test starts
//! itself once more, with it.
#![cfg(target_os = "linux")]

mod play;

use bitnet_kernels::cuda::cache::Cache;
use bitnet_kernels::cuda::card::{Card, Setup};
use bitnet_kernels::cuda::device::{Arg, Buffer, CudaError, Device, Launch, start};
use bitnet_kernels::cuda::sources;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Says to a test that it was started by itself, and where the libraries are.
const PLAY: &str = "BITNET_TEST_PLAY";

type Play = fn(&Path, &[&str]);

/// Runs `inner` in a process of its own before a driver with these defines; gives back the driver's log in the first.
fn before(
    test: &str,
    (driver, defines): (Play, &[&str]),
    nvrtc: &[&str],
    inner: impl FnOnce(&Path),
) -> Option<Vec<String>> {
    before_with(test, (driver, defines), nvrtc, &[], inner)
}

/// [`before`], with variables of the process.
fn before_with(
    test: &str,
    (driver, defines): (Play, &[&str]),
    nvrtc: &[&str],
    variables: &[(&str, &str)],
    inner: impl FnOnce(&Path),
) -> Option<Vec<String>> {
    if let Some(folder) = std::env::var_os(PLAY) {
        inner(Path::new(&folder));
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    driver(dir.path(), defines);
    play::nvrtc(dir.path(), nvrtc);
    let log = dir.path().join("log");
    let run = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(PLAY, dir.path())
        .env("LD_LIBRARY_PATH", dir.path())
        .env("PLAY_LOG", &log)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let [out, err] = [&run.stdout, &run.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(run.status.success() && out.contains("1 passed"), "{out}\n{err}");
    let log = std::fs::read_to_string(log).unwrap_or_default();
    Some(log.lines().map(ToOwned::to_owned).collect())
}

fn open(folder: &Path) -> Result<Card, CudaError> {
    let cache = Cache::new(folder.join("cubins"));
    Card::open(None, Setup { nvrtc: Some(folder), cache: Some(&cache), ..Setup::default() })
}

fn device(folder: &Path) -> Arc<dyn Device> {
    Arc::new(open(folder).unwrap())
}

/// x += y, on few blocks.
fn add(device: &Arc<dyn Device>, x: &Buffer, y: &Buffer) -> Result<(), CudaError> {
    let launch = Launch { entry: "bn_add", grid: [3, 1, 1], block: 64, shared: 0 };
    let n = (x.bytes() / 4) as u64;
    // SAFETY: `bn_add` takes two buffers of n floats and n.
    unsafe { start(&**device, &launch, &[Arg::Buffer(x), Arg::Buffer(y), Arg::U64(n)]) }
}

fn floats(buffer: &Buffer) -> Vec<f32> {
    let mut out = vec![0.0; buffer.bytes() / 4];
    buffer.read(0, &mut out).unwrap();
    out
}

#[test]
fn kernels_run_and_copies_arrive() {
    if !play::emulates() {
        return;
    }
    let log = before("kernels_run_and_copies_arrive", (play::emulating_driver, &[]), &[], |folder| {
        let device = device(folder);
        assert_eq!((device.name(), device.multiprocessors()), ("cuda:0", 132));
        let what =
            "Play H100, sm_90a, 132 multiprocessors, driver for CUDA 13.0, kernels by NVRTC 13.0, launches overlap";
        assert_eq!(device.describe(), what);
        let kept = std::fs::read_dir(folder.join("cubins")).unwrap().count();
        assert_eq!(kept, sources().len(), "a cubin for every source");
        assert_eq!(device.free_memory().unwrap(), 3 << 30);

        let ones: Vec<f32> = (0..1000_u16).map(f32::from).collect();
        let x = Buffer::of(&device, &ones, "x").unwrap();
        let y = Buffer::of(&device, &[0.5_f32; 1000], "y").unwrap();
        assert_eq!(device.free_memory().unwrap(), (3 << 30) - 8000);
        add(&device, &x, &y).unwrap();
        let want: Vec<f32> = ones.iter().map(|v| v + 0.5).collect();
        assert_eq!(floats(&x), want);
        y.copy_of(&x).unwrap();
        assert_eq!(floats(&y), want);
        // What is read is from before the launch that goes behind it.
        let word = x.word_before(0, &mut || add(&device, &x, &y)).unwrap();
        assert_eq!(word, u64::from(want[1].to_bits()) << 32 | u64::from(want[0].to_bits()));
        assert_eq!(floats(&x)[1], 2.0 * want[1]);

        // More than both pinned buffers hold: the first is filled again only when it was fetched.
        let many: Vec<u32> = (0..3 << 20).map(|i: u32| i.wrapping_mul(2_654_435_761)).collect();
        let large = Buffer::of(&device, &many, "many").unwrap();
        let mut back = vec![0_u32; many.len()];
        large.read(0, &mut back).unwrap();
        assert!(back == many, "what was written is what is read");
        // A part, by the way of small reads, and from the middle.
        large.write(8 << 20, &many[..1 << 18]).unwrap();
        let mut part = vec![0_u32; 10];
        large.read((8 << 20) + 4, &mut part).unwrap();
        assert_eq!(part, many[1..11]);

        // Integers, floats and no pointer, in their order.
        let table = Buffer::of(&device, &[0x3c00_u16, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800], "table")
            .unwrap();
        let tokens = Buffer::of(&device, &[1_u32, 0, 7], "tokens").unwrap();
        let rows = Buffer::new::<f32>(&device, 12, "rows").unwrap();
        let launch = Launch { entry: "bn_embed_f16", grid: [2, 1, 1], block: 32, shared: 0 };
        let args = [&table, &tokens, &rows].map(Arg::Buffer);
        let args = [&args[..], &[Arg::U32(3), Arg::U32(4), Arg::U32(2), Arg::F32(0.25)]].concat();
        // SAFETY: as the table of entries says: 2 rows of 4 columns, 3 tokens, 3 rows out.
        unsafe { start(&*device, &launch, &args) }.unwrap();
        let rows = floats(&rows);
        assert_eq!(rows[..8], [1.25, 1.5, 1.75, 2.0, 0.25, 0.5, 0.75, 1.0]);
        assert!(rows[8..].iter().all(|v| v.is_nan()), "{rows:?}");

        // 64 KiB of shared memory are allowed once.
        let cols = 16 << 10;
        let wide = Buffer::of(&device, &vec![1.0_f32; cols], "wide").unwrap();
        let [q, scale, isum] = [cols, 4, 4].map(|n| Buffer::new::<u8>(&device, n, "q").unwrap());
        let launch = Launch { entry: "bn_norm_quant", grid: [1, 1, 1], block: 128, shared: 64 << 10 };
        let args = [Arg::U32(0), Arg::Buffer(&wide), Arg::Null, Arg::Null, Arg::F32(1e-5), Arg::U32(1)];
        let rest = [Arg::U32(16 << 10), Arg::Null, Arg::Buffer(&q), Arg::Buffer(&scale), Arg::Buffer(&isum)];
        for _ in 0..2 {
            // SAFETY: as the table of entries says, for one row of `cols`.
            unsafe { start(&*device, &launch, &[&args[..], &rest].concat()) }.unwrap();
        }
        device.finish().unwrap();
        let mut sum = [0_i32];
        isum.read(0, &mut sum).unwrap();
        assert_eq!(sum, [127 * 16384]);

        let unknown = Launch { entry: "bn_nothing", ..launch };
        // SAFETY: there is no such entry.
        let error = unsafe { start(&*device, &unknown, &[]) }.unwrap_err();
        assert_eq!(error, CudaError::Entry { entry: "bn_nothing" });
        assert!(device.time(&mut || add(&device, &x, &y)).unwrap() > Duration::ZERO);
    });
    let Some(log) = log else { return };
    for (want, times) in [
        ("launch bn_add 3x1x1 64 0 p p 1000l overlapping", 3),
        ("from 8", 1),
        ("launch bn_embed_f16 2x1x1 32 0 p p p 3u 4u 2u 0.25f overlapping", 1),
        ("launch bn_norm_quant 1x1x1 128 65536 0u p null null 1e-05f 1u 16384u null p p p overlapping", 2),
        ("allow bn_norm_quant 65536", 1),
        // Twelve parts, and one of the smaller write.
        ("to 1048576", 13),
        ("from 1048576", 12),
        ("within 4000", 1),
        ("module cubin of gemv.cu", 1),
        ("stream", 1),
    ] {
        assert_eq!(log.iter().filter(|line| *line == want).count(), times, "{want}: {log:#?}");
    }
    // The host waits for those eight bytes behind the launch, not before it.
    let at = log.iter().position(|line| line == "from 8").unwrap();
    assert!(log[at + 1].starts_with("launch bn_add"), "{log:#?}");
    // One part is copied out while the card fills the other: nobody waits for all that was started.
    let read: Vec<usize> = (0..log.len()).filter(|&i| log[i] == "from 1048576").collect();
    assert!(read.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{log:#?}");
    let count = |start: &str| log.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("alloc"), count("free"), count("module gone")), (10, 10, sources().len()), "{log:#?}");
    // The context goes last.
    assert_eq!(log.last().map(String::as_str), Some("release 1"));
    assert!(log.iter().position(|l| l == "stream gone") > log.iter().rposition(|l| l.starts_with("free")), "{log:#?}");
}

#[test]
fn a_recording_is_replayed_and_outlives_the_name_of_its_card() {
    if !play::emulates() {
        return;
    }
    let log = before(
        "a_recording_is_replayed_and_outlives_the_name_of_its_card",
        (play::emulating_driver, &[]),
        &[],
        |folder| {
            let device = device(folder);
            let x = Buffer::of(&device, &[1.0_f32; 100], "x").unwrap();
            let y = Buffer::of(&device, &[2.0_f32; 100], "y").unwrap();
            let recorded = device.record(&mut || (0..3).try_for_each(|_| add(&device, &x, &y))).unwrap();
            assert_eq!(floats(&x), [1.0; 100], "recording runs nothing");
            for _ in 0..4 {
                // SAFETY: both buffers are there.
                unsafe { recorded.replay() }.unwrap();
            }
            assert_eq!(floats(&x), [25.0; 100]);

            // What fails while it records is its error, the card goes on, and what was let go meanwhile is freed.
            let mut gone = Some(Buffer::new::<u8>(&device, 777, "gone").unwrap());
            let error = device.record(&mut || {
                gone = None;
                add(&device, &x, &y)?;
                y.write(0, &[0.0_f32])
            });
            let error = error.unwrap_err().to_string();
            assert!(error.contains("cuMemcpyHtoDAsync failed with CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"), "{error}");
            assert_eq!(floats(&x), [25.0; 100]);

            // Another thread's launch waits for the end of the recording, and is not in it.
            let started = AtomicBool::new(false);
            let recorded_too = std::thread::scope(|scope| {
                device
                    .record(&mut || {
                        scope.spawn(|| {
                            started.store(true, Ordering::SeqCst);
                            add(&device, &y, &y).unwrap();
                        });
                        while !started.load(Ordering::SeqCst) {
                            std::thread::yield_now();
                        }
                        std::thread::sleep(Duration::from_millis(20));
                        add(&device, &x, &y)
                    })
                    .unwrap()
            });
            assert_eq!((floats(&x)[0], floats(&y)[0]), (25.0, 4.0));
            // SAFETY: both buffers are there.
            unsafe { recorded_too.replay() }.unwrap();
            assert_eq!((floats(&x)[0], floats(&y)[0]), (29.0, 4.0));

            drop((x, y, device));
            drop((recorded_too, recorded));
        },
    );
    let Some(log) = log else { return };
    let at = |want: &str| log.iter().rposition(|line| line == want).unwrap_or_else(|| panic!("no `{want}`: {log:#?}"));
    // In the second recording, which failed: only after it.
    let ends: Vec<usize> = (0..log.len()).filter(|&i| log[i] == "captured").collect();
    assert!(ends.len() == 3 && at("free 777") > ends[1] && at("free 777") < ends[2], "{log:#?}");
    assert!(at("replay gone") < at("stream gone") && at("stream gone") < at("release 1"), "{log:#?}");
    let launches: Vec<&String> = log.iter().filter(|line| line.starts_with("launch")).collect();
    assert_eq!(launches.len(), 3 + 1 + 1 + 1, "replays are not launches");
    assert!(launches.iter().all(|line| line.ends_with(" overlapping")), "{launches:#?}");
    assert_eq!(log.iter().filter(|line| *line == "replay").count(), 5);
}

/// A card with a driver: whether launches of entries that keep the rule overlap, also in a recording, and others never do.
#[test]
fn launches_overlap_where_card_and_driver_can() {
    let name = "launches_overlap_where_card_and_driver_can";
    // Which of these, in the process that a case runs in.
    const CASE: &str = "BITNET_TEST_CASE";
    let ampere = "-DARCHITECTURE=\"sm_80\"";
    let cases: [(&[&str], &[&str], bool, bool); 5] = [
        (&[], &[], true, true),
        (&["-DVERSION=12030"], &["-DMAJOR=12"], true, true),
        (&["-DVERSION=12020"], &["-DMAJOR=12"], true, false),
        (&["-DCOMPUTE=8"], &[ampere], true, false),
        (&[], &[], false, false),
    ];
    for (case, (driver, nvrtc, overlap, want)) in cases.into_iter().enumerate() {
        if std::env::var(CASE).is_ok_and(|this| this != case.to_string()) {
            continue;
        }
        let log = before_with(name, (play::driver, driver), nvrtc, &[(CASE, &case.to_string())], |folder| {
            let setup = Setup { nvrtc: Some(folder), overlap, ..Setup::default() };
            let device: Arc<dyn Device> = Arc::new(Card::open(None, setup).unwrap());
            let said = if want { "launches overlap" } else { "launches one after the other" };
            assert!(device.describe().ends_with(said), "{}", device.describe());
            let x = Buffer::of(&device, &[1.0_f32; 100], "x").unwrap();
            add(&device, &x, &x).unwrap();
            let build = Launch { entry: "bn_screen_build", grid: [1, 1, 1], block: 64, shared: 0 };
            let recorded = device.record(&mut || {
                add(&device, &x, &x)?;
                // SAFETY: kernels of this driver do nothing, and have no arguments.
                unsafe { start(&*device, &build, &[]) }
            });
            // SAFETY: the buffer is there.
            unsafe { recorded.unwrap().replay() }.unwrap();
            device.finish().unwrap();
        });
        let Some(log) = log else { return };
        let launches: Vec<&str> = log.iter().filter_map(|line| line.strip_prefix("launch ")).collect();
        let add = if want { "bn_add 3x1x1 64 0 overlapping" } else { "bn_add 3x1x1 64 0" };
        assert_eq!(launches, [add, add, "bn_screen_build 1x1x1 64 0"], "case {case}");
    }
}

#[test]
fn a_driver_that_does_not_record_launches_that_overlap() {
    let name = "a_driver_that_does_not_record_launches_that_overlap";
    before(name, (play::driver, &["-DREFUSE_GRAPH"]), &[], |folder| {
        let record = |overlap| {
            let card = Card::open(None, Setup { nvrtc: Some(folder), overlap, ..Setup::default() }).unwrap();
            let device: Arc<dyn Device> = Arc::new(card);
            let x = Buffer::of(&device, &[1.0_f32; 100], "x").unwrap();
            device.record(&mut || add(&device, &x, &x)).map(drop)
        };
        let error = record(true).unwrap_err().to_string();
        let want = "the NVIDIA driver: cuGraphInstantiate failed with CUDA_ERROR_NOT_SUPPORTED; launches overlap here (programmatic \
                    dependent launch), with BITNET_CUDA_OVERLAP=0 they do not";
        assert_eq!(error, want);
        record(false).unwrap();
    });
}

#[test]
fn too_little_memory_is_said_with_numbers() {
    let name = "too_little_memory_is_said_with_numbers";
    before(name, (play::driver, &["-DFREE=1000000000ul"]), &[], |folder| {
        let device = device(folder);
        let error = Buffer::new::<u8>(&device, 1_200_000_000, "the weights").unwrap_err();
        let want = "cuda:0 (Play H100) has not enough memory: the weights needs 1200 MB, 1000 MB are free; close what else uses the card";
        assert!(error.to_string().starts_with(want), "{error}");
        assert!(matches!(error, CudaError::Memory { bytes: 1_200_000_000, free: 1_000_000_000, .. }), "{error:?}");
        let small = Buffer::of(&device, &[7_u8; 9], "nine bytes").unwrap();
        let mut back = [0_u8; 9];
        small.read(0, &mut back).unwrap();
        assert_eq!(back, [7; 9]);
        let empty = Buffer::of::<u8>(&device, &[], "nothing").unwrap();
        assert!(empty.bytes() == 0 && empty.read::<u8>(0, &mut []).is_ok());
    });
}

#[test]
fn memory_that_the_driver_refuses_is_too_little_too() {
    before("memory_that_the_driver_refuses_is_too_little_too", (play::driver, &["-DNO_ROOM"]), &[], |folder| {
        let error = Buffer::new::<u8>(&device(folder), 5, "five bytes").unwrap_err();
        assert!(matches!(error, CudaError::Memory { bytes: 5, free: 3_221_225_472, .. }), "{error:?}");
    });
}

#[test]
fn a_lost_card_is_said_at_each_call() {
    before("a_lost_card_is_said_at_each_call", (play::driver, &["-DLOST_AT=2"]), &[], |folder| {
        let device = device(folder);
        let x = Buffer::of(&device, &[1.0_f32; 100], "x").unwrap();
        add(&device, &x, &x).unwrap();
        device.finish().unwrap();
        add(&device, &x, &x).unwrap();
        let error = device.finish().unwrap_err().to_string();
        let want = "cuStreamSynchronize failed with CUDA_ERROR_ILLEGAL_ADDRESS: the card is lost to this process";
        assert!(error.contains(want) && error.contains("--device cpu"), "{error}");
        let error = add(&device, &x, &x).unwrap_err().to_string();
        let want = "cuLaunchKernelEx of bn_add (3 x 1 x 1 blocks of 64 threads, 0 bytes of shared memory) failed with CUDA_ERROR_ILLEGAL_ADDRESS";
        assert!(error.contains(want), "{error}");
        let mut out = [0.0_f32; 100];
        assert!(x.read(0, &mut out).is_err() && x.write(0, &out).is_err() && device.free_memory().is_err());
    });
}

#[test]
fn a_code_that_nobody_knows_is_a_number() {
    before("a_code_that_nobody_knows_is_a_number", (play::driver, &["-DREFUSE"]), &[], |folder| {
        let device = device(folder);
        let x = Buffer::of(&device, &[1.0_f32; 4], "x").unwrap();
        let error = add(&device, &x, &x).unwrap_err().to_string();
        assert!(
            error.starts_with("the NVIDIA driver: cuLaunchKernelEx of bn_add")
                && error.contains("failed with error 12345; launches overlap here"),
            "{error}"
        );
    });
}

#[test]
fn the_first_card_that_the_kernels_run_on_is_taken() {
    let name = "the_first_card_that_the_kernels_run_on_is_taken";
    before(name, (play::driver, &["-DSWAP=1"]), &[], |folder| {
        assert_eq!(device(folder).name(), "cuda:1");
        let first = Card::open(Some(0), Setup { nvrtc: Some(folder), ..Setup::default() }).unwrap_err().to_string();
        assert!(first.contains("a card of compute capability 7.5"), "{first}");
    });
}

#[test]
fn a_kernel_that_does_not_compile_is_said_in_the_compilers_words() {
    let name = "a_kernel_that_does_not_compile_is_said_in_the_compilers_words";
    let log = before(name, (play::driver, &[]), &["-DBROKEN"], |folder| {
        let error = open(folder).unwrap_err().to_string();
        let want =
            "`attention.cu` does not compile for sm_90a:\nattention.cu(7): error: identifier \"__dp4a\" is undefined";
        assert!(error.starts_with(want), "{error}");
    });
    assert!(log.is_none_or(|log| log.is_empty()), "the card was not touched");
}

#[test]
fn what_does_not_fit_is_said_before_the_card_is_touched() {
    let name = "what_does_not_fit_is_said_before_the_card_is_touched";
    before(name, (play::driver, &["-DVERSION=12020", "-DIMAGE=200"]), &[], |folder| {
        let error = open(folder).unwrap_err().to_string();
        assert!(error.contains("the driver speaks CUDA 12.2 and loads no cubin of NVRTC 13.0"), "{error}");
        let of =
            |index| Card::open(Some(index), Setup { nvrtc: Some(folder), ..Setup::default() }).unwrap_err().to_string();
        assert!(of(2).starts_with("there is no card 2: the driver shows 2, counted from 0"), "{}", of(2));
    });
}
