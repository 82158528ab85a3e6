// One token: a row is normed, made int8 and multiplied, y = W x, in one launch, with what follows the product. W is ternary as
// it lies in the file (I2_S, x86 layout, see kernels/src/quant/i2_s.rs).
//
// Every block makes the whole row by itself, which is some kilobytes from the second cache: that is quicker than a launch
// of one block for it, and meanwhile its first weights are on their way.
//
// Some lanes (8, 16 or 32: 2 to the shift of the launch) share a row of W and read 16 bytes of it each at a time; a thread does two rows
// with the same activations. A byte's four codes are not shifted apart: masked, they are the code times 64, 16, 4 and 1, and
// a sum for each place is shifted once at the end (exact: every term is a multiple). Codes are w + 1, so the sum of q is
// subtracted once a row.
#include "norm.cuh"
#include "rope.cuh"

enum {
    ROWS = 2,  // to a thread
    AHEAD = 5, // loads of 16 bytes in flight, for each row: with 8 lanes all of a row of 2560
    KEEP = 5,  // fours of the row in flight
};

// The row: x [cols], normed unless `weight` is null. cols is a multiple of 128, below 2^19.
struct Input {
    const float* x;
    const float* weight;
    float eps;
    u32 cols, shift; // 2 to the shift lanes for a row of W
};

// A matrix [rows][cols / 4 bytes], its scale behind.
struct Ternary {
    const u8* w;
    u32 row_bytes;
    float factor, multiplier;
    __device__ __forceinline__ const u8* row(u32 i) const { return w + (u64)i * row_bytes; }
    __device__ __forceinline__ float product(i32 sum, Quantised x) const {
        return __fdiv_rn(__int2float_rn(sum - x.sum), x.scale) * factor * multiplier;
    }
};

__device__ __forceinline__ Ternary ternary(const u8* w, u32 rows, u32 cols, float multiplier) {
    Ternary t = {w, cols / 4, 0.0f, multiplier};
    if (rows) t.factor = *(const float*)t.row(rows);
    return t;
}

// Where nothing is needed before the sums.
struct Nothing {};

// Products of pairs of rows: row_of(pair, r) is where a row's codes are, r 0 or 1; out(pair, sums, known, seen) gets the sums of
// codes times activations, in one thread of those that made them, and what ask(pair) saw meanwhile of what other launches wrote.
// One pair at least; whole warps, 64 threads at least, any grid. Dynamic shared memory: 5 * cols bytes.
template <class RowOf, class Ask, class Out>
__device__ __forceinline__ void pairs_of_rows(Input in, u32 pairs, RowOf row_of, Ask ask, Out out) {
    DYNAMIC_SHARED(memory);
    uint4* x = (uint4*)memory;
    let_next_begin();
    u32 cols = in.cols, chunks = cols / 64, lanes = 1 << in.shift, lane = threadIdx.x & (lanes - 1);
    u32 team = (blockIdx.x * blockDim.x + threadIdx.x) >> in.shift, teams = gridDim.x * blockDim.x >> in.shift;
    const uint4* codes[ROWS];
    uint4 w[ROWS][AHEAD];
    Quantised known = {};
    if (in.weight) bring_row(in.weight, cols);
    // Every team takes as many turns, so that the lanes of a warp meet at the shuffles.
    for (u32 begin = 0; begin < pairs; begin += teams) {
        u32 pair = begin + team;
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            // Beyond the last pair: the last once more, not stored.
            codes[r] = (const uint4*)row_of(pair < pairs ? pair : pairs - 1, r);
#pragma unroll
            for (u32 a = 0; a < AHEAD; a++) {
                u32 c = a * lanes + lane;
                if (c < chunks) w[r][a] = load_once(codes[r] + c);
            }
        }
        InFlight<float4, KEEP> fours;
        if (begin == 0) {
            // So far only what no kernel writes.
            wait_for_earlier();
            fours.ask(in.x, cols / 4);
        }
        auto seen = ask(pair < pairs ? pair : pairs - 1);
        if (begin == 0) {
            float4* row = (float4*)(memory + cols);
            float m = 1e-5f;
            auto take = [&](u32 i, float4 v) {
                row[i] = v;
                m = max_of_four(m, v);
            };
            fours.each(take);
            if (in.weight) {
                __syncthreads();
                m = 1e-5f;
                norm_row(row, in.weight, in.eps, cols, take);
            }
            // Chunk c is 16 bytes of codes: its four times 16 activations are 32 apart; here the g-th of every chunk lie together,
            // so that neighbours read what lies side by side.
            known = quantise_row((const float*)row, cols, m, [=](u32 i, u32 word) {
                u32 unit = i / 4, g = unit % 8 / 2, c = unit / 8 * 2 + unit % 2;
                ((u32*)(x + g * chunks + c))[i % 4] = word;
            });
        }
        i32 sums[ROWS][4] = {};
        for (u32 base = 0; base < chunks; base += lanes * AHEAD) {
#pragma unroll
            for (u32 a = 0; a < AHEAD; a++) {
                u32 c = base + a * lanes + lane;
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
                    u32 c = base + lanes * AHEAD + a * lanes + lane;
                    if (c < chunks) w[r][a] = load_once(codes[r] + c);
                }
            }
        }
        i32 whole[ROWS];
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            i32 sum = (sums[r][0] >> 6) + (sums[r][1] >> 4) + (sums[r][2] >> 2) + sums[r][3];
            for (u32 width = lanes / 2; width; width /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, width);
            whole[r] = sum;
        }
        if (lane == 0 && pair < pairs) out(pair, whole, known, seen);
    }
}

// y = W x of up to three matrices (rows 0 and null for those that are not).
ENTRY __launch_bounds__(256, 2)
bn_gemv_store(const float* x, const float* weight, float eps, u32 cols, u32 shift, const u8* w0, u32 rows0,
              float multiplier0, float* y0, const u8* w1, u32 rows1, float multiplier1, float* y1, const u8* w2,
              u32 rows2, float multiplier2, float* y2) {
    u32 all = rows0 + rows1 + rows2;
    Ternary a = ternary(w0, rows0, cols, multiplier0), b = ternary(w1, rows1, cols, multiplier1);
    Ternary c = ternary(w2, rows2, cols, multiplier2);
    auto row_of = [=](u32 pair, u32 r) {
        u32 row = 2 * pair + r;
        row = row < all ? row : all - 1;
        return row < rows0 ? a.row(row) : row < rows0 + rows1 ? b.row(row - rows0) : c.row(row - rows0 - rows1);
    };
    auto out = [=](u32 pair, const i32 (&sums)[ROWS], Quantised known, Nothing) {
        for (u32 r = 0; r < ROWS; r++) {
            u32 row = 2 * pair + r;
            if (row < rows0) y0[row] = a.product(sums[r], known);
            else if (row < rows0 + rows1) y1[row - rows0] = b.product(sums[r], known);
            else if (row < all) y2[row - rows0 - rows1] = c.product(sums[r], known);
        }
    };
    pairs_of_rows({x, weight, eps, cols, shift}, (all + 1) / 2, row_of, [](u32) { return Nothing(); }, out);
}

// y += W x, which ends a block: y is the residual stream, and not x.
ENTRY __launch_bounds__(256, 2)
bn_gemv_add(const float* x, const float* weight, float eps, u32 cols, u32 shift, const u8* w, u32 rows,
            float multiplier, float* y) {
    Ternary a = ternary(w, rows, cols, multiplier);
    auto second = [=](u32 pair) { return 2 * pair + 1 < rows ? 2 * pair + 1 : rows - 1; };
    auto row_of = [=](u32 pair, u32 r) { return a.row(r ? second(pair) : 2 * pair); };
    auto ask = [=](u32 pair) { return make_float2(y[2 * pair], y[second(pair)]); };
    auto out = [=](u32 pair, const i32 (&sums)[ROWS], Quantised known, float2 before) {
        y[2 * pair] = before.x + a.product(sums[0], known);
        if (2 * pair + 1 < rows) y[2 * pair + 1] = before.y + a.product(sums[1], known);
    };
    pairs_of_rows({x, weight, eps, cols, shift}, (rows + 1) / 2, row_of, ask, out);
}

// y = gated(kind, Gate x, Up x): both [rows][cols]; a thread does the same row of the two.
ENTRY __launch_bounds__(256, 2)
bn_gemv_gate(const float* x, const float* weight, float eps, u32 cols, u32 shift, u32 kind, const u8* gate,
             float gate_multiplier, const u8* up, float up_multiplier, u32 rows, float* y) {
    Ternary a = ternary(gate, rows, cols, gate_multiplier), b = ternary(up, rows, cols, up_multiplier);
    auto row_of = [=](u32 pair, u32 r) { return r ? b.row(pair) : a.row(pair); };
    auto out = [=](u32 pair, const i32 (&sums)[ROWS], Quantised known, Nothing) {
        y[pair] = gated(kind, a.product(sums[0], known), b.product(sums[1], known));
    };
    pairs_of_rows({x, weight, eps, cols, shift}, rows, row_of, [](u32) { return Nothing(); }, out);
}

// Queries, keys and values of the token at *position: queries are rotated, to q [heads][dim]; keys are rotated and go to the
// cache with the values, as f16: keys_out, values_out [kv_heads][capacity][dim]. cos, sin: [capacity][n_rot / 2]; elements
// from n_rot on stay; kind as in ROPE_*. Nothing is written beyond the capacity. A thread has two elements that are turned
// together; dim is even.
ENTRY __launch_bounds__(256, 2)
bn_gemv_rope(const float* x, const float* weight, float eps, u32 cols, u32 shift, const u8* queries,
             float queries_multiplier, const u8* keys, float keys_multiplier, const u8* values, float values_multiplier,
             u32 kind, const float* cos, const float* sin, const u32* position, u32 heads, u32 kv_heads, u32 dim,
             u32 n_rot, float* q, u16* keys_out, u16* values_out, u32 capacity) {
    Ternary of_q = ternary(queries, heads * dim, cols, queries_multiplier);
    Ternary of_k = ternary(keys, kv_heads * dim, cols, keys_multiplier);
    Ternary of_v = ternary(values, kv_heads * dim, cols, values_multiplier);
    u32 half = dim / 2, turned = n_rot / 2;
    // The elements of a head that pair i of it has.
    auto element = [=](u32 i, u32 r) { return i < turned ? turned_pair(kind, i, turned, r) : 2 * i + r; };
    auto row_of = [=](u32 pair, u32 r) {
        u32 head = pair / half, at = element(pair % half, r);
        return head < heads              ? of_q.row(head * dim + at)
               : head < heads + kv_heads ? of_k.row((head - heads) * dim + at)
                                         : of_v.row((head - heads - kv_heads) * dim + at);
    };
    struct Seen {
        u32 at;
        float cos, sin;
    };
    auto ask = [=](u32 pair) {
        u32 at = *position, i = pair % half;
        bool turns = pair / half < heads + kv_heads && i < turned && at < capacity;
        u64 angle = (u64)at * turned + i;
        return turns ? Seen{at, cos[angle], sin[angle]} : Seen{at, 1.0f, 0.0f};
    };
    auto out = [=](u32 pair, const i32 (&sums)[ROWS], Quantised known, Seen seen) {
        u32 head = pair / half, i = pair % half, e0 = element(i, 0), e1 = element(i, 1);
        if (seen.at >= capacity) return;
        bool query = head < heads, value = head >= heads + kv_heads;
        const Ternary& of = query ? of_q : value ? of_v : of_k;
        float y0 = of.product(sums[0], known), y1 = of.product(sums[1], known);
        if (!value && i < turned) turn(y0, y1, seen.cos, seen.sin);
        if (query) {
            q[head * dim + e0] = y0;
            q[head * dim + e1] = y1;
            return;
        }
        head -= value ? heads + kv_heads : heads;
        u16* to = (value ? values_out : keys_out) + ((u64)head * capacity + seen.at) * dim;
        to[e0] = float_to_half(y0);
        to[e1] = float_to_half(y1);
    };
    pairs_of_rows({x, weight, eps, cols, shift}, (heads + 2 * kv_heads) * half, row_of, ask, out);
}
