//! F32 (ggml type 0): four little-endian bytes per weight, no blocks.
//!
//! ```text
//! | w0 w0 w0 w0 | w1 w1 w1 w1 | ...
//! ```

use super::{Float, Format};

/// The format.
pub static FORMAT: Format = Format::floats::<4, F32>();

struct F32;

impl Float<4> for F32 {
    const NAME: &str = "f32";
    const GGML_TYPE: u32 = 0;
    const FILE_TYPE: u32 = 0;

    fn is_special(bytes: [u8; 4]) -> bool {
        u32::from_le_bytes(bytes) & 0x7f80_0000 == 0x7f80_0000
    }

    fn get(bytes: [u8; 4]) -> f32 {
        f32::from_le_bytes(bytes)
    }

    fn put(value: f32) -> [u8; 4] {
        value.to_le_bytes()
    }
}
