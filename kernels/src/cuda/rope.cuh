// Rotary embedding: which elements of a head are turned together, and by what.
#pragma once
#include "common.cuh"

enum { ROPE_NEOX = 0, ROPE_NORM = 1 };

// The first (r = 0) or second element of pair i of `pairs`.
__device__ __forceinline__ u32 turned_pair(u32 kind, u32 i, u32 pairs, u32 r) {
    return kind == ROPE_NEOX ? i + r * pairs : 2 * i + r;
}

__device__ __forceinline__ void turn(float& x0, float& x1, float cos, float sin) {
    // Never one fused operation, whatever the flags say.
    float y0 = __fadd_rn(__fmul_rn(x0, cos), -__fmul_rn(x1, sin));
    x1 = __fadd_rn(__fmul_rn(x0, sin), __fmul_rn(x1, cos));
    x0 = y0;
}
