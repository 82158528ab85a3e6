//! Copies of the matrices that every token reads, in huge pages.
//!
//! A file's pages are small. Copied once into a mapping that asks for huge ones, the same bytes are read with fewer look-ups of
//! addresses; the file's own pages are given back while they are copied, so that the process does not grow. What is computed
//! is the same: the bytes are.

use super::Model;
use crate::memory::bytes_of;
use crate::ops::{Linear, MatrixId, Op, Slot};
use bitnet_kernels::pages::{Pages, huge_pages_are_given};
use bitnet_kernels::{ActKind, Pool};
use std::ops::Range;

/// Whether weights are copied into huge pages. So is the int8 copy of the output matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HugePages {
    /// The weights of the layers are copied by a session whose tokens to come pay for it, if they are large and come from a
    /// mapped file, and if the system has such pages and memory to spare.
    #[default]
    Auto,
    /// They are copied while the model is loaded, if memory suffices.
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

/// How the request for copies ended.
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
/// Output matrices of fewer bytes are read faster than a copy of them is bounded; larger ones are screened while decoding, and then
/// cold.
pub(crate) const SCREENED: usize = 32 << 20;
/// What must be left to others beyond the copies.
const RESERVE: usize = 256 << 20;

/// Weights of fewer bytes are found in caches, or are read too fast for the difference to matter.
const LEAST_BYTES: usize = 64 << 20;

impl Model {
    /// Copies the matrices of the layers into huge pages, if that is wanted and they fit. It is done once: later calls, from any
    /// thread, say what came of the first.
    pub fn copy_hot(&self, wish: HugePages, pool: &Pool) -> Copied {
        if wish == HugePages::Off {
            return Copied::Nothing;
        }
        let (parts, needed) = self.hot(SCREENED);
        if wish == HugePages::Auto && self.weights.hot.get().is_none() && !self.worth_copying(needed) {
            return Copied::Nothing;
        }
        let available = available_memory().unwrap_or(usize::MAX);
        let build = || {
            let room = needed.saturating_add(RESERVE) <= available;
            let mut pages = room.then(|| Pages::new(needed, true).ok()).flatten()?;
            self.fill(&mut pages, &parts, pool);
            Some(Hot { pages, parts })
        };
        match self.weights.hot.get_or_init(build) {
            Some(hot) => Copied::Bytes(hot.bytes()),
            None => Copied::NoRoom { needed, available },
        }
    }

    /// Whether [`Model::copy_hot`] would copy the layers, of so many bytes, under [`HugePages::Auto`].
    pub(crate) fn may_copy(&self, body_bytes: usize) -> bool {
        self.weights.hot.get().is_none() && self.worth_copying(body_bytes)
    }

    /// Bytes of the matrices of the layers, which every pass reads.
    pub(crate) fn body_bytes(&self) -> usize {
        self.hot(SCREENED).1
    }

    fn worth_copying(&self, bytes: usize) -> bool {
        bytes >= LEAST_BYTES && self.weights.file().is_mapped() && huge_pages_are_given()
    }

    /// Copies the matrices to where `parts` says, and gives their memory in the file back.
    fn fill(&self, pages: &mut [u8], parts: &[Option<Range<usize>>], pool: &Pool) {
        let mut targets = Vec::new();
        let (mut rest, mut at) = (pages, 0);
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
    }

    /// Where the copies would lie, by matrix and one after the other, and their bytes. `screened` is [`SCREENED`].
    fn hot(&self, screened: usize) -> (Vec<Option<Range<usize>>>, usize) {
        let mut wanted = vec![false; self.weights.matrices().count()];
        for step in &self.plan {
            let Op::Linear(Linear { dst, weight, .. }) = step.op else { continue };
            let matrix = self.weights.matrix(weight);
            let cold = dst == Slot::Logits && matrix.act == ActKind::F32 && matrix.data.len() >= screened;
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

/// Bytes that can be had without pushing others out: `MemAvailable` of Linux, or what the container's limit (cgroup v2) leaves, if
/// that is less; `None` where the system does not say.
fn available_memory() -> Option<usize> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let group = ["max", "current", "stat"].map(|name| {
        // A group without a limit has no such files, or says `max`.
        std::fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).unwrap_or_default()
    });
    left(&meminfo, group.each_ref().map(String::as_str))
}

/// What `/proc/meminfo` and `memory.{max,current,stat}` of a group leave. What the group has of files that nobody used lately counts as
/// used there, and is given up for others.
fn left(meminfo: &str, [max, current, stat]: [&str; 3]) -> Option<usize> {
    let bytes = usize::try_from(bytes_of(meminfo, "MemAvailable:")?).ok()?;
    let figure = |text: &str| text.trim().parse::<usize>().ok();
    let files = stat.lines().find_map(|line| figure(line.strip_prefix("inactive_file ")?)).unwrap_or_default();
    let limited =
        figure(max).zip(figure(current)).map(|(max, current)| max.saturating_sub(current.saturating_sub(files)));
    Some(limited.map_or(bytes, |limit| limit.min(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::GgufFile;
    use bitnet_kernels::quant::I2sLayout;

    const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/models/tiny-bitnet.gguf");

    fn tiny() -> Model {
        Model::open(&GgufFile::open(TINY).unwrap(), I2sLayout::X86).unwrap()
    }

    #[test]
    fn large_weights_of_a_mapped_file_are_copied_unasked() {
        let (mapped, given) = (tiny(), huge_pages_are_given());
        assert!(!mapped.worth_copying(LEAST_BYTES - 1) && !mapped.may_copy(LEAST_BYTES - 1));
        assert_eq!((mapped.worth_copying(LEAST_BYTES), mapped.may_copy(LEAST_BYTES)), (given, given));
        let owned = Model::open(&GgufFile::from_vec(std::fs::read(TINY).unwrap()).unwrap(), I2sLayout::X86).unwrap();
        assert!(!owned.worth_copying(LEAST_BYTES));
        // Once is enough.
        assert_eq!(mapped.copy_hot(HugePages::On, &Pool::new(1).unwrap()), Copied::Bytes(mapped.body_bytes()));
        assert!(!mapped.may_copy(LEAST_BYTES));
    }

    #[test]
    fn a_large_output_matrix_of_floats_is_cold() {
        let mut model = tiny();
        let output = model.output().unwrap().weight;
        let size = model.weights.matrix(output).data.len();
        let copied = |model: &Model, screened: usize| -> Vec<usize> {
            let (parts, bytes) = model.hot(screened);
            assert_eq!(parts.iter().flatten().map(|part| part.end).max(), Some(bytes));
            (0..parts.len()).filter(|at| parts[*at].is_some()).collect()
        };
        let (all, some) = (copied(&model, size + 1), copied(&model, size));
        assert!(all.contains(&output.0) && all.len() > 1, "{all:?}");
        assert_eq!(some, all.iter().copied().filter(|at| *at != output.0).collect::<Vec<_>>());
        assert_eq!(copied(&model, 0), some);
        // The layers are not, whatever they are multiplied with.
        model.weights.without_rounding();
        assert!(model.weights.matrices().all(|(_, matrix)| matrix.act == ActKind::F32));
        assert_eq!(copied(&model, 0), some);
        assert_eq!((model.body_bytes(), copied(&model, SCREENED)), (model.hot(size + 1).1, all));
    }

    #[test]
    fn wishes_have_names() {
        let named = ["auto", "on", "off"].map(str::parse);
        assert_eq!(named, [Ok(HugePages::Auto), Ok(HugePages::On), Ok(HugePages::Off)]);
        assert_eq!("yes".parse::<HugePages>(), Err("`yes` is none of: auto, on, off".to_owned()));
    }

    #[test]
    fn memory_that_can_be_had_is_the_lesser_of_the_machines_and_the_groups() {
        let meminfo = "MemTotal: 4096 kB\nMemAvailable: 1024 kB\n";
        let mib = 1 << 20;
        for (group, expected) in [
            (["", "", ""], mib),
            (["max\n", "300\n", ""], mib),
            (["1000000\n", "400000\n", "anon 5\n"], 600_000),
            (["1000000\n", "900000\n", "active_file 7\ninactive_file 500000\n"], 600_000),
            (["1000000\n", "1000001\n", "inactive_file 0\n"], 0),
            (["9000000\n", "5\n", "inactive_file 9\n"], mib),
        ] {
            assert_eq!(left(meminfo, group), Some(expected), "{group:?}");
        }
        assert_eq!(left("MemTotal: 4096 kB\n", ["1000000", "0", ""]), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_can_be_had_is_less_than_all() {
        let all = bytes_of(&std::fs::read_to_string("/proc/meminfo").unwrap(), "MemTotal:").unwrap();
        let available = available_memory().unwrap() as u64;
        assert!(available < all, "{available} of {all}");
    }
}
