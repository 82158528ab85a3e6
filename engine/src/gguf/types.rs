//! The numbers that GGUF and ggml give to types, and how many bytes a tensor of a type has.
//!
//! Source: ggml's public GGUF specification (value types, tensor types 0 to 35 and 40 upwards),
//! bitnet.cpp's fork for 36 to 39, ik_llama.cpp for 134, 135 and 335, PrismML's llama.cpp for 142 and 143. What kernels compute
//! with is named and sized by the format itself; the table has the types that the engine does not compute with, since those
//! must be named, sized and checked for truncation too.

use bitnet_kernels::quant::{self, Format};

use super::error::GgufError;
use crate::named::named;

named! {
    /// Type of a metadata value, with the number by which the file stores it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    #[repr(u32)]
    pub enum ValueType {
        /// Unsigned 8 bits.
        U8 = "u8",
        /// Signed 8 bits.
        I8 = "i8",
        /// Unsigned 16 bits.
        U16 = "u16",
        /// Signed 16 bits.
        I16 = "i16",
        /// Unsigned 32 bits.
        U32 = "u32",
        /// Signed 32 bits.
        I32 = "i32",
        /// IEEE single.
        F32 = "f32",
        /// One byte, 0 or 1.
        Bool = "bool",
        /// u64 length, then that many bytes.
        String = "string",
        /// u32 element type, u64 count, then the elements.
        Array = "array",
        /// Unsigned 64 bits.
        U64 = "u64",
        /// Signed 64 bits.
        I64 = "i64",
        /// IEEE double.
        F64 = "f64",
    }
}

/// Hands the types of numbers to a macro: Rust's name, and the variant that values of it are.
macro_rules! with_numbers {
    ($then:ident $($rest:tt)*) => {
        $then! { [u8 U8, i8 I8, u16 U16, i16 I16, u32 U32, i32 I32, f32 F32, u64 U64, i64 I64, f64 F64] $($rest)* }
    };
}
pub(crate) use with_numbers;

macro_rules! fixed_sizes {
    ([$($t:ident $variant:ident),*]) => {
        impl ValueType {
            /// Bytes of one value; `None` for strings and arrays.
            pub fn fixed_size(self) -> Option<u64> {
                match self {
                    $(Self::$variant => Some(size_of::<$t>() as u64),)*
                    Self::Bool => Some(1),
                    Self::String | Self::Array => None,
                }
            }
        }
    };
}
with_numbers!(fixed_sizes);

impl ValueType {
    /// The type with this number.
    pub fn from_u32(id: u32) -> Option<ValueType> {
        usize::try_from(id).ok().and_then(|i| ValueType::ALL.get(i)).copied()
    }

    /// The fewest bytes that one value can occupy (an empty string, an empty array).
    pub fn min_size(self) -> u64 {
        self.fixed_size().unwrap_or(if self == ValueType::String { 8 } else { 12 })
    }
}

/// How the bytes of a tensor follow from its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Geometry {
    /// Each row is cut into blocks of `len` elements that take `bytes` bytes.
    Blocks {
        /// Elements of a block.
        len: u64,
        /// Bytes of a block.
        bytes: u64,
    },
    /// As `Blocks`, and every row begins with `head` more bytes (ik_llama.cpp's row scale).
    Rows {
        /// Bytes before the blocks of a row.
        head: u64,
        /// Elements of a block.
        len: u64,
        /// Bytes of a block.
        bytes: u64,
    },
    /// I2_S: four elements to a byte over the whole tensor, then 32 bytes that hold its scale.
    I2S,
    /// Blocks of one of several lengths, all of them multiples of `least`; the place of the next tensor tells which.
    Grouped {
        /// Elements that every row is a multiple of.
        least: u64,
    },
    /// The shape does not tell (tiling and padding are choices of the writer's build, or two programs
    /// use the number for different things): the tensor lasts to the next one, or to the end of the file.
    ToNext,
}

/// One line of the table of tensor types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GgmlType {
    /// The number in the file.
    pub id: u32,
    /// Lower-case name as ggml prints it.
    pub name: &'static str,
    /// Its size rule.
    pub geometry: Geometry,
}

const fn blocks(id: u32, name: &'static str, len: u64, bytes: u64) -> GgmlType {
    GgmlType { id, name, geometry: Geometry::Blocks { len, bytes } }
}

const fn to_next(id: u32, name: &'static str) -> GgmlType {
    GgmlType { id, name, geometry: Geometry::ToNext }
}

/// The tensor types that are not a format of [`bitnet_kernels::quant`], or whose size does not follow from its blocks alone, in
/// ascending order of the number. All others are found there: see [`ggml_type`].
pub static GGML_TYPES: &[GgmlType] = &[
    blocks(9, "q8_1", 32, 36),
    blocks(15, "q8_k", 256, 292),
    blocks(16, "iq2_xxs", 256, 66),
    blocks(17, "iq2_xs", 256, 74),
    blocks(18, "iq3_xxs", 256, 98),
    blocks(19, "iq1_s", 256, 50),
    blocks(21, "iq3_s", 256, 110),
    blocks(22, "iq2_s", 256, 82),
    blocks(23, "iq4_xs", 256, 136),
    blocks(24, "i8", 1, 1),
    blocks(25, "i16", 1, 2),
    blocks(26, "i32", 1, 4),
    blocks(27, "i64", 1, 8),
    blocks(28, "f64", 1, 8),
    blocks(29, "iq1_m", 256, 56),
    blocks(31, "q4_0_4_4", 32, 18),
    blocks(32, "q4_0_4_8", 32, 18),
    blocks(33, "q4_0_8_8", 32, 18),
    GgmlType { id: 36, name: "i2_s", geometry: Geometry::I2S },
    to_next(37, "i8_s"),
    to_next(38, "tl1"),
    // As MXFP4 it has a size of its own: see `meanings`.
    to_next(39, "tl2/mxfp4"),
    to_next(40, "nvfp4"),
    // Blocks of 64 elements in llama.cpp, of 128 in the fork that introduced the number: see `meanings`.
    GgmlType { id: TYPE_42, name: "q2_0", geometry: Geometry::Grouped { least: 64 } },
    blocks(143, "ptq1_0", 128, 28),
    GgmlType { id: 335, name: "iq2_bn_r4", geometry: Geometry::Rows { head: 4, len: 64, bytes: 16 } },
];

/// The number that bitnet.cpp's TL2 and today's MXFP4 share; see [`super::GgufFile::type_name`].
pub const TYPE_39: u32 = 39;

/// The number of Q2_0 with groups of 64 weights and of 128; see [`super::GgufFile::type_name`].
pub const TYPE_42: u32 = 42;

/// The tensor type with this number.
pub fn ggml_type(id: u32) -> Option<GgmlType> {
    let listed = GGML_TYPES.binary_search_by_key(&id, |t| t.id).ok().and_then(|i| GGML_TYPES.get(i)).copied();
    listed.or_else(|| quant::of_ggml_type(id).find(|format| format.ggml_type == id).map(of_format))
}

/// The type of a format that kernels compute with.
fn of_format(format: &Format) -> GgmlType {
    let [head, len, bytes] = [format.row_head, format.block_len, format.block_bytes].map(|n| n as u64);
    let geometry = if head == 0 { Geometry::Blocks { len, bytes } } else { Geometry::Rows { head, len, bytes } };
    GgmlType { id: format.ggml_type, name: format.name, geometry }
}

/// Bytes of a tensor: `Ok(None)` where the shape does not tell ([`Geometry::ToNext`], [`Geometry::Grouped`]).
///
/// `dims` is in ggml order, the row length first. `tensor` and `at` (file position of the shape) go
/// into errors only: unknown type, zero or too many dimensions, partial blocks, overflow of 63 bits.
pub fn tensor_size(tensor: &str, at: u64, id: u32, dims: &[u64]) -> Result<Option<u64>, GgufError> {
    let overflow = || GgufError::ShapeOverflow { tensor: tensor.to_owned(), at, dims: dims.to_vec() };
    let ty = ggml_type(id).ok_or_else(|| GgufError::UnknownTensorType { tensor: tensor.to_owned(), at, found: id })?;
    if dims.is_empty() || dims.len() > super::MAX_DIMS {
        return Err(GgufError::BadDimCount { tensor: tensor.to_owned(), at, found: dims.len() as u64 });
    }
    if dims.contains(&0) {
        return Err(GgufError::ZeroDim { tensor: tensor.to_owned(), at, dims: dims.to_vec() });
    }
    let elements =
        dims.iter().try_fold(1_u64, |n, &d| n.checked_mul(d)).filter(|&n| n <= i64::MAX as u64).ok_or_else(overflow)?;
    let row = dims.first().copied().unwrap_or(1);
    let partial = |found: u64, block: u64| GgufError::NotWholeBlocks {
        tensor: tensor.to_owned(),
        at,
        type_name: ty.name,
        found,
        block,
    };
    let size = match ty.geometry {
        Geometry::Blocks { len, bytes } => {
            if row % len != 0 {
                return Err(partial(row, len));
            }
            (elements / len).checked_mul(bytes)
        }
        Geometry::Rows { head, len, bytes } => {
            if row % len != 0 {
                return Err(partial(row, len));
            }
            (row / len).checked_mul(bytes).and_then(|r| r.checked_add(head)).and_then(|r| r.checked_mul(elements / row))
        }
        Geometry::I2S => {
            if !elements.is_multiple_of(4) {
                return Err(partial(elements, 4));
            }
            Some(elements / 4 + 32)
        }
        Geometry::Grouped { least } if row % least != 0 => return Err(partial(row, least)),
        Geometry::Grouped { .. } | Geometry::ToNext => return Ok(None),
    };
    size.filter(|&n| n <= i64::MAX as u64).map(Some).ok_or_else(overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_numbers_are_found() {
        assert!(GGML_TYPES.windows(2).all(|w| w[0].id < w[1].id));
        for (id, name) in [(0, "f32"), (14, "q6_k"), (34, "tq1_0"), (35, "tq2_0"), (36, "i2_s"), (335, "iq2_bn_r4")] {
            assert_eq!(ggml_type(id).map(|t| t.name), Some(name));
        }
        for id in [4, 5, 43, 133, 136, u32::MAX] {
            assert_eq!(ggml_type(id), None);
        }
        for (i, t) in ValueType::ALL.iter().enumerate() {
            assert_eq!(*t as usize, i);
        }
    }

    #[test]
    fn sizes_of_the_official_2b_model() {
        // Figures of bitnet-b1.58-2B-4T: embedding f16 [2560, 128256], ffn_down i2_s [6912, 2560].
        assert_eq!(tensor_size("t", 0, 1, &[2560, 128_256]).unwrap(), Some(656_670_720));
        assert_eq!(tensor_size("t", 0, 36, &[6912, 2560]).unwrap(), Some(6912 * 2560 / 4 + 32));
        assert_eq!(tensor_size("t", 0, 35, &[6912, 2]).unwrap(), Some(27 * 66 * 2));
        assert_eq!(tensor_size("t", 0, 135, &[128, 3]).unwrap(), Some(3 * (4 + 32)));
        assert_eq!(tensor_size("t", 0, 39, &[128, 3]).unwrap(), None);
    }

    #[test]
    fn shapes_that_cannot_be() {
        assert!(matches!(tensor_size("t", 0, 0, &[]), Err(GgufError::BadDimCount { .. })));
        assert!(matches!(tensor_size("t", 0, 0, &[1; 5]), Err(GgufError::BadDimCount { .. })));
        assert!(matches!(tensor_size("t", 0, 0, &[4, 0]), Err(GgufError::ZeroDim { .. })));
        assert!(matches!(tensor_size("t", 0, 0, &[1 << 32, 1 << 32]), Err(GgufError::ShapeOverflow { .. })));
        assert!(matches!(tensor_size("t", 0, 24, &[1 << 63]), Err(GgufError::ShapeOverflow { .. })));
        assert!(matches!(tensor_size("t", 0, 0, &[1 << 62]), Err(GgufError::ShapeOverflow { .. })));
        assert!(matches!(tensor_size("t", 0, 2, &[33]), Err(GgufError::NotWholeBlocks { .. })));
        assert!(matches!(tensor_size("t", 0, 36, &[3, 3]), Err(GgufError::NotWholeBlocks { .. })));
        assert!(matches!(tensor_size("t", 0, 4, &[32]), Err(GgufError::UnknownTensorType { .. })));
    }
}
