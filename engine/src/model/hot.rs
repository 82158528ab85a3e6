//! Copies of the matrices that every token reads, in huge pages.
//!
//! A file's pages are small. Copied once into a mapping that asks for huge ones, the same bytes are read with fewer look-ups of
//! addresses; the file's own pages are given back while they are copied, so that the process does not grow. What is computed
//! is the same: the bytes are.

use super::{MatrixId, Model, Op, Slot};
use bitnet_kernels::pages::Pages;
use bitnet_kernels::{ActKind, Pool};
use std::ops::Range;

/// Whether weights are copied into huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HugePages {
    /// Memory that is ours anyway (the int8 copy of the output matrix) asks for them; nothing is copied for their sake.
    #[default]
    Auto,
    /// The weights of the layers are copied too, if memory suffices.
    On,
    /// Never.
    Off,
}

impl std::str::FromStr for HugePages {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            other => Err(format!("`{other}` is none of: auto, on, off")),
        }
    }
}

/// What became of the wish for copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copied {
    /// Nobody asked.
    Nothing,
    /// So many bytes.
    Bytes(usize),
    /// Memory does not suffice.
    NoRoom {
        /// Bytes of the copies.
        needed: usize,
        /// Bytes that the system has to give.
        available: usize,
    },
}

/// The copies.
#[derive(Debug)]
pub(super) struct Hot {
    pages: Pages,
    /// Where each matrix of the model lies, if it was copied.
    parts: Vec<Option<Range<usize>>>,
}

impl Hot {
    pub(super) fn get(&self, matrix: usize) -> Option<&[u8]> {
        self.parts.get(matrix)?.clone().map(|range| &self.pages[range])
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages.len()
    }
}

/// Matrices begin at cache lines.
const ALIGNMENT: usize = 64;
/// Output matrices of floats at least as large are screened while decoding, and then cold.
const COLD: usize = 32 << 20;
/// What must be left to others beyond the copies.
const RESERVE: usize = 256 << 20;

impl Model {
    /// Copies the matrices of the layers into huge pages, if that is wanted and they fit. A second call copies nothing.
    pub fn copy_hot(&self, wish: HugePages, pool: &Pool) -> Copied {
        if wish != HugePages::On {
            return Copied::Nothing;
        }
        if let Some(hot) = self.weights.hot.get() {
            return Copied::Bytes(hot.bytes());
        }
        let (parts, needed) = self.hot();
        let available = available_memory().unwrap_or(usize::MAX);
        if needed.saturating_add(RESERVE) > available {
            return Copied::NoRoom { needed, available };
        }
        let Ok(mut pages) = Pages::new(needed, true) else { return Copied::NoRoom { needed, available } };
        let mut targets = Vec::new();
        let (mut rest, mut at) = (&mut pages[..], 0);
        for (index, range) in parts.iter().enumerate().filter_map(|(i, range)| Some((i, range.clone()?))) {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(range.end - at);
            targets.push((index, &mut part[range.start - at..]));
            (rest, at) = (tail, range.end);
        }
        pool.for_rows(&mut targets, 1, 1, &|_, targets| {
            for (index, target) in targets {
                let source = self.weights.matrix(MatrixId(*index)).data;
                target.copy_from_slice(source);
                self.weights.file().release(source);
            }
        });
        self.weights.hot.get_or_init(|| Hot { pages, parts });
        Copied::Bytes(needed)
    }

    /// Where the copies would lie, by matrix and one after the other, and their bytes.
    fn hot(&self) -> (Vec<Option<Range<usize>>>, usize) {
        let mut wanted = vec![false; self.weights.matrices().count()];
        for step in &self.plan {
            let Op::Linear { dst, weight, .. } = step.op else { continue };
            let matrix = self.weights.matrix(weight);
            let cold = dst == Slot::Logits && matrix.format.act == ActKind::F32 && matrix.data.len() >= COLD;
            // What was unpacked is in memory of its own already.
            wanted[weight.0] = !cold && self.weights.in_file(weight);
        }
        let mut end = 0usize;
        let place = |(index, wanted): (usize, bool)| {
            wanted.then(|| {
                let start = end.next_multiple_of(ALIGNMENT);
                end = start + self.weights.matrix(MatrixId(index)).data.len();
                start..end
            })
        };
        let parts = wanted.into_iter().enumerate().map(place).collect();
        (parts, end)
    }
}

/// Bytes that can be had without pushing others out (`MemAvailable` of Linux, which knows nothing of limits of a
/// container); `None` where the system does not say.
fn available_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}
