//! Tiles as the kernels see them: eight registers of up to sixteen rows of 64 bytes, and what can be done with them.
//!
//! The names and meanings are those of Intel's Software Developer's Manual (volume 2, the instructions; volume 1, chapter
//! "Programming with Intel Advanced Matrix Extensions"). A trait, because there are two: the processor's
//! ([`super::hardware`]) and a model of them that runs everywhere ([`super::model`]).

/// Tiles of palette 1, their rows, and the bytes of a row.
pub(super) const TILES: usize = 8;
pub(super) const ROWS: usize = 16;
pub(super) const ROW: usize = 64;

/// What `ldtilecfg` reads: byte 0 the palette, byte 1 the row to go on with after a fault; from 16 on the bytes of a row of
/// each tile, two bytes each; from 48 on the rows of each tile. All else is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Config(pub(super) [u8; 64]);

impl Config {
    /// Palette 1, no tile configured.
    pub(super) const NONE: Self = {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        Self(bytes)
    };

    /// The same with a tile of `rows` rows of `bytes` bytes.
    pub(super) const fn with(mut self, tile: usize, rows: usize, bytes: usize) -> Self {
        assert!(tile < TILES && 0 < rows && rows <= ROWS && 0 < bytes && bytes <= ROW && bytes.is_multiple_of(4));
        self.0[16 + 2 * tile] = bytes as u8;
        self.0[48 + tile] = rows as u8;
        self
    }

    /// `(rows, bytes of a row)` of a tile; zeros for one that is not configured.
    pub(super) fn shape(&self, tile: usize) -> (usize, usize) {
        let bytes = u16::from_le_bytes([self.0[16 + 2 * tile], self.0[17 + 2 * tile]]);
        (self.0[48 + tile].into(), bytes.into())
    }

    /// Panics unless `len` elements of `size` bytes hold the rows of a tile, `stride` elements apart.
    #[cfg(any(target_arch = "x86_64", test))]
    pub(super) fn check(&self, tile: usize, len: usize, stride: usize, size: usize) {
        let (rows, bytes) = self.shape(tile);
        let fits =
            rows > 0 && (rows - 1).checked_mul(stride).is_some_and(|last| last <= len && (len - last) * size >= bytes);
        assert!(fits, "{rows} rows of {bytes} bytes, {stride} elements apart, are not in {len} elements");
    }
}

/// What a tile is loaded from: bytes, signed or not.
pub(super) trait Byte: Copy {
    /// The bits.
    fn bits(self) -> u8;
}

impl Byte for u8 {
    fn bits(self) -> u8 {
        self
    }
}

impl Byte for i8 {
    fn bits(self) -> u8 {
        self.cast_unsigned()
    }
}

/// The tiles of a thread. All but [`Tiles::configure`] want tiles that are configured; dropping them releases them.
pub(super) trait Tiles {
    /// `ldtilecfg`: gives the tiles their shapes, and zeros.
    fn configure(&mut self, config: Config);

    /// `tilezero`.
    fn zero<const C: usize>(&mut self);

    /// `tileloadd`: row r from `r * stride` elements on. What is behind the configured rows and bytes becomes zero.
    ///
    /// # Panics
    /// If the rows are not all in `from`.
    fn load<const T: usize, B: Byte>(&mut self, from: &[B], stride: usize);

    /// `tdpbsud`: `C[m][n] += sum(A[m][4 k + i] * B[k][4 n + i])` over k and i = 0..4, where A has signed bytes, B unsigned
    /// ones and C i32; sums wrap.
    fn dot<const C: usize, const A: usize, const B: usize>(&mut self);

    /// `tilestored`: row r of i32 to `r * stride` elements on.
    ///
    /// # Panics
    /// If there is no room for all rows.
    fn store<const C: usize>(&self, to: &mut [i32], stride: usize);
}
