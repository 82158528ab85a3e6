//! The screened head against the whole one: the same bits wherever it says a number, and never a row too few.

use crate::common::{Random, fast_sets, matmul, prepared, required};
use bitnet_kernels::screen::{Scratch, Screen, Wanted};
use bitnet_kernels::{ActKind, Format, Kernels, Matrix, Pool, by_name, quant};
use proptest::prelude::*;

/// Rows that are hard to tell apart or far apart.
#[derive(Debug, Clone, Copy)]
enum Rows {
    /// Noise.
    Noise,
    /// Some rows are copies of others: ties.
    Ties,
    /// Norms from 1e-6 to 1e4, zero rows among them.
    Norms,
    /// One large value in each row: the int8 copy loses all the others.
    Spikes,
    /// Copies of one row that differ in its last bits.
    Almost,
    /// All zero.
    Zero,
}

const ROWS: [Rows; 6] = [Rows::Noise, Rows::Ties, Rows::Norms, Rows::Spikes, Rows::Almost, Rows::Zero];

fn weights(kind: Rows, rows: usize, cols: usize, r: &mut Random) -> Vec<f32> {
    let mut w = r.floats(rows * cols, 0.1);
    for row in 0..rows {
        let at = row * cols;
        match kind {
            Rows::Noise => {}
            Rows::Ties if row > 0 && r.below(2) == 0 => {
                let other = r.below(row) * cols;
                w.copy_within(other..other + cols, at);
            }
            Rows::Ties => {}
            Rows::Norms => {
                let factor = if r.below(5) == 0 { 0.0 } else { 10f32.powi(r.below(11) as i32 - 6) };
                w[at..at + cols].iter_mut().for_each(|w| *w *= factor);
            }
            Rows::Spikes => w[at + r.below(cols)] = 50.0,
            Rows::Almost if row > 0 => {
                w.copy_within(0..cols, at);
                let i = at + r.below(cols);
                w[i] = f32::from_bits(w[i].to_bits() ^ 0x2000);
            }
            Rows::Almost => {}
            Rows::Zero => w[at..at + cols].fill(0.0),
        }
    }
    w
}

struct Case {
    bytes: Vec<u8>,
    format: &'static Format,
    rows: usize,
    cols: usize,
    x: Vec<f32>,
}

impl Case {
    fn new(kind: Rows, format: &'static Format, rows: usize, cols: usize, r: &mut Random) -> Self {
        let bytes = (format.pack)(&weights(kind, rows, cols, r), rows, cols).unwrap();
        let mut x = r.floats(cols, 2.0);
        match r.below(4) {
            0 => x[r.below(cols)] = 3000.0,
            1 => x.iter_mut().for_each(|x| *x *= 1e-20),
            2 => x.iter_mut().step_by(2).for_each(|x| *x = 0.0),
            _ => {}
        }
        Self { bytes, format, rows, cols, x }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.format, self.rows, self.cols, &self.bytes).unwrap()
    }

    /// All products; and those of the screen with how many were exact.
    fn both(&self, k: &dyn Kernels, pool: &Pool, wanted: Wanted<'_>) -> (Vec<f32>, Vec<f32>, usize) {
        let w = self.matrix();
        let x = prepared(k, ActKind::F32, &self.x, 1);
        let whole = matmul(k, &w, &x);
        let screen = Screen::new(&w, (k, pool)).expect("a screen");
        let mut y = vec![f32::NAN; self.rows];
        let exact = screen.top((k, pool), &w, &x, wanted, &mut Scratch::default(), &mut y).expect("a bound");
        (whole, y, exact)
    }
}

fn sets() -> Vec<&'static dyn Kernels> {
    let mut sets = fast_sets();
    sets.push(by_name("scalar").unwrap());
    sets
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn no_row_that_counts_is_missing(
        kind in 0usize..6, rows in 1usize..300, cols in 1usize..300, count in 1usize..50, within in 0usize..3,
        also in proptest::collection::vec(0u32..300, 0..5), seed: u64,
    ) {
        let r = &mut Random::new(seed);
        let pool = Pool::new(2).unwrap();
        for format in ["f16", "bf16", "f32"] {
            let case = Case::new(ROWS[kind], quant::by_name(format).unwrap(), rows, cols, r);
            let wanted = Wanted { count, within: [0.0, 0.01, 5.0][within], also: &also };
            for k in sets() {
                let (whole, y, exact) = case.both(k, &pool, wanted);
                let known = y.iter().filter(|y| **y != f32::NEG_INFINITY).count();
                prop_assert!(exact >= known, "{exact} products made {known} values");
                for (row, needed) in required(&whole, wanted).into_iter().enumerate() {
                    let same = y[row].to_bits() == whole[row].to_bits();
                    let absent = !needed && y[row] == f32::NEG_INFINITY;
                    prop_assert!(same || absent, "{} {:?} row {row}: {} for {}", k.name(), ROWS[kind], y[row], whole[row]);
                }
            }
        }
    }

    #[test]
    fn every_set_has_the_naive_sums(rows in 1usize..20, cols in 1usize..400, seed: u64) {
        let r = &mut Random::new(seed);
        let limit = (i32::MAX as usize / 127 / cols).min(32_767) as i32;
        let w: Vec<i8> = (0..rows * cols).map(|_| [-127, 127, r.bits() as i8][r.below(3)]).collect();
        let x: Vec<i16> = (0..cols).map(|_| [-limit, limit, r.below(limit as usize) as i32][r.below(3)] as i16).collect();
        let mut want = vec![0; rows];
        by_name("scalar").unwrap().dots_i8_i16(&w, &x, &mut want);
        for k in fast_sets() {
            let mut out = vec![1; rows];
            k.dots_i8_i16(&w, &x, &mut out);
            prop_assert_eq!(&out, &want, "{}", k.name());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Tokens that are read together are screened as each by itself, whichever of them leave no bound.
    #[test]
    fn tokens_together_are_tokens_alone(
        kind in 0usize..6, rows in 1usize..700, cols in 1usize..100, n in 1usize..6, count in 1usize..20, seed: u64,
    ) {
        let r = &mut Random::new(seed);
        let pool = Pool::new(2).unwrap();
        let case = Case::new(ROWS[kind], quant::by_name("f16").unwrap(), rows, cols, r);
        let (w, also) = (case.matrix(), [0, rows as u32 - 1]);
        let screen = Screen::new(&w, (bitnet_kernels::best(), &pool)).unwrap();
        let mut values = r.floats(n * cols, 2.0);
        if r.below(3) == 0 {
            values[r.below(n * cols)] = f32::INFINITY;
        }
        let wanted = Wanted { count, within: 0.01, also: &also };
        for k in sets() {
            let (mut together, mut alone) = (Scratch::default(), Scratch::default());
            let all = prepared(k, ActKind::F32, &values, n);
            screen.read((k, &pool), &w, &all, &mut together);
            // The order of the tokens is the caller's, and one may be asked again.
            for t in (0..n).rev().chain([0]) {
                let x = prepared(k, ActKind::F32, &values[t * cols..(t + 1) * cols], 1);
                let (mut one, mut other) = (vec![f32::NAN; rows], vec![f32::NAN; rows]);
                let exact = screen.pick(k, &w, (t, &x), wanted, &mut together, &mut one);
                prop_assert_eq!(exact, screen.top((k, &pool), &w, &x, wanted, &mut alone, &mut other));
                let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
                prop_assert!(bits(&one) == bits(&other), "{} token {t} of {n}", k.name());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// A copy that grows while it is read has, after each part, the products of the whole matrix for every row that counts; in the
    /// end it is the copy that is made at once.
    #[test]
    fn a_copy_may_be_made_in_parts(
        kind in 0usize..6, rows in 1usize..1500, cols in 1usize..100, n in 1usize..4, more in 1usize..900, seed: u64,
    ) {
        let r = &mut Random::new(seed);
        let pool = Pool::new(2).unwrap();
        let case = Case::new(ROWS[kind], quant::by_name(["f16", "bf16", "f32"][r.below(3)]).unwrap(), rows, cols, r);
        let w = case.matrix();
        let wanted = Wanted { count: 1 + r.below(9), within: 0.01, also: &[0, rows as u32 / 2] };
        for k in sets() {
            let at_once = Screen::new(&w, (k, &pool)).unwrap();
            let mut screen = Screen::empty(&w, Some(false)).unwrap();
            let (mut scratch, mut alone) = (Scratch::default(), Scratch::default());
            while !screen.is_whole() {
                let before = screen.copied();
                let values = r.floats(n * cols, 2.0);
                let all = prepared(k, ActKind::F32, &values, n);
                let copied = std::sync::Mutex::new(Vec::new());
                let note = |rows: std::ops::Range<usize>| copied.lock().unwrap().extend(rows);
                screen.read_on((k, &pool), (&w, more), &all, &note, &mut scratch);
                let mut copied = copied.into_inner().unwrap();
                copied.sort_unstable();
                prop_assert!(copied.into_iter().eq(before..screen.copied()) && screen.copied() == rows.min(before + more));
                for t in 0..n {
                    let x = prepared(k, ActKind::F32, &values[t * cols..(t + 1) * cols], 1);
                    let whole = matmul(k, &w, &x);
                    // As the copy is now, and as a whole one that another may have made since.
                    for screen in [&screen, &at_once] {
                        let mut y = vec![f32::NAN; rows];
                        let exact = screen.pick(k, &w, (t, &x), wanted, &mut scratch, &mut y).expect("a bound");
                        prop_assert!(exact >= rows - before);
                        for (row, needed) in required(&whole, wanted).into_iter().enumerate() {
                            let absent = !needed && row < before && y[row] == f32::NEG_INFINITY;
                            prop_assert!(absent || y[row].to_bits() == whole[row].to_bits(), "{} row {row}", k.name());
                        }
                    }
                }
            }
            let x = prepared(k, ActKind::F32, &case.x, 1);
            let (mut one, mut other) = (vec![f32::NAN; rows], vec![f32::NAN; rows]);
            let parts = screen.top((k, &pool), &w, &x, wanted, &mut scratch, &mut one);
            prop_assert_eq!(parts, at_once.top((k, &pool), &w, &x, wanted, &mut alone, &mut other));
            prop_assert!(one.iter().map(|y| y.to_bits()).eq(other.iter().map(|y| y.to_bits())));
        }
    }

    /// Every set makes the same int8 rows and bounds.
    #[test]
    fn every_set_narrows_alike(kind in 0usize..6, cols in 1usize..400, seed: u64) {
        let r = &mut Random::new(seed);
        for format in ["f16", "bf16", "f32"] {
            let case = Case::new(ROWS[kind], quant::by_name(format).unwrap(), 2, cols, r);
            let narrow = |k: &dyn Kernels| {
                let mut q = vec![0; cols];
                (k.narrow(&case.matrix(), 1, &mut vec![0.0; cols], &mut q), q)
            };
            let expected = narrow(by_name("scalar").unwrap());
            for k in fast_sets() {
                prop_assert_eq!(&narrow(k), &expected, "{} {}", k.name(), format);
            }
        }
    }
}

/// On noise, few rows are left: otherwise screening would be right and useless.
#[test]
fn few_rows_are_multiplied() {
    let r = &mut Random::new(5);
    let pool = Pool::new(2).unwrap();
    let case = Case::new(Rows::Noise, quant::by_name("f16").unwrap(), 20_000, 512, r);
    for (count, most) in [(1, 200), (20, 1000)] {
        let wanted = Wanted { count, within: 0.0, also: &[] };
        let (_, _, exact) = case.both(bitnet_kernels::best(), &pool, wanted);
        assert!((count..=most).contains(&exact), "{exact} of 20,000 rows for the top {count}");
    }
}

/// What has no bound is said, not guessed.
#[test]
fn no_bound_no_answer() {
    let pool = Pool::new(1).unwrap();
    let format = quant::by_name("f32").unwrap();
    let wanted = Wanted { count: 1, within: 0.0, also: &[] };
    for (weight, value) in [(1.0, f32::NAN), (1.0, f32::INFINITY), (3e30, 3e30)] {
        let bytes = (format.pack)(&[weight; 8], 2, 4).unwrap();
        let w = Matrix::new(format, 2, 4, &bytes).unwrap();
        let x = prepared(bitnet_kernels::best(), ActKind::F32, &[1.0, value, 1.0, 1.0], 1);
        let screen = Screen::new(&w, (bitnet_kernels::best(), &pool)).unwrap();
        let mut y = [7.0; 2];
        let top = screen.top((bitnet_kernels::best(), &pool), &w, &x, wanted, &mut Scratch::default(), &mut y);
        assert_eq!((top, y), (None, [7.0; 2]), "{weight} x {value}");
    }
    let ternary = quant::by_name("i2_s").unwrap();
    let bytes = (ternary.pack)(&[1.0; 128], 1, 128).unwrap();
    let set = (bitnet_kernels::best(), &pool);
    assert!(Screen::new(&Matrix::new(ternary, 1, 128, &bytes).unwrap(), set).is_none(), "not a matrix of floats");
}

/// Values whose three roundings (of the scale, of its inverse and of the product) all hide a part of what is left out.
#[test]
fn what_roundings_hide_is_in_the_bound() {
    for (most, value) in [(1.922_679f32, 1.907_539_2f32), (1.854_052_1, 1.839_452_9), (1.975_527_5, 1.975_527)] {
        let row: Vec<f32> = std::iter::once(most).chain([value; 255]).collect();
        let format = quant::by_name("f32").unwrap();
        let bytes = (format.pack)(&row, 1, row.len()).unwrap();
        let w = Matrix::new(format, 1, row.len(), &bytes).unwrap();
        for k in sets() {
            let mut q = vec![0; row.len()];
            let bound = k.narrow(&w, 0, &mut vec![0.0; row.len()], &mut q);
            let rest = row.iter().zip(&q).map(|(w, q)| f64::from(*w) - f64::from(bound.scale) * f64::from(*q));
            let rest = rest.map(|e| e * e).sum::<f64>().sqrt();
            assert!(f64::from(bound.rest) >= rest, "{} {most} {value}: {bound:?}, {rest}", k.name());
        }
    }
}

/// How far a copy is, in a log.
#[test]
fn a_copy_shows_how_far_it_is() {
    let format = quant::by_name("f32").unwrap();
    let bytes = (format.pack)(&[1.0; 12], 3, 4).unwrap();
    let w = Matrix::new(format, 3, 4, &bytes).unwrap();
    let (pool, k) = (Pool::new(1).unwrap(), bitnet_kernels::best());
    let mut screen = Screen::empty(&w, Some(false)).unwrap();
    let x = prepared(k, ActKind::F32, &[1.0; 4], 1);
    screen.read_on((k, &pool), (&w, 2), &x, &|_| {}, &mut Scratch::default());
    assert_eq!(format!("{screen:?}"), "Screen { rows: 3, cols: 4, copied: 2, .. }");
    assert_eq!((screen.is_whole(), screen.bytes()), (false, 2 * (4 + size_of::<bitnet_kernels::screen::Bound>())));
}

/// What the int8 copy leaves out of a row points where the input points, which is the worst that a bound must cover: the row with
/// the largest product is 55 steps behind by the copy, of the 57 that the bounds of both rows allow.
#[test]
fn a_rest_along_the_input_is_covered() {
    const COLS: usize = 64;
    const STEP: f32 = 1.0 / 1024.0;
    let pool = Pool::new(1).unwrap();
    let format = quant::by_name("f32").unwrap();
    for seed in 0..20 {
        let r = &mut Random::new(seed);
        let sign: Vec<f32> = (0..COLS).map(|_| [1.0, -1.0][r.below(2)]).collect();
        let codes: Vec<f32> = (0..COLS).map(|_| r.below(41) as f32 - 20.0).collect();
        let row = |behind: f32, steps: usize| {
            let value = |i: usize| {
                let ahead = if (1..=steps).contains(&i) { sign[i] } else { 0.0 };
                STEP * (codes[i] + ahead + behind * sign[i])
            };
            // The largest value fixes the step and is itself exact.
            std::iter::once(127.0 * STEP).chain((1..COLS).map(value)).collect::<Vec<_>>()
        };
        let weights = [row(-0.45, 55), row(0.45, 0)].concat();
        let bytes = (format.pack)(&weights, 2, COLS).unwrap();
        let w = Matrix::new(format, 2, COLS, &bytes).unwrap();
        for k in sets() {
            let x = prepared(k, ActKind::F32, &sign, 1);
            let whole = matmul(k, &w, &x);
            assert!(whole[1] > whole[0], "{whole:?}");
            let mut y = [f32::NAN; 2];
            let screen = Screen::new(&w, (k, &pool)).unwrap();
            let wanted = Wanted { count: 1, within: 0.0, also: &[] };
            screen.top((k, &pool), &w, &x, wanted, &mut Scratch::default(), &mut y).expect("a bound");
            assert_eq!(y[1].to_bits(), whole[1].to_bits(), "{} seed {seed}: the largest is missing", k.name());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// The bounds of every row of every set, in f64.
    #[test]
    fn bounds_hold_for_every_row(kind in 0usize..6, rows in 1usize..12, cols in 1usize..300, seed: u64) {
        for format in ["f16", "bf16", "f32"] {
            let case = Case::new(ROWS[kind], quant::by_name(format).unwrap(), rows, cols, &mut Random::new(seed));
            let w = case.matrix();
            for k in sets() {
                let (mut values, mut q) = (vec![0.0; cols], vec![0; cols]);
                for row in 0..rows {
                    let bound = k.narrow(&w, row, &mut values, &mut q);
                    w.unpack_row(row, &mut values);
                    let norm = |of: &dyn Fn(usize) -> f64| (0..cols).map(|i| of(i).powi(2)).sum::<f64>().sqrt();
                    let whole = norm(&|i| f64::from(values[i]));
                    let rest = norm(&|i| f64::from(values[i]) - f64::from(bound.scale) * f64::from(q[i]));
                    prop_assert!(f64::from(bound.norm) >= whole, "{} row {row}: {bound:?}, {whole}", k.name());
                    prop_assert!(f64::from(bound.rest) >= rest, "{} row {row}: {bound:?}, {rest}", k.name());
                }
            }
        }
    }
}
