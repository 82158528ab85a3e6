// The machine under the shim: fibers, memory that ends at pages nobody may touch, faults as messages. C++ without its
// library, so that a Rust test binary links nothing more.
#pragma once
#include "shim.h"

namespace emu {

// What ends a launch; the text says what happened, and the caller of `fail` is never returned to.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Memory of `bytes` that ends (up to 15 bytes of canary) at a page that cannot be touched, with another before it.
struct Region {
    uint8_t* pages = nullptr; // readable and writable
    size_t capacity = 0;      // of them
    uint8_t* data = nullptr;
    size_t bytes = 0;

    bool map(size_t capacity);
    void unmap();
    // Places `bytes` at the end and fills them with what is no number.
    void place(size_t bytes);
    // Whether what lies around the data is as `place` left it.
    bool intact() const;
    // Nobody may touch it, or everybody; false if the system refuses.
    bool guard(bool on);
};

// A stack, and where its thread stands on it.
struct Fiber {
    Region stack;
    void* context = nullptr;
    Thread thread;
    enum State { Ready, AtBarrier, AtWarp, AtWait, Done } state = Done;
    int line = 0;
    bool waited = false; // for earlier launches
    uint32_t barriers = 0; // passed so far
    Op op = Op::Sync;
    uint32_t mask = 0, other = 0;
    uint64_t value = 0, result = 0;
    int32_t* c = nullptr;
    const uint32_t *a = nullptr, *b = nullptr;
};

// Runs `entry` on the fiber's stack from the next `enter` on.
void prepare(Fiber& fiber, void (*entry)());
// To the fiber, until it leaves.
void enter(Fiber& fiber);
// From the fiber back to who entered it.
void leave(Fiber& fiber);

// An entry point: how to call it, and its parameters (p pointer, u 32 bits, l 64 bits, f float).
struct Entry {
    const char* name;
    void (*call)(void** args);
    const char* kinds;
};

extern const Entry entries[];
extern const size_t n_entries;

struct Launch {
    const Entry* entry;
    uint3 grid, block;
    uint32_t shared;
    void** args;
    // 0 rising, 1 falling, else a seed: the order of blocks, warps and lanes, which must not matter.
    uint32_t order;
    // The barrier that no thread waits at, counted from 1: a planted fault. 0: none.
    uint32_t skip;
    // It may begin before what was started earlier is over: every thread must wait for that, and nobody may touch these
    // before.
    bool overlaps;
    Region* const* late;
    size_t n_late;
};

// Runs every block; true, or the text of what was wrong.
bool run(const Launch& launch, char* text, size_t len);

} // namespace emu
