//! The screened head: its bounds hold, and what it picks has the bits of the whole head, for rows and inputs that are meant
//! to break it.

use std::sync::Arc;

use bitnet_kernels::cuda::device::{Arg as OnCard, Buffer as Held, Device, Launch, record, start};
use bitnet_kernels::cuda::emu::{Arg, EmuError};
use bitnet_kernels::cuda::head::{Output, Picked, ScreenedHead, Totals};
use bitnet_kernels::quant::f16;
use bitnet_kernels::screen::Wanted;
use bitnet_kernels::{ActKind, Matrix, numerics};
use proptest::prelude::*;

use super::common::{Random, matmul, prepared, required};
use super::faults::{alone, bits, every_barrier_is_missed};
use super::top::{RANK_WORDS, emulation};
use super::{How, hows, of, room, scalar};

/// Kinds of rows and of inputs: below `ROWS` and `INPUTS`.
const ROWS: usize = 11;
const INPUTS: usize = 11;

/// f16 bits, `[rows][cols]`, all finite.
fn weights(kind: usize, rows: usize, cols: usize, r: &mut Random) -> Vec<u16> {
    let mut w: Vec<f32> = r.floats(rows * cols, 0.1);
    for row in 0..rows {
        let at = row * cols;
        match kind {
            // Ties: some rows are copies of others; all are.
            1 if row > 0 && r.below(2) == 0 => {
                let other = r.below(row) * cols;
                w.copy_within(other..other + cols, at);
            }
            2 if row > 0 => w.copy_within(0..cols, at),
            // Norms from below the normal halves to near the largest, zero rows among them.
            3 => {
                let factor = if r.below(5) == 0 { 0.0 } else { 10f32.powi(r.below(12) as i32 - 6) };
                w[at..at + cols].iter_mut().for_each(|w| *w *= factor);
            }
            // One large value in a row: the copy loses all the others.
            4 => w[at + r.below(cols)] = 60_000.0,
            // Copies of one row that differ in a last bit.
            5 if row > 0 => {
                w.copy_within(0..cols, at);
                let i = at + r.below(cols);
                w[i] *= 1.002;
            }
            6 => w[at..at + cols].fill([0.0, -0.0][r.below(2)]),
            // The least halves there are.
            7 => w[at..at + cols].iter_mut().for_each(|w| *w *= 1e-6),
            // The ends.
            8 => w[at..at + cols].iter_mut().for_each(|w| *w = [65504.0, -65504.0, 6e-8][r.below(3)]),
            // The copy is exact: nothing but roundings is between it and the logit.
            10 => {
                w[at..at + cols].iter_mut().for_each(|w| *w = r.below(255) as f32 - 127.0);
                w[at] = 127.0;
            }
            _ => {}
        }
    }
    let mut w: Vec<u16> = w.into_iter().map(numerics::f32_to_f16).collect();
    if kind == 9 {
        // Any finite bits.
        w.iter_mut().for_each(|w| *w = r.bits() as u16);
        w.iter_mut().filter(|w| **w & 0x7c00 == 0x7c00).for_each(|w| *w ^= 0x4000);
    }
    w
}

fn input(kind: usize, cols: usize, w: &[u16], r: &mut Random) -> Vec<f32> {
    let mut x = r.floats(cols, 2.0);
    match kind {
        1 => x[r.below(cols)] = 3000.0,
        2 => x.iter_mut().for_each(|x| *x *= 1e-20),
        3 => x.iter_mut().for_each(|x| *x *= 1e-41),
        4 => x.iter_mut().step_by(2).for_each(|x| *x = -0.0),
        5 => x.fill(0.0),
        6 => x.iter_mut().for_each(|x| *x *= 1e28),
        // No bound: products may overflow.
        7 => x.iter_mut().for_each(|x| *x *= 1e37),
        // A row of the matrix, which then is far ahead, or all are far behind.
        8 | 9 => {
            let row = r.below(w.len() / cols) * cols;
            let sign = if kind == 8 { 10.0 } else { -10.0 };
            x = w[row..row + cols].iter().map(|w| numerics::f16_to_f32(*w) * sign).collect();
        }
        // Exact, too; large, so that the sums round.
        10 => {
            let limit = (i32::MAX as usize / (127 * cols)).min(32_767);
            x.iter_mut().for_each(|x| *x = (limit - r.below(limit / 20)) as f32);
            x[0] = limit as f32;
        }
        _ => {}
    }
    x
}

struct Case {
    bytes: Vec<u8>,
    rows: usize,
    cols: usize,
    multiplier: f32,
    x: Vec<f32>,
}

impl Case {
    /// Of so many tokens; each has an input of its own kind unless one is given.
    fn new(kinds: (usize, Option<usize>), (rows, cols, tokens): (usize, usize, usize), r: &mut Random) -> Self {
        let w = weights(kinds.0, rows, cols, r);
        let mut x = Vec::new();
        for _ in 0..tokens {
            let kind = kinds.1.unwrap_or_else(|| r.below(INPUTS));
            x.extend(input(kind, cols, &w, r));
        }
        let bytes = w.iter().flat_map(|w| w.to_le_bytes()).collect();
        Self { bytes, rows, cols, multiplier: [1.0, 1.0, 0.37, -2.5, 300.0][r.below(5)], x }
    }

    fn tokens(&self) -> usize {
        self.x.len() / self.cols
    }

    /// `[tokens][rows]`, of the oracle.
    fn whole(&self) -> Vec<f32> {
        let w = Matrix::new(&f16::FORMAT, self.rows, self.cols, &self.bytes).unwrap().times(self.multiplier);
        let x = prepared(scalar(), ActKind::F32, &self.x, self.tokens());
        matmul(scalar(), &w, &x)
    }

    fn on(&self, device: &Arc<dyn Device>) -> OnDevice {
        let w = Held::of(device, &self.bytes, "the matrix").unwrap();
        let output = Output { w: &w, rows: self.rows, cols: self.cols, multiplier: self.multiplier };
        let head = ScreenedHead::build(device, output, self.tokens()).unwrap().expect("a shape to screen");
        OnDevice { head, w, x: Held::of(device, &self.x, "values").unwrap() }
    }
}

struct OnDevice {
    head: ScreenedHead,
    w: Held,
    x: Held,
}

impl OnDevice {
    fn screen(&self, tokens: usize) {
        self.head.screen((&self.x, 0), tokens, None).unwrap();
    }

    fn pick(&self, t: usize, wanted: Wanted<'_>) -> Picked {
        self.head.want(wanted).unwrap();
        self.head.pick(&self.w, (&self.x, 0), t).unwrap();
        self.head.read(t).unwrap()
    }
}

/// What is picked has the bits of the whole head, and all that is wanted is picked.
#[track_caller]
fn assert_picked(picked: &Picked, whole: &[f32], wanted: Wanted<'_>, what: &dyn std::fmt::Display) {
    assert!(picked.pairs.is_sorted_by(|a, b| a.0 < b.0), "{what}: rows rise");
    assert!(picked.rescored >= picked.pairs.len(), "{what}");
    for &(row, logit) in &picked.pairs {
        let want = whole[row as usize];
        assert!(
            logit.to_bits() == want.to_bits() || logit.is_nan() && want.is_nan(),
            "{what}: row {row} is {logit}, must be {want}"
        );
    }
    for (row, _) in required(whole, wanted).iter().enumerate().filter(|(_, needed)| **needed) {
        let there = picked.pairs.binary_search_by_key(&(row as u32), |pair| pair.0).is_ok();
        assert!(there || whole[row].is_nan(), "{what}: row {row} ({}) is missing", whole[row]);
    }
}

/// The key that the whole head leaves.
fn best_of(whole: &[f32]) -> u64 {
    let largest = whole.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let row = whole.iter().position(|v| *v == largest && *v > f32::NEG_INFINITY);
    let key = |v: f32| if v.to_bits() >> 31 == 1 { !v.to_bits() } else { v.to_bits() | 1 << 31 };
    row.map_or(0, |row| u64::from(key(largest + 0.0)) << 32 | u64::from(!(row as u32)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn no_row_that_counts_is_missing(
        kind in 0..ROWS, rows in 1usize..200, eights in 1usize..30, tokens in 1usize..6, count in 0usize..40,
        within in 0usize..4, also in proptest::collection::vec(0u32..220, 0..5), seed: u64,
    ) {
        let r = &mut Random::new(seed);
        let case = Case::new((kind, None), (rows, eights * 8, tokens), r);
        let device = emulation();
        let (whole, on) = (case.whole(), case.on(&device));
        on.screen(tokens);
        let wanted = Wanted { count, within: [0.0, 0.01, 5.0, f32::INFINITY][within], also: &also };
        // The order is the caller's, and a token may be asked again.
        for t in (0..tokens).rev().chain([0]) {
            let whole = &whole[t * rows..(t + 1) * rows];
            let picked = on.pick(t, wanted);
            let wanted = Wanted { count: count.max(1), ..wanted };
            assert_picked(&picked, whole, wanted, &format_args!("token {t} of {tokens}, rows {kind}"));
            if picked.sound {
                prop_assert!(picked.pairs.iter().all(|pair| pair.1 < f32::INFINITY));
            }
        }
        let best = Held::of(&device, &vec![7u64; tokens], "keys").unwrap();
        on.head.greedy(&on.w, (&on.x, 0), tokens, &best).unwrap();
        let mut keys = vec![0u64; tokens];
        best.read(0, &mut keys).unwrap();
        let want: Vec<u64> = whole.chunks(rows).map(best_of).collect();
        prop_assert_eq!(keys, want, "rows {}", kind);
    }
}

/// What the kernels leave, by themselves.
struct Screened {
    q: Vec<i8>,
    rows_known: Vec<f32>,
    planes: Vec<u8>,
    known: Vec<f32>,
    lower: Vec<f32>,
    upper: Vec<f32>,
    reach: Vec<u32>,
}

/// Builds, prepares and screens; the kernel called `varied` runs as `how` says, the others plainly.
fn screened(how: How, varied: &str, case: &Case, together: usize) -> Result<Screened, EmuError> {
    let (rows, cols, tokens) = (case.rows, case.cols, case.tokens());
    let stride = cols.next_multiple_of(16);
    let run = |entry: &str, shared: usize, args: &[Arg<'_>]| {
        let plain = How::new(how.grid, 256, 0);
        if entry.starts_with(varied) { how } else { plain }.run(entry, shared, args)
    };
    let number = |n: usize| Arg::U32(n as u32);
    let (w, q, rows_known, largest) = (of(&case.bytes), room::<i8>(rows * stride), room::<f32>(rows * 4), of(&[0u32]));
    let outs = [&q, &rows_known, &largest].map(Arg::Buffer);
    let mut args = vec![Arg::Buffer(&w), number(rows), number(cols), number(stride)];
    args.extend(outs);
    run("bn_screen_build", 0, &args)?;

    let (x, planes, known) = (of(&case.x), room::<u8>(tokens * 2 * stride), room::<f32>(tokens * 4));
    let (picked, capacity, best) = (room::<u32>(tokens * 6), number(1), room::<u64>(tokens));
    let multiplier = Arg::F32(case.multiplier);
    let mut args = vec![Arg::Buffer(&x), number(tokens), number(cols), number(stride), multiplier, outs[2]];
    args.extend([&planes, &known, &picked].map(Arg::Buffer));
    args.extend([capacity, Arg::Buffer(&best)]);
    run("bn_screen_token", 0, &args)?;
    assert!(best.read::<u64>().iter().all(|key| *key == 0));

    let (lower, upper) = (room::<f32>(tokens * rows), room::<f32>(tokens * rows));
    let mut args = vec![outs[0], outs[1], number(rows), number(stride), multiplier];
    args.extend([&planes, &known].map(Arg::Buffer));
    args.push(number(tokens));
    args.extend([&lower, &upper, &picked].map(Arg::Buffer));
    args.push(capacity);
    run(&format!("bn_screen_{together}"), 2 * together * stride, &args)?;
    Ok(Screened {
        q: q.read(),
        rows_known: rows_known.read(),
        planes: planes.read(),
        known: known.read(),
        lower: lower.read(),
        upper: upper.read(),
        reach: picked.read::<u32>().chunks(6).map(|header| header[2]).collect(),
    })
}

impl Screened {
    /// All that must not depend on the launch.
    fn words(&self) -> Vec<u32> {
        let bytes = self.q.iter().map(|q| *q as u32).chain(self.planes.iter().map(|b| u32::from(*b)));
        let floats = [&self.rows_known, &self.known, &self.lower, &self.upper];
        bytes.chain(floats.into_iter().flat_map(|f| bits(f))).chain(self.reach.iter().copied()).collect()
    }
}

#[test]
fn the_bounds_hold_on_any_grid_and_in_any_order() {
    let mut r = Random::new(50);
    for kind in 0..ROWS {
        for input in 0..INPUTS {
            let shape = (1 + r.below(90), 8 * (1 + r.below(40)), 1 + r.below(5));
            let case = Case::new((kind, Some(input)), shape, &mut r);
            let what = format!("rows {kind}, input {input}, {shape:?}, times {}", case.multiplier);
            let first = screened(How::new([3, 1, 1], 256, 0), "", &case, 1).unwrap();
            let whole = case.whole();
            for ((logit, low), high) in whole.iter().zip(&first.lower).zip(&first.upper) {
                // What is not a number is said by the exact logits.
                assert!(low <= logit && logit <= high || !logit.is_finite(), "{what}: {low} <= {logit} <= {high}");
                assert!(low.is_finite() && high.is_finite(), "{what}: {low}, {high}");
            }
            let how = hows(&[[1, 1, 1], [2, 3, 1]], &[256]).nth(r.below(6)).unwrap();
            let together = [1, 4][r.below(2)];
            let second = screened(how, "", &case, together).unwrap();
            assert!(first.words() == second.words(), "{what}: {how:?}, {together} together");
        }
    }
}

/// The codes are not only within their bounds, they are good: a bound of a hundredth of the norms.
#[test]
fn the_bounds_are_narrow() {
    let mut r = Random::new(51);
    let case = Case::new((0, Some(0)), (50, 512, 1), &mut r);
    let s = screened(How::new([2, 1, 1], 128, 0), "bn_screen_1", &case, 1).unwrap();
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let x = norm(&mut case.x.iter().copied()) * f64::from(case.multiplier.abs());
    for ((low, high), row) in s.lower.iter().zip(&s.upper).zip(case.bytes.chunks(2 * case.cols)) {
        let halves = row.chunks(2).map(|b| numerics::f16_to_f32(u16::from_le_bytes([b[0], b[1]])));
        let width = f64::from(high - low);
        assert!(width < 0.012 * x * norm(&mut halves.into_iter()), "{width}");
    }
}

/// On noise few rows are left: otherwise screening would be right and useless.
#[test]
fn few_rows_are_multiplied() {
    let mut r = Random::new(52);
    let mut case = Case::new((0, Some(0)), (6000, 256, 1), &mut r);
    case.multiplier = 1.0;
    let (whole, on) = (case.whole(), case.on(&emulation()));
    on.screen(1);
    for (count, most) in [(1, 60), (20, 300)] {
        let wanted = Wanted { count, within: 0.0, also: &[] };
        let picked = on.pick(0, wanted);
        assert_picked(&picked, &whole, wanted, &count);
        println!("{} of 6,000 rows for the top {count}", picked.rescored);
        assert!((count..=most).contains(&picked.rescored), "{} of 6,000 rows for the top {count}", picked.rescored);
    }
    let totals = on.head.totals().unwrap();
    assert_eq!((totals.tokens, totals.whole), (2, 0));
}

/// More candidates than there is room for, and inputs or rows that leave no bound: all rows are multiplied, on the device.
#[test]
fn where_screening_fails_all_rows_are_multiplied() {
    let mut r = Random::new(53);
    let rows = 4500;
    for (kind, input, sound) in [(2, 0, true), (6, 0, true), (0, 5, true), (0, 7, true), (1, 0, false)] {
        let mut case = Case::new((kind, Some(input)), (rows, 16, 2), &mut r);
        case.multiplier = 1.0;
        if !sound {
            // An infinite logit: in its row nothing is known, and what the others have is not looked for.
            case.bytes[32 * 70..32 * 70 + 2].copy_from_slice(&0x7c00u16.to_le_bytes());
            case.x[0] = 1.0;
            case.x[16] = 1.0;
        }
        let device = emulation();
        let (whole, on) = (case.whole(), case.on(&device));
        on.screen(2);
        for count in [1, 3] {
            let wanted = Wanted { count, within: 0.0, also: &[5] };
            for t in 0..2 {
                let picked = on.pick(t, wanted);
                assert_eq!((picked.rescored, picked.sound), (rows, sound), "rows {kind}, input {input}");
                assert_picked(&picked, &whole[t * rows..(t + 1) * rows], wanted, &kind);
            }
        }
        let best = Held::of(&device, &[1u64; 2], "keys").unwrap();
        on.head.greedy(&on.w, (&on.x, 0), 2, &best).unwrap();
        let mut keys = [0; 2];
        best.read(0, &mut keys).unwrap();
        assert_eq!(keys, [0, 1].map(|t| best_of(&whole[t * rows..(t + 1) * rows])), "rows {kind}, input {input}");
        let all = Totals { tokens: 6, rows: 6 * rows as u64, whole: 6 };
        assert_eq!(on.head.totals().unwrap(), all);
    }
}

/// A recorded sequence follows what is wanted and what the values are.
#[test]
fn recorded_launches_serve_every_token() {
    let mut r = Random::new(54);
    let mut case = Case::new((0, Some(0)), (300, 64, 1), &mut r);
    case.multiplier = 1.0;
    let device = emulation();
    let on = case.on(&device);
    let x = (&on.x, 0);
    let kept = record(&*device, &mut || {
        on.head.screen(x, 1, None)?;
        on.head.pick(&on.w, x, 0)
    });
    let kept = kept.unwrap();
    for (count, within) in [(1, 0.0), (7, 0.0), (2, 0.5), (1, 0.0)] {
        let case = Case { x: r.floats(64, 5.0), bytes: case.bytes.clone(), ..case };
        on.x.write(0, &case.x).unwrap();
        let wanted = Wanted { count, within, also: &[299] };
        on.head.want(wanted).unwrap();
        kept.start().unwrap();
        let picked = on.head.read(0).unwrap();
        assert_picked(&picked, &case.whole(), wanted, &count);
        assert!(picked.rescored < 150, "{} rows", picked.rescored);
    }
}

/// The screen in the place of the head: the key that it leaves is the next token, without the host.
#[test]
fn greedy_tokens_by_one_recording() {
    let mut r = Random::new(56);
    let case = Case::new((5, Some(0)), (300, 64, 1), &mut r);
    let device = emulation();
    let on = case.on(&device);
    let held = |n: usize| Held::of(&device, &vec![0u32; n], "words").unwrap();
    let (best, token, position, history) = (held(2), held(1), held(1), held(4));
    let kept = record(&*device, &mut || {
        on.head.greedy(&on.w, (&on.x, 0), 1, &best)?;
        let launch = Launch { entry: "bn_next", grid: [1, 1, 1], block: 32, shared: 0 };
        let [best, token, position, history] = [&best, &token, &position, &history].map(OnCard::Buffer);
        // SAFETY: the arguments of `bn_next`, a word each and four of history.
        unsafe { start(&*device, &launch, &[best, token, position, history, OnCard::U32(4)]) }
    });
    let kept = kept.unwrap();
    let mut want = vec![0];
    for _ in 0..3 {
        let case = Case { x: r.floats(64, 5.0), bytes: case.bytes.clone(), ..case };
        on.x.write(0, &case.x).unwrap();
        kept.start().unwrap();
        want.push(!(best_of(&case.whole()) as u32));
    }
    let mut tokens = [9; 4];
    history.read(0, &mut tokens).unwrap();
    assert_eq!(tokens, *want);
    assert_eq!(on.head.totals().unwrap().tokens, 3);
}

#[test]
fn shapes_that_are_not_screened() {
    let device = emulation();
    let w = Held::new::<u16>(&device, 64, "the matrix").unwrap();
    let build = |rows, cols, multiplier| ScreenedHead::build(&device, Output { w: &w, rows, cols, multiplier }, 1);
    for (rows, cols, multiplier) in [(0, 8, 1.0), (4, 0, 1.0), (4, 12, 1.0), (1, 12_296, 1.0), (4, 8, f32::INFINITY)] {
        assert!(build(rows, cols, multiplier).unwrap().is_none(), "{rows} x {cols}, times {multiplier}");
    }
    assert!(build(9, 8, 1.0).is_err(), "a matrix beyond its buffer");
    let head = build(8, 8, 1.0).unwrap().expect("a shape to screen");
    let small = Held::new::<f32>(&device, 12, "values").unwrap();
    assert!(head.screen((&small, 0), 2, None).is_err(), "more tokens than there is room for");
    assert!(head.screen((&small, 20), 1, None).is_err(), "values beyond their buffer");
    assert!(head.pick(&w, (&small, 0), 1).is_err(), "no such token");
    assert!(head.read(1).is_err(), "no such token");
}

#[test]
fn every_barrier_of_screening_is_needed_and_missed() {
    if !alone() {
        return;
    }
    let mut r = Random::new(55);
    // Two tokens, or twice four, by one block; behind the last nothing waits for anything.
    let case = Case::new((0, Some(0)), (70, 512, 2), &mut r);
    every_barrier_is_missed("bn_screen_token", (4, &[]), ([1, 1, 1], 256), &|how| {
        Ok(screened(how, "bn_screen_token", &case, 1)?.words())
    });
    every_barrier_is_missed("bn_screen_1", (3, &[]), ([1, 1, 1], 128), &|how| {
        Ok(screened(how, "bn_screen_1", &case, 1)?.words())
    });
    let case = Case::new((0, Some(0)), (70, 256, 8), &mut r);
    every_barrier_is_missed("bn_screen_4", (3, &[]), ([1, 1, 1], 256), &|how| {
        Ok(screened(how, "bn_screen_4", &case, 4)?.words())
    });
    let case = Case::new((0, Some(0)), (70, 256, 2), &mut r);
    let picks: Vec<u32> = (0..2).flat_map(|_| [70, 0, 0, 0].into_iter().chain((0..70).flat_map(|i| [i, 0]))).collect();
    every_barrier_is_missed("bn_rescore", (3, &[]), ([1, 1, 1], 64), &|how| {
        let (w, x, picked, totals) = (of(&case.bytes), of(&case.x), of(&picks), of(&[0u64; 3]));
        let best = of(&[0u64; 2]);
        let mut args = vec![Arg::Buffer(&w), Arg::U32(70), Arg::U32(256), Arg::F32(1.0), Arg::Buffer(&x), Arg::U32(2)];
        args.extend([Arg::Buffer(&picked), Arg::U32(70), Arg::Null]);
        args.extend([&best, &totals].map(Arg::Buffer));
        how.run("bn_rescore", 1024, &args)?;
        Ok(picked.read())
    });
    assert_eq!(RANK_WORDS, 3 * 2048 + 8);
}
