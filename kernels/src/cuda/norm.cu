// Rows of activations made ready for products: what comes in (a residual sum, a gate), RMS norm, int8 by token.
#include "norm.cuh"

// Where a row comes from; `x` and `y` are [n_tokens][cols].
enum {
    ROW_PLAIN = 0, // x
    ROW_SUM = 1,   // x + y, which x then holds
    ROW_RELU2 = 2, // max(x, 0)^2 y
    ROW_SILU = 3,  // x / (1 + exp(-x)) y
};

enum { KEEP = 4 }; // fours of a row in flight: with 512 threads all of 6912

// A block for a token (any grid); whole warps, 64 threads at least. `weight` null: no norm. `values` gets the row as
// f32 unless null; `q`, `scale`, `isum` get it as int8 unless `q` is null. cols is a multiple of 4.
// Dynamic shared memory: 4 * cols bytes.
ENTRY __launch_bounds__(512)
bn_norm_quant(u32 input, float* x, const float* y, const float* weight, float eps, u32 n_tokens, u32 cols,
                    float* values, i8* q, float* scale, i32* isum) {
    let_next_begin();
    fetch_norm(weight, cols);
    wait_for_earlier();
    DYNAMIC_SHARED(memory);
    float* row = (float*)memory;
    float4* fours = (float4*)memory;
    u32 kind = input == ROW_SILU ? GATE_SILU : GATE_RELU2;
    auto gate = [=](float a, float b) { return gated(kind, a, b); };
    for (u32 token = blockIdx.x; token < n_tokens; token += gridDim.x) {
        u64 at = (u64)token * cols;
        InFlight<float4, KEEP> xs, ys;
        xs.ask(x + at, cols / 4);
        if (input != ROW_PLAIN) ys.ask(y + at, cols / 4);
        float m = 1e-5f;
        auto keep = [&](u32 i, float4 v) {
            fours[i] = v;
            m = max_of_four(m, v);
        };
        xs.each(keep);
        if (input != ROW_PLAIN) {
            m = 1e-5f;
            auto join = [&](u32 i, float4 b) {
                float4 a = fours[i];
                if (input == ROW_SUM) {
                    a = {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
                    ((float4*)(x + at))[i] = a;
                } else {
                    a = {gate(a.x, b.x), gate(a.y, b.y), gate(a.z, b.z), gate(a.w, b.w)};
                }
                keep(i, a);
            };
            ys.each(join);
        }
        __syncthreads();
        if (weight) {
            m = 1e-5f;
            norm_row(fours, weight, eps, cols, keep);
        }
        if (values) {
            for (u32 i = threadIdx.x; i < cols / 4; i += blockDim.x) ((float4*)(values + at))[i] = fours[i];
        }
        if (q) {
            Quantised known = quantise_row(row, cols, m, [=](u32 i, u32 word) { ((u32*)(q + at))[i] = word; });
            if (threadIdx.x == 0) {
                scale[token] = known.scale;
                isum[token] = known.sum;
            }
        }
    }
}
