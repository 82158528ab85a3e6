//! The processor's tiles. Stable Rust has no intrinsics for them, so each instruction is a line of assembly; what a line
//! does is proven by [`super::detect`] each time a program first asks for the set.
//!
//! The tiles keep their values from one line to the next. No compiler touches them on its own (they are used by code that
//! says so, and by nothing else), a system call and a signal bring them back as they were, and a value of [`Hardware`] stays on
//! its thread. Each line names the tile that it writes.
//!
//! A tile that is used without being configured would be a fault (#UD), so would one of a shape that does not fit its
//! product: [`super::model`] panics there, and the tests run the same code on it.

use std::arch::asm;
use std::marker::PhantomData;

use super::detect::Granted;
use super::tiles::{Byte, Config, TILES, Tiles};

/// The tiles of this thread.
#[derive(Debug)]
pub(super) struct Hardware {
    /// What the tiles are configured as.
    config: Config,
    /// Tiles are a thread's own.
    thread: PhantomData<*const ()>,
}

impl Hardware {
    /// The proof that the processor has them and the system keeps them.
    pub(super) fn new(_: &Granted) -> Self {
        Self { config: Config::NONE, thread: PhantomData }
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        // SAFETY: `new` has seen that the instruction exists; what the tiles held is not used again.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, nomem)
            );
        }
    }
}

/// A line of assembly that writes the tile of a const parameter; Rust wants the register itself to be named.
macro_rules! write_tile {
    ($tile:ident, $name:literal, $rest:literal, [$($operand:tt)*], $($option:ident),*) => {
        write_tile!(@ $tile, $name, $rest, [$($operand)*], [$($option),*],
            0 "tmm0", 1 "tmm1", 2 "tmm2", 3 "tmm3", 4 "tmm4", 5 "tmm5", 6 "tmm6", 7 "tmm7")
    };
    (@ $tile:ident, $name:literal, $rest:literal, $operands:tt, $options:tt, $($n:literal $register:tt),*) => {
        match $tile {
            $($n => write_tile!(# $name, $rest, $operands, $options, $register),)*
            _ => unreachable!("there are eight tiles"),
        }
    };
    (# $name:literal, $rest:literal, [$($operand:tt)*], [$($option:ident),*], $register:tt) => {
        asm!(concat!($name, " ", $register, $rest), $($operand)* out($register) _,
            options(nostack, preserves_flags, $($option),*))
    };
}

impl Tiles for Hardware {
    #[inline]
    fn configure(&mut self, config: Config) {
        self.config = config;
        // SAFETY: `new` has seen that the instruction exists; the configuration is 64 bytes in the order that it wants.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                config = in(reg) &raw const self.config,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, readonly)
            );
        }
    }

    #[inline]
    fn zero<const C: usize>(&mut self) {
        const { assert!(C < TILES) }
        // SAFETY: `new` has seen that the instruction exists, and touches nothing but the tile.
        unsafe { write_tile!(C, "tilezero", "", [], nomem) }
    }

    #[inline]
    fn load<const T: usize, B: Byte>(&mut self, from: &[B], stride: usize) {
        const { assert!(T < TILES) }
        self.config.check(T, from.len(), stride, 1);
        let from = from.as_ptr();
        // SAFETY: `new` has seen that the instruction exists; every row that it reads is in the slice.
        unsafe {
            write_tile!(T, "tileloadd", ", [{from} + {stride}*1]",
                [from = in(reg) from, stride = in(reg) stride,], readonly)
        }
    }

    #[inline]
    fn dot<const C: usize, const A: usize, const B: usize>(&mut self) {
        const { assert!(A < TILES && B < TILES && C < TILES && C != A && C != B && A != B) }
        // SAFETY: `new` has seen that the instruction exists, and touches nothing but the tile.
        unsafe { write_tile!(C, "tdpbsud", ", tmm{a}, tmm{b}", [a = const A, b = const B,], nomem) }
    }

    #[inline]
    fn store<const C: usize>(&self, to: &mut [i32], stride: usize) {
        const { assert!(C < TILES) }
        self.config.check(C, to.len(), stride, size_of::<i32>());
        // SAFETY: `new` has seen that the instruction exists; every row that it writes is in the slice.
        unsafe {
            asm!(
                "tilestored [{to} + {stride}*1], tmm{c}",
                to = in(reg) to.as_mut_ptr(),
                stride = in(reg) stride * size_of::<i32>(),
                c = const C,
                options(nostack, preserves_flags)
            );
        }
    }
}
