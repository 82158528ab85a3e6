//! Q4_1 (ggml type 3): blocks of 32 four-bit codes with f16 scale and minimum, 20 bytes. `w = d * code + m`.
//!
//! ```text
//! byte  0 1 | 2 3 | 4          5          ...  19
//!       d   | m   | c16 : c0 | c17 : c1 | ... | c31 : c15      high nibble : low nibble
//! ```

use super::decode::{Block, Blocks, Shape};
use super::q4_0::{codes, pack_from_least, store};
use super::{Format, Halves, Packed, half_at};

const LEN: usize = 32;
pub(crate) const BYTES: usize = 20;
const _: () = assert!(BYTES == 4 + LEN / 2 && LEN == crate::activations::Q8_BLOCK);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "q4_1";
    const GGML_TYPE: u32 = 3;
    const FILE_TYPE: Option<u32> = Some(3);
    const HALVES: Halves = &[(0, "scale"), (2, "minimum")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;
    const SHAPE: Shape = Shape::Minimum;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        (out[0].scale, out[0].minimum) = (half_at(bytes, 0), half_at(bytes, 2));
        out[0].q = codes(&bytes[4..], 0);
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        pack_from_least(&FORMAT, weights, rows, cols, 15, store)
    }
}
