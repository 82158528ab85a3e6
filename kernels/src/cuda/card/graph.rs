//! Launches that are kept as a graph and replayed, and times by the card's clock.

use super::State;
use super::copies::event;
use super::owned::Owned;
use crate::cuda::device::{CudaError, Recorded, Work};
use crate::cuda::driver::DriverError;
use cudarc::driver::sys::{CUevent_flags, CUstreamCaptureMode};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Launches of a card as one. It holds the card, so it is gone before the card is.
#[derive(Debug)]
pub(super) struct Graph {
    /// `None` only while it goes.
    replay: Option<Owned>,
    state: Arc<State>,
}

// SAFETY: graphs are the driver's and may be used from any thread; `State::enter` lets one call happen at a time.
unsafe impl Send for Graph {}
// SAFETY: as for `Send`.
unsafe impl Sync for Graph {}

/// A recording that is going on; ended when it goes, whatever the launches do.
struct Recording<'a>(&'a State);

impl<'a> Recording<'a> {
    fn begin(state: &'a State) -> Result<Self, DriverError> {
        let mut turn = state.enter()?;
        let f = state.f;
        // Other threads may allocate and wait elsewhere meanwhile; this one may only launch.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as the state.
        f.check("cuStreamBeginCapture", unsafe { (f.capture_begin)(state.stream.handle(), mode) })?;
        turn.recorder = Some(std::thread::current().id());
        Ok(Self(state))
    }

    /// What was recorded.
    fn end(self) -> Result<Owned, DriverError> {
        std::mem::ManuallyDrop::new(self).stop()
    }

    /// Nobody waits for this recording afterwards, whatever the driver says.
    fn stop(&self) -> Result<Owned, DriverError> {
        let state = self.0;
        let f = state.f;
        let mut turn = state.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let graph = state.context.make_current().and_then(|()| {
            // SAFETY: the stream is being captured, by this thread; one handle is written.
            Owned::new(f, "cuStreamEndCapture", f.graph_destroy, |h| unsafe {
                (f.capture_end)(state.stream.handle(), h)
            })
        });
        turn.recorder = None;
        let later = std::mem::take(&mut turn.later);
        if !later.is_empty() && state.wait().is_ok() {
            later.into_iter().for_each(|address| state.free(address));
        }
        drop(turn);
        state.over.notify_all();
        graph
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        // What was recorded goes; why, its caller knows.
        let _ = self.stop();
    }
}

/// What `Device::record` does.
pub(super) fn record(state: &Arc<State>, launches: &mut Work<'_>) -> Result<Graph, CudaError> {
    let recording = Recording::begin(state)?;
    launches()?;
    let graph = recording.end().map_err(|error| state.refused(error))?;
    let f = state.f;
    let _turn = state.enter()?;
    // SAFETY: the graph is whole; one handle is written. No flags.
    let replay = Owned::new(f, "cuGraphInstantiate", f.replay_destroy, |h| unsafe {
        (f.graph_instantiate)(h, graph.handle(), 0)
    })
    .map_err(|error| state.refused(error))?;
    Ok(Graph { replay: Some(replay), state: Arc::clone(state) })
}

impl Recorded for Graph {
    unsafe fn replay(&self) -> Result<(), CudaError> {
        let _turn = self.state.enter()?;
        let (f, stream) = (self.state.f, self.state.stream.handle());
        let Some(replay) = &self.replay else { return Ok(()) };
        // SAFETY: graph and stream live as long as this; the buffers are there, as the caller says.
        Ok(f.check("cuGraphLaunch", unsafe { (f.graph_launch)(replay.handle(), stream) })?)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let turn = self.state.enter();
        self.replay = None;
        drop(turn);
    }
}

/// What `Device::time` does: events before and after.
pub(super) fn time(state: &State, work: &mut Work<'_>) -> Result<Duration, CudaError> {
    let f = state.f;
    let record = |event: &Owned| {
        // SAFETY: event and stream are there.
        f.check("cuEventRecord", unsafe { (f.event_record)(event.handle(), state.stream.handle()) })
    };
    let events = {
        let _turn = state.enter()?;
        let events = [event(f, CUevent_flags::CU_EVENT_DEFAULT)?, event(f, CUevent_flags::CU_EVENT_DEFAULT)?];
        record(&events[0])?;
        events
    };
    work()?;
    let _turn = state.enter()?;
    record(&events[1])?;
    state.wait()?;
    let mut milliseconds = 0.0_f32;
    // SAFETY: both events have happened; one float is written.
    let code = unsafe { (f.event_elapsed)(&raw mut milliseconds, events[0].handle(), events[1].handle()) };
    f.check("cuEventElapsedTime", code)?;
    Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
}
