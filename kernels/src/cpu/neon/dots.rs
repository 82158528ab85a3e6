//! Products of int8, four to a lane of i32: by `sdot` where the processor has it, by `smull` elsewhere.
//!
//! The kernels are written once, for a value of a type that implements [`Dots`]. The value is the proof that the
//! instruction exists, so whoever holds one may call it safely.

use std::arch::aarch64::*;

const _: () =
    assert!(cfg!(target_feature = "neon"), "NEON is part of every aarch64 target that has a standard library");

/// How 16 products of int8 are added to four i32.
pub trait Dots: Copy + Send + Sync + 'static {
    /// The set that is built with it.
    const SET: &'static str;

    /// Adds to lane `i` the products `4 * i` to `4 * i + 3`. Neighbouring products may add up to no more than an i16
    /// holds: the kernels' weights times activations do, each says why.
    fn fours(self, acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t;

    /// The same total; which lane gets what is open.
    fn any(self, acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t;
}

/// With the instructions that every aarch64 processor has.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

impl Dots for Plain {
    const SET: &'static str = "neon";

    #[inline(always)]
    fn fours(self, acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: NEON is part of the target.
        unsafe {
            let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
            vpadalq_s16(acc, vpaddq_s16(low, vmull_high_s8(a, b)))
        }
    }

    #[inline(always)]
    fn any(self, acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: NEON is part of the target.
        unsafe {
            let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
            vpadalq_s16(acc, vmlal_high_s8(low, a, b))
        }
    }
}

/// With the dot product extension: optional since Armv8.2, there since Armv8.4.
#[derive(Debug, Clone, Copy)]
pub struct Sdot(());

impl Sdot {
    /// The proof, or the name of what is missing.
    pub fn detect() -> Result<Self, &'static str> {
        if std::arch::is_aarch64_feature_detected!("dotprod") { Ok(Self(())) } else { Err("dotprod") }
    }
}

impl Dots for Sdot {
    const SET: &'static str = "neon-dotprod";

    #[inline(always)]
    fn fours(self, mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // The intrinsic `vdotq_s32` is unstable. The directive holds for this piece of assembly alone; with
        // `#[target_feature]` instead, the function could not be inlined into the kernels, which are generic.
        // SAFETY: `self` proves that the processor has the instruction; it has no effect but on its register.
        unsafe {
            std::arch::asm!(
                ".arch_extension dotprod",
                "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
                acc = inout(vreg) acc,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        acc
    }

    #[inline(always)]
    fn any(self, acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        self.fours(acc, a, b)
    }
}
