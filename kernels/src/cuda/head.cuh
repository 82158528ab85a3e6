// What the kernels of the output matrix share: keys that order logits, and the canonical dots of f16 rows.
#pragma once
#include "common.cuh"

// A number that orders floats as they are: the two zeros are one, NaN is 0, below everything.
__device__ __forceinline__ u32 rank_of(float v) {
    if (!(v == v)) return 0;
    u32 bits = v == 0.0f ? 0 : (u32)__float_as_int(v);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// The float of such a number.
__device__ __forceinline__ float of_rank(u32 rank) {
    return __int_as_float((i32)(rank >> 31 ? rank & 0x7fffffff : ~rank));
}

// A logit with its row, so that the larger key is the better token: the larger logit, then the lower row. 0 for what
// can never win: NaN and minus infinity.
__device__ __forceinline__ u64 key_of(float logit, u32 row) {
    return logit > -INFINITY_F ? (u64)rank_of(logit) << 32 | (u32)~row : 0;
}

// Every lane calls.
__device__ __forceinline__ void keep_best(u64 key, u64* best) {
    for (u32 width = 16; width; width /= 2) {
        u64 other = __shfl_xor_sync(ALL_LANES, key, width);
        key = other > key ? other : key;
    }
    if (threadIdx.x % 32 == 0 && key) atomicMax(best, key);
}

// A token's values in shared memory, by fours: the first four of each eight, then the second, so that eight threads read
// 128 bytes of either. Bytes: cols * 4, cols rounded up to 64.
struct Staged {
    float4 *lows, *highs;
};

// The block calls; a barrier must follow.
__device__ __forceinline__ Staged stage(u8* memory, const float* x, u32 cols) {
    Staged s = {(float4*)memory, (float4*)memory + (cols + 63) / 64 * 8};
    for (u32 u = threadIdx.x; u < cols / 4; u += blockDim.x) {
        float4* half = u % 2 ? s.highs : s.lows;
        half[u / 2] = ((const float4*)x)[u];
    }
    return s;
}

__device__ __forceinline__ void step_lanes(float (&lanes)[8], uint4 w, float4 low, float4 high) {
    lanes[0] = fmaf(half_to_float((u16)w.x), low.x, lanes[0]);
    lanes[1] = fmaf(half_to_float((u16)(w.x >> 16)), low.y, lanes[1]);
    lanes[2] = fmaf(half_to_float((u16)w.y), low.z, lanes[2]);
    lanes[3] = fmaf(half_to_float((u16)(w.y >> 16)), low.w, lanes[3]);
    lanes[4] = fmaf(half_to_float((u16)w.z), high.x, lanes[4]);
    lanes[5] = fmaf(half_to_float((u16)(w.z >> 16)), high.y, lanes[5]);
    lanes[6] = fmaf(half_to_float((u16)w.w), high.z, lanes[6]);
    lanes[7] = fmaf(half_to_float((u16)(w.w >> 16)), high.w, lanes[7]);
}

// The first rows of a matrix, `bytes` each, to the second cache: a kilobyte of each of the ROWS that a team of eight threads
// starts with, a line by a thread. For what no kernel writes, before the wait for earlier launches.
template <u32 ROWS> __device__ __forceinline__ void prefetch_rows(const void* w, u32 rows, u32 bytes) {
    u32 at = threadIdx.x % 8 * 128, first = (blockIdx.x * blockDim.x + threadIdx.x) / 8 * ROWS;
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
        if (first + r < rows && at < bytes) prefetch((const u8*)w + (u64)(first + r) * bytes + at);
    }
}

// Canonical dots of rows (f16, cols a multiple of 8) with a staged token. Eight threads share ROWS rows: each reads 16
// bytes, so a team reads 128 bytes of 64 columns at a time, AHEAD times before it needs the first, and every thread has
// eight of the contract's 64 lanes in registers. All of a warp call; all of a team get the dots.
template <u32 ROWS, u32 AHEAD>
__device__ __forceinline__ void dot_rows(const u16* const (&rows)[ROWS], Staged x, u32 cols, float (&dots)[ROWS]) {
    u32 steps = (cols + 63) / 64, part = threadIdx.x % 8;
    float lanes[ROWS][8];
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
#pragma unroll
        for (u32 i = 0; i < 8; i++) lanes[r][i] = 0.0f;
    }
    for (u32 base = 0; base < steps; base += AHEAD) {
        uint4 bits[ROWS][AHEAD];
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
            u32 unit = (base + a) * 8 + part;
            if (unit * 8 >= cols) continue;
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) bits[r][a] = load_once((const uint4*)rows[r] + unit);
        }
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
            u32 unit = (base + a) * 8 + part;
            if (unit * 8 >= cols) continue;
            float4 low = x.lows[unit], high = x.highs[unit];
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) step_lanes(lanes[r], bits[r][a], low, high);
        }
    }
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
        // Lanes j and j + 32 are four threads apart, j and j + 16 two, j and j + 8 one; the rest is at home.
#pragma unroll
        for (u32 width = 4; width; width /= 2) {
#pragma unroll
            for (u32 i = 0; i < 8; i++)
                lanes[r][i] = lanes[r][i] + __shfl_xor_sync(ALL_LANES, lanes[r][i], width);
        }
        const float* l = lanes[r];
        dots[r] = ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
    }
}

// What was picked for a token: so many words of header, then `capacity` pairs of a row and the bits of its logit, in any
// order. Where more were to be picked than there is room for, the count says so and the pairs are not all.
enum {
    PICKED_COUNT = 0,   // pairs
    PICKED_STRANGE = 1, // not 0: a logit was NaN or plus infinity
    PICKED_REACH = 2,   // rank of the largest lower bound
    PICKED_HEADER = 4,
};

__device__ __forceinline__ u32* picked_for(u32* picked, u32 token, u32 capacity) {
    return picked + (u64)token * (PICKED_HEADER + 2 * capacity);
}

// Not a logit that can be sampled from; minus infinity is one that is never drawn.
__device__ __forceinline__ bool strange(float logit) { return !(logit < INFINITY_F); }
