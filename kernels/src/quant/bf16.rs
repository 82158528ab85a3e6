//! BF16 (ggml type 30): the upper half of an f32, two little-endian bytes per weight, no blocks.
//!
//! ```text
//! | w0 w0 | w1 w1 | ...        bit 15 sign, 14-7 exponent (bias 127), 6-0 fraction
//! ```

use super::{Float, Format};

/// The format.
pub static FORMAT: Format = Format::floats::<2, BF16>();

struct BF16;

impl Float<2> for BF16 {
    const NAME: &str = "bf16";
    const GGML_TYPE: u32 = 30;
    const FILE_TYPE: u32 = 32;

    fn is_special(bytes: [u8; 2]) -> bool {
        u16::from_le_bytes(bytes) & 0x7f80 == 0x7f80
    }

    fn get(bytes: [u8; 2]) -> f32 {
        half::bf16::from_le_bytes(bytes).to_f32()
    }

    fn put(value: f32) -> [u8; 2] {
        half::bf16::from_f32(value).to_le_bytes()
    }
}
