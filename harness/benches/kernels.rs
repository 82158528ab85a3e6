//! Matrix products of one thread, by shape, weight format and kernel set.
//!
//! `cargo bench --bench kernels [-- FILTER]`. Names are `gemv/ROWSxCOLS/FORMAT/SET` (one token, as in decoding) and
//! `gemm/ROWSxCOLS/FORMAT/SET` (128 tokens; 4 for the oracle, which has no tiles to reuse). The throughput is in products
//! of weight and activation; `peak/SET` is what a loop of nothing but the set's multiplying instructions reaches. Shapes are
//! those of BitNet-b1.58-2B-4T; its output matrix is `head/...`, whole and screened.

use bitnet_harness::bench::inputs::{output, ternary, values};
use bitnet_kernels::quant::{FORMATS, f16};
use bitnet_kernels::screen::{Scratch, Screen, Wanted};
use bitnet_kernels::{Activations, Kernels, Matrix, OutView, Pool, kernel_sets};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::cell::OnceCell;
use std::time::Duration;

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

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = products, peaks, head
}
criterion_main!(benches);
