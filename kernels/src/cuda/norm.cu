// Rows of activations made ready for products: what comes in (a residual sum, a gate), RMS norm, int8 by token.
#include "norm.cuh"

// Where a row comes from; `x` and `y` are [n_tokens][cols].
enum {
    ROW_PLAIN = 0, // x
    ROW_SUM = 1,   // x + y, which x then holds
    ROW_RELU2 = 2, // max(x, 0)^2 y
    ROW_SILU = 3,  // x / (1 + exp(-x)) y
};

// A block for a token (any grid); whole warps, 64 threads at least. `weight` null: no norm. `values` gets the row as
// f32 unless null; `q`, `scale`, `isum` get it as int8 unless `q` is null (cols then is a multiple of 4).
// Dynamic shared memory: 4 * cols bytes.
ENTRY __launch_bounds__(1024)
bn_norm_quant(u32 input, float* x, const float* y, const float* weight, float eps, u32 n_tokens, u32 cols,
                    float* values, i8* q, float* scale, i32* isum) {
    DYNAMIC_SHARED(memory);
    float* row = (float*)memory;
    u32 thread = threadIdx.x, threads = blockDim.x;
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
        if (weight) norm_row(row, weight, eps, cols);
        if (values) {
            for (u32 i = thread; i < cols; i += threads) values[at + i] = row[i];
        }
        if (q) {
            Quantised known = quantise_row(row, cols, [=](u32 i, u32 word) { ((u32*)(q + at))[i] = word; });
            if (thread == 0) {
                scale[token] = known.scale;
                isum[token] = known.sum;
            }
        }
    }
}
