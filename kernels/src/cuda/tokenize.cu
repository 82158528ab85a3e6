// The tokens of the pieces that pieces.cu found, by the tables of the engine's words.rs and merge.rs as they are there; and the
// tokens of all texts one after the other.
#include "texts.cuh"

enum {
    TILE = 1024,   // bytes of a block: eight for each thread
    WARPS = THREADS / 32,
    SYMBOLS = 256, // room for those of a piece
};

#define NONE 0xffffffffu


#define MIX 0x9e3779b97f4a7c15ull
#define MIX_AGAIN 0xbf58476d1ce4e5b9ull

__device__ __forceinline__ u64 fold(u64 a, u64 b) { return a * b ^ __umul64hi(a, b); }

// The 8 bytes from byte `at` on; up to 8 more are touched.
__device__ __forceinline__ u64 load_8(const u64* base, u32 at) {
    u32 shift = at % 8 * 8;
    u64 low = base[at / 8] >> shift;
    return shift ? low | base[at / 8 + 1] << (64 - shift) : low;
}

__device__ __forceinline__ bool equal(const u64* a, u32 at, const u64* b, u32 from, u32 len) {
    for (u32 i = 0; i + 8 <= len; i += 8)
        if (load_8(a, at + i) != load_8(b, from + i)) return false;
    return load_8(a, at + len - 8) == load_8(b, from + len - 8);
}

// The token that the piece is as it stands, or NONE. An entry: key (two), length + 1, id or place in `arena`.
__device__ u32 find_word(const u64* text, u32 at, u32 len, const uint4* entries, u32 n_entries, const u64* arena) {
    u64 key;
    if (len <= 8) {
        key = load_8(text, at);
        if (len < 8) key &= (1ull << len * 8) - 1;
    } else {
        key = len;
        for (u32 i = 0; i + 8 <= len; i += 8) key = fold(key ^ load_8(text, at + i), MIX);
        key = fold(key ^ load_8(text, at + len - 8), MIX ^ key);
    }
    for (u32 slot = (u32)fold(key ^ len, MIX);; slot++) {
        uint4 e = entries[slot & (n_entries - 1)];
        if (e.z == 0) return NONE;
        if (e.x != (u32)key || e.y != (u32)(key >> 32) || e.z != len + 1) continue;
        if (len <= 8) return e.w;
        if (equal(text, at, arena, e.w + 4, len)) return (u32)load_8(arena, e.w);
    }
}

// What two neighbours become: rank and id, both NONE if nothing. An entry: right, left, rank, id.
__device__ uint2 find_pair(u32 left, u32 right, const uint4* entries, u32 shift) {
    u64 key = (u64)left << 32 | right;
    u64 mixed = (key ^ key >> 32) * MIX;
    u32 slot = (u32)((mixed ^ mixed >> 29) * MIX_AGAIN >> shift), mask = (u32)((1ull << (64 - shift)) - 1);
    for (;; slot++) {
        uint4 e = entries[slot & mask];
        uint2 found = {e.z, e.w};
        if (e.x == right && e.y == left) return found;
        if (e.x == NONE && e.y == NONE) return found;
    }
}

// The merges of one piece by one warp: of all pairs the lowest rank, of equal ones the leftmost, until none is left. The tokens
// go to `out`; gives their number. Every lane calls; the arrays are the warp's, of SYMBOLS each.
__device__ u32 merge(const u8* piece, u32 len, const u32* byte_ids, const uint4* pairs, u32 shift, u32* symbols,
                     uint2* merges, u32* out) {
    u32 lane = threadIdx.x % 32, n = 0;
    for (u32 base = 0; base < len; base += 32) {
        // Bytes without a token are left out.
        u32 id = base + lane < len ? byte_ids[piece[base + lane]] : NONE;
        u32 there = __ballot_sync(ALL_LANES, id != NONE);
        if (id != NONE) symbols[n + __popc(there & ((1u << lane) - 1))] = id;
        n += __popc(there);
    }
    __syncwarp();
    for (u32 i = lane; i + 1 < n; i += 32) merges[i] = find_pair(symbols[i], symbols[i + 1], pairs, shift);
    __syncwarp();
    while (n > 1) {
        u64 best = ~0ull;
        for (u32 i = lane; i + 1 < n; i += 32) {
            u64 key = (u64)merges[i].x << 32 | i;
            best = key < best ? key : best;
        }
        for (u32 width = 16; width; width /= 2) {
            u64 other = __shfl_xor_sync(ALL_LANES, best, width);
            best = other < best ? other : best;
        }
        if (best >> 32 == NONE) break;
        u32 at = (u32)best, id = merges[at].y;
        __syncwarp();
        // What is behind moves up by one.
        for (u32 base = at + 1; base + 1 < n; base += 32) {
            u32 to = base + lane, symbol = 0;
            uint2 kept = {0, 0};
            if (to + 1 < n) symbol = symbols[to + 1];
            if (to + 2 < n) kept = merges[to + 1];
            __syncwarp();
            if (to + 1 < n) symbols[to] = symbol;
            if (to + 2 < n) merges[to] = kept;
            __syncwarp();
        }
        n--;
        if (lane == 0) symbols[at] = id;
        __syncwarp();
        // The new symbol with its left and its right neighbour.
        u32 right = at + lane;
        if (lane < 2 && right > 0 && right < n)
            merges[right - 1] = find_pair(symbols[right - 1], symbols[right], pairs, shift);
        __syncwarp();
    }
    for (u32 i = lane; i < n; i += 32) out[i] = symbols[i];
    __syncwarp();
    return n;
}

// words [n_tiles * TILE] as bn_tokens_split left it (text has 8 bytes more, and starts at 8): how many tokens the piece that
// starts there is, 0 elsewhere. ids [n_tiles * TILE]: the tokens. totals [n_tiles]. refused[p] becomes 1 where text p has a
// piece that is too long. `vocabulary` has n_words entries (a power of two, some of them empty), `pairs` 2^(64 - shift).
// Any grid; THREADS.
ENTRY __launch_bounds__(THREADS)
bn_tokens_words(const u64* text, const u32* parts, u32 n_parts, const uint4* vocabulary, u32 n_words, const u64* arena,
                const uint4* pairs, u32 shift, const u32* byte_ids, u32 n_tiles, u8* words, u32* ids, u32* totals,
                u32* refused) {
    SHARED(u16, starts, TILE);
    SHARED(u16, missed, TILE);
    SHARED(u32, symbols, WARPS * SYMBOLS);
    SHARED(uint2, merges, WARPS * SYMBOLS);
    SHARED(u32, count, 4); // pieces, those that are not a token, tokens
    u32 warp = threadIdx.x / 32;
    if (threadIdx.x < 4) count[threadIdx.x] = 0;
    for (u32 tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
        __syncthreads();
        u32 base = tile * TILE, own = threadIdx.x * 8;
        u64 lengths = *(const u64*)(words + base + own);
        u32 n = 0;
        for (u32 i = 0; i < 8; i++) n += (lengths >> 8 * i & 255) != 0;
        u32 slot = n ? atomicAdd(count, n) : 0;
        for (u32 i = 0; i < 8; i++)
            if (lengths >> 8 * i & 255) starts[slot++] = (u16)(own + i);
        __syncthreads();
        u32 tokens = 0;
        for (u32 i = threadIdx.x; i < count[0]; i += THREADS) {
            u32 at = base + starts[i], len = words[at];
            if (len == TOO_LONG) {
                words[at] = 0;
                refused[part_of(parts, n_parts, at / STRETCH)] = 1;
                continue;
            }
            u32 id = find_word(text, at, len, vocabulary, n_words, arena);
            if (id == NONE) {
                missed[atomicAdd(count + 1, 1u)] = starts[i];
                continue;
            }
            words[at] = 1;
            ids[at] = id;
            tokens++;
        }
        __syncthreads();
        for (u32 i = warp; i < count[1]; i += WARPS) {
            u32 at = base + missed[i];
            u32 n = merge((const u8*)text + at, words[at], byte_ids, pairs, shift, symbols + warp * SYMBOLS,
                          merges + warp * SYMBOLS, ids + at);
            if (threadIdx.x % 32 == 0) {
                words[at] = (u8)n;
                tokens += n;
            }
        }
        if (tokens) atomicAdd(count + 2, tokens);
        __syncthreads();
        if (threadIdx.x == 0) {
            totals[tile] = count[2];
            count[0] = count[1] = count[2] = 0;
        }
    }
}

// The sum of the `value`s of the threads before; sums [2 * blockDim.x]. Every thread calls.
__device__ u32 sum_before(u32 value, u32* sums) {
    u32 *now = sums + threadIdx.x, *next = now + blockDim.x, sum = value;
    *now = sum;
    __syncthreads();
    for (u32 width = 1; width < blockDim.x; width *= 2) {
        if (threadIdx.x >= width) sum += *(now - width);
        *next = sum;
        u32* other = now;
        now = next, next = other;
        __syncthreads();
    }
    return sum - value;
}

// totals [n + 1]: each becomes the sum of those before it. One block.
ENTRY __launch_bounds__(1024) bn_tokens_offsets(u32* totals, u32 n) {
    SHARED(u32, sums, 2 * 1024);
    if (blockIdx.x != 0) return;
    u32 each = (n + blockDim.x - 1) / blockDim.x, first = threadIdx.x * each, sum = 0;
    for (u32 i = first; i < n && i < first + each; i++) sum += totals[i];
    u32 before = sum_before(sum, sums);
    for (u32 i = first; i < n && i < first + each; i++) {
        u32 own = totals[i];
        totals[i] = before;
        before += own;
    }
    if (threadIdx.x == blockDim.x - 1) totals[n] = before;
}

// out: the tokens of all texts one after the other; those of text p from firsts[p] on. `offsets` is of bn_tokens_offsets, the
// rest of bn_tokens_words. Any grid; THREADS.
ENTRY __launch_bounds__(THREADS)
bn_tokens_gather(const u8* words, const u32* ids, const u32* offsets, const u32* parts, u32 n_parts, u32 n_tiles,
                 u32* firsts, u32* out) {
    SHARED(u32, sums, 2 * THREADS);
    for (u32 tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
        u32 at = tile * TILE + threadIdx.x * 8, n = 0;
        u64 counts = *(const u64*)(words + at);
        for (u32 i = 0; i < 8; i++) n += (u32)(counts >> 8 * i & 255);
        u32 to = offsets[tile] + sum_before(n, sums);
        if (at % STRETCH == 0) {
            u32 part = part_of(parts, n_parts, at / STRETCH);
            if (parts[2 * part] == at / STRETCH) firsts[part] = to;
        }
        for (u32 i = 0; i < 8; i++)
            for (u32 k = 0; k < (u32)(counts >> 8 * i & 255); k++) out[to++] = ids[at + i + k];
    }
}
