// Kernels that are wrong on purpose, one fault each: the tests demand that the emulation says so. Never compiled for a
// card.
#include "../common.cuh"

// y[i + 1], one beyond the end.
ENTRY fault_write_beyond(float* y, u32 n) {
    if (threadIdx.x < n) y[threadIdx.x + 1] = 1.0f;
}

ENTRY fault_read_beyond(const float* x, float* y, u32 n) {
    if (threadIdx.x < n) y[threadIdx.x] = x[threadIdx.x + 1];
}

ENTRY fault_shared_beyond(float* y) {
    SHARED(float, all, 32);
    all[threadIdx.x + 1] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = all[threadIdx.x];
}

// 16 bytes from an address that is a multiple of 4.
ENTRY fault_misaligned(const u32* x, u32* y) { y[threadIdx.x] = ((const uint4*)(x + 1))->x; }

// The second warp is done, the first waits for it.
ENTRY fault_some_at_barrier(float* y) {
    if (threadIdx.x < 32) __syncthreads();
    y[threadIdx.x] = 1.0f;
}

// Half of the warp shuffles with all of it.
ENTRY fault_absent_lane(float* y) {
    float v = 1.0f;
    if (threadIdx.x < 16) v = __shfl_xor_sync(ALL_LANES, v, 16);
    y[threadIdx.x] = v;
}

// Nothing begins before it is over.
ENTRY fault_holds_up(const float* x, float* y) {
    wait_for_earlier();
    y[threadIdx.x] = x[threadIdx.x];
}

// Reads what an earlier launch may still write, and waits then.
ENTRY fault_reads_early(const float* x, float* y) {
    let_next_begin();
    float v = x[threadIdx.x];
    wait_for_earlier();
    y[threadIdx.x] = v;
}

// The same with a write: only the last block, and only its last thread.
ENTRY fault_writes_early(const float* x, float* y) {
    let_next_begin();
    float v = x[threadIdx.x];
    if (blockIdx.x == gridDim.x - 1 && threadIdx.x == blockDim.x - 1) y[threadIdx.x] = 0.0f;
    wait_for_earlier();
    y[threadIdx.x] = v;
}

// One thread has nothing to do, and does not wait.
ENTRY fault_does_not_wait(const float* x, float* y) {
    let_next_begin();
    if (threadIdx.x == 5) return;
    wait_for_earlier();
    y[threadIdx.x] = x[threadIdx.x];
}

// Half of the threads wait on the other side of a barrier.
ENTRY fault_waits_apart(const float* x, float* y) {
    let_next_begin();
    if (threadIdx.x < 32) wait_for_earlier();
    __syncthreads();
    wait_for_earlier();
    y[threadIdx.x] = x[threadIdx.x];
}

// y = x reversed, through shared memory that nobody waits for.
ENTRY fault_no_barrier(const float* x, float* y) {
    SHARED(float, all, 64);
    all[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = all[63 - threadIdx.x];
}
