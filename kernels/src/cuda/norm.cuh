// A row that a block holds in shared memory: its RMS norm, and as int8 by token (numerics.rs: rms_norm, quantize). Whole
// warps, 64 threads at least; everyone calls.
#pragma once
#include "common.cuh"

// The canonical sum of 64 lanes, of which thread t < 64 holds lane t; all threads of warp 0 get it.
__device__ __forceinline__ float sum_lanes(float lane, float* upper) {
    u32 t = threadIdx.x;
    if (t >= 32 && t < 64) upper[t - 32] = lane;
    __syncthreads();
    if (t < 32) {
        lane += upper[t];
        // Both of a pair add the same two numbers, so every lane has the tree's one result.
        for (u32 width = 16; width; width /= 2) lane += __shfl_xor_sync(ALL_LANES, lane, width);
    }
    return lane;
}

// row [cols] becomes its norm. Thread t reads and writes the elements t, t + threads, ... of it, but for the sum of squares: a
// barrier stands between whoever wrote the row and this.
__device__ __forceinline__ void norm_row(float* row, const float* weight, float eps, u32 cols) {
    SHARED(float, upper, 32);
    SHARED(float, factor, 1);
    float lane = 0.0f;
    if (threadIdx.x < 64) {
#pragma unroll 8
        for (u32 i = threadIdx.x; i < cols; i += 64) lane = fmaf(row[i], row[i], lane);
    }
    float dot = sum_lanes(lane, upper);
    if (threadIdx.x == 0) factor[0] = __fdiv_rn(1.0f, __fsqrt_rn(__fdiv_rn(dot, (float)cols) + eps));
    __syncthreads();
    float r = factor[0];
    for (u32 i = threadIdx.x; i < cols; i += blockDim.x) row[i] = row[i] * r * weight[i];
}

// What goes with a row of int8.
struct Quantised {
    float scale;
    i32 sum;
};

// row [cols] as int8: store(i, word) gets the elements from 4 i on; cols is a multiple of 4. Thread t wrote the elements t, t +
// threads, ... of the row. A barrier stands behind the last store.
template <class Store> __device__ __forceinline__ Quantised quantise_row(const float* row, u32 cols, Store store) {
    SHARED(float, most, 32);
    SHARED(i32, sums, 32);
    u32 thread = threadIdx.x, threads = blockDim.x, warps = threads / 32;
    float m = 1e-5f;
    for (u32 i = thread; i < cols; i += threads) m = max_of(m, fabsf(row[i]));
    for (u32 width = 16; width; width /= 2) m = max_of(m, __shfl_xor_sync(ALL_LANES, m, width));
    if (thread % 32 == 0) most[thread / 32] = m;
    __syncthreads();
    for (u32 w = 0; w < warps; w++) m = max_of(m, most[w]);
    float s = __fdiv_rn(127.0f, m);
    i32 sum = 0;
    for (u32 i = thread; i < cols / 4; i += threads) {
        u32 packed = 0;
        for (u32 j = 0; j < 4; j++) {
            float v = rintf(row[4 * i + j] * s);
            v = v < -128.0f ? -128.0f : v;
            v = v > 127.0f ? 127.0f : v;
            // NaN goes to 0.
            i32 whole = v == v ? (i32)v : 0;
            sum += whole;
            packed |= ((u32)whole & 0xff) << 8 * j;
        }
        store(i, packed);
    }
    for (u32 width = 16; width; width /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, width);
    if (thread % 32 == 0) sums[thread / 32] = sum;
    __syncthreads();
    sum = 0;
    for (u32 w = 0; w < warps; w++) sum += sums[w];
    return {s, sum};
}
