//! The examples by which kernel sets are compared.

use super::super::cases::Run;
use super::*;
use bitnet_kernels::{ActKind, Kernels};

/// How many examples stand for an operation: where the check is quick, and where it is thorough.
#[test]
fn every_operation_with_a_kernel_has_examples() {
    let count = |unit: &Unit, thorough: bool| {
        let mut names = std::collections::BTreeSet::new();
        let oracle = bitnet_kernels::by_name("scalar").unwrap();
        let mut take = |what: &str, run: Run<'_>| {
            assert!(names.insert(what.to_owned()), "{} {what} twice", unit.name);
            let found = run(oracle);
            assert!(!found.is_empty() && found.iter().all(|value| value.is_finite()), "{} {what}", unit.name);
            // Rows of one bias, and what is too large and too small for a plain f16.
            assert!(unit.name != "bias" || found.len().is_multiple_of(3), "three rows");
            if unit.name == "cache_append" && found.len() > 100 {
                let has =
                    |bits: std::ops::Range<u32>| found.iter().any(|value| bits.contains(&(value.to_bits() & 0x7fff)));
                assert!(has(1..0x400) && has(0x7c00..0x7c01), "{what}");
            }
            let most = found.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
            // Gates where their exponentials under- and overflow, and integers that f32 holds exactly.
            assert!(
                !["gelu", "gate"].contains(&unit.name) || found.len() < 500 || most > 100.0,
                "{} {what}",
                unit.name
            );
            assert!(!what.ends_with("int8 by int16") || (1000.0..16_777_216.0).contains(&most), "{what}: {most}");
            // A product of few small integers may be zero, a row of values is not.
            assert!(found.len() < 8 || found.iter().any(|value| *value != 0.0), "{} {what}", unit.name);
            Ok(())
        };
        cases::show(unit, thorough, &mut take);
        names.len()
    };
    let few = |name: &str| match name {
        "embed" | "positions" | "split" | "select_rows" => 0,
        "linear" => by_kind() + 1,
        "rope" => 2,
        "attention" => 6,
        "gate" => 3,
        _ => 1,
    };
    let all = |name: &str| match name {
        "linear" => by_kind() + 5,
        "rope" => 8,
        "attention" => 54,
        name => 10 * few(name),
    };
    for unit in UNITS {
        assert_eq!((count(unit, false), count(unit, true)), (few(unit.name), all(unit.name)), "{}", unit.name);
    }
}

/// Ternary examples have each of their three values.
#[test]
fn examples_of_weights_differ() {
    let mut seen = std::collections::BTreeSet::new();
    let mut cases = |what: &str, run: Run<'_>| {
        if what == "i2_s times I8" {
            seen.extend(run(bitnet_kernels::by_name("scalar").unwrap()).iter().map(|value| value.to_bits()));
        }
        Ok(())
    };
    cases::show(&linear::UNIT, false, &mut cases);
    // Three tokens times five rows: fifteen sums without a pattern.
    assert_eq!(seen.len(), 15);
}

#[test]
fn examples_are_as_large_as_they_were_asked_to_be() {
    let mut take = |what: &str, run: Run<'_>| {
        let largest =
            run(bitnet_kernels::by_name("scalar").unwrap()).into_iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        assert!(
            what != "of 512" || (0.0..=8.0 * 0.197).contains(&largest) && largest > 7.9 * 0.197,
            "{what}: {largest}"
        );
        Ok(())
    };
    cases::show(&scale::UNIT, false, &mut take);
}

/// Formats with every rounding that they take.
fn by_kind() -> usize {
    let takes = |format: &bitnet_kernels::quant::Format| ActKind::ALL.iter().filter(|act| format.takes(**act)).count();
    bitnet_kernels::quant::FORMATS.iter().map(|format| takes(format)).sum()
}

/// A kernel set that is wrong in one operation.
struct Wrong(&'static dyn Kernels);

impl Kernels for Wrong {
    fn name(&self) -> &'static str {
        "wrong"
    }
    bitnet_kernels::forward!(self, self.0; prepare matmul rms_norm rope attention relu2_gate silu_gate f32_to_f16);

    fn add(&self, x: &mut [f32], y: &[f32]) {
        self.0.add(x, y);
        if let Some(last) = x.get_mut(300) {
            *last = -*last;
        }
    }
}

#[test]
fn a_broken_set_is_named_with_operation_element_and_values() {
    let broken = compare(&Wrong(bitnet_kernels::by_name("scalar").unwrap()), false, 1).unwrap_err();
    assert_eq!((broken.set.as_str(), broken.operation.as_str(), broken.index), ("wrong", "bias of 512", 300));
    assert_eq!(broken.found, -broken.expected);
    assert!(broken.to_string().contains("breaks the numerics contract in bias of 512: element 300 is "), "{broken}");
}
