// Element by element: the embedding, the residual sum, the gate. Any grid: threads step over the elements.
#include "common.cuh"

__device__ __forceinline__ u64 first_index() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ u64 index_step() { return (u64)gridDim.x * blockDim.x; }

// x[t][i] = table[tokens[t]][i] * multiplier. A token beyond the vocabulary gives NaN, not a stray read.
ENTRY bn_embed_f16(const u16* table, const u32* tokens, float* x, u32 n_tokens, u32 cols, u32 vocab, float multiplier) {
    let_next_begin();
    wait_for_earlier();
    u64 all = (u64)n_tokens * cols;
    for (u64 i = first_index(); i < all; i += index_step()) {
        u32 token = tokens[i / cols];
        x[i] = token < vocab ? half_to_float(table[(u64)token * cols + i % cols]) * multiplier
                             : __int_as_float(0x7fc00000);
    }
}

// x += y
ENTRY bn_add(float* x, const float* y, u64 n) {
    let_next_begin();
    wait_for_earlier();
    for (u64 i = first_index(); i < n; i += index_step()) x[i] = x[i] + y[i];
}

// gate = gated(kind, gate, up)
ENTRY bn_gate(u32 kind, float* gate, const float* up, u64 n) {
    let_next_begin();
    wait_for_earlier();
    for (u64 i = first_index(); i < n; i += index_step()) gate[i] = gated(kind, gate[i], up[i]);
}
