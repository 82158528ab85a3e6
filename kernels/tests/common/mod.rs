//! Shared by the tests: seeded input, matrices with any legal bytes, exact comparison.

// Each test binary uses its own part.
#![allow(dead_code, unreachable_pub)]

use bitnet_kernels::screen::Wanted;
use bitnet_kernels::{ActKind, Activations, Format, Kernels, Matrix, OutView, by_name, kernel_sets, quant};

/// A small seeded generator (xorshift64*), so that a failure names everything that made it.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// -1..1
    pub fn unit(&mut self) -> f32 {
        (self.bits() & 0xff_ffff) as f32 / 8_388_608.0 - 1.0
    }

    pub fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.unit() * scale).collect()
    }
}

/// Ordinary values, with some special ones.
pub fn values(n: usize, r: &mut Random) -> Vec<f32> {
    const SPECIAL: [f32; 10] = [0.0, -0.0, 1e-40, -1e-45, 3e38, -3e38, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.5];
    let specials = r.below(3) * n / 40;
    let mut x = r.floats(n, 8.0);
    for _ in 0..specials {
        x[r.below(n)] = SPECIAL[r.below(SPECIAL.len())];
    }
    x
}

/// The kernel sets other than the oracle that can run here. A machine that has none fails: then nothing was compared.
pub fn fast_sets() -> Vec<&'static dyn Kernels> {
    let sets: Vec<_> =
        kernel_sets().iter().filter(|set| set.name != "scalar").filter_map(|set| (set.detect)().ok()).collect();
    let reasons: Vec<_> = kernel_sets().iter().filter_map(|set| (set.detect)().err()).map(|e| e.to_string()).collect();
    assert!(!sets.is_empty(), "no kernel set to compare with the oracle: {reasons:?}");
    sets
}

/// [`fast_sets`], and for ternary formats AMX on modelled tiles: that set's own code, but for six instructions.
pub fn sets_for(format: &Format) -> Vec<&'static dyn Kernels> {
    let mut sets = fast_sets();
    if format.is_ternary() {
        sets.extend(models());
    }
    sets
}

/// [`sets_for`], and the oracle.
pub fn all_sets_for(format: &Format) -> impl Iterator<Item = &'static dyn Kernels> {
    sets_for(format).into_iter().chain(by_name("scalar"))
}

pub fn ternary() -> impl Iterator<Item = &'static Format> {
    quant::FORMATS.iter().copied().filter(|format| format.is_ternary())
}

/// Every format with every kind of activations that it has products with.
pub fn pairs() -> impl Iterator<Item = (&'static Format, ActKind)> {
    let kinds = |format: &'static Format| {
        ActKind::ALL.into_iter().filter(|act| format.takes(*act)).map(move |act| (format, act))
    };
    quant::FORMATS.iter().copied().flat_map(kinds)
}

/// AMX on modelled tiles, on the architectures that have vector sets.
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
pub fn models() -> &'static [&'static dyn Kernels] {
    bitnet_kernels::cpu::amx::models()
}
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
pub fn models() -> &'static [&'static dyn Kernels] {
    &[]
}

/// What the bytes of a matrix are made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Packed from random weights.
    Packed,
    /// Every code and scale that is legal, at random.
    Wild,
    /// The smallest codes, and the largest.
    Lowest,
    Highest,
}

pub const FILLS: [Fill; 4] = [Fill::Packed, Fill::Wild, Fill::Lowest, Fill::Highest];

/// A valid matrix of a format.
pub fn matrix(format: &'static Format, rows: usize, cols: usize, fill: Fill, r: &mut Random) -> Vec<u8> {
    let ternary = format.is_ternary();
    let byte = |r: &mut Random| match fill {
        Fill::Lowest => 0,
        Fill::Highest => 0xff,
        _ => r.bits() as u8,
    };
    if fill == Fill::Packed {
        return pack(format, rows, cols, r);
    }
    let mut out = vec![0u8; format.matrix_bytes(rows, cols).unwrap()];
    let end = out.len() - format.trailer_bytes;
    // Scales of ternary formats: all different, all one, or a few in runs with zeros among them.
    let few = [0, 0x3c01, r.bits() as u16 & 0x3fff, 0x0001];
    let scales = r.below(3);
    let scale = |r: &mut Random| {
        // Any finite f16: subnormal, negative, huge.
        let mut bits = r.bits() as u16;
        if bits & 0x7c00 == 0x7c00 {
            bits ^= 0x4000;
        }
        match scales {
            _ if !ternary => bits,
            0 => bits & 0x7fff,
            1 => 0x3555,
            _ => few[r.below(16) / 3 % 4],
        }
    };
    let row_bytes = format.row_bytes(cols);
    for row in out[..end].chunks_exact_mut(row_bytes) {
        let (head, blocks) = row.split_at_mut(format.row_head);
        let bits = scale(r);
        match head.len() {
            0 => {}
            2 => head.copy_from_slice(&bits.to_le_bytes()),
            4 => head.copy_from_slice(&(half::f16::from_bits(bits).to_f32() * 1.1).to_le_bytes()),
            other => panic!("say what {other} bytes at the start of a row are"),
        }
        for block in blocks.chunks_exact_mut(format.block_bytes) {
            block.fill_with(|| byte(r));
            for &(at, _) in format.halves {
                block[at..at + 2].copy_from_slice(&scale(r).to_le_bytes());
            }
            legal(format, block, r);
        }
    }
    if format.trailer_bytes != 0 {
        out[end..end + 4].copy_from_slice(&(r.unit().abs() + 1e-3).to_le_bytes());
    }
    let m = Matrix::new(format, rows, cols, &out).unwrap();
    m.validate().unwrap();
    out
}

/// Makes any bytes of a block such that a quantiser can have written them.
fn legal(format: &Format, block: &mut [u8], r: &mut Random) {
    // Numbers of so many trits.
    let trits = |bytes: &mut [u8], numbers: u16, unit: u16| {
        bytes.iter_mut().for_each(|b| *b = (u16::from(*b) * numbers / 256 * unit * 256).div_ceil(243) as u8);
    };
    match format.name {
        "f16" if block[1] & 0x7c == 0x7c => block[1] ^= 0x40,
        // Keep products finite too: infinity minus infinity would hide the order.
        "bf16" | "f32" => {
            let top = format.block_bytes - 1;
            block[top] = block[top] & 0x81 | 0x3c | (r.bits() as u8 & 0x02);
        }
        "mxfp4" => block[0] = 96 + block[0] % 64,
        "tq1_0" => {
            trits(&mut block[..48], 243, 1);
            trits(&mut block[48..52], 81, 3);
        }
        "iq1_bn" => {
            trits(&mut block[..12], 243, 1);
            trits(&mut block[12..], 81, 1);
        }
        // 3 becomes 2 in every pair.
        "tq2_0" => block[..64].iter_mut().for_each(|b| *b &= !(*b >> 1 & *b & 0x55)),
        _ if format.is_ternary() => block.iter_mut().for_each(|b| *b &= !(*b >> 1 & *b & 0x55)),
        _ => {}
    }
}

/// I2_S, in whichever layout.
pub fn is_i2s(format: &Format) -> bool {
    format.ggml_type == quant::i2_s::FORMAT.ggml_type
}

/// Random weights that the format can hold.
pub fn weights(format: &Format, n: usize, r: &mut Random) -> Vec<f32> {
    if format.is_ternary() { (0..n).map(|_| [-0.75, 0.0, 0.75][r.below(3)]).collect() } else { r.floats(n, 2.0) }
}

fn pack(format: &Format, rows: usize, cols: usize, r: &mut Random) -> Vec<u8> {
    (format.pack)(&weights(format, rows * cols, r), rows, cols).unwrap()
}

/// Equal bits; any NaN equals any NaN.
#[track_caller]
pub fn assert_bits(got: &[f32], want: &[f32], what: &dyn std::fmt::Display) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan(), "{what}: [{i}] is {g:?}, must be {w:?}");
    }
}

/// The weights `[rows][cols]` of a matrix.
pub fn unpack(w: &Matrix<'_>) -> Vec<f32> {
    let mut out = vec![f32::NAN; w.rows * w.cols];
    out.chunks_mut(w.cols).enumerate().for_each(|(row, out)| w.unpack_row(row, out));
    out
}

/// What a set makes of the values of some tokens.
pub fn prepared(k: &dyn Kernels, act: ActKind, x: &[f32], tokens: usize) -> Activations {
    let mut out = Activations::default();
    k.prepare(act, x, tokens, &mut out);
    out
}

/// Any int8, with scales up to `scale`.
pub fn any_i8(tokens: usize, cols: usize, scale: f32, r: &mut Random) -> Activations {
    let q: Vec<i8> = (0..tokens * cols).map(|_| r.bits() as i8).collect();
    Activations::from_i8(&q, &r.floats(tokens, scale), tokens, cols).unwrap()
}

/// `[n_tokens][rows]` of a set.
pub fn matmul(k: &dyn Kernels, w: &Matrix<'_>, x: &Activations) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.n_tokens() * w.rows];
    k.matmul(w, x, 0..w.rows, OutView::new(&mut y, x.n_tokens(), w.rows));
    y
}

/// What a screened head must have: the ranks asked for with everything equal to the last of them, and what is `within` it.
pub fn required(whole: &[f32], wanted: Wanted<'_>) -> Vec<bool> {
    let mut sorted = whole.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let last = sorted[wanted.count.min(whole.len()) - 1];
    let also = |row: usize| wanted.also.contains(&(row as u32));
    whole.iter().enumerate().map(|(row, y)| *y >= last - wanted.within || also(row)).collect()
}
