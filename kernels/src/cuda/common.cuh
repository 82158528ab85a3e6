// What every kernel shares: short types, the pieces of the numerics contract (kernels/src/numerics.rs), loads.
//
// Three compilers read this: NVRTC (C++17, no host headers, no toolkit headers), and g++ or clang++ with emu/shim.h
// before it, where a thread of a block is a fiber. So there is no library here, and what is PTX has a twin in the shim.
//
// Exactness: compile with -fmad=false and without fast math. An FMA is written `fmaf`; division and square root are the
// IEEE ones (`__fdiv_rn`, `__fsqrt_rn`), whatever the flags say.
#pragma once

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;

#define ENTRY extern "C" __global__ void

// Every lane of a warp. Kernels here launch whole warps only.
#define ALL_LANES 0xffffffffu

#ifndef BITNET_EMU
// A shared array of a fixed size; in the emulation it ends at a page that cannot be touched.
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
// The shared memory that the launch asked for.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) u8 name[]

// f16 bits to f32, exact.
__device__ __forceinline__ float half_to_float(u16 bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

// f32 to f16 bits, to nearest even; too large becomes infinite.
__device__ __forceinline__ u16 float_to_half(float x) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// sum + the four products of unsigned bytes of `codes` with signed bytes of `q`.
__device__ __forceinline__ i32 dot_u8_i8(u32 codes, u32 q, i32 sum) {
    i32 out;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(codes), "r"(q), "r"(sum));
    return out;
}

// The same with two times signed bytes.
__device__ __forceinline__ i32 dot_i8_i8(u32 a, u32 b, i32 sum) {
    i32 out;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(sum));
    return out;
}

// 16 bytes that are read once per launch: past the first cache.
__device__ __forceinline__ uint4 load_once(const uint4* at) {
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(at));
    return v;
}

// Has the line that `at` lies in fetched to the second cache, and goes on.
__device__ __forceinline__ void prefetch(const u8* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

// The same, and to the first cache of this multiprocessor: only what no kernel writes.
__device__ __forceinline__ void prefetch_near(const void* at) { asm volatile("prefetch.global.L1 [%0];" ::"l"(at)); }

// What another block of the same launch wrote: from the second cache, which all share.
__device__ __forceinline__ float load_l2(const float* at) {
    float v;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(at) : "memory");
    return v;
}

// Launches that overlap (mod.rs names the kernels and what makes it right): from compute capability 9.0 on a kernel may begin
// while the one before it in the stream ends, if it is launched so. The rule that makes chains of them right: EVERY thread
// calls `wait_for_earlier`, before it reads anything that a kernel writes, and before it writes anything at all but shared
// memory. Then a launch is over only when everything before it is over, and to wait for the one before is to wait for
// all. Launched the other way, and before 9.0, both do nothing.

// The next launch may begin once every block has called this or is over. It says nothing about what was written.
__device__ __forceinline__ void let_next_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Until the launch before this one is over and what it wrote is seen. No access goes past it.
__device__ __forceinline__ void wait_for_earlier() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// c += a b on the int8 tensor cores: a is 16 x 32 signed, b is 32 x 8 signed, c is 16 x 8; one warp, fragments as the PTX
// manual draws them for m16n8k32. With g = lane / 4 and t = lane % 4, four bytes of k from low to high in a register:
//     a[0] row g, k 4t..      a[1] row g + 8, k 4t..      a[2] row g, k 16 + 4t..      a[3] row g + 8, k 16 + 4t..
//     b[0] col g, k 4t..      b[1] col g, k 16 + 4t..
//     c[0], c[1] row g, cols 2t, 2t + 1                   c[2], c[3] row g + 8, the same cols
__device__ __forceinline__ void mma_16x8x32(i32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// What a block reads of an array in memory, thread t the elements t, t + threads, ...: its first KEEP of them are on their way from
// `ask` on.
template <class T, u32 KEEP> struct InFlight {
    const T* from;
    u32 count;
    T first[KEEP];

    __device__ __forceinline__ void ask(const void* array, u32 elements) {
        from = (const T*)array, count = elements;
#pragma unroll
        for (u32 k = 0; k < KEEP; k++) {
            u32 i = k * blockDim.x + threadIdx.x;
            if (i < count) first[k] = from[i];
        }
    }

    // use(i, element) for all of the thread's.
    template <class Use> __device__ __forceinline__ void each(Use use) const {
#pragma unroll
        for (u32 k = 0; k < KEEP; k++) {
            u32 i = k * blockDim.x + threadIdx.x;
            if (i < count) use(i, first[k]);
        }
        for (u32 i = KEEP * blockDim.x + threadIdx.x; i < count; i += blockDim.x) use(i, from[i]);
    }
};

#define INFINITY_F __int_as_float(0x7f800000)

// The larger, NaN in `x` passed over: numerics::max, in any order (but for the sign of a zero, which nothing shows).
__device__ __forceinline__ float max_of(float m, float x) { return x > m ? x : m; }

// e^x: the very steps of numerics::exp.
__device__ __forceinline__ float exp_of(float x) {
    // Written so that NaN passes through both clamps.
    x = 100.0f < x ? 100.0f : x;
    x = -110.0f > x ? -110.0f : x;
    float n = rintf(x * 1.44269504088896340736f);
    float r = fmaf(n, -0.69314575f, x);
    r = fmaf(n, -1.4286068e-6f, r);
    float p = 1.0f / 5040.0f;
    p = fmaf(p, r, 1.0f / 720.0f);
    p = fmaf(p, r, 1.0f / 120.0f);
    p = fmaf(p, r, 1.0f / 24.0f);
    p = fmaf(p, r, 1.0f / 6.0f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    // 2^n in two factors; NaN goes the way of 0 and stays NaN in p.
    i32 whole = n == n ? (i32)n : 0;
    i32 half = whole >> 1;
    return p * __int_as_float((half + 127) << 23) * __int_as_float((whole - half + 127) << 23);
}

// What the gates have in common; `kind` as in GATE_*.
enum { GATE_RELU2 = 0, GATE_SILU = 1 };

__device__ __forceinline__ float gated(u32 kind, float g, float up) {
    if (kind == GATE_SILU) return __fdiv_rn(g, 1.0f + exp_of(-g)) * up;
    // A NaN must stay one.
    float r = g < 0.0f ? 0.0f : g;
    return r * r * up;
}
