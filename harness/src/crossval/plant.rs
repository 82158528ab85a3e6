//! One wrong weight in a copy of a model: the fault that a trace must find. A suite that never turned red on purpose
//! has proved nothing.

use bitnet_engine::gguf::{GgufError, GgufFile};
use bitnet_kernels::quant::{self, I2sLayout};

/// Why a weight cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum PlantError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("the file cannot be copied: {0}")]
    Copy(#[from] std::io::Error),
    #[error("there is no tensor `{tensor}`; `bitnet inspect --tensors` lists them")]
    NoTensor { tensor: String },
    #[error("`{tensor}` has {rows} rows of {cols} weights, and none at row {row}, column {column}")]
    Outside { tensor: String, rows: usize, cols: usize, row: usize, column: usize },
    #[error("weights of {format} are not changed here; there are i2_s, f32, f16, bf16, q8_0, q4_0 and q4_1")]
    Format { format: String },
}

/// A changed weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Planted {
    pub bytes: Vec<u8>,
    pub before: f32,
    pub after: f32,
}

/// The file with one weight changed: a ternary code to the next one, a float to its negative, a block code to its
/// mirror image. A weight of zero may stay zero in float formats; `before` and `after` tell.
///
/// # Errors
/// There is no such weight, or its format is not known here.
pub fn flip(
    file: &GgufFile,
    tensor: &str,
    row: usize,
    column: usize,
    layout: I2sLayout,
) -> Result<Planted, PlantError> {
    let view = file.tensor(tensor).ok_or_else(|| PlantError::NoTensor { tensor: tensor.to_owned() })?;
    let dim = |i: usize| view.info.dims.get(i).map_or(1, |&n| usize::try_from(n).unwrap_or(usize::MAX));
    let (cols, rows) = (dim(0), dim(1));
    if row >= rows || column >= cols {
        return Err(PlantError::Outside { tensor: tensor.to_owned(), rows, cols, row, column });
    }
    let unknown = || PlantError::Format { format: file.type_name(view.info).to_owned() };
    let format = quant::by_ggml_type(view.info.ggml_type, layout).map_err(|_| unknown())?;
    let index = row * cols + column;
    let (at, change) = change(format.name, index).ok_or_else(unknown)?;
    let weight = |data: &[u8]| -> Result<f32, PlantError> {
        let matrix = bitnet_kernels::Matrix::new(format, rows, cols, data).map_err(|_| unknown())?;
        let mut out = vec![0.0; cols];
        matrix.unpack_row(row, &mut out);
        out.get(column).copied().ok_or_else(unknown)
    };
    let before = weight(view.data)?;
    let mut data = view.data.to_vec();
    let byte = data.get_mut(at).ok_or_else(unknown)?;
    *byte = change(*byte);
    let after = weight(&data)?;
    let mut bytes = Vec::new();
    file.copy_to(&mut bytes)?;
    // Elsewhere than in `file`, if that lies in several parts.
    let copy = GgufFile::from_vec(bytes.clone())?;
    let start = copy.tensor(tensor).map_or(u64::MAX, |view| view.info.file_offset);
    let place = usize::try_from(start).ok().and_then(|start| bytes.get_mut(start + at));
    *place.ok_or_else(unknown)? = data.get(at).copied().ok_or_else(unknown)?;
    Ok(Planted { bytes, before, after })
}

type Change = Box<dyn Fn(u8) -> u8>;

/// Which byte of a tensor holds a weight's highest bits, and how it is changed.
fn change(format: &str, index: usize) -> Option<(usize, Change)> {
    let sign: Change = Box::new(|byte| byte ^ 0x80);
    Some(match format {
        "i2_s" => ternary(index, 128),
        "i2_s-arm" => ternary(index, 64),
        "f32" => (index * 4 + 3, sign),
        "f16" | "bf16" => (index * 2 + 1, sign),
        // f16 scale, 32 codes.
        "q8_0" => {
            (index / 32 * 34 + 2 + index % 32, Box::new(|byte| if byte == 0 { 0x7f } else { byte.wrapping_neg() }))
        }
        // f16 scale, 16 bytes: codes 0..16 low, 16..32 high.
        "q4_0" => nibble(index, 18, 2),
        // f16 scale and minimum, 16 bytes.
        "q4_1" => nibble(index, 20, 4),
        _ => return None,
    })
}

/// Two-bit codes 0, 1, 2: `block` weights in a quarter as many bytes, the first quarter in bits 7-6.
fn ternary(index: usize, block: usize) -> (usize, Change) {
    let (quarter, place) = (block / 4, index % block);
    let shift = 6 - 2 * (place / quarter);
    let next = move |byte: u8| {
        let code = byte >> shift & 3;
        byte & !(3 << shift) | ((code + 1) % 3) << shift
    };
    (index / block * quarter + place % quarter, Box::new(next))
}

fn nibble(index: usize, block: usize, header: usize) -> (usize, Change) {
    let place = index % 32;
    let mask = if place < 16 { 0x0f } else { 0xf0 };
    (index / 32 * block + header + place % 16, Box::new(move |byte| byte ^ mask))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::paths::Paths;

    #[test]
    fn one_weight_changes_and_no_other() {
        for name in ["i2_s", "i2_s-arm", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"] {
            let format = quant::by_name(name).expect("format");
            let (rows, cols) = (3, 256);
            let third = if name.starts_with("i2_s") { 0.0 } else { 0.5 };
            let weights: Vec<f32> = (0..rows * cols).map(|i| [1.0, -1.0, third, 1.0][i % 4]).collect();
            let data = (format.pack)(&weights, rows, cols).expect("pack");
            let unpack = |data: &[u8]| {
                let matrix = bitnet_kernels::Matrix::new(format, rows, cols, data).expect("matrix");
                let mut out = vec![0.0; rows * cols];
                out.chunks_exact_mut(cols).enumerate().for_each(|(row, out)| matrix.unpack_row(row, out));
                out
            };
            let before = unpack(&data);
            for index in [0, 17, 33, 100, 300, 511, 767] {
                let (at, change) = change(name, index).expect("known");
                let mut changed = data.clone();
                changed[at] = change(changed[at]);
                let after = unpack(&changed);
                let differing: Vec<usize> = (0..rows * cols).filter(|&i| before[i] != after[i]).collect();
                assert_eq!(differing, [index], "{name}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let golden = Paths::discover(&Env::default()).golden;
        let file = GgufFile::open(golden.join("models/tiny-bitnet.gguf")).expect("the tiny model");
        let flip = |tensor, row, column| flip(&file, tensor, row, column, I2sLayout::X86);
        assert!(matches!(flip("blk.0.nothing", 0, 0), Err(PlantError::NoTensor { .. })));
        assert!(matches!(flip("blk.0.attn_q.weight", 1 << 30, 0), Err(PlantError::Outside { .. })));
        let planted = flip("blk.0.attn_q.weight", 3, 5).expect("a weight");
        assert_ne!(planted.before, planted.after);
        let mut whole = Vec::new();
        file.copy_to(&mut whole).expect("bytes");
        assert_eq!(whole.iter().zip(&planted.bytes).filter(|(a, b)| a != b).count(), 1);
    }
}
