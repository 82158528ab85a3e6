//! The tiles as Intel's manual writes them down in its pseudo-code, a loop for a loop: what the hardware's are held against,
//! and what stands in for them on machines that have none.
//!
//! Where the processor raises a fault (#UD, #GP) the model panics: whatever the kernels do in a test, they may do.

use super::tiles::{Byte, Config, ROW, ROWS, TILES, Tiles};

type Tile = [[u8; ROW]; ROWS];
const ZERO: Tile = [[0; ROW]; ROWS];

/// The registers.
#[derive(Debug)]
pub(super) struct Model {
    config: Option<Config>,
    tiles: [Tile; TILES],
}

impl Model {
    /// As after `tilerelease`.
    pub(super) fn new() -> Self {
        Self { config: None, tiles: [ZERO; TILES] }
    }

    /// `(rows, bytes of a row)` of a tile that an instruction names.
    fn named(&self, tile: usize) -> (usize, usize) {
        let Some(config) = &self.config else { panic!("#UD: no tile is configured") };
        let shape = config.shape(tile);
        assert!(shape.0 > 0, "#UD: tile {tile} is not configured");
        shape
    }

    fn dword(&self, tile: usize, row: usize, n: usize) -> [u8; 4] {
        let at = 4 * n;
        let row = &self.tiles[tile][row];
        [row[at], row[at + 1], row[at + 2], row[at + 3]]
    }
}

impl Tiles for Model {
    fn configure(&mut self, config: Config) {
        let bytes = &config.0;
        assert!(bytes[0] == 1 && bytes[1] == 0, "#GP: palette {}, start row {}", bytes[0], bytes[1]);
        let reserved = [&bytes[2..16], &bytes[16 + 2 * TILES..48], &bytes[48 + TILES..]];
        assert!(reserved.iter().all(|part| part.iter().all(|b| *b == 0)), "#GP: reserved bytes in {bytes:?}");
        for tile in 0..TILES {
            let (rows, bytes) = config.shape(tile);
            assert!(rows <= ROWS && bytes <= ROW && (rows == 0) == (bytes == 0), "#GP: tile of {rows} x {bytes}");
        }
        *self = Self { config: Some(config), ..Self::new() };
    }

    fn zero<const C: usize>(&mut self) {
        self.named(C);
        self.tiles[C] = ZERO;
    }

    fn load<const T: usize, B: Byte>(&mut self, from: &[B], stride: usize) {
        let (rows, bytes) = self.named(T);
        self.tiles[T] = ZERO;
        for row in 0..rows {
            for (to, from) in self.tiles[T][row].iter_mut().zip(&from[row * stride..][..bytes]) {
                *to = from.bits();
            }
        }
    }

    fn dot<const C: usize, const A: usize, const B: usize>(&mut self) {
        let ((m, n), (rows_a, k), (rows_b, n_b)) = (self.named(C), self.named(A), self.named(B));
        assert!(C != A && C != B && A != B, "#UD: tiles {C}, {A}, {B} are not three");
        assert!(rows_a == m && n_b == n && rows_b * 4 == k, "#UD: {m}x{n} of {rows_a}x{k} and {rows_b}x{n_b} bytes");
        assert!(k.is_multiple_of(4) && n.is_multiple_of(4), "#UD: rows of {k} and {n} bytes");
        for m in 0..m {
            for k in 0..k / 4 {
                let a = self.dword(A, m, k);
                for n in 0..n / 4 {
                    let b = self.dword(B, k, n);
                    let mut sum = i32::from_le_bytes(self.dword(C, m, n));
                    for (a, b) in a.into_iter().zip(b) {
                        sum = sum.wrapping_add(i32::from(a.cast_signed()) * i32::from(b));
                    }
                    self.tiles[C][m][4 * n..][..4].copy_from_slice(&sum.to_le_bytes());
                }
            }
        }
    }

    fn store<const C: usize>(&self, to: &mut [i32], stride: usize) {
        let (rows, bytes) = self.named(C);
        for row in 0..rows {
            for (n, to) in to[row * stride..][..bytes / 4].iter_mut().enumerate() {
                *to = i32::from_le_bytes(self.dword(C, row, n));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A product of one element, by hand: -128 * 3 + 127 * 2 + 1 * 255 + 0.
    #[test]
    fn signed_times_unsigned() {
        let mut tiles = Model::new();
        tiles.configure(Config::NONE.with(0, 1, 4).with(1, 1, 4).with(2, 1, 4));
        tiles.load::<1, i8>(&[-128, 127, 1, -1], 0);
        tiles.load::<2, u8>(&[3, 2, 255, 0], 0);
        let mut sum = [i32::MAX, 7];
        tiles.dot::<0, 1, 2>();
        tiles.store::<0>(&mut sum, 0);
        assert_eq!(sum, [-384 + 254 + 255, 7]);
        tiles.dot::<0, 1, 2>();
        tiles.store::<0>(&mut sum, 0);
        assert_eq!(sum, [2 * 125, 7]);
        tiles.zero::<0>();
        tiles.store::<0>(&mut sum, 0);
        assert_eq!(sum, [0, 7]);
    }

    #[test]
    fn rows_are_where_the_stride_puts_them() {
        let mut tiles = Model::new();
        // Two rows of A, one dword; one row of B, two dwords.
        tiles.configure(Config::NONE.with(0, 2, 8).with(1, 2, 4).with(2, 1, 8));
        tiles.load::<1, i8>(&[1, 0, 0, 0, 99, 0, 1, 0, 0], 5);
        tiles.load::<2, u8>(&[10, 20, 0, 0, 30, 40, 0, 0], 8);
        tiles.dot::<0, 1, 2>();
        let mut sums = [-1; 5];
        tiles.store::<0>(&mut sums, 3);
        assert_eq!(sums, [10, 30, -1, 20, 40]);
    }

    #[test]
    #[should_panic(expected = "#UD: tile 3 is not configured")]
    fn a_tile_without_rows() {
        let mut tiles = Model::new();
        tiles.configure(Config::NONE.with(0, 1, 4));
        tiles.zero::<3>();
    }

    #[test]
    #[should_panic(expected = "#UD: 2x4 of 1x4")]
    fn shapes_that_do_not_fit() {
        let mut tiles = Model::new();
        tiles.configure(Config::NONE.with(0, 2, 4).with(1, 1, 4).with(2, 1, 4));
        tiles.dot::<0, 1, 2>();
    }

    #[test]
    #[should_panic(expected = "are not in 8 elements")]
    fn a_check_that_the_hardware_relies_on() {
        let config = Config::NONE.with(0, 2, 8);
        config.check(0, 12, 4, 1);
        config.check(0, 8, 4, 1);
    }
}
