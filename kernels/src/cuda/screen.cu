// The output matrix by screening: an int8 copy with bounds says which rows can matter, those are multiplied exactly. The
// same idea as kernels/src/screen.rs, which says it for the CPU; what differs is the arithmetic, so its proof is here.
//
// A row is w = s q + e (q int8, s f32), an input x = h X + d (X an integer of 16 bits, h f32), both by definition of e and
// d. S = q.X is an exact i32 (X is as small as that takes), u = 2^-24. The logit is l = fl(m dot(w, x)), where m is the
// matrix's multiplier and dot the canonical one, in which an element meets n' = ceil(cols / 64) + 6 roundings. Write
// N >= |w|, R >= |e|, D >= |d|, L >= |x| (Euclidean), V = |m| (N + R) (L + D).
//
// 1. |m w.x - m s h S| <= |m| (N D + R L + R D): w.x - (w - e).(x - d) = w.d + e.x - e.d, by Cauchy and Schwarz.
// 2. |l - m w.x| <= g |m| N L + t, g = n u / (1 - n u), n = n' + 1 (the multiplier's rounding); t < 1e-30 max(1, |m|) are
//    the results below the normal numbers, each off by 2^-150 at most, fewer than 2^17 of them.
// 3. v = fl(fl(fl(s h) fl(S)) m) has four roundings: |v - m s h S| <= 4.1 u V, since |m s h S| <= V. Neither s h nor its
//    product with S is below the normal numbers (s >= 2^-31, h >= 2^-90), the product with m adds to t.
// 4. The bounds are fl(v - E) and fl(v + E), off by u (|v| + E) more at most.
//
// So E (1 - u) >= |m| (N (D + g L) + R (L + D)) + 5.2 u V + t is enough, and with
//     A = |m| (D + g L + 8 u (L + D)) k,    B = |m| (L + D + 8 u (L + D)) k,    k = 1 + 2e-6,
//     E = fl(fl(fl(N A) + fl(R B)) + T),    T = 2e-30 max(1, |m|),
// it holds: k is more than the seven roundings of f32 on the way (7 u < 5e-7) and those of f64 in A, B, L and D (sums of
// at most 2^16 terms that are not negative: below 1e-10). N and R are f64 too, with a part in a million added and the least
// normal number before they become f32. Nothing overflows while |x| max(1, N of every row) max(1, |m|) < 1e37; else (and
// for what is not finite) the bounds are the ends of f32 and every row is a candidate. Where there are too many candidates,
// the whole matrix is multiplied.
#include "head.cuh"

enum {
    LANES = 8,    // to a row
    ROWS = 2,     // to a thread
    AHEAD = 5,    // loads of 16 bytes in flight, for each row
    EXACT = 8,    // steps of 64 columns whose loads are in flight where a row is multiplied exactly
    THREADS = 256 // where a sum's order must not depend on the launch
};

// What is known of a row, and of a token: the letters of above. A step of 0: nothing is known.
struct __align__(16) Row {
    float scale, norm, rest, unused;
};
struct __align__(16) Token {
    float step, of_norm, of_rest, least;
};

// The f32 not below a non-negative f64 of a few roundings.
__device__ __forceinline__ float up(double x) { return (float)(x * (1.0 + 1e-6)) + 1.17549435e-38f; }

// The sum over a warp, the same for each lane.
__device__ __forceinline__ double warp_sum(double v) {
    for (u32 width = 16; width; width /= 2) v += __shfl_xor_sync(ALL_LANES, v, width);
    return v;
}

__device__ __forceinline__ float warp_most(float v) {
    for (u32 width = 16; width; width /= 2) v = max_of(v, __shfl_xor_sync(ALL_LANES, v, width));
    return v;
}

// The i-th of eight halves.
__device__ __forceinline__ float half_at(uint4 v, u32 i) {
    u32 two = i < 2 ? v.x : i < 4 ? v.y : i < 6 ? v.z : v.w;
    return half_to_float((u16)(i % 2 ? two >> 16 : two));
}

// The copy of w [rows][cols] f16 (cols a multiple of 8): q [rows][stride] (stride is cols rounded up to 16, zeros behind),
// known [rows], and the largest norm's bits to *largest, which was 0. A warp for a row, any grid of whole warps.
ENTRY __launch_bounds__(256)
bn_screen_build(const u16* w, u32 rows, u32 cols, u32 stride, i8* q, Row* known, u32* largest) {
    u32 lane = threadIdx.x % 32;
    u32 warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, warps = gridDim.x * blockDim.x / 32;
    for (u32 row = warp; row < rows; row += warps) {
        const uint4* from = (const uint4*)(w + (u64)row * cols);
        float most = 0.0f;
        for (u32 u = lane; u < cols / 8; u += 32) {
            uint4 eight = from[u];
#pragma unroll
            for (u32 i = 0; i < 8; i++) {
                float a = fabsf(half_at(eight, i));
                // NaN counts as infinite.
                most = a <= most ? most : a < INFINITY_F ? a : INFINITY_F;
            }
        }
        most = warp_most(most);
        bool finite = most < INFINITY_F;
        float scale = finite && most > 0.0f ? __fdiv_rn(most, 127.0f) : 1.0f;
        double norm = 0.0, rest = 0.0;
        uint2* to = (uint2*)(q + (u64)row * stride);
        for (u32 u = lane; u < stride / 8; u += 32) {
            u32 packed[2] = {0, 0};
            if (finite && u < cols / 8) {
                uint4 eight = from[u];
#pragma unroll
                for (u32 i = 0; i < 8; i++) {
                    float v = half_at(eight, i);
                    float code = rintf(__fdiv_rn(v, scale));
                    code = code < -127.0f ? -127.0f : code > 127.0f ? 127.0f : code;
                    packed[i / 4] |= ((u32)(i32)code & 0xff) << 8 * (i % 4);
                    // 24 bits times 7 are exact in f64.
                    double e = (double)v - (double)scale * (double)code;
                    norm += (double)v * (double)v;
                    rest += e * e;
                }
            }
            uint2 bytes;
            bytes.x = packed[0];
            bytes.y = packed[1];
            to[u] = bytes;
        }
        norm = warp_sum(norm);
        rest = warp_sum(rest);
        if (lane != 0) continue;
        Row r = {scale, INFINITY_F, INFINITY_F, 0.0f};
        if (finite) {
            r.norm = up(__dsqrt_rn(norm));
            r.rest = up(__dsqrt_rn(rest));
        }
        known[row] = r;
        atomicMax(largest, (u32)__float_as_int(r.norm));
    }
}

// The sum over the block, the same for each thread. `sums` has THREADS / 32 places, nobody reads them any more.
__device__ __forceinline__ double block_sum(double v, double* sums) {
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0.0;
    for (u32 w = 0; w < THREADS / 32; w++) v += sums[w];
    return v;
}

// x [n_tokens][cols] as integers, and what is known of them: planes u8 [n_tokens][2][stride] (the upper bytes, then the
// lower), known [n_tokens]. Also makes ready for the search: the headers of `picked`, and best [n_tokens] unless it is
// null, are 0. `largest` is the matrix's. Grid: tokens, or fewer; 256 threads.
ENTRY __launch_bounds__(256)
bn_screen_token(const float* x, u32 n_tokens, u32 cols, u32 stride, float multiplier, const u32* largest, u8* planes,
                Token* known, u32* picked, u32 capacity, u64* best) {
    SHARED(double, wholes, THREADS / 32);
    SHARED(double, rests, THREADS / 32);
    SHARED(float, mosts, THREADS / 32);
    let_next_begin();
    wait_for_earlier();
    u32 thread = threadIdx.x;
    float factor = fabsf(multiplier), above = factor > 1.0f ? factor : 1.0f;
    for (u32 token = blockIdx.x; token < n_tokens; token += gridDim.x) {
        const float4* from = (const float4*)(x + (u64)token * cols);
        double whole = 0.0;
        float most = 0.0f;
        for (u32 u = thread; u < cols / 4; u += THREADS) {
            float4 v = from[u];
            whole += ((double)v.x * v.x + (double)v.y * v.y) + ((double)v.z * v.z + (double)v.w * v.w);
            most = max_of(max_of(most, fabsf(v.x)), fabsf(v.y));
            most = max_of(max_of(most, fabsf(v.z)), fabsf(v.w));
        }
        most = warp_most(most);
        if (thread % 32 == 0) mosts[thread / 32] = most;
        whole = __dsqrt_rn(block_sum(whole, wholes));
        for (u32 w = 0; w < THREADS / 32; w++) most = max_of(most, mosts[w]);
        float norm = max_of(1.0f, __int_as_float((i32)*largest));
        // False for NaN too.
        bool tame = whole * (double)norm * (double)above < 1e37;
        // As fine as the exact sums allow: cols * 127 * limit < 2^31.
        u32 fine = 0x7fffffffu / (127 * cols);
        float limit = fine < 32767 ? (float)fine : 32767.0f;
        float step = __fdiv_rn(most, limit);
        step = step > 8.077935669463161e-28f ? step : 8.077935669463161e-28f; // 2^-90
        double rest = 0.0;
        u32* upper = (u32*)(planes + (u64)token * 2 * stride);
        u32* lower = upper + stride / 4;
        for (u32 u = thread; u < stride / 4; u += THREADS) {
            u32 highs = 0, lows = 0;
            if (tame && u < cols / 4) {
                float4 four = from[u];
                const float values[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    float code = rintf(__fdiv_rn(values[i], step));
                    code = code < -limit ? -limit : code > limit ? limit : code;
                    double d = (double)values[i] - (double)step * (double)code;
                    rest += d * d;
                    u32 bits = (u32)(i32)code;
                    highs |= (bits >> 8 & 0xff) << 8 * i;
                    lows |= (bits & 0xff) << 8 * i;
                }
            }
            upper[u] = highs;
            lower[u] = lows;
        }
        rest = __dsqrt_rn(block_sum(rest, rests));
        if (thread != 0) continue;
        double both = whole + rest, roundings = ((cols + 63) / 64 + 7) * 5.9604644775390625e-8;
        double off = 4.76837158203125e-7 * both, k = (double)factor * (1.0 + 2e-6); // 8 u
        Token of = {0.0f, 0.0f, 0.0f, 2e-30f * above};
        if (tame) {
            of.step = step;
            of.of_norm = (float)((rest + roundings / (1.0 - roundings) * whole + off) * k);
            of.of_rest = (float)((both + off) * k);
        }
        known[token] = of;
        u32* to = picked_for(picked, token, capacity);
        to[PICKED_COUNT] = to[PICKED_STRANGE] = to[PICKED_REACH] = 0;
        if (best) best[token] = 0;
    }
}

// lower, upper [n_tokens][rows]: the bounds of each logit, and the rank of the largest lower one to the header's reach.
// TOKENS at a time read the copy once. Grid: x over rows, y over tokens by TOKENS, any; whole warps, at most 256 threads.
// Dynamic shared memory: 2 TOKENS stride bytes.
template <u32 TOKENS>
__device__ __forceinline__ void screen(const i8* q, const Row* rows_known, u32 rows, u32 stride, float multiplier,
                                       const u8* planes, const Token* known, u32 n_tokens, float* lower, float* upper,
                                       u32* picked, u32 capacity, u8* memory) {
    let_next_begin();
    prefetch_rows<ROWS>(q, rows, stride);
    wait_for_earlier();
    uint4* x = (uint4*)memory; // [TOKENS][2][units]
    u32 units = stride / 16, lane = threadIdx.x % LANES;
    u32 team = (blockIdx.x * blockDim.x + threadIdx.x) / LANES, teams = gridDim.x * blockDim.x / LANES;
    u32 turns = (rows + teams * ROWS - 1) / (teams * ROWS);
    for (u32 start = blockIdx.y * TOKENS; start < n_tokens; start += gridDim.y * TOKENS) {
        for (u32 u = threadIdx.x; u < TOKENS * 2 * units; u += blockDim.x) {
            // Beyond the last token: the last once more, not stored.
            u32 token = start + u / (2 * units);
            token = token < n_tokens ? token : n_tokens - 1;
            x[u] = ((const uint4*)planes)[(u64)token * 2 * units + u % (2 * units)];
        }
        __syncthreads();
        // Lane t of a team ends with token t.
        u32 mine = start + lane;
        bool stores = lane < TOKENS && mine < n_tokens;
        Token token = known[stores ? mine : start];
        u32 most = 0;
        for (u32 turn = 0; turn < turns; turn++) {
            u32 first = (turn * teams + team) * ROWS;
            const uint4* from[ROWS];
            i32 highs[ROWS][TOKENS], lows[ROWS][TOKENS];
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
                // Beyond the last row, as beyond the last token.
                u32 row = first + r < rows ? first + r : rows - 1;
                from[r] = (const uint4*)(q + (u64)row * stride);
#pragma unroll
                for (u32 t = 0; t < TOKENS; t++) highs[r][t] = lows[r][t] = 0;
            }
            for (u32 base = 0; base < units; base += LANES * AHEAD) {
                uint4 w[ROWS][AHEAD];
#pragma unroll
                for (u32 a = 0; a < AHEAD; a++) {
                    u32 u = base + a * LANES + lane;
                    if (u >= units) continue;
#pragma unroll
                    for (u32 r = 0; r < ROWS; r++) w[r][a] = load_once(from[r] + u);
                }
#pragma unroll
                for (u32 a = 0; a < AHEAD; a++) {
                    u32 u = base + a * LANES + lane;
                    if (u >= units) continue;
#pragma unroll
                    for (u32 t = 0; t < TOKENS; t++) {
                        uint4 high = x[2 * t * units + u], low = x[(2 * t + 1) * units + u];
#pragma unroll
                        for (u32 r = 0; r < ROWS; r++) {
                            highs[r][t] = dot_i8_i8(w[r][a].x, high.x, highs[r][t]);
                            highs[r][t] = dot_i8_i8(w[r][a].y, high.y, highs[r][t]);
                            highs[r][t] = dot_i8_i8(w[r][a].z, high.z, highs[r][t]);
                            highs[r][t] = dot_i8_i8(w[r][a].w, high.w, highs[r][t]);
                            lows[r][t] = dot_u8_i8(low.x, w[r][a].x, lows[r][t]);
                            lows[r][t] = dot_u8_i8(low.y, w[r][a].y, lows[r][t]);
                            lows[r][t] = dot_u8_i8(low.z, w[r][a].z, lows[r][t]);
                            lows[r][t] = dot_u8_i8(low.w, w[r][a].w, lows[r][t]);
                        }
                    }
                }
            }
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
                // What is added up fits 32 bits, parts of it may not: they wrap.
                u32 sum = 0;
#pragma unroll
                for (u32 t = 0; t < TOKENS; t++) {
                    u32 s = ((u32)highs[r][t] << 8) + (u32)lows[r][t];
#pragma unroll
                    for (u32 width = LANES / 2; width; width /= 2) s += __shfl_xor_sync(ALL_LANES, s, width);
                    sum = lane == t ? s : sum;
                }
                u32 row = first + r;
                if (!stores || row >= rows) continue;
                Row of = rows_known[row];
                float value = of.scale * token.step * (float)(i32)sum * multiplier;
                float error = of.norm * token.of_norm + of.rest * token.of_rest + token.least;
                u64 at = (u64)mine * rows + row;
                // Where nothing is known, nothing is ruled out.
                float low = token.step > 0.0f ? value - error : -3.4028234663852886e38f;
                upper[at] = token.step > 0.0f ? value + error : 3.4028234663852886e38f;
                lower[at] = low;
                u32 rank = rank_of(low);
                most = rank > most ? rank : most;
            }
        }
        for (u32 width = LANES; width < 32; width *= 2) {
            u32 other = __shfl_xor_sync(ALL_LANES, most, width);
            most = other > most ? other : most;
        }
        if (stores && threadIdx.x % 32 < LANES && most)
            atomicMax(picked_for(picked, mine, capacity) + PICKED_REACH, most);
        // The next tokens overwrite x.
        __syncthreads();
    }
}

#define SCREEN(tokens)                                                                                                 \
    ENTRY __launch_bounds__(256)                                                                                       \
    bn_screen_##tokens(const i8* q, const Row* rows_known, u32 rows, u32 stride, float multiplier, const u8* planes,   \
                       const Token* known, u32 n_tokens, float* lower, float* upper, u32* picked, u32 capacity) {      \
        DYNAMIC_SHARED(memory);                                                                                        \
        screen<tokens>(q, rows_known, rows, stride, multiplier, planes, known, n_tokens, lower, upper, picked,         \
                       capacity, memory);                                                                              \
    }
SCREEN(1)
SCREEN(4)

// The picked rows' exact logits, to their pairs; where there were too many, all logits, to y [n_tokens][rows], which may be
// the lower bounds. `best` (null, or one for each token) keeps the key of the largest. totals: tokens, rows multiplied and
// tokens with all rows are added. Grid: x over rows, y over tokens, any; whole warps, at most 256 threads. Dynamic shared
// memory: cols * 4 bytes, cols rounded up to 64.
ENTRY __launch_bounds__(256)
bn_rescore(const u16* w, u32 rows, u32 cols, float multiplier, const float* x, u32 n_tokens, u32* picked, u32 capacity,
           float* y, u64* best, u64* totals) {
    DYNAMIC_SHARED(memory);
    let_next_begin();
    wait_for_earlier();
    u32 each = blockDim.x / 8, first = blockIdx.x * each + threadIdx.x / 8, teams = gridDim.x * each;
    for (u32 token = blockIdx.y; token < n_tokens; token += gridDim.y) {
        u32* of = picked_for(picked, token, capacity);
        u32* pairs = of + PICKED_HEADER;
        bool whole = of[PICKED_COUNT] > capacity;
        u32 n = whole ? rows : of[PICKED_COUNT];
        if (blockIdx.x == 0 && threadIdx.x == 0) {
            atomicAdd(totals, (u64)1);
            atomicAdd(totals + 1, (u64)n);
            if (whole) atomicAdd(totals + 2, (u64)1);
        }
        // Most blocks have nothing to do.
        if (blockIdx.x * each >= n) continue;
        Staged values = stage(memory, x + (u64)token * cols, cols);
        __syncthreads();
        u64 most = 0;
        for (u32 base = 0; base < n; base += teams) {
            u32 i = base + first;
            // Beyond the last: the last once more, not stored.
            u32 at = i < n ? i : n - 1;
            u32 row = whole ? at : pairs[2 * at];
            const u16* const from[1] = {w + (u64)row * cols};
            float dots[1];
            dot_rows<1, EXACT>(from, values, cols, dots);
            if (threadIdx.x % 8 != 0 || i >= n) continue;
            float logit = dots[0] * multiplier;
            if (whole)
                y[(u64)token * rows + row] = logit;
            else
                pairs[2 * at + 1] = (u32)__float_as_int(logit);
            if (strange(logit)) atomicMax(of + PICKED_STRANGE, 1u);
            u64 key = key_of(logit, row);
            most = key > most ? key : most;
        }
        if (best) keep_best(most, best + token);
        // The next token overwrites x.
        __syncthreads();
    }
}
