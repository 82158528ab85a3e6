//! Whether the tiles can be used: the processor has them, the system keeps them from one switch of threads to the next and
//! lets this process have them, and they compute what Intel's manual says.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, __get_cpuid_max, _xgetbv};
use std::sync::OnceLock;

use thiserror::Error;

use super::gemm::{Blocks, PAIR, Sums};
use super::hardware::Hardware;
use super::model::Model;
use super::tiles::{ROW, ROWS, TILES, Tiles};
use crate::cpu::strips::{Codes, GROUPS, ROWS as STRIP, STEP, Strip};

/// The proof that the tiles can be used.
#[derive(Debug)]
pub(super) struct Granted(());

/// Why they cannot.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Missing {
    #[error("this processor has no AMX")]
    Tiles,
    #[error("this processor has AMX without products of int8 (AMX-INT8)")]
    Int8,
    #[error("this processor's AMX has no palette of {TILES} tiles of {ROWS} rows of {ROW} bytes")]
    Palette,
    #[error("this CPU has no {0}")]
    Avx512(&'static str),
    #[error(
        "the operating system does not keep AMX tiles (XCR0 is {xcr0:#x}, bits 17 and 18 are wanted): Linux does from 5.16 on"
    )]
    System { xcr0: u64 },
    #[error("Linux does not let this process use AMX tiles (arch_prctl({code:#x}): {answer})")]
    Refused { code: u64, answer: i64 },
    #[cfg(not(target_os = "linux"))]
    #[error("how to ask {} for AMX tiles is not known; run it on Linux", std::env::consts::OS)]
    Unknown,
    #[error(
        "the AMX tiles of this processor do not compute what its manual says: {tokens} tokens, [{token}][{row}] is {got}, must be {want}"
    )]
    Wrong { tokens: usize, token: usize, row: usize, got: i32, want: i32 },
}

/// The proof, or the first thing that is missing; asked once a program.
pub(super) fn granted() -> Result<&'static Granted, Missing> {
    static ANSWER: OnceLock<Result<Granted, Missing>> = OnceLock::new();
    ANSWER.get_or_init(ask).as_ref().map_err(Clone::clone)
}

fn ask() -> Result<Granted, Missing> {
    processor()?;
    system()?;
    permission()?;
    let granted = Granted(());
    compute(Hardware::new(&granted))?;
    Ok(granted)
}

/// What CPUID says. Leaf 7: EDX bit 24 AMX-TILE, bit 25 AMX-INT8. Leaf 0x1d, palette 1: EAX bytes of all tiles and of one,
/// EBX bytes of a row and number of tiles, ECX rows.
fn processor() -> Result<(), Missing> {
    let (last, _) = __get_cpuid_max(0);
    let features = if last >= 7 { __cpuid_count(7, 0).edx } else { 0 };
    if features & 1 << 24 == 0 {
        return Err(Missing::Tiles);
    }
    if features & 1 << 25 == 0 {
        return Err(Missing::Int8);
    }
    let palette = (last >= 0x1d).then(|| __cpuid_count(0x1d, 1)).ok_or(Missing::Palette)?;
    let want =
        [(TILES * ROWS * ROW) as u32 | ((ROWS * ROW) as u32) << 16, ROW as u32 | (TILES as u32) << 16, ROWS as u32];
    if [palette.eax, palette.ebx, palette.ecx & 0xffff] == want { Ok(()) } else { Err(Missing::Palette) }
}

/// XCR0, if it may be read (leaf 1, ECX bit 27: OSXSAVE): bit 17 the configuration, bit 18 the tiles.
fn system() -> Result<(), Missing> {
    let readable = __cpuid(1).ecx & 1 << 27 != 0;
    // SAFETY: OSXSAVE says that the instruction exists and may be used.
    let xcr0 = if readable { unsafe { _xgetbv(0) } } else { 0 };
    if xcr0 & 0b11 << 17 == 0b11 << 17 { Ok(()) } else { Err(Missing::System { xcr0 }) }
}

/// Linux gives tiles to the processes that ask (`Documentation/arch/x86/xstate.rst`), since they make the frames of signals
/// larger by 8 KiB. The permission is for all threads, those to come too.
#[cfg(target_os = "linux")]
fn permission() -> Result<(), Missing> {
    const ARCH_GET_XCOMP_PERM: u64 = 0x1022;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XTILEDATA: u64 = 18;
    let refused = |code, answer| Err(Missing::Refused { code, answer });
    // SAFETY: the request takes a number and writes nothing.
    let answer = unsafe { arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) };
    if answer != 0 {
        return refused(ARCH_REQ_XCOMP_PERM, answer);
    }
    let mut permitted = 0u64;
    // SAFETY: the question takes the address of a u64 and writes nothing else.
    let answer = unsafe { arch_prctl(ARCH_GET_XCOMP_PERM, (&raw mut permitted).expose_provenance() as u64) };
    if answer == 0 && permitted >> XTILEDATA & 1 == 1 { Ok(()) } else { refused(ARCH_GET_XCOMP_PERM, answer) }
}

#[cfg(not(target_os = "linux"))]
fn permission() -> Result<(), Missing> {
    Err(Missing::Unknown)
}

/// The system call; the answer is 0 or an error's number, negated.
///
/// # Safety
/// As for what `code` asks.
#[cfg(target_os = "linux")]
unsafe fn arch_prctl(code: u64, argument: u64) -> i64 {
    const NUMBER: i64 = 158;
    let answer: i64;
    // SAFETY: the registers are those of Linux's system calls, and what it writes the caller answers for.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") NUMBER => answer,
            in("rdi") code,
            in("rsi") argument,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    answer
}

/// Holds tiles against the model, with all bytes of both operands at random: 32 tokens by 32 rows, then 5 by 16.
fn compute(tiles: impl Tiles) -> Result<(), Missing> {
    const COLS: usize = 3 * ROW;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let mut strip = vec![[Codes::ZERO; GROUPS]; COLS / STEP];
    strip.as_flattened_mut().iter_mut().flat_map(|codes| &mut codes.0).for_each(|code| *code = byte());
    let q: Vec<i8> = (0..PAIR * COLS).map(|_| byte().cast_signed()).collect();
    let (mut tiles, mut model) = (Blocks::new(tiles), Blocks::new(Model::new()));
    for (tokens, rows) in [(PAIR, STRIP), (5, STRIP / GROUPS)] {
        let (strip, q): (&Strip, _) = (&strip, &q[..tokens * COLS]);
        let (Sums(got), Sums(want)) = (tiles.sums(strip, rows, q, tokens), model.sums(strip, rows, q, tokens));
        for (token, (got, want)) in got.iter().zip(want).take(tokens).enumerate() {
            for (row, (got, want)) in got.iter().zip(want).take(rows).enumerate() {
                if got != want {
                    return Err(Missing::Wrong { tokens, token, row, got: *got, want: *want });
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::amx::tiles::{Byte, Config};

    /// Tiles that lose the signs of activations, or forget a product.
    struct Faulty {
        model: Model,
        signs: bool,
        dots: usize,
    }

    impl Tiles for Faulty {
        fn configure(&mut self, config: Config) {
            self.model.configure(config);
        }
        fn zero<const C: usize>(&mut self) {
            self.model.zero::<C>();
        }
        fn load<const T: usize, B: Byte>(&mut self, from: &[B], stride: usize) {
            if self.signs && T == 4 {
                let positive: Vec<u8> = from.iter().map(|b| b.bits() & 0x7f).collect();
                return self.model.load::<T, u8>(&positive, stride);
            }
            self.model.load::<T, B>(from, stride);
        }
        fn dot<const C: usize, const A: usize, const B: usize>(&mut self) {
            self.dots += 1;
            // The last of 12 + 3.
            if self.signs || self.dots != 15 {
                self.model.dot::<C, A, B>();
            }
        }
        fn store<const C: usize>(&self, to: &mut [i32], stride: usize) {
            self.model.store::<C>(to, stride);
        }
    }

    #[test]
    fn the_check_takes_the_model_and_refuses_faults() {
        assert_eq!(compute(Model::new()), Ok(()));
        let faulty = |signs| compute(Faulty { model: Model::new(), signs, dots: 0 });
        assert!(
            matches!(faulty(true), Err(Missing::Wrong { tokens: PAIR, token: 0, row: 0, .. })),
            "{:?}",
            faulty(true)
        );
        assert!(
            matches!(faulty(false), Err(Missing::Wrong { tokens: 5, token: 0, row: 0, .. })),
            "{:?}",
            faulty(false)
        );
    }

    /// Every processor answers without a fault, and those that have no tiles say so.
    #[test]
    fn asking_is_harmless() {
        let answer = granted();
        assert_eq!(answer.is_ok(), processor().is_ok() && system().is_ok() && permission().is_ok(), "{answer:?}");
        if let Err(missing) = answer {
            println!("{missing}");
        }
    }
}
