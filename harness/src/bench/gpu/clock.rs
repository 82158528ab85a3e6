//! What a session's work takes by the clock of its card.

use crate::failure::Failure;
use bitnet_engine::inference::{Sampler, SamplerOptions, Session};
use bitnet_kernels::cuda::device::Device;
use bitnet_kernels::cuda::metered::Metered;
use std::time::Duration;

/// Tokens that [`alone`] generates before those that it measures: the first is sent, with the second the device begins to choose
/// and goes on to the third, with the third to a fourth.
pub const BEFORE: usize = 4;

/// What generated tokens take where no host waits for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alone {
    /// Of all tokens; none if a token is not one recording, which could then not be replayed alone.
    pub time: Option<Duration>,
    /// Kernels of a token.
    pub launches: usize,
}

/// Greedy steps from `position` on, beginning with `token`.
pub fn steps(session: &mut Session, position: usize, token: u32, count: usize) -> Result<Vec<u32>, Failure> {
    let mut sampler = Sampler::new(SamplerOptions { temperature: 0.0, ..SamplerOptions::default() })?;
    session.truncate(position);
    let mut tokens = vec![token];
    for _ in 0..count {
        let last = tokens.last().copied().unwrap_or(token);
        session.hold(&[last], 1)?;
        let logits = session.held(0, sampler.needs(&tokens).as_ref())?;
        tokens.push(sampler.sample(logits, &tokens));
    }
    tokens.remove(0);
    Ok(tokens)
}

/// The tokens of a prompt, to what a greedy sampler needs of the last one's logits.
pub fn prompt(session: &mut Session, ids: &[u32]) -> Result<(), Failure> {
    let sampler = Sampler::new(SamplerOptions::default())?;
    session.truncate(0);
    session.hold(ids, 1)?;
    session.held(0, sampler.needs(ids).as_ref())?;
    Ok(())
}

/// How long `work` takes by the clock of the card.
pub fn by_its_clock(card: &dyn Device, work: &mut dyn FnMut() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let mut done = Ok(());
    let time = card.time(&mut || {
        done = work();
        Ok(())
    })?;
    done.map(|()| time)
}

/// Generates [`BEFORE`] tokens after `position`, beginning with `token`, and then `count` by replaying the recording of a
/// token, which feeds itself, on `card`, the session's. The cache needs room for all of them; the session is back at
/// `position` then. A few tokens must have been generated before: the first ones record, and prepare the output matrix.
pub fn alone(
    session: &mut Session,
    card: &Metered,
    (position, token): (usize, u32),
    count: usize,
) -> Result<Alone, Failure> {
    let mut after = |n| -> Result<usize, Failure> {
        steps(session, position, token, n)?;
        Ok(card.counts().launches)
    };
    let (none, two, three) = (after(0)?, after(2)?, after(3)?);
    let launches = three.saturating_sub(two).saturating_sub(two.saturating_sub(none));
    let again = card.again(count)?.filter(|again| again.launches == launches);
    session.truncate(position);
    Ok(Alone { time: again.map(|again| again.time), launches })
}
