//! Where two devices part: the first step of the plan whose values have other bits, for the message of a failed cell.

use super::Failure;
use crate::models;
use bitnet_engine::device::Opened;
use bitnet_engine::inference::{StepResult, Want};
use bitnet_engine::load::Loaded;

/// Values around the first difference that are shown.
const AROUND: usize = 3;

/// The result of one step for one chunk.
struct Step {
    name: String,
    position: usize,
    width: usize,
    values: Vec<f32>,
}

/// The first step, in the order of the plan, that gives other bits on the second device than on the first, which is the oracle: its
/// name, the token and the column, and the values of both. The device computes on `threads` and in chunks as in the run that
/// failed, the oracle in the same chunks.
pub fn first_difference(
    loaded: &Loaded,
    (oracle, device): (&Opened, &Opened),
    ids: &[u32],
    (threads, chunk): (usize, usize),
) -> Result<String, Failure> {
    let expected = steps(loaded, oracle, ids, (1, chunk))?;
    let found = steps(loaded, device, ids, (threads, chunk))?;
    for (expected, found) in expected.iter().zip(&found) {
        let (name, width) = (&expected.name, expected.width);
        if (name, width, expected.values.len()) != (&found.name, found.width, found.values.len()) {
            return Ok(format!("the steps are not the same: {name} on the oracle, {} on the device", found.name));
        }
        let other = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
        let differing = expected.values.iter().zip(&found.values).filter(|pair| other(*pair)).count();
        let Some(at) = expected.values.iter().zip(&found.values).position(other) else { continue };
        let (row, column) = (at / width.max(1), at % width.max(1));
        let first = column.saturating_sub(AROUND);
        let line = |who: &str, values: &[f32]| {
            let row = &values[row * width..(row + 1) * width];
            let cut: Vec<String> = row.iter().skip(first).take(2 * AROUND + 1).map(|v| format!("{v:e}")).collect();
            format!("    {who:<8} {}", cut.join("  "))
        };
        return Ok(format!(
            "first differing step {name}: token {}, column {column} of {width} ({differing} of {} values differ)\n    columns from {first}\n{}\n{}",
            expected.position + row,
            expected.values.len(),
            line("oracle", &expected.values),
            line("device", &found.values),
        ));
    }
    if expected.len() != found.len() {
        return Ok(format!("the oracle shows {} steps, the device {}", expected.len(), found.len()));
    }
    Ok("every step has the oracle's bits when it is observed: the fault is in what runs unobserved, or comes and goes"
        .to_owned())
}

fn steps(
    loaded: &Loaded,
    device: &Opened,
    ids: &[u32],
    (threads, chunk): (usize, usize),
) -> Result<Vec<Step>, Failure> {
    let mut session = models::session(loaded, device.clone(), threads, chunk, ids.len())?;
    let mut steps = Vec::new();
    let mut observer = |result: StepResult<'_>| {
        let StepResult { name, position, width, values, .. } = result;
        steps.push(Step { name: name.to_owned(), position, width, values: values.to_vec() });
    };
    session.forward_observed(ids, Want::All, &mut |_, _| {}, Some(&mut observer))?;
    Ok(steps)
}
