// The output matrix (f16, canonical 64-lane dots), the largest logit, and the step to the next token.
//
// Eight threads share a row: each reads 16 bytes, so a team reads 128 bytes of 64 columns at a time and every thread
// has eight of the contract's 64 lanes in registers.
#include "common.cuh"

enum {
    ROWS = 2,  // to a thread
    AHEAD = 4, // steps of 64 columns whose loads are in flight
};

// A logit with its row, so that the larger key is the better token: the larger logit, then the lower row. 0 for what
// can never win: NaN and minus infinity.
__device__ __forceinline__ u64 key_of(float logit, u32 row) {
    if (!(logit > -INFINITY_F)) return 0;
    // The two zeros are equal.
    u32 bits = logit == 0.0f ? 0 : (u32)__float_as_int(logit);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (u64)bits << 32 | (u32)~row;
}

// Every lane calls.
__device__ __forceinline__ void keep_best(u64 key, u64* best) {
    for (u32 width = 16; width; width /= 2) {
        u64 other = __shfl_xor_sync(ALL_LANES, key, width);
        key = other > key ? other : key;
    }
    if (threadIdx.x % 32 == 0 && key) atomicMax(best, key);
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

// y[t][row] = dot(w[row], x[t]) * multiplier: w [rows][cols] f16, x [n_tokens][cols], cols a multiple of 8. `best`
// (null, or one for each token) keeps the key of the largest. Grid: x over rows, y over tokens, any; whole warps.
// Dynamic shared memory: cols * 4 bytes, cols rounded up to 64.
ENTRY __launch_bounds__(256)
bn_head_f16(const u16* w, u32 rows, u32 cols, float multiplier, const float* x, u32 n_tokens, float* y,
                  u64* best) {
    DYNAMIC_SHARED(memory);
    u32 steps = (cols + 63) / 64, part = threadIdx.x % 8;
    // x by fours: the first four of each eight, then the second: eight threads read 128 bytes of either.
    float4* lows = (float4*)memory;
    float4* highs = lows + steps * 8;
    u32 team = (blockIdx.x * blockDim.x + threadIdx.x) / 8, teams = gridDim.x * blockDim.x / 8;
    u32 turns = (rows + teams * ROWS - 1) / (teams * ROWS);
    for (u32 token = blockIdx.y; token < n_tokens; token += gridDim.y) {
        for (u32 u = threadIdx.x; u < cols / 4; u += blockDim.x) {
            float4* half = u % 2 ? highs : lows;
            half[u / 2] = ((const float4*)(x + (u64)token * cols))[u];
        }
        __syncthreads();
        u64 most = 0;
        for (u32 turn = 0; turn < turns; turn++) {
            u32 first = (turn * teams + team) * ROWS;
            const uint4* from[ROWS];
            float lanes[ROWS][8];
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
                // Beyond the last row: the last once more, not stored.
                u32 row = first + r < rows ? first + r : rows - 1;
                from[r] = (const uint4*)(w + (u64)row * cols) + part;
#pragma unroll
                for (u32 i = 0; i < 8; i++) lanes[r][i] = 0.0f;
            }
            for (u32 base = 0; base < steps; base += AHEAD) {
                uint4 bits[ROWS][AHEAD];
#pragma unroll
                for (u32 a = 0; a < AHEAD; a++) {
                    u32 unit = (base + a) * 8;
                    if ((unit + part) * 8 >= cols) continue;
#pragma unroll
                    for (u32 r = 0; r < ROWS; r++) bits[r][a] = load_once(from[r] + unit);
                }
#pragma unroll
                for (u32 a = 0; a < AHEAD; a++) {
                    u32 unit = (base + a) * 8 + part;
                    if (unit * 8 >= cols) continue;
                    float4 low = lows[unit], high = highs[unit];
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
                float dot = ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
                u32 row = first + r;
                if (part != 0 || row >= rows) continue;
                float logit = dot * multiplier;
                y[(u64)token * rows + row] = logit;
                u64 key = key_of(logit, row);
                most = key > most ? key : most;
            }
        }
        if (best) keep_best(most, best + token);
        // The next token overwrites x.
        __syncthreads();
    }
}

// The key of the largest of y [n] into *best, which was 0. Any grid of whole warps.
ENTRY bn_argmax(const float* y, u32 n, u64* best) {
    u64 most = 0;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        u64 key = key_of(y[i], i);
        most = key > most ? key : most;
    }
    keep_best(most, best);
}

// One thread's work, one block of one warp: the token of the key (0 if nothing could win) becomes the next input, the
// position advances, the key is 0 again. history[capacity] holds the token of each position.
ENTRY bn_next(u64* best, u32* token, u32* position, u32* history, u32 capacity) {
    if (blockIdx.x != 0 || threadIdx.x != 0) return;
    u64 key = *best;
    u32 next = key ? ~(u32)key : 0, at = *position + 1;
    *best = 0;
    *token = next;
    *position = at;
    if (at < capacity) history[at] = next;
}
