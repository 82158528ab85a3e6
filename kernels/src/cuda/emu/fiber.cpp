// Guarded memory, fibers, faults.
#include "machine.h"

#include <sys/mman.h>
#include <unistd.h>

#if !(defined(__x86_64__) && defined(__linux__))
#define BITNET_EMU_UCONTEXT 1
#endif
#ifdef BITNET_EMU_UCONTEXT
#include <stdlib.h>
#include <ucontext.h>
#endif

namespace emu {

static const uint8_t CANARY = 0xc5;

static size_t page() {
    // Not a constant of the function: that would want the C++ library. Whoever comes first writes the same.
    static size_t bytes;
    size_t known = __atomic_load_n(&bytes, __ATOMIC_RELAXED);
    if (!known) __atomic_store_n(&bytes, known = (size_t)sysconf(_SC_PAGESIZE), __ATOMIC_RELAXED);
    return known;
}

bool Region::map(size_t wanted) {
    size_t p = page();
    if (wanted > SIZE_MAX / 2) return false;
    size_t usable = (wanted + 15 + p) / p * p;
    void* all = mmap(nullptr, usable + 2 * p, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return false;
    pages = (uint8_t*)all + p;
    capacity = usable;
    if (mprotect(pages, usable, PROT_READ | PROT_WRITE) != 0) {
        unmap();
        return false;
    }
    return true;
}

void Region::unmap() {
    if (pages) munmap(pages - page(), capacity + 2 * page());
    pages = nullptr;
}

void Region::place(size_t wanted) {
    bytes = wanted;
    data = pages + capacity - (bytes + 15) / 16 * 16;
    // The nearest page is enough: before it a kernel would have to jump over all of that.
    uint8_t* from = data - pages > (ptrdiff_t)page() ? data - page() : pages;
    memset(from, CANARY, (size_t)(pages + capacity - from));
    memset(data, 0xff, bytes);
}

bool Region::intact() const {
    uint8_t* from = data - pages > (ptrdiff_t)page() ? data - page() : pages;
    for (uint8_t* at = from; at < data; at++)
        if (*at != CANARY) return false;
    for (uint8_t* at = data + bytes; at < pages + capacity; at++)
        if (*at != CANARY) return false;
    return true;
}

bool Region::guard(bool on) { return mprotect(pages, capacity, on ? PROT_NONE : PROT_READ | PROT_WRITE) == 0; }

#ifdef BITNET_EMU_UCONTEXT
struct Pair { ucontext_t fiber, caller; };

void prepare(Fiber& f, void (*entry)()) {
    if (!f.context) f.context = calloc(1, sizeof(Pair));
    Pair* pair = (Pair*)f.context;
    if (!pair || getcontext(&pair->fiber) != 0) fail("no memory for a fiber");
    pair->fiber.uc_stack.ss_sp = f.stack.pages;
    pair->fiber.uc_stack.ss_size = f.stack.capacity;
    pair->fiber.uc_link = nullptr;
    makecontext(&pair->fiber, entry, 0);
}
void enter(Fiber& f) { Pair* pair = (Pair*)f.context; swapcontext(&pair->caller, &pair->fiber); }
void leave(Fiber& f) { Pair* pair = (Pair*)f.context; swapcontext(&pair->fiber, &pair->caller); }
#else
// Saves what a call must keep, changes the stack, takes back. (swapcontext would ask the kernel for the signal mask,
// twice for each shuffle of each lane.)
extern "C" void bitnet_emu_switch(void** from, void* to);
asm(R"(
    .text
    .p2align 4
    .hidden bitnet_emu_switch
    .globl bitnet_emu_switch
    .type bitnet_emu_switch, @function
bitnet_emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size bitnet_emu_switch, . - bitnet_emu_switch
)");

static __thread void* caller;

void prepare(Fiber& f, void (*entry)()) {
    // Top down: nothing (so that the entry finds its stack as after a call), the entry's address, six registers.
    // Not all at the same place of a page: a warp's stacks would take turns in one set of the cache.
    size_t down = (size_t)f.stack.pages / page() % 31 * 128;
    void** top = (void**)(f.stack.pages + f.stack.capacity - down);
    top[-1] = nullptr;
    top[-2] = (void*)entry;
    for (int i = 3; i <= 8; i++) top[-i] = nullptr;
    f.context = top - 8;
}
void enter(Fiber& f) { bitnet_emu_switch(&caller, f.context); }
void leave(Fiber& f) { bitnet_emu_switch(&f.context, caller); }
#endif

} // namespace emu
