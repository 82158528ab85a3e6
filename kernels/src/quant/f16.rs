//! F16 (ggml type 1): IEEE binary16, two little-endian bytes per weight, no blocks.
//!
//! ```text
//! | w0 w0 | w1 w1 | ...        bit 15 sign, 14-10 exponent (bias 15), 9-0 fraction
//! ```

use super::{Float, Format};
use crate::numerics::{f16_to_f32, f32_to_f16};

/// The format.
pub static FORMAT: Format = Format::floats::<2, F16>();

struct F16;

impl Float<2> for F16 {
    const NAME: &str = "f16";
    const GGML_TYPE: u32 = 1;
    const FILE_TYPE: u32 = 1;

    fn is_special(bytes: [u8; 2]) -> bool {
        u16::from_le_bytes(bytes) & 0x7c00 == 0x7c00
    }

    fn get(bytes: [u8; 2]) -> f32 {
        f16_to_f32(u16::from_le_bytes(bytes))
    }

    fn put(value: f32) -> [u8; 2] {
        f32_to_f16(value).to_le_bytes()
    }
}
