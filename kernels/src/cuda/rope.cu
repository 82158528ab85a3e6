// Rotary embedding of queries and keys, and the new positions of the KV cache.
#include "rope.cuh"

// q [n_tokens][heads][dim] is rotated in place, k [n_tokens][kv_heads][dim] likewise, then k and v go to the cache as
// f16: keys, values [kv_heads][capacity][dim], from position *position on. cos, sin: [capacity][n_rot / 2]. Elements
// from n_rot on stay. Tokens beyond the capacity are passed over. A block for a head of a token, any grid.
ENTRY bn_rope_append(u32 kind, float* q, float* k, const float* v, const float* cos, const float* sin,
                     const u32* position, u32 n_tokens, u32 heads, u32 kv_heads, u32 dim, u32 n_rot, u16* keys,
                     u16* values, u32 capacity) {
    let_next_begin();
    wait_for_earlier();
    u32 per_token = heads + 2 * kv_heads, pairs = n_rot / 2, start = *position;
    for (u32 unit = blockIdx.x; unit < n_tokens * per_token; unit += gridDim.x) {
        u32 token = unit / per_token, head = unit % per_token, at = start + token;
        if (at >= capacity) continue;
        bool query = head < heads, key = !query && head < heads + kv_heads;
        head -= query ? 0 : key ? heads : heads + kv_heads;
        if (!query && !key) {
            const float* from = v + ((u64)token * kv_heads + head) * dim;
            u16* to = values + ((u64)head * capacity + at) * dim;
            for (u32 i = threadIdx.x; i < dim; i += blockDim.x) to[i] = float_to_half(from[i]);
            continue;
        }
        float* x = query ? q + ((u64)token * heads + head) * dim : k + ((u64)token * kv_heads + head) * dim;
        u16* to = keys + ((u64)head * capacity + at) * dim;
        for (u32 i = threadIdx.x; i < pairs; i += blockDim.x) {
            u32 a = turned_pair(kind, i, pairs, 0), b = turned_pair(kind, i, pairs, 1);
            float y0 = x[a], y1 = x[b];
            turn(y0, y1, cos[(u64)at * pairs + i], sin[(u64)at * pairs + i]);
            x[a] = y0;
            x[b] = y1;
            if (key) to[a] = float_to_half(y0), to[b] = float_to_half(y1);
        }
        if (key) {
            for (u32 i = n_rot + threadIdx.x; i < dim; i += blockDim.x) to[i] = float_to_half(x[i]);
        }
    }
}
