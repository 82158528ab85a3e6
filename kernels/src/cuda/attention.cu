// Causal grouped-query attention over the f16 cache, in the canonical order, for one token and for many.
//
// The order (kernels/src/numerics.rs) fixes e = exp(s - max) with the true maximum, so sums cannot be started before
// it is known: two launches. The first computes scores of chunks of 128 positions and each chunk's maximum; the second
// the exponentials and each chunk's sum of values, which is what the order adds up, chunk after chunk. The block that
// finishes last for some rows does that and the division. 128 is the chunk of the contract (PV_CHUNK), not a choice
// made here.
//
// A row is a query head of a token. Rows that share keys (one KV head: the tokens' groups, [n_tokens][group]) are cut
// in tiles of TILE rows; a block does one tile and one chunk at a time, on any grid: x over chunks, y over tiles, z
// over KV heads. 256 threads. With the position in device memory and a grid for the whole capacity, one graph serves
// every token.
#include "common.cuh"

enum { CHUNK = 128, WIDTH = 256 };

struct Shape {
    u32 n_tokens, heads, kv_heads, dim, capacity, start, group;
    // Of one KV head.
    __device__ __forceinline__ u32 rows() const { return n_tokens * group; }
    // Division takes as long as a trip to the cache, and one token needs none.
    __device__ __forceinline__ u32 token_of(u32 row) const { return n_tokens == 1 ? 0 : row / group; }
    // Positions that a row sees; what the cache does not hold is seen by nobody.
    __device__ __forceinline__ u32 seen(u32 row) const {
        u32 n = start + token_of(row) + 1;
        return n < capacity ? n : capacity;
    }
    // Positions that some row of a tile sees.
    __device__ __forceinline__ u32 reach(u32 tile, u32 height) const {
        u32 last = tile * height + height;
        return seen((last < rows() ? last : rows()) - 1);
    }
    // A chunk's first row in the cache, and how many units of 8 elements its rows have that are seen.
    __device__ __forceinline__ const u16* of_chunk(const u16* cache, u32 kv, u32 first) const {
        return cache + ((u64)kv * capacity + first) * dim;
    }
    __device__ __forceinline__ u32 units(u32 first, u32 reach) const {
        return (reach - first < CHUNK ? reach - first : (u32)CHUNK) * (dim / 8);
    }
    // Of a row's query and output: [n_tokens][heads][dim].
    __device__ __forceinline__ u64 place(u32 kv, u32 row) const {
        u32 token = token_of(row);
        return ((u64)token * heads + kv * group + row - token * group) * dim;
    }
};

// A chunk's rows, on their way to shared memory: with heads of 128 all at once.
typedef InFlight<uint4, 8> Rows;

// Eight lanes of the canonical dot: those from 8 m on.
__device__ __forceinline__ void lanes_of(float (&lanes)[8], const float* q, const u8* k, u32 m, u32 dim) {
#pragma unroll
    for (u32 i = 0; i < 8; i++) lanes[i] = 0.0f;
#pragma unroll 2
    for (u32 at = 8 * m; at < dim; at += 64) {
        uint4 bits = *(const uint4*)(k + 2 * at);
        float4 low = *(const float4*)(q + at), high = *(const float4*)(q + at + 4);
        lanes[0] = fmaf(low.x, half_to_float((u16)bits.x), lanes[0]);
        lanes[1] = fmaf(low.y, half_to_float((u16)(bits.x >> 16)), lanes[1]);
        lanes[2] = fmaf(low.z, half_to_float((u16)bits.y), lanes[2]);
        lanes[3] = fmaf(low.w, half_to_float((u16)(bits.y >> 16)), lanes[3]);
        lanes[4] = fmaf(high.x, half_to_float((u16)bits.z), lanes[4]);
        lanes[5] = fmaf(high.y, half_to_float((u16)(bits.z >> 16)), lanes[5]);
        lanes[6] = fmaf(high.z, half_to_float((u16)bits.w), lanes[6]);
        lanes[7] = fmaf(high.w, half_to_float((u16)(bits.w >> 16)), lanes[7]);
    }
}

__device__ __forceinline__ void add_lanes(float (&a)[8], const float (&b)[8]) {
#pragma unroll
    for (u32 i = 0; i < 8; i++) a[i] = a[i] + b[i];
}

// numerics::dot by one thread: the tree of 64 lanes from its leaves, so that few lanes are held at a time.
__device__ __forceinline__ float dot_f16(const float* q, const u8* k, u32 dim) {
    float a[8], b[8], c[8];
    lanes_of(a, q, k, 0, dim);
    lanes_of(b, q, k, 4, dim);
    add_lanes(a, b);
    lanes_of(b, q, k, 2, dim);
    lanes_of(c, q, k, 6, dim);
    add_lanes(b, c);
    add_lanes(a, b);
    float d[8];
    lanes_of(b, q, k, 1, dim);
    lanes_of(c, q, k, 5, dim);
    add_lanes(b, c);
    lanes_of(c, q, k, 3, dim);
    lanes_of(d, q, k, 7, dim);
    add_lanes(c, d);
    add_lanes(b, c);
    add_lanes(a, b);
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}

// scores[kv_heads * rows][capacity] and maxima[kv_heads * rows][chunks of the capacity].
// Dynamic shared memory: CHUNK * (2 * dim + 16) + TILE * dim * 4 bytes.
template <u32 TILE>
__device__ __forceinline__ void scores_of(Shape s, const float* q, const u16* keys, float scale, float* scores,
                                          float* maxima) {
    DYNAMIC_SHARED(memory);
    SHARED(float, most, TILE * 4);
    u32 k_stride = 2 * s.dim + 16, all_chunks = (s.capacity + CHUNK - 1) / CHUNK, rows = s.rows();
    u8* k = memory;
    float* queries = (float*)(memory + CHUNK * k_stride);
    u32 thread = threadIdx.x, p = thread % CHUNK, half = thread / CHUNK;
    // Where the thread's first 16 bytes of a chunk go.
    u32 per_row = s.dim / 8, row0 = thread / per_row, part0 = thread % per_row;
    for (u32 kv = blockIdx.z; kv < s.kv_heads; kv += gridDim.z) {
        for (u32 tile = blockIdx.y; tile * TILE < rows; tile += gridDim.y) {
            u32 reach = s.reach(tile, TILE);
            for (u32 chunk = blockIdx.x; chunk * CHUNK < reach; chunk += gridDim.x) {
                u32 first = chunk * CHUNK;
                Rows rows_of_keys;
                rows_of_keys.ask(s.of_chunk(keys, kv, first), s.units(first, reach));
                for (u32 r = thread / 32; r < TILE; r += WIDTH / 32) {
                    u32 row = tile * TILE + r;
                    if (row >= rows) break;
                    const float4* from = (const float4*)(q + s.place(kv, row));
                    for (u32 i = thread % 32; i < s.dim / 4; i += 32) ((float4*)(queries + r * s.dim))[i] = from[i];
                }
                u32 at = row0, part = part0;
                rows_of_keys.each([&](u32, uint4 unit) {
                    *(uint4*)(k + at * k_stride + 16 * part) = unit;
                    at += WIDTH / per_row, part += WIDTH % per_row;
                    if (part >= per_row) at++, part -= per_row;
                });
                __syncthreads();
                for (u32 r = half * (TILE / 2); r < (half + 1) * (TILE / 2); r++) {
                    u32 row = tile * TILE + r;
                    float m = -INFINITY_F;
                    if (row < rows && first + p < s.seen(row)) {
                        float score = dot_f16(queries + r * s.dim, k + p * k_stride, s.dim) * scale;
                        scores[((u64)kv * rows + row) * s.capacity + first + p] = score;
                        m = max_of(m, score);
                    }
                    for (u32 width = 16; width; width /= 2) m = max_of(m, __shfl_xor_sync(ALL_LANES, m, width));
                    if (thread % 32 == 0) most[r * 4 + thread / 32 % 4] = m;
                }
                __syncthreads();
                if (thread < TILE && tile * TILE + thread < rows) {
                    float m = most[thread * 4];
                    for (u32 i = 1; i < 4; i++) m = max_of(m, most[thread * 4 + i]);
                    maxima[((u64)kv * rows + tile * TILE + thread) * all_chunks + chunk] = m;
                }
                // The next round writes queries, which nobody reads any more, and maxima, behind a barrier.
            }
        }
    }
}

// The canonical sum of a row's exponentials, by the 64 threads of a quarter of the block, for four rows at a time.
template <u32 TILE>
__device__ __forceinline__ void denominators(Shape s, u32 kv, u32 tile, const float* scores, float* upper, float* z) {
    u32 quarter = threadIdx.x / 64, lane = threadIdx.x % 64, rows = s.rows();
    for (u32 base = 0; base < TILE; base += 4) {
        u32 row = tile * TILE + base + quarter;
        float sum = 0.0f;
        if (row < rows) {
            const float* e = scores + ((u64)kv * rows + row) * s.capacity;
            u32 n = s.seen(row);
            in_batches<8>(
                lane, n, 64, [=](u32 t) { return load_l2(e + t); }, [&](u32, float x) { sum = sum + x; });
        }
        if (lane >= 32) upper[quarter * 32 + lane - 32] = sum;
        __syncthreads();
        if (lane < 32) {
            sum = sum + upper[quarter * 32 + lane];
            for (u32 width = 16; width; width /= 2) sum = sum + __shfl_xor_sync(ALL_LANES, sum, width);
            if (lane == 0) z[base + quarter] = sum;
        }
        __syncthreads();
    }
}

// Scores become exponentials in place. partial[kv_heads * rows][chunks of the capacity][dim], done[kv_heads][tiles]
// zero before and after; out [n_tokens][heads][dim], which may be q. Dynamic shared memory: CHUNK * (2 * dim + 4 * TILE) bytes.
template <u32 TILE>
__device__ __forceinline__ void values_of(Shape s, const u16* values, float* scores, const float* maxima,
                                          float* partial, u32* done, float* out) {
    DYNAMIC_SHARED(memory);
    u8* v = memory;
    float* e = (float*)(memory + CHUNK * 2 * s.dim);
    SHARED(float, most, TILE);
    SHARED(float, upper, 4 * 32);
    SHARED(float, z, TILE);
    SHARED(u32, last, 1);
    u32 all_chunks = (s.capacity + CHUNK - 1) / CHUNK, rows = s.rows(), tiles = (rows + TILE - 1) / TILE;
    u32 thread = threadIdx.x, lane = thread % 32, pairs = s.dim / 2;
    for (u32 kv = blockIdx.z; kv < s.kv_heads; kv += gridDim.z) {
        for (u32 tile = blockIdx.y; tile < tiles; tile += gridDim.y) {
            u32 reach = s.reach(tile, TILE), chunks = (reach + CHUNK - 1) / CHUNK;
            for (u32 chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
                u32 first = chunk * CHUNK;
                Rows rows_of_values;
                rows_of_values.ask(s.of_chunk(values, kv, first), s.units(first, reach));
                // A thread's scores, and where its i-th is; beyond what its row sees there is none.
                float raw[TILE * CHUNK / WIDTH];
                auto score = [=](u32 i) {
                    u32 unit = i * WIDTH + thread, row = tile * TILE + unit / CHUNK, t = first + unit % CHUNK;
                    bool is = row < rows && t < s.seen(row);
                    return is ? scores + ((u64)kv * rows + row) * s.capacity + t : (float*)0;
                };
#pragma unroll
                for (u32 i = 0; i < TILE * CHUNK / WIDTH; i++) raw[i] = score(i) ? *score(i) : 0.0f;
                for (u32 r = thread / 32; r < TILE; r += WIDTH / 32) {
                    u32 row = tile * TILE + r, of_row = row < rows ? (s.seen(row) + CHUNK - 1) / CHUNK : 0;
                    float m = -INFINITY_F;
                    for (u32 c = lane; c < of_row; c += 32)
                        m = max_of(m, maxima[((u64)kv * rows + row) * all_chunks + c]);
                    for (u32 width = 16; width; width /= 2) m = max_of(m, __shfl_xor_sync(ALL_LANES, m, width));
                    if (lane == 0) most[r] = m;
                }
                __syncthreads();
#pragma unroll
                for (u32 i = 0; i < TILE * CHUNK / WIDTH; i++) {
                    u32 unit = i * WIDTH + thread;
                    if (!score(i)) continue;
                    e[unit] = exp_of(raw[i] - most[unit / CHUNK]);
                    *score(i) = e[unit];
                }
                rows_of_values.each([=](u32 i, uint4 unit) { ((uint4*)v)[i] = unit; });
                __syncthreads();
                // A thread has two dimensions of some rows; teams of `pairs` threads take rows in turn.
                u32 teams = WIDTH / pairs, team = thread / pairs, pair = thread % pairs;
                for (u32 base = team; team < teams && base < TILE; base += teams * (TILE / 4)) {
                    float2 sums[TILE / 4];
                    u32 counts[TILE / 4], longest = 0;
#pragma unroll
                    for (u32 i = 0; i < TILE / 4; i++) {
                        u32 r = base + i * teams, row = tile * TILE + r;
                        u32 n = r < TILE && row < rows ? s.seen(row) : 0;
                        n = n > first ? n - first : 0;
                        counts[i] = n < CHUNK ? n : (u32)CHUNK;
                        longest = counts[i] > longest ? counts[i] : longest;
                        sums[i] = make_float2(0.0f, 0.0f);
                    }
                    in_batches<8>(
                        0, longest, 1, [=](u32 t) { return *(const u32*)(v + 2 * (t * s.dim + 2 * pair)); },
                        [&](u32 t, u32 bits) {
                            float low = half_to_float((u16)bits), high = half_to_float((u16)(bits >> 16));
#pragma unroll
                            for (u32 i = 0; i < TILE / 4; i++) {
                                if (t >= counts[i]) continue;
                                float weight = e[(base + i * teams) * CHUNK + t];
                                sums[i].x = fmaf(weight, low, sums[i].x);
                                sums[i].y = fmaf(weight, high, sums[i].y);
                            }
                        });
#pragma unroll
                    for (u32 i = 0; i < TILE / 4; i++) {
                        if (!counts[i]) continue;
                        u64 row = (u64)kv * rows + tile * TILE + base + i * teams;
                        *(float2*)(partial + (row * all_chunks + chunk) * s.dim + 2 * pair) = sums[i];
                    }
                }
                // What this block wrote is seen by whoever sees the count.
                __threadfence();
                __syncthreads();
                if (thread == 0) last[0] = atomicAdd(done + kv * tiles + tile, 1u) + 1 == chunks;
                __syncthreads();
                if (!last[0]) continue;
                __threadfence();
                denominators<TILE>(s, kv, tile, scores, upper, z);
                for (u32 unit = thread; unit < TILE * s.dim; unit += WIDTH) {
                    u32 r = unit / s.dim, d = unit % s.dim, row = tile * TILE + r;
                    if (row >= rows) continue;
                    u32 of_row = (s.seen(row) + CHUNK - 1) / CHUNK;
                    const float* from = partial + ((u64)kv * rows + row) * all_chunks * s.dim + d;
                    float total = 0.0f;
                    in_batches<8>(
                        0, of_row, 1, [=](u32 c) { return load_l2(from + (u64)c * s.dim); },
                        [&](u32, float x) { total = total + x; });
                    out[s.place(kv, row) + d] = __fdiv_rn(total, z[r]);
                }
                if (thread == 0) done[kv * tiles + tile] = 0;
            }
        }
    }
}

__device__ __forceinline__ Shape shape(const u32* position, u32 n_tokens, u32 heads, u32 kv_heads, u32 dim,
                                       u32 capacity) {
    return {n_tokens, heads, kv_heads, dim, capacity, *position, heads / kv_heads};
}

#define ATTENTION(tile)                                                                                                \
    ENTRY __launch_bounds__(256, 2)                                                                                    \
    bn_attention_scores_##tile(const float* q, const u16* keys, const u32* position, u32 n_tokens, u32 heads,          \
                               u32 kv_heads, u32 dim, u32 capacity, float scale, float* scores, float* maxima) {       \
        let_next_begin();                                                                                              \
        wait_for_earlier();                                                                                            \
        scores_of<tile>(shape(position, n_tokens, heads, kv_heads, dim, capacity), q, keys, scale, scores, maxima);    \
    }                                                                                                                  \
    ENTRY __launch_bounds__(256, 2)                                                                                    \
    bn_attention_values_##tile(const u16* values, const u32* position, u32 n_tokens, u32 heads, u32 kv_heads, u32 dim, \
                               u32 capacity, float* scores, const float* maxima, float* partial, u32* done,            \
                               float* out) {                                                                           \
        let_next_begin();                                                                                              \
        wait_for_earlier();                                                                                            \
        values_of<tile>(shape(position, n_tokens, heads, kv_heads, dim, capacity), values, scores, maxima, partial,    \
                        done, out);                                                                                    \
    }

// A token's groups of up to four heads, and prompts.
ATTENTION(4)
ATTENTION(16)
