// The count-th largest of n numbers, and all that reach it: a radix search by histograms, a launch for each digit, then
// the launch that picks. Nothing comes back to the host in between, and no block waits for another.
//
// The digits of `rank_of` from the top are 11, 11 and 10 bits. Pass p counts the p-th digit of the numbers that have the
// wanted one's digits before it; who comes next finds the wanted digit by adding up from the top, every block for itself.
#include "head.cuh"

enum {
    THREADS = 256,
    BINS = 2048,
    // Of each token: a histogram for each pass, then the digits found so far, and the rank among those that have them,
    // as each pass begins.
    PLACES = 3 * BINS,
    RANK_WORDS = PLACES + 8,
};

// Digits found, and the rank among the numbers that have them.
struct Place {
    u32 digits, rank;
};

// The bin in which the place's rank lies, counted from the top (which is 1), as a further digit of `bits` bits. The whole
// block calls, THREADS threads; `sums` has THREADS / 32 words, `found` two.
__device__ Place find(const u32* counts, Place place, u32 bits, u32* sums, u32* found) {
    enum { EACH = BINS / THREADS };
    u32 thread = threadIdx.x, lane = thread % 32, top = BINS - 1 - thread * EACH;
    u32 mine[EACH], sum = 0;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        mine[i] = counts[top - i];
        sum += mine[i];
    }
    u32 before = sum;
    for (u32 width = 1; width < 32; width *= 2) {
        u32 other = __shfl_sync(ALL_LANES, before, (lane - width) & 31);
        if (lane >= width) before += other;
    }
    if (lane == 31) sums[thread / 32] = before;
    __syncthreads();
    for (u32 w = 0; w < thread / 32; w++) before += sums[w];
    before -= sum;
    if (before < place.rank && place.rank - before <= sum) {
        u32 rank = place.rank - before, i = 0;
        while (i + 1 < EACH && rank > mine[i]) rank -= mine[i++];
        found[0] = top - i;
        found[1] = rank;
    }
    __syncthreads();
    return {place.digits << bits | found[0], found[1]};
}

// Where pass `pass` stands, all histograms before it being complete; remembers it for the next.
__device__ Place place_of(u32 pass, u32 n, const u32* wanted, u32* ranks, u32* sums, u32* found) {
    u32 count = wanted[0] ? wanted[0] : 1;
    Place place = {0, count < n ? count : n};
    if (pass == 0) return place;
    if (pass > 1) place = {ranks[PLACES + 2 * pass - 2], ranks[PLACES + 2 * pass - 1]};
    place = find(ranks + (pass - 1) * BINS, place, pass == 3 ? 10 : 11, sums, found);
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        ranks[PLACES + 2 * pass] = place.digits;
        ranks[PLACES + 2 * pass + 1] = place.rank;
    }
    return place;
}

// Pass 0, 1 or 2 over values [n_tokens][n], at least one; after one another, from 0 on. wanted: count (0 is 1, more than n
// is n), see bn_pick for the rest; ranks [n_tokens][RANK_WORDS], all 0 before the first time. Grid: x over values, y over
// tokens, any; 256 threads.
ENTRY __launch_bounds__(256)
bn_rank(u32 pass, const float* values, u32 n, u32 n_tokens, const u32* wanted, u32* ranks, u32* picked, u32 capacity) {
    SHARED(u32, counts, BINS);
    SHARED(u32, sums, THREADS / 32);
    SHARED(u32, found, 2);
    let_next_begin();
    wait_for_earlier();
    u32 thread = threadIdx.x;
    for (u32 token = blockIdx.y; token < n_tokens; token += gridDim.y) {
        u32* of = ranks + (u64)token * RANK_WORDS;
        const float* from = values + (u64)token * n;
        for (u32 i = thread; i < BINS; i += THREADS) counts[i] = 0;
        if (pass == 0 && blockIdx.x == 0) {
            // Nobody else is at these in this launch; bn_pick clears the first histogram.
            for (u32 i = thread; i < 2 * BINS; i += THREADS) of[BINS + i] = 0;
            u32* to = picked_for(picked, token, capacity);
            if (thread == 0) to[PICKED_COUNT] = to[PICKED_STRANGE] = 0;
        }
        Place place = place_of(pass, n, wanted, of, sums, found);
        // Else `find` had one.
        if (pass == 0) __syncthreads();
        for (u32 i = blockIdx.x * THREADS + thread; i < n; i += gridDim.x * THREADS) {
            u32 rank = rank_of(from[i]);
            if (pass == 1 && rank >> 21 != place.digits) continue;
            if (pass == 2 && rank >> 10 != place.digits) continue;
            u32 digit = pass == 0 ? rank >> 21 : pass == 1 ? rank >> 10 & 2047 : rank & 1023;
            atomicAdd(counts + digit, 1u);
        }
        __syncthreads();
        for (u32 i = thread; i < BINS; i += THREADS) {
            if (counts[i]) atomicAdd(of + pass * BINS + i, counts[i]);
        }
    }
}

__device__ __forceinline__ void take(u32* to, u32 capacity, u32 row, float value) {
    u32 at = atomicAdd(to + PICKED_COUNT, 1u);
    if (at >= capacity) return;
    to[PICKED_HEADER + 2 * at] = row;
    to[PICKED_HEADER + 2 * at + 1] = (u32)__float_as_int(value);
}

// Picks the rows of values [n_tokens][n] that reach the wanted one less `within`, NaN never, and those of `also`, with
// their values. wanted: count, bits of within (f32, not NaN, not negative), n_also, 0, also [n_also]. `passes` of bn_rank
// ran before: 3 find the count-th largest, 2 one below it by 2^-13 of itself at most; 0: it is the header's reach, as
// bn_screen_* leaves it. Grid as for bn_rank; a row may be picked twice if it is twice in `also`.
ENTRY __launch_bounds__(256)
bn_pick(u32 passes, const float* values, u32 n, u32 n_tokens, const u32* wanted, u32* ranks, u32* picked,
        u32 capacity) {
    SHARED(u32, sums, THREADS / 32);
    SHARED(u32, found, 2);
    let_next_begin();
    wait_for_earlier();
    u32 thread = threadIdx.x;
    float within = __int_as_float((i32)wanted[1]);
    for (u32 token = blockIdx.y; token < n_tokens; token += gridDim.y) {
        u32* of = ranks + (u64)token * RANK_WORDS;
        const float* from = values + (u64)token * n;
        u32* to = picked_for(picked, token, capacity);
        u32 reach = to[PICKED_REACH];
        if (passes) {
            reach = place_of(passes, n, wanted, of, sums, found).digits;
            // The least that has these digits.
            if (passes == 2) reach <<= 10;
            if (blockIdx.x == 0) {
                for (u32 i = thread; i < BINS; i += THREADS) of[i] = 0;
            }
        }
        // One less where the difference may have been rounded up. From minus infinity on there is nothing to take off.
        if (within > 0.0f && reach > rank_of(-INFINITY_F)) {
            reach = rank_of(of_rank(reach) - within);
            if (reach) reach--;
        }
        bool odd = false;
        for (u32 i = blockIdx.x * THREADS + thread; i < n; i += gridDim.x * THREADS) {
            u32 rank = rank_of(from[i]);
            odd = odd || strange(from[i]);
            if (rank && rank >= reach) take(to, capacity, i, from[i]);
        }
        for (u32 i = blockIdx.x * THREADS + thread; i < wanted[2]; i += gridDim.x * THREADS) {
            u32 row = wanted[4 + i];
            if (row >= n) continue;
            u32 rank = rank_of(from[row]);
            if (!rank || rank < reach) take(to, capacity, row, from[row]);
        }
        if (odd) atomicMax(to + PICKED_STRANGE, 1u);
    }
}
