//! Matrix products of one thread, by shape, weight format and kernel set.
//!
//! `cargo bench --bench kernels [-- FILTER]`. Names are `gemv/ROWSxCOLS/FORMAT/SET` (one token, as in decoding) and
//! `gemm/ROWSxCOLS/FORMAT/SET` (128 tokens; 4 for the oracle, which has no tiles to reuse). The throughput is in products
//! of weight and activation; `peak/SET` is what a loop of nothing but the set's multiplying instructions reaches. Shapes are
//! those of BitNet-b1.58-2B-4T; its output matrix is `head/...`, whole and screened. What a matrix that lies in a cache does says
//! little of decoding, which reads every weight from memory: `stream/FORMAT/SET/THREADS` goes through matrices of 512 MiB together,
//! `stream/screen/SET/THREADS` through as much of an int8 copy, and `stream/read/THREADS` is what the same memory can be read at. The
//! shares of it are said on stderr at the end.

use bitnet_harness::bench::inputs::{output, ternary, values};
use bitnet_kernels::pages::Pages;
use bitnet_kernels::parallel::{self, Product};
use bitnet_kernels::quant::{FORMATS, f16};
use bitnet_kernels::screen::{Scratch, Screen, Wanted};
use bitnet_kernels::{Activations, Kernels, Matrix, OutView, Pool, kernel_sets};
use criterion::{Criterion, Throughput};
use std::cell::OnceCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Rows (outputs) and columns (inputs).
const SHAPES: [(usize, usize); 3] = [(2560, 2560), (2560, 6912), (6912, 2560)];
/// The output matrix.
const HEAD: (usize, usize) = (128_256, 2560);

/// The sets that can run here; the others are named on stderr.
fn sets() -> Vec<&'static dyn Kernels> {
    let usable = |set: &bitnet_kernels::KernelSetInfo| match (set.detect)() {
        Ok(kernels) => Some(kernels),
        Err(why) => {
            eprintln!("{why}");
            None
        }
    };
    kernel_sets().iter().filter_map(usable).collect()
}

fn products(criterion: &mut Criterion) {
    let sets = sets();
    for (rows, cols) in SHAPES {
        for format in FORMATS {
            // Made when the first bench that the filter lets through asks for it.
            let bytes = OnceCell::new();
            for &kernels in &sets {
                let many = if kernels.name() == "scalar" { 4 } else { 128 };
                for (kind, tokens) in [("gemv", 1), ("gemm", many)] {
                    let mut group = criterion.benchmark_group(kind);
                    group.throughput(Throughput::Elements((rows * cols * tokens) as u64));
                    group.bench_function(format!("{rows}x{cols}/{}/{}", format.name, kernels.name()), |b| {
                        let bytes = bytes
                            .get_or_init(|| ternary(format, (rows, cols)).expect("ternary weights fit every format"));
                        let matrix = Matrix::new(format, rows, cols, bytes).expect("a matrix");
                        let mut x = Activations::default();
                        kernels.prepare(format.act, &values(cols * tokens), tokens, &mut x);
                        let mut y = vec![0.0; rows * tokens];
                        b.iter(|| kernels.matmul(&matrix, &x, 0..rows, OutView::new(&mut y, tokens, rows)));
                    });
                    group.finish();
                }
            }
        }
    }
}

/// The arithmetic's limit, for `gemm` above: measured beside it, since clocks change.
fn peaks(criterion: &mut Criterion) {
    const ROUNDS: usize = 10_000;
    let mut group = criterion.benchmark_group("peak");
    for peak in bitnet_kernels::cpu::peak::peaks() {
        group.throughput(Throughput::Elements(peak.products * ROUNDS as u64));
        group.bench_function(peak.set, |b| b.iter(|| peak.rounds(ROUNDS)));
    }
    group.finish();
}

/// All logits, and those that greedy decoding and top-40 need, from the int8 copy: the same bits.
fn head(criterion: &mut Criterion) {
    let (rows, cols) = HEAD;
    let matrix_bytes = OnceCell::new();
    let screen = OnceCell::new();
    let pool = Pool::new(1).expect("a pool of this thread");
    let make = || output(HEAD).expect("f16 takes every shape");
    for kernels in sets().into_iter().filter(|kernels| kernels.name() != "scalar") {
        let mut group = criterion.benchmark_group("head");
        group.throughput(Throughput::Elements((rows * cols) as u64));
        let x = || {
            let mut x = Activations::default();
            kernels.prepare(f16::FORMAT.act, &values(cols), 1, &mut x);
            x
        };
        group.bench_function(format!("{rows}x{cols}/whole/{}", kernels.name()), |b| {
            let bytes = matrix_bytes.get_or_init(make);
            let matrix = Matrix::new(&f16::FORMAT, rows, cols, bytes).expect("a matrix");
            let (x, mut y) = (x(), vec![0.0; rows]);
            b.iter(|| kernels.matmul(&matrix, &x, 0..rows, OutView::new(&mut y, 1, rows)));
        });
        for count in [1, 40] {
            group.bench_function(format!("{rows}x{cols}/top{count}/{}", kernels.name()), |b| {
                let bytes = matrix_bytes.get_or_init(make);
                let matrix = Matrix::new(&f16::FORMAT, rows, cols, bytes).expect("a matrix");
                let screen = screen.get_or_init(|| {
                    Screen::new(&matrix, (bitnet_kernels::best(), &pool)).expect("f16 can be screened")
                });
                let (x, mut y, mut scratch) = (x(), vec![0.0; rows], Scratch::default());
                let wanted = Wanted { count, within: 0.0, also: &[] };
                b.iter(|| screen.top((kernels, &pool), &matrix, &x, wanted, &mut scratch, &mut y).expect("a bound"));
            });
        }
        group.finish();
    }
}

/// Bytes that no cache holds.
const STREAM: usize = 512 << 20;

/// As many copies of some bytes as make a stream, each at a line of its own.
fn stream(bytes: &[u8]) -> Pages {
    let len = bytes.len().next_multiple_of(64);
    let mut pages = Pages::new(STREAM / len * len, true).expect("memory for a stream");
    pages.chunks_exact_mut(len).for_each(|copy| copy[..bytes.len()].copy_from_slice(bytes));
    pages
}

/// One bench of a stream; the bytes a second of its fastest pass, if the filter let it through.
fn pass(criterion: &mut Criterion, name: &str, bytes: usize, mut run: impl FnMut()) -> Option<f64> {
    let mut best = None::<Duration>;
    let mut group = criterion.benchmark_group("stream");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(name, |b| {
        b.iter(|| {
            let started = Instant::now();
            run();
            let time = started.elapsed();
            best = Some(best.map_or(time, |best| best.min(time)));
        });
    });
    group.finish();
    best.map(|time| bytes as f64 / time.as_secs_f64())
}

/// One token times weights that come from memory.
fn streams(criterion: &mut Criterion) {
    let (rows, cols) = SHAPES[0];
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        let pool = Pool::new(threads).expect("threads");
        let buffer = OnceCell::new();
        let buffer = || buffer.get_or_init(|| stream(&[1; 4096]));
        let read = pass(criterion, &format!("read/{threads}"), STREAM, || {
            let words = buffer().as_chunks().0;
            pool.for_chunks(words.len(), 1 << 12, &|range| {
                black_box(words[range].iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_le_bytes(*word))));
            });
        });
        let mut shares = Vec::new();
        for kernels in sets().into_iter().filter(|kernels| kernels.name() != "scalar") {
            let name = format!("screen/{}/{threads}", kernels.name());
            let (x, mut sums) = (vec![37i16; cols], vec![0i32; STREAM / cols]);
            let rate = pass(criterion, &name, sums.len() * cols, || {
                let w = buffer().as_slice();
                pool.for_rows(&mut sums, 64, 1, &|i, sums| {
                    kernels.dots_i8_i16(&w[i * 64 * cols..][..sums.len() * cols], &x, sums);
                });
            });
            shares.push((name, rate));
        }
        for format in FORMATS {
            let weights = OnceCell::new();
            for kernels in sets().into_iter().filter(|kernels| kernels.name() != "scalar") {
                let bytes = format.matrix_bytes(rows, cols).expect("a shape that every format has");
                let name = format!("{}/{}/{threads}", format.name, kernels.name());
                let mut x = Activations::default();
                kernels.prepare(format.act, &values(cols), 1, &mut x);
                let mut y = vec![0.0; rows];
                let len = bytes.next_multiple_of(64);
                let rate = pass(criterion, &name, STREAM / len * bytes, || {
                    let weights: &Pages = weights.get_or_init(|| {
                        stream(&ternary(format, (rows, cols)).expect("ternary weights fit every format"))
                    });
                    for data in weights.chunks_exact(len) {
                        let matrix = Matrix::new(format, rows, cols, &data[..bytes]).expect("a matrix");
                        parallel::matmul(&pool, kernels, &mut [Product { matrix, out: &mut y }], &x);
                    }
                });
                shares.push((name, rate));
            }
        }
        let Some(read) = read else { continue };
        for (name, rate) in shares.into_iter().filter_map(|(name, rate)| Some((name, rate?))) {
            let (part, rate, read) = (100.0 * rate / read, 1e-9 * rate, 1e-9 * read);
            eprintln!("stream/{name}: {rate:.1} GB/s, {part:.0} % of the {read:.1} GB/s that memory is read at");
        }
    }
}

bitnet_harness::criterion_main!(10 samples, 200 ms warm, 800 ms: products, peaks, head, streams);
