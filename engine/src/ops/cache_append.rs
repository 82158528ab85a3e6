//! Appends [`Slot::Key`] and [`Slot::Value`] to the cache of a layer, rounded to f16.

use super::cases::LENGTHS;
use super::{Cases, Operation, ShapeError, Shapes, Slot, State, Unit};

/// Stores the keys and values of the rows at hand at their positions.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheAppend {
    /// The layer.
    pub layer: usize,
}

pub(super) static UNIT: Unit = Unit { name: "cache_append", cases };

impl Operation for CacheAppend {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![Slot::Key, Slot::Value], Vec::new()]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        let (keys, values) = (shapes.read(Slot::Key)?, shapes.read(Slot::Value)?);
        shapes.ensure(keys == values, || format!("keys of {keys} elements beside values of {values}"))
    }

    fn run(&self, state: &mut State<'_>) {
        let (kernels, rows) = (state.kernels, state.rows().max(1));
        let (work, caches) = (&*state.work, &mut state.memory.caches);
        let mut row = 0;
        for span in &work.spans {
            let rows = |slot: Slot| {
                let values = &work.slots[slot.index()];
                let width = values.len() / rows;
                &values[row * width..(row + span.tokens) * width]
            };
            let (keys, values) = (rows(Slot::Key), rows(Slot::Value));
            caches[span.sequence].append(kernels, self.layer, span.position, keys, values);
            row += span.tokens;
        }
    }
}

fn cases(cases: &mut Cases<'_>) {
    for &n in cases.some(&LENGTHS) {
        let wide: Vec<f32> =
            cases.values(n, 8.0).iter().enumerate().map(|(i, x)| x * [1.0, 1e-6, 2e4][i % 3]).collect();
        cases.compare(&format!("of {n} as f16"), |k| {
            let mut out = vec![0xFFFF; n];
            k.f32_to_f16(&wide, &mut out);
            out.into_iter().map(|bits| f32::from_bits(u32::from(bits))).collect()
        });
    }
}
