// The output matrix (f16, canonical 64-lane dots), the largest logit, and the step to the next token.
#include "head.cuh"

enum {
    ROWS = 2,  // to a thread
    AHEAD = 4, // steps of 64 columns whose loads are in flight
};

// y[t][row] = dot(w[row], x[t]) * multiplier: w [rows][cols] f16, x [n_tokens][cols], cols a multiple of 8. `best`
// (null, or one for each token) keeps the key of the largest. Grid: x over rows, y over tokens, any; whole warps.
// Dynamic shared memory: cols * 4 bytes, cols rounded up to 64.
ENTRY __launch_bounds__(256)
bn_head_f16(const u16* w, u32 rows, u32 cols, float multiplier, const float* x, u32 n_tokens, float* y,
                  u64* best) {
    DYNAMIC_SHARED(memory);
    let_next_begin();
    prefetch_rows<ROWS>(w, rows, 2 * cols);
    wait_for_earlier();
    u32 team = (blockIdx.x * blockDim.x + threadIdx.x) / 8, teams = gridDim.x * blockDim.x / 8;
    u32 turns = (rows + teams * ROWS - 1) / (teams * ROWS);
    for (u32 token = blockIdx.y; token < n_tokens; token += gridDim.y) {
        Staged values = stage(memory, x + (u64)token * cols, cols);
        __syncthreads();
        u64 most = 0;
        for (u32 turn = 0; turn < turns; turn++) {
            u32 first = (turn * teams + team) * ROWS;
            const u16* from[ROWS];
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
                // Beyond the last row: the last once more, not stored.
                u32 row = first + r < rows ? first + r : rows - 1;
                from[r] = w + (u64)row * cols;
            }
            float dots[ROWS];
            dot_rows<ROWS, AHEAD>(from, values, cols, dots);
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
                u32 row = first + r;
                if (threadIdx.x % 8 != 0 || row >= rows) continue;
                float logit = dots[r] * multiplier;
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
    let_next_begin();
    wait_for_earlier();
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
    let_next_begin();
    wait_for_earlier();
    if (blockIdx.x != 0 || threadIdx.x != 0) return;
    u64 key = *best;
    u32 next = key ? ~(u32)key : 0, at = *position + 1;
    *best = 0;
    *token = next;
    *position = at;
    if (at < capacity) history[at] = next;
}
