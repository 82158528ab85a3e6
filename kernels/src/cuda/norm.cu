// A row of activations made ready for a product: what comes in (a residual sum, a gate), RMS norm, int8 by token.
#include "common.cuh"

// Where a row comes from; `x` and `y` are [n_tokens][cols].
enum {
    ROW_PLAIN = 0, // x
    ROW_SUM = 1,   // x + y, which x then holds
    ROW_RELU2 = 2, // max(x, 0)^2 y
    ROW_SILU = 3,  // x / (1 + exp(-x)) y
};

// The canonical sum of 64 lanes, of which thread t < 64 holds lane t; all threads of warp 0 get it. Everyone calls.
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

// A block for a token (any grid); whole warps, 64 threads at least. `weight` null: no norm. `values` gets the row as
// f32 unless null; `q`, `scale`, `isum` get it as int8 unless `q` is null (cols then is a multiple of 4).
// Dynamic shared memory: 4 * cols bytes.
ENTRY __launch_bounds__(1024)
bn_norm_quant(u32 input, float* x, const float* y, const float* weight, float eps, u32 n_tokens, u32 cols,
                    float* values, i8* q, float* scale, i32* isum) {
    let_next_begin();
    wait_for_earlier();
    DYNAMIC_SHARED(memory);
    float* row = (float*)memory;
    SHARED(float, upper, 32);
    SHARED(float, factor, 1);
    SHARED(float, most, 32);
    SHARED(i32, sums, 32);
    u32 thread = threadIdx.x, threads = blockDim.x, warps = threads / 32;
    for (u32 token = blockIdx.x; token < n_tokens; token += gridDim.x) {
        u64 at = (u64)token * cols;
        for (u32 i = thread; i < cols; i += threads) {
            float v = x[at + i];
            if (input == ROW_SUM) {
                v = v + y[at + i];
                x[at + i] = v;
            } else if (input != ROW_PLAIN) {
                v = gated(input == ROW_SILU ? GATE_SILU : GATE_RELU2, v, y[at + i]);
            }
            row[i] = v;
        }
        __syncthreads();
        if (weight) {
            float lane = 0.0f;
            if (thread < 64) {
#pragma unroll 8
                for (u32 i = thread; i < cols; i += 64) lane = fmaf(row[i], row[i], lane);
            }
            float dot = sum_lanes(lane, upper);
            if (thread == 0) factor[0] = __fdiv_rn(1.0f, __fsqrt_rn(__fdiv_rn(dot, (float)cols) + eps));
            __syncthreads();
            float r = factor[0];
            // Whoever wrote an element is who reads it until the next barrier.
            for (u32 i = thread; i < cols; i += threads) row[i] = row[i] * r * weight[i];
        }
        if (values) {
            for (u32 i = thread; i < cols; i += threads) values[at + i] = row[i];
        }
        if (q) {
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
                ((u32*)(q + at))[i] = packed;
            }
            for (u32 width = 16; width; width /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, width);
            if (thread % 32 == 0) sums[thread / 32] = sum;
            __syncthreads();
            if (thread == 0) {
                i32 all = 0;
                for (u32 w = 0; w < warps; w++) all += sums[w];
                scale[token] = s;
                isum[token] = all;
            }
        }
    }
}
