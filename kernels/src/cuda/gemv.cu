// y = W x for one token: ternary W as it lies in the file (I2_S, x86 layout, see kernels/src/quant/i2_s.rs), int8 x.
//
// Eight lanes share a row and read 128 bytes of it at a time; a thread does two rows with the same activations. A
// byte's four codes are not shifted apart: masked, they are the code times 64, 16, 4 and 1, and a sum for each place
// is shifted once at the end (exact: every term is a multiple). Codes are w + 1, so the sum of q is subtracted once a
// row.
#include "common.cuh"

enum {
    LANES = 8, // to a row
    ROWS = 2,  // to a thread
    AHEAD = 5, // loads of 16 bytes in flight, for each row: all of a row of 2560
};

// Up to three matrices of one input (q, k, v; gate, up) in one launch: rows1 and rows2 may be 0. `w` is [rows][cols /
// 4] bytes and the scale behind them; y = ((sum / scale) * w_scale) * multiplier. Whole warps, any grid. cols is a
// multiple of 128, below 2^19. Dynamic shared memory: cols bytes.
ENTRY __launch_bounds__(256)
bn_gemv_i2s(const u8* w0, float* y0, u32 rows0, float multiplier0, const u8* w1, float* y1, u32 rows1,
                  float multiplier1, const u8* w2, float* y2, u32 rows2, float multiplier2, const i8* q,
                  const float* scale, const i32* isum, u32 cols) {
    DYNAMIC_SHARED(memory);
    let_next_begin();
    uint4* x = (uint4*)memory;
    u32 chunks = cols / 64, row_bytes = cols / 4, all = rows0 + rows1 + rows2;
    u32 lane = threadIdx.x % LANES;
    u32 team = (blockIdx.x * blockDim.x + threadIdx.x) / LANES, teams = gridDim.x * blockDim.x / LANES;

    const uint4* codes[ROWS];
    uint4 w[ROWS][AHEAD];
    // Every team takes as many turns, so that the lanes of a warp meet at the shuffles.
    u32 turns = (all + teams * ROWS - 1) / (teams * ROWS);
    if (!turns) wait_for_earlier();
    for (u32 turn = 0; turn < turns; turn++) {
        u32 first = (turn * teams + team) * ROWS;
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            u32 row = first + r;
            // Beyond the last row: the last once more, not stored.
            row = row < all ? row : all - 1;
            const u8* from = row < rows0           ? w0 + (u64)row * row_bytes
                             : row < rows0 + rows1 ? w1 + (u64)(row - rows0) * row_bytes
                                                   : w2 + (u64)(row - rows0 - rows1) * row_bytes;
            codes[r] = (const uint4*)from;
#pragma unroll
            for (u32 a = 0; a < AHEAD; a++) {
                u32 c = a * LANES + lane;
                if (c < chunks) w[r][a] = load_once(codes[r] + c);
            }
        }
        if (turn == 0) {
            wait_for_earlier();
            // While the first weights are on their way. Chunk c is 16 bytes of codes: its four times 16 activations are
            // 32 apart; here the g-th of every chunk lie together, and eight lanes read 128 bytes.
            for (u32 u = threadIdx.x; u < cols / 16; u += blockDim.x) {
                u32 g = u % 8 / 2, c = u / 8 * 2 + u % 2;
                x[g * chunks + c] = ((const uint4*)q)[u];
            }
            __syncthreads();
        }
        i32 sums[ROWS][4] = {};
        for (u32 base = 0; base < chunks; base += LANES * AHEAD) {
#pragma unroll
            for (u32 a = 0; a < AHEAD; a++) {
                u32 c = base + a * LANES + lane;
                if (c >= chunks) continue;
#pragma unroll
                for (u32 g = 0; g < 4; g++) {
                    uint4 v = x[g * chunks + c];
                    u32 mask = 0xc0c0c0c0u >> 2 * g;
#pragma unroll
                    for (u32 r = 0; r < ROWS; r++) {
                        sums[r][g] = dot_u8_i8(w[r][a].x & mask, v.x, sums[r][g]);
                        sums[r][g] = dot_u8_i8(w[r][a].y & mask, v.y, sums[r][g]);
                        sums[r][g] = dot_u8_i8(w[r][a].z & mask, v.z, sums[r][g]);
                        sums[r][g] = dot_u8_i8(w[r][a].w & mask, v.w, sums[r][g]);
                    }
                }
            }
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
#pragma unroll
                for (u32 a = 0; a < AHEAD; a++) {
                    u32 c = base + LANES * AHEAD + a * LANES + lane;
                    if (c < chunks) w[r][a] = load_once(codes[r] + c);
                }
            }
        }
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            i32 sum = (sums[r][0] >> 6) + (sums[r][1] >> 4) + (sums[r][2] >> 2) + sums[r][3];
            for (u32 width = LANES / 2; width; width /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, width);
            u32 row = first + r;
            if (lane != 0 || row >= all) continue;
            u32 part = row < rows0 ? 0 : row < rows0 + rows1 ? 1 : 2;
            row -= part == 0 ? 0 : part == 1 ? rows0 : rows0 + rows1;
            const u8* from = part == 0 ? w0 : part == 1 ? w1 : w2;
            u32 rows = part == 0 ? rows0 : part == 1 ? rows1 : rows2;
            float factor = *(const float*)(from + (u64)rows * row_bytes);
            float product = __fdiv_rn(__int2float_rn(sum - isum[0]), scale[0]) * factor;
            product *= part == 0 ? multiplier0 : part == 1 ? multiplier1 : multiplier2;
            (part == 0 ? y0 : part == 1 ? y1 : y2)[row] = product;
        }
    }
}
