// Many texts at once: how they lie, for pieces.cu and tokenize.cu. It has no guard, since each file has it once and its names
// are each file's own.
//
// The texts lie behind each other, each from a multiple of STRETCH bytes on; parts[p] says which (in stretches, rising) and how
// many bytes it has. What lies between is nobody's. `words` has a byte for each byte of text.
#include "common.cuh"

enum {
    STRETCH = 64,   // bytes that one thread looks for its first piece in
    THREADS = 128,  // of a block
    LONGEST = 254,  // bytes of a piece; longer ones are refused
    TOO_LONG = 255, // in `words`
};

// The text p that stretch s is in, or the last that starts before it.
__device__ __forceinline__ u32 part_of(const u32* parts, u32 n, u32 s) {
    u32 low = 0, high = n;
    while (high - low > 1) {
        u32 middle = low + (high - low) / 2;
        if (parts[2 * middle] <= s) low = middle;
        else high = middle;
    }
    return low;
}
