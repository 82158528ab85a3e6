//! Paired ratios. Two engines that take turns meet the same machine within a round, whatever it does between rounds; so
//! ratios are taken round by round, and their median and extremes are reported. A ratio of medians is not: its halves may
//! come from different rounds.

use serde::{Deserialize, Serialize};

/// The middle and the ends of some values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// Of values that are all finite; `None` of none, or if one is not.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        if !sorted.iter().all(|v| v.is_finite()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: (lower + upper) / 2.0, least, most })
    }

    /// Of `above[i] / below[i]`; `None` if they are not as many, none, or if one is not above zero.
    pub fn of_ratios(above: &[f64], below: &[f64]) -> Option<Self> {
        let positive = |values: &[f64]| values.iter().all(|v| *v > 0.0);
        if above.len() != below.len() || !positive(above) || !positive(below) {
            return None;
        }
        Self::of(&above.iter().zip(below).map(|(a, b)| a / b).collect::<Vec<_>>())
    }
}

/// [`Spread::median`]; NaN of nothing, or if a value is not finite.
pub fn median(values: &[f64]) -> f64 {
    Spread::of(values).map_or(f64::NAN, |spread| spread.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_ends() {
        for (values, expected) in [
            (&[2.0][..], Some((2.0, 2.0, 2.0))),
            (&[3.0, 1.0, 2.0], Some((2.0, 1.0, 3.0))),
            (&[4.0, 1.0, 2.0, 3.0], Some((2.5, 1.0, 4.0))),
            (&[], None),
            (&[1.0, f64::NAN], None),
            (&[1.0, f64::INFINITY], None),
        ] {
            let expected = expected.map(|(median, least, most)| Spread { median, least, most });
            assert_eq!(Spread::of(values), expected, "{values:?}");
        }
    }

    #[test]
    fn drift_between_rounds_is_nobodys_gain() {
        // The machine got three times slower; each round has one engine at twice the other's rate.
        let (ours, theirs) = ([60.0, 40.0, 20.0], [30.0, 20.0, 10.0]);
        assert_eq!(Spread::of_ratios(&ours, &theirs), Some(Spread { median: 2.0, least: 2.0, most: 2.0 }));
        // The median of the ratios, not the ratio of the medians (which is 1).
        let skewed = Spread::of_ratios(&[1.0, 2.0, 9.0], &[4.0, 2.0, 1.0]);
        assert_eq!(skewed, Some(Spread { median: 1.0, least: 0.25, most: 9.0 }));
        let skewed = Spread::of_ratios(&[2.0, 3.0, 1.0], &[1.0, 2.0, 3.0]).map(|s| s.median);
        assert_eq!(skewed, Some(1.5), "the ratio of the medians is 1");
    }

    #[test]
    fn what_is_no_pair_has_no_ratio() {
        for (above, below) in
            [(&[1.0][..], &[1.0, 2.0][..]), (&[], &[]), (&[1.0], &[0.0]), (&[-1.0], &[1.0]), (&[f64::NAN], &[1.0])]
        {
            assert_eq!(Spread::of_ratios(above, below), None, "{above:?} {below:?}");
        }
    }
}
