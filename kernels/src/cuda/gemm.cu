// y = W x for many tokens, on the int8 tensor cores: I2_S codes (x86 layout) become int8 in registers, on their way
// from shared memory to the fragments.
//
// The layout fits as if made for it: of 128 weights in 32 bytes, the codes in bits 7-6 are weights 0..31, the next two
// bits the next 32, and so on. So the two words that a lane holds of a row's 32 bytes (bytes 4t.. and 16 + 4t..),
// shifted four times and masked, are its B fragments of four steps of k = 32. Sums are exact integers: no order to
// keep.
#include "common.cuh"

enum {
    TOKENS = 64,    // of a block's tile
    WEIGHTS = 128,  // rows of W in it
    K = 128,        // columns a step
    THREADS = 256,  // eight warps: two by tokens, four by weights, 32 x 32 each
    X_STRIDE = 144, // bytes between tokens in shared memory, and
    W_STRIDE = 48,  // between rows of W: the words that a warp reads at once lie in different banks
    X_LOADS = TOKENS * K / 16 / THREADS,
};

// y is [n_tokens][rows]. Any grid (x over rows, y over tokens); THREADS threads. cols is a multiple of 128.
ENTRY __launch_bounds__(256)
bn_gemm_i2s(const u8* w, u32 rows, u32 cols, float multiplier, const i8* q, const float* scale,
                  const i32* isum, u32 n_tokens, float* y) {
    SHARED(u8, xs, 2 * TOKENS * X_STRIDE);
    SHARED(u8, ws, 2 * WEIGHTS * W_STRIDE);
    u32 thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    u32 g = lane / 4, t = lane % 4;
    u32 token0 = warp % 2 * 32, weight0 = warp / 2 * 32;
    u32 row_bytes = cols / 4, steps = cols / K;
    uint4 none = make_uint4(0, 0, 0, 0);
    let_next_begin();
    float factor = *(const float*)(w + (u64)rows * row_bytes);
    wait_for_earlier();

    for (u32 tile_y = blockIdx.y; tile_y * TOKENS < n_tokens; tile_y += gridDim.y) {
        for (u32 tile_x = blockIdx.x; tile_x * WEIGHTS < rows; tile_x += gridDim.x) {
            u32 first_token = tile_y * TOKENS, first_row = tile_x * WEIGHTS;
            // What this thread brings of each step: 16 bytes of two tokens, and half a row's 32 bytes of codes.
            uint4 x_next[X_LOADS], w_next;
            u32 my_row = thread / 2;
            auto load = [&](u32 step) {
#pragma unroll
                for (u32 i = 0; i < X_LOADS; i++) {
                    u32 unit = i * THREADS + thread, token = first_token + unit / 8;
                    const uint4* from = (const uint4*)(q + (u64)token * cols + step * K) + unit % 8;
                    x_next[i] = token < n_tokens ? *from : none;
                }
                u32 row = first_row + my_row;
                const uint4* from = (const uint4*)(w + (u64)row * row_bytes + step * (K / 4)) + thread % 2;
                w_next = row < rows ? *from : none;
            };
            auto store = [&](u32 half) {
#pragma unroll
                for (u32 i = 0; i < X_LOADS; i++) {
                    u32 unit = i * THREADS + thread;
                    *(uint4*)(xs + half * TOKENS * X_STRIDE + unit / 8 * X_STRIDE + unit % 8 * 16) = x_next[i];
                }
                *(uint4*)(ws + half * WEIGHTS * W_STRIDE + my_row * W_STRIDE + thread % 2 * 16) = w_next;
            };
            i32 sums[2][4][4] = {};
            load(0);
            store(0);
            __syncthreads();
            for (u32 step = 0; step < steps; step++) {
                if (step + 1 < steps) load(step + 1);
                const u8* x = xs + step % 2 * TOKENS * X_STRIDE;
                const u8* codes = ws + step % 2 * WEIGHTS * W_STRIDE;
                u32 words[4][2];
#pragma unroll
                for (u32 n = 0; n < 4; n++) {
                    const u8* row = codes + (weight0 + n * 8 + g) * W_STRIDE + t * 4;
                    words[n][0] = *(const u32*)row;
                    words[n][1] = *(const u32*)(row + 16);
                }
#pragma unroll
                for (u32 k = 0; k < 4; k++) {
                    u32 a[2][4];
#pragma unroll
                    for (u32 m = 0; m < 2; m++) {
                        const u8* low = x + (token0 + m * 16 + g) * X_STRIDE + k * 32 + t * 4;
                        const u8* high = low + 8 * X_STRIDE;
                        a[m][0] = *(const u32*)low;
                        a[m][1] = *(const u32*)high;
                        a[m][2] = *(const u32*)(low + 16);
                        a[m][3] = *(const u32*)(high + 16);
                    }
#pragma unroll
                    for (u32 n = 0; n < 4; n++) {
                        u32 b[2] = {words[n][0] >> (6 - 2 * k) & 0x03030303u, words[n][1] >> (6 - 2 * k) & 0x03030303u};
#pragma unroll
                        for (u32 m = 0; m < 2; m++) mma_16x8x32(sums[m][n], a[m], b);
                    }
                }
                if (step + 1 < steps) store((step + 1) % 2);
                __syncthreads();
            }
#pragma unroll
            for (u32 m = 0; m < 2; m++) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    u32 token = first_token + token0 + m * 16 + g + i / 2 * 8;
                    if (token >= n_tokens) continue;
                    float s = scale[token];
                    i32 less = isum[token];
#pragma unroll
                    for (u32 n = 0; n < 4; n++) {
                        u32 row = first_row + weight0 + n * 8 + t * 2 + i % 2;
                        if (row >= rows) continue;
                        float product = __fdiv_rn(__int2float_rn(sums[m][n][i] - less), s) * factor;
                        y[(u64)token * rows + row] = product * multiplier;
                    }
                }
            }
        }
    }
}
