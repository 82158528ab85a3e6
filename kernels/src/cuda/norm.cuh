// A row that a block holds in shared memory: its RMS norm, and as int8 by token (numerics.rs: rms_norm, quantize). Whole
// warps, 64 threads at least; everyone calls. Rows are a multiple of 4 long; thread t has the fours t, t + threads, ... of
// them. What is far is asked for all at once, since a launch is hardly longer than a few answers of memory.
#pragma once
#include "common.cuh"

// Before the wait for earlier launches: the weight of a norm (or null), which no kernel writes, comes near.
__device__ __forceinline__ void fetch_norm(const float* weight, u32 cols) {
    if (!weight) return;
    for (u32 i = 32 * threadIdx.x; i < cols; i += 32 * blockDim.x) prefetch_near(weight + i);
}

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

// 1 / the root of the mean of squares of row [cols], behind a barrier since it was written. It is read for the last time before
// the barriers of this.
__device__ __forceinline__ float rms_factor(const float* row, float eps, u32 cols) {
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
    return factor[0];
}

// The row, normed: keep(i, four) gets each of the thread's fours. The weights were fetched.
template <class Keep>
__device__ __forceinline__ void norm_row(const float4* row, const float* weight, float eps, u32 cols, Keep keep) {
    float r = rms_factor((const float*)row, eps, cols);
#pragma unroll 4
    for (u32 i = threadIdx.x; i < cols / 4; i += blockDim.x) {
        float4 x = row[i], w = ((const float4*)weight)[i];
        keep(i, {x.x * r * w.x, x.y * r * w.y, x.z * r * w.z, x.w * r * w.w});
    }
}

__device__ __forceinline__ float max_of_four(float m, float4 x) {
    return max_of(max_of(max_of(max_of(m, fabsf(x.x)), fabsf(x.y)), fabsf(x.z)), fabsf(x.w));
}

// What goes with a row of int8.
struct Quantised {
    float scale;
    i32 sum;
};

// An element as int8, as an i32; NaN is 0.
__device__ __forceinline__ i32 quantise(float x, float scale) {
    float v = rintf(x * scale);
    v = v < -128.0f ? -128.0f : v;
    v = v > 127.0f ? 127.0f : v;
    return v == v ? (i32)v : 0;
}

// row [cols] as int8, a four for a word: store(i, word). Each thread wrote its own fours, and brings the largest of them in `m`
// (1e-5 at least). A barrier stands behind the last store.
template <class Store>
__device__ __forceinline__ Quantised quantise_row(const float* row, u32 cols, float m, Store store) {
    SHARED(float, most, 32);
    SHARED(i32, sums, 32);
    u32 thread = threadIdx.x, threads = blockDim.x, warps = threads / 32;
    for (u32 width = 16; width; width /= 2) m = max_of(m, __shfl_xor_sync(ALL_LANES, m, width));
    if (thread % 32 == 0) most[thread / 32] = m;
    __syncthreads();
    for (u32 w = 0; w < warps; w++) m = max_of(m, most[w]);
    float s = __fdiv_rn(127.0f, m);
    i32 sum = 0;
    for (u32 i = thread; i < cols / 4; i += threads) {
        float4 x = ((const float4*)row)[i];
        i32 a = quantise(x.x, s), b = quantise(x.y, s), c = quantise(x.z, s), d = quantise(x.w, s);
        sum += a + b + c + d;
        store(i, ((u32)a & 0xff) | ((u32)b & 0xff) << 8 | ((u32)c & 0xff) << 16 | ((u32)d & 0xff) << 24);
    }
    for (u32 width = 16; width; width /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, width);
    if (thread % 32 == 0) sums[thread / 32] = sum;
    __syncthreads();
    sum = 0;
    for (u32 w = 0; w < warps; w++) sum += sums[w];
    return {s, sum};
}
