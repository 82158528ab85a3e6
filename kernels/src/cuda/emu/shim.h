// CUDA as C++: what the kernels use of the language, for a thread that is a fiber (machine.h). Included before every
// .cu.
//
// What is undefined on a card is an error here: a barrier that not all threads reach, a shuffle from a lane that is not
// there, an access beyond an array or a buffer, a misaligned one, an overflow (the sources are compiled with the
// undefined-behaviour sanitizer, trapping).
#pragma once
#define BITNET_EMU 1

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __align__(n) alignas(n)
#define __restrict__
#define __launch_bounds__(...)

struct uint3 { unsigned int x, y, z; };
struct alignas(8) uint2 { unsigned int x, y; };
struct alignas(16) uint4 { unsigned int x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

namespace emu {

// What a warp does together.
enum class Op { Shuffle, ShuffleXor, Ballot, Sync, Mma };

struct Thread {
    uint3 thread, block, block_dim, grid_dim;
};

// `__thread`, not `thread_local`: nothing is to be made first, and g++ 12 spoils the null check of what might be.
extern __thread Thread* self;

void barrier(int line);
void earlier(int line);
void next_may_begin();
// `value` of the lane that `other` says; for a ballot the bits.
uint64_t together(Op op, int line, uint32_t mask, uint64_t value, uint32_t other);
void mma(int line, int32_t* c, const uint32_t* a, const uint32_t* b);
void* static_shared(const void* site, size_t bytes);
void* dynamic_shared();

template <class T> uint64_t to_bits(T v) {
    uint64_t bits = 0;
    static_assert(sizeof(T) <= 8, "a shuffle moves 4 or 8 bytes");
    memcpy(&bits, &v, sizeof(T));
    return bits;
}

template <class T> T from_bits(uint64_t bits) {
    T v;
    memcpy(&v, &bits, sizeof(T));
    return v;
}

template <class T> T shuffle(Op op, int line, uint32_t mask, T v, uint32_t other) {
    return from_bits<T>(together(op, line, mask, to_bits(v), other));
}

} // namespace emu

#define threadIdx (emu::self->thread)
#define blockIdx (emu::self->block)
#define blockDim (emu::self->block_dim)
#define gridDim (emu::self->grid_dim)

#define __syncthreads() emu::barrier(__LINE__)
#define wait_for_earlier() emu::earlier(__LINE__)
#define let_next_begin() emu::next_may_begin()
#define __syncwarp() ((void)emu::together(emu::Op::Sync, __LINE__, 0xffffffffu, 0, 0))
#define __ballot_sync(mask, on) ((uint32_t)emu::together(emu::Op::Ballot, __LINE__, mask, (on) ? 1 : 0, 0))
#define __shfl_sync(mask, v, lane) emu::shuffle(emu::Op::Shuffle, __LINE__, mask, v, lane)
#define __shfl_xor_sync(mask, v, lanes) emu::shuffle(emu::Op::ShuffleXor, __LINE__, mask, v, lanes)

#define SHARED(type, name, count)                                                                                      \
    static const char name##_site = 0;                                                                                 \
    type* name = (type*)emu::static_shared(&name##_site, sizeof(type) * (count))
#define DYNAMIC_SHARED(name) unsigned char* name = (unsigned char*)emu::dynamic_shared()

// Fibers change only where they wait, so a plain operation is atomic.
template <class T> T atomicAdd(T* at, T v) { T old = *at; *at = old + v; return old; }
template <class T> T atomicMax(T* at, T v) { T old = *at; *at = old < v ? v : old; return old; }
inline void __threadfence() {}
inline int __popc(unsigned int v) { return __builtin_popcount(v); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

inline float __int_as_float(int v) { return emu::from_bits<float>(emu::to_bits(v)); }
inline int __float_as_int(float v) { return emu::from_bits<int>(emu::to_bits(v)); }
inline float __int2float_rn(int v) { return (float)v; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }

// The value of f16 bits: sign, exponent and fraction moved by hand.
inline float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    if (exponent == 31) return emu::from_bits<float>(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) {
        float v = (float)fraction * 5.9604644775390625e-8f; // 2^-24
        return sign ? -v : v;
    }
    return emu::from_bits<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

// To nearest even.
inline uint16_t float_to_half(float x) {
    uint32_t bits = (uint32_t)__float_as_int(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7fff); // as `cvt` writes NaN
    if (rest >= 0x47800000) return (uint16_t)(sign | 0x7c00); // from 65536 on, and infinity
    uint32_t exponent = rest >> 23;
    // What is below the last bit of a half, with the fraction's leading one written out.
    uint32_t drop = exponent >= 113 ? 13 : 126 - exponent;
    if (drop > 24) return (uint16_t)sign; // below 2^-25
    uint32_t whole = exponent >= 113 ? rest - (112u << 23) : (rest & 0x7fffff) | 0x800000;
    uint32_t kept = whole >> drop, cut = whole & ((1u << drop) - 1), middle = 1u << (drop - 1);
    // A carry runs into the exponent, and from 65520 on into infinity, as it should.
    return (uint16_t)(sign | (kept + (cut > middle || (cut == middle && (kept & 1)))));
}

inline int dot_u8_i8(unsigned int codes, unsigned int q, int sum) {
    for (int i = 0; i < 4; i++) sum += (int)(codes >> 8 * i & 0xff) * (int)(signed char)(q >> 8 * i & 0xff);
    return sum;
}

inline int dot_i8_i8(unsigned int a, unsigned int b, int sum) {
    for (int i = 0; i < 4; i++) sum += (int)(signed char)(a >> 8 * i & 0xff) * (int)(signed char)(b >> 8 * i & 0xff);
    return sum;
}

inline uint4 load_once(const uint4* at) { return *at; }

// A card passes over an address that is not there; here it must be.
inline void prefetch(const uint8_t* at) { (void)*(const volatile uint8_t*)at; }
inline void prefetch_near(const void* at) { prefetch((const uint8_t*)at); }

inline float load_l2(const float* at) { return *at; }

#define mma_16x8x32(c, a, b) emu::mma(__LINE__, c, a, b)
