//! The largest of numbers that lie on the device: the radix search against sorting.

use std::sync::Arc;

use bitnet_kernels::cuda::device::{Buffer as Held, Device};
use bitnet_kernels::cuda::emu::{Arg, EmuError, Emulation};
use bitnet_kernels::cuda::head::TopK;
use bitnet_kernels::screen::Wanted;
use proptest::prelude::*;

use super::common::{Random, required, values};
use super::faults::{alone, every_barrier_is_missed};
use super::{How, hows, of};

/// Words of `ranks` for each token.
pub(crate) const RANK_WORDS: usize = 3 * 2048 + 8;

pub(crate) fn emulation() -> Arc<dyn Device> {
    Arc::new(Emulation::new().unwrap())
}

/// Numbers of many kinds, none of them NaN.
fn numbers(n: usize, r: &mut Random) -> Vec<f32> {
    match r.below(5) {
        0 => (0..n).map(|_| r.below(3) as f32 - 1.0).collect(),
        1 => vec![[0.0, -0.0, 1.5, f32::NEG_INFINITY, f32::INFINITY][r.below(5)]; n],
        // Neighbours: they differ in the last digit alone.
        2 => (0..n).map(|_| f32::from_bits(0x40a0_0000 + r.below(50) as u32)).collect(),
        3 => values(n, r).iter().map(|v| if v.is_nan() { -0.0 } else { *v }).collect(),
        _ => r.floats(n, 8.0),
    }
}

/// Rows and the bits of their values.
type Rows = Vec<(u32, u32)>;

/// The rows that `bn_rank` and `bn_pick` leave for each of `tokens`, with their values; `None` where there was no room.
fn search(
    how: How,
    passes: u32,
    y: &[f32],
    (tokens, capacity): (usize, usize),
    wanted: Wanted<'_>,
) -> Result<Vec<Option<Rows>>, EmuError> {
    let n = y.len() / tokens;
    let mut words = vec![wanted.count as u32, wanted.within.to_bits(), wanted.also.len() as u32, 0];
    words.extend(wanted.also);
    let (y, wanted, ranks) = (of(y), of(&words), of(&vec![0u32; tokens * RANK_WORDS]));
    let picked = of(&vec![9u32; tokens * (4 + 2 * capacity)]);
    let args = |pass| {
        let [y, wanted, ranks, picked] = [&y, &wanted, &ranks, &picked].map(Arg::Buffer);
        [
            Arg::U32(pass),
            y,
            Arg::U32(n as u32),
            Arg::U32(tokens as u32),
            wanted,
            ranks,
            picked,
            Arg::U32(capacity as u32),
        ]
    };
    // The second time what the first left behind is there.
    for _ in 0..2 {
        for pass in 0..passes {
            how.run("bn_rank", 0, &args(pass))?;
        }
        how.run("bn_pick", 0, &args(passes))?;
    }
    let picked = picked.read::<u32>();
    Ok(picked
        .chunks_exact(4 + 2 * capacity)
        .map(|words| {
            let mut rows: Vec<_> = words[4..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            rows.truncate(words[0] as usize);
            rows.sort_unstable();
            (words[0] as usize <= capacity).then_some(rows)
        })
        .collect())
}

#[test]
fn any_grid_and_order_pick_the_same() {
    let mut r = Random::new(60);
    for (n, tokens, count) in [(1, 1, 1), (7, 3, 5), (300, 2, 40), (5000, 2, 1000), (2049, 1, 9000)] {
        let y: Vec<f32> = (0..tokens).flat_map(|_| numbers(n, &mut r)).collect();
        for within in [0.0, 0.25] {
            let also = [0, n as u32 - 1, n as u32 + 5];
            let wanted = Wanted { count, within, also: &also };
            for how in hows(&[[1, 1, 1], [5, 2, 1]], &[256]) {
                let picked = search(how, 3, &y, (tokens, n), wanted).unwrap();
                for (y, rows) in y.chunks(n).zip(picked) {
                    let rows = rows.expect("room for all");
                    let needed = required(y, wanted);
                    for (row, needed) in needed.iter().enumerate() {
                        // Nothing else, but where a difference was rounded.
                        let there = rows.binary_search(&(row as u32, y[row].to_bits())).is_ok();
                        assert!(there || !needed, "{row} of {n} is missing, {how:?}");
                        assert!(!there || *needed || within > 0.0, "{row} of {n} is too many, {how:?}");
                    }
                    let sure = needed.iter().filter(|needed| **needed).count();
                    assert!(rows.len() <= sure + n / 50, "{} of {sure} rows", rows.len());
                }
                // Two passes: a little more.
                for (two, y) in search(how, 2, &y, (tokens, n), wanted).unwrap().iter().zip(y.chunks(n)) {
                    let two = two.as_ref().expect("room for all");
                    for (row, _) in required(y, wanted).iter().enumerate().filter(|(_, needed)| **needed) {
                        assert!(two.binary_search(&(row as u32, y[row].to_bits())).is_ok(), "{row} of {n}, {how:?}");
                    }
                }
            }
        }
    }
    let wanted = Wanted { count: 1, within: 0.0, also: &[] };
    let how = How::new([2, 1, 1], 256, 0);
    assert_eq!(search(how, 3, &[2.0; 50], (1, 49), wanted).unwrap(), [None], "no room");
    assert_eq!(search(how, 3, &[f32::NAN; 50], (1, 49), wanted).unwrap(), [Some(vec![])], "NaN");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_largest_are_there(
        n in 1usize..2500, tokens in 1usize..4, count in 0usize..3000, within in 0usize..4,
        also in proptest::collection::vec(0u32..2600, 0..5), seed: u64,
    ) {
        let r = &mut Random::new(seed);
        let device = emulation();
        let top = TopK::new(&device, n, tokens).unwrap();
        let y: Vec<f32> = (0..tokens).flat_map(|_| numbers(n, r)).collect();
        let held = Held::of(&device, &y, "logits").unwrap();
        let within = [0.0, 1e-6, 0.7, f32::INFINITY][within];
        top.want(Wanted { count, within, also: &also }).unwrap();
        top.launch(&held, 0..tokens).unwrap();
        // The same as the CPU's: no count is one.
        let wanted = Wanted { count: count.max(1), within, also: &also };
        for (t, y) in y.chunks(n).enumerate() {
            let picked = top.read(&held, t).unwrap();
            prop_assert_eq!(picked.sound, y.iter().all(|v| *v < f32::INFINITY));
            prop_assert!(picked.pairs.is_sorted_by(|a, b| a.0 < b.0), "rows rise");
            for (row, _) in required(y, wanted).iter().enumerate().filter(|(_, needed)| **needed) {
                prop_assert!(picked.pairs.binary_search_by_key(&(row as u32), |pair| pair.0).is_ok(), "{}", row);
            }
            for (row, logit) in picked.pairs {
                prop_assert_eq!(logit.to_bits(), y[row as usize].to_bits());
            }
        }
    }
}

#[test]
fn more_than_there_is_room_for() {
    let device = emulation();
    let top = TopK::new(&device, 9000, 2).unwrap();
    let mut y = vec![1.0f32; 18_000];
    y[9000..].fill(f32::NAN);
    y[9000 + 77] = 3.0;
    let held = Held::of(&device, &y, "logits").unwrap();
    let many: Vec<u32> = (0..2000).collect();
    for (count, also, all) in [(1, &[][..], true), (1, &many[..1000], true), (1, &many, true)] {
        top.want(Wanted { count, within: 0.0, also }).unwrap();
        top.launch(&held, 0..2).unwrap();
        let first = top.read(&held, 0).unwrap();
        assert_eq!((first.pairs.len() == 9000, first.sound), (all, true));
        let second = top.read(&held, 1).unwrap();
        assert!(!second.sound && second.pairs.contains(&(77, 3.0)), "NaN is said");
        assert!(also.len() == 2000 || also.iter().all(|row| second.pairs.iter().any(|pair| pair.0 == *row)));
    }
    assert!(top.launch(&held, 1..3).is_err(), "a token that is not there");
    assert!(top.read(&held, 2).is_err(), "a token that is not there");
}

#[test]
fn every_barrier_of_the_search_is_needed_and_missed() {
    if !alone() {
        return;
    }
    let mut r = Random::new(61);
    let mut y = r.floats(2 * 1200, 4.0);
    y[1200..].iter_mut().for_each(|y| *y = 1e-3 - *y * 1e-4);
    let wanted = of(&[30u32, 0, 0, 0]);
    let run = |how: How, entry: &str, last: u32| {
        let (y, ranks) = (of(&y), of(&[0u32; 2 * RANK_WORDS]));
        let picked = of(&[0u32; 2 * (4 + 2 * 1200)]);
        let args = |pass| {
            let [y, ranks, wanted, picked] = [&y, &ranks, &wanted, &picked].map(Arg::Buffer);
            [Arg::U32(pass), y, Arg::U32(1200), Arg::U32(2), wanted, ranks, picked, Arg::U32(1200)]
        };
        let plain = How { skip: 0, order: 0, ..how };
        for pass in 0..last {
            plain.run("bn_rank", 0, &args(pass))?;
        }
        how.run(entry, 0, &args(last))?;
        let mut picked = picked.read::<u32>();
        for of in picked.chunks_mut(4 + 2 * 1200) {
            let n = of[0] as usize;
            let mut rows: Vec<_> = of[4..4 + 2 * n].chunks(2).map(|pair| (pair[0], pair[1])).collect();
            rows.sort_unstable();
            of[4..4 + 2 * n].iter_mut().zip(rows.iter().flat_map(|pair| [pair.0, pair.1])).for_each(|(to, v)| *to = v);
        }
        Ok(ranks.read::<u32>().into_iter().chain(picked).collect())
    };
    // Two tokens by one block.
    every_barrier_is_missed("bn_rank, first", (4, &[]), ([1, 1, 1], 256), &|how| run(how, "bn_rank", 0));
    every_barrier_is_missed("bn_rank, second", (6, &[]), ([1, 1, 1], 256), &|how| run(how, "bn_rank", 1));
    every_barrier_is_missed("bn_pick", (4, &[]), ([1, 1, 1], 256), &|how| run(how, "bn_pick", 3));
}
