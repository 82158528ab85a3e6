//! How far two rows of logits are apart. Everything is summed in f64; lengths that differ and values that are no
//! numbers give NaN, which no limit accepts.

/// Cosine of the angle between two vectors; 1 for two vectors of zeros.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let (aa, bb) = (dot(a, a), dot(b, b));
    if aa == 0.0 && bb == 0.0 { 1.0 } else { dot(a, b) / (aa * bb).sqrt() }
}

pub fn l2(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum::<f64>().sqrt()
}

/// Largest distance of one value.
pub fn max_abs(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    let distances = a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).abs());
    // `max` would drop a NaN.
    distances.fold(0.0, |most: f64, d| if d.is_nan() || most.is_nan() { f64::NAN } else { most.max(d) })
}

/// Natural logarithm of the sum of exponentials.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    let most = row.iter().fold(f64::NEG_INFINITY, |m, &x| if x.is_nan() { f64::NAN } else { m.max(f64::from(x)) });
    most + row.iter().map(|&x| (f64::from(x) - most).exp()).sum::<f64>().ln()
}

/// Kullback-Leibler divergence between the distributions of two rows of logits, from `reference` to `ours`, in nats.
pub fn kl(ours: &[f32], reference: &[f32]) -> f64 {
    if ours.len() != reference.len() {
        return f64::NAN;
    }
    let pairs = ours.iter().zip(reference).map(|(x, y)| (f64::from(*x), f64::from(*y)));
    not_negative(kl_terms(pairs, log_sum_exp(ours), log_sum_exp(reference)))
}

/// The divergence where only some logits of the reference are known: the other tokens are one bucket, so this is a
/// lower bound of [`kl`], and equal to it when nothing is left out. `pairs` are (ours, reference) of the known tokens;
/// the logarithms are those of whole rows.
pub fn kl_sampled(pairs: &[(f32, f32)], ours_log_sum: f64, reference_log_sum: f64) -> f64 {
    let wide = || pairs.iter().map(|(x, y)| (f64::from(*x), f64::from(*y)));
    let known = kl_terms(wide(), ours_log_sum, reference_log_sum);
    let rest = |log_sum: f64, pick: fn((f64, f64)) -> f64| 1.0 - wide().map(|p| (pick(p) - log_sum).exp()).sum::<f64>();
    let (p, q) = (rest(reference_log_sum, |p| p.1), rest(ours_log_sum, |p| p.0));
    // Below the rounding of a sum that is nearly 1 there is no bucket.
    let bucket = if p > 1e-9 { p * (p / q.max(1e-9)).ln() } else { 0.0 };
    if p.is_nan() || q.is_nan() { f64::NAN } else { not_negative(known + bucket) }
}

/// Rounding may leave a little less than nothing. (`max` would drop a NaN.)
fn not_negative(value: f64) -> f64 {
    if value < 0.0 { 0.0 } else { value }
}

fn kl_terms(pairs: impl Iterator<Item = (f64, f64)>, ours_log_sum: f64, reference_log_sum: f64) -> f64 {
    pairs
        .map(|(x, y)| {
            let (log_q, log_p) = (x - ours_log_sum, y - reference_log_sum);
            let p = log_p.exp();
            if p == 0.0 { 0.0 } else { p * (log_p - log_q) }
        })
        .sum()
}

/// Indices of the `k` largest values, the largest first; of equal ones the smaller index first. A NaN is never among
/// them.
pub fn top(row: &[f32], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..u32::try_from(row.len()).unwrap_or(u32::MAX)).collect();
    order.retain(|&i| !row[i as usize].is_nan());
    let before = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
    if k < order.len() {
        order.select_nth_unstable_by(k, before);
        order.truncate(k);
    }
    order.sort_unstable_by(before);
    order
}

/// By how much the largest value leads the second; 0 where there is no second.
pub fn gap(row: &[f32]) -> f64 {
    match top(row, 2)[..] {
        [first, second] => f64::from(row[first as usize]) - f64::from(row[second as usize]),
        _ => 0.0,
    }
}

/// Share of the one list that is in the other, whatever the order; NaN for empty lists.
pub fn agreement(ours: &[u32], reference: &[u32]) -> f64 {
    reference.iter().filter(|id| ours.contains(id)).count() as f64 / reference.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 1.0]), 0.0);
        assert_eq!(cosine(&[3.0, 4.0], &[6.0, 8.0]), 1.0);
        assert_eq!(cosine(&[0.0], &[0.0]), 1.0);
        assert_eq!(l2(&[0.0, 0.0], &[3.0, 4.0]), 5.0);
        assert_eq!(max_abs(&[1.0, -7.0], &[2.0, 1.0]), 8.0);
        // p = (3/4, 1/4), q = (1/2, 1/2): KL = ln 2 - H(p).
        let expected = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        assert!((kl(&[0.0, 0.0], &[3f32.ln(), 0.0]) - expected).abs() < 1e-7);
        assert!(kl(&[1000.0, 0.0], &[1000.0, 0.0]) == 0.0, "no overflow");
        assert_eq!(top(&[1.0, 3.0, f32::NAN, 3.0, 2.0], 3), [1, 3, 4]);
        assert_eq!(top(&[1.0], 5), [0]);
        assert_eq!(gap(&[1.0, 4.0, 2.5]), 1.5);
        assert_eq!(agreement(&[1, 2, 3, 4], &[4, 9]), 0.5);
    }

    #[test]
    fn what_is_no_number_never_passes_for_one() {
        let (good, bad) = ([1.0f32, 2.0], [1.0f32, f32::NAN]);
        for f in [cosine, l2, max_abs, kl] {
            assert!(f(&good, &bad).is_nan() && f(&bad, &good).is_nan() && f(&good, &[1.0]).is_nan());
        }
        assert!(max_abs(&[f32::NAN, 1.0], &good).is_nan());
        assert!(agreement(&[1], &[]).is_nan());
        assert!(kl_sampled(&[(f32::NAN, 1.0)], 1.0, 1.0).is_nan());
    }

    #[test]
    fn a_sample_gives_a_lower_bound_and_all_of_it_the_value() {
        let ours = [0.3f32, -1.0, 2.0, 0.5, 0.1];
        let reference = [0.1f32, -1.5, 2.2, 0.9, 0.0];
        let whole = kl(&ours, &reference);
        let pairs: Vec<(f32, f32)> = ours.into_iter().zip(reference).collect();
        let (a, b) = (log_sum_exp(&ours), log_sum_exp(&reference));
        assert!((kl_sampled(&pairs, a, b) - whole).abs() < 1e-12);
        let part = kl_sampled(&pairs[..3], a, b);
        assert!(part > 0.0 && part < whole, "{part} {whole}");
    }

    #[test]
    fn what_is_left_out_is_one_bucket() {
        // Shares of 1/8, 1/8 and 3/4, and of 1/2, 1/4 and 1/4.
        let (ours, reference) = ([0.0f32, 0.0, 6f32.ln()], [2f32.ln(), 0.0, 0.0]);
        let (a, b) = (log_sum_exp(&ours), log_sum_exp(&reference));
        assert!((a - 8f64.ln()).abs() < 1e-6 && (b - 4f64.ln()).abs() < 1e-6, "{a} {b}");
        // No sum of exponentials overflows.
        assert_eq!(log_sum_exp(&[-2000.0, 700.0, 1000.0]), 1000.0);
        let two = |p: f64, q: f64| p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln();
        for (token, p, q) in [(0, 0.5, 0.125), (1, 0.25, 0.125), (2, 0.25, 0.75)] {
            let found = kl_sampled(&[(ours[token], reference[token])], a, b);
            assert!((found - two(p, q)).abs() < 1e-6, "{token}: {found} {}", two(p, q));
        }
        assert_eq!(kl_sampled(&[], 1.0, 2.0), 0.0, "all of both is left out");
        // The token has no share in the reference, but what we have is no number.
        assert!(kl_sampled(&[(f32::NAN, -9000.0)], 1.0, 1.0).is_nan());
    }

    #[test]
    fn rounding_gives_no_divergence_below_zero() {
        // Of equal rows the sum of the bucket and the known tokens may be a little less than nothing.
        assert_eq!([-1e-17, -3.0, 0.0, 2.0].map(not_negative), [0.0, 0.0, 0.0, 2.0]);
        assert!(not_negative(f64::NAN).is_nan());
    }

    #[test]
    fn as_many_as_there_are_and_none() {
        assert_eq!(top(&[1.0, 3.0, 2.0], 3), [1, 2, 0]);
        assert_eq!(top(&[1.0, 3.0, 2.0], 0), [] as [u32; 0]);
        assert_eq!([gap(&[]), gap(&[4.0]), gap(&[f32::NAN, 4.0])], [0.0; 3]);
        assert_eq!(cosine(&[0.0, 0.0], &[3.0, 4.0]).to_string(), "NaN", "a side of zeros has no direction");
        assert_eq!(agreement(&[1, 2, 3, 4], &[4, 9, 1, 7, 8]), 0.4);
        assert_eq!((l2(&[1.0, -2.0], &[4.0, -6.0]), max_abs(&[1.0, -2.0], &[4.0, -6.0])), (5.0, 4.0));
    }
}
