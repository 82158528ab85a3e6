// A launch: blocks one after the other, the threads of a block as fibers, warps that wait for their lanes.
#include "machine.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

namespace emu {

static const uint32_t MAX_THREADS = 1024, MAX_STATIC = 64;
static const size_t STACK = 64 << 10, MAX_SHARED = 227 << 10, ALT_STACK = 64 << 10;

struct Static {
    const void* site;
    Region region;
    bool used;
};

// One for each launch under way; kept for the next.
struct Machine {
    Machine* next;
    Fiber fibers[MAX_THREADS];
    Region dynamic;
    Static statics[MAX_STATIC];
    void* alt_stack;
    const Launch* launch;
    Fiber* current;
    uint32_t n_threads;
    bool next_may_begin; // as far as the block goes
    // The launch's order of a warp's lanes and of a block's warps.
    uint8_t lane_order[32], warp_order[MAX_THREADS / 32];
    uint3 block;
    sigjmp_buf out;
    char* text;
    size_t len;
};

__thread Thread* self;
static __thread Machine* machine;
static Machine* idle;
static pthread_mutex_t idle_lock = PTHREAD_MUTEX_INITIALIZER;

void fail(const char* format, ...) {
    Machine& m = *machine;
    int n = snprintf(m.text, m.len, "%s, block (%u, %u, %u)", m.launch->entry->name, m.block.x, m.block.y, m.block.z);
    if (n < 0) n = 0;
    if (m.current && (size_t)n < m.len) {
        uint3 t = m.current->thread.thread;
        int more = snprintf(m.text + n, m.len - (size_t)n, ", thread (%u, %u, %u)", t.x, t.y, t.z);
        n += more < 0 ? 0 : more;
    }
    if ((size_t)n + 2 < m.len) {
        memcpy(m.text + n, ": ", 3);
        va_list args;
        va_start(args, format);
        vsnprintf(m.text + n + 2, m.len - (size_t)n - 2, format, args);
        va_end(args);
    }
    siglongjmp(m.out, 1);
}

// Of every process there is one set of handlers; what is not ours goes to whom it went before.
static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
static struct sigaction before[5];

static void on_signal(int number, siginfo_t* info, void* context) {
    if (machine && machine->launch && machine->current) {
        const uint8_t* at = (const uint8_t*)info->si_addr;
        const Launch& l = *machine->launch;
        for (size_t i = 0; i < l.n_late && !machine->current->waited; i++) {
            const Region& r = *l.late[i];
            if (at >= r.pages && at < r.pages + r.capacity)
                fail("an access before the wait for earlier launches, which may still write there");
        }
        if (number == SIGSEGV || number == SIGBUS)
            fail("an access beyond what is there, at %p (the end of a buffer, of shared memory, of the stack; or a "
                 "pointer to nothing)", (const void*)at);
        fail("undefined behaviour at %p (a null pointer, a misaligned access, an index beyond its array, an overflow, "
             "a division by zero)", (const void*)at);
    }
    for (int i = 0; i < 5; i++) {
        if (SIGNALS[i] != number) continue;
        if (before[i].sa_flags & SA_SIGINFO) return before[i].sa_sigaction(number, info, context);
        if (before[i].sa_handler != SIG_DFL && before[i].sa_handler != SIG_IGN) return before[i].sa_handler(number);
        // The instruction runs again, now without us.
        sigaction(number, &before[i], nullptr);
    }
}

static void install() {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 5; i++) sigaction(SIGNALS[i], &action, &before[i]);
}

__attribute__((noinline)) static Machine* take() {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    pthread_mutex_lock(&idle_lock);
    Machine* kept = idle;
    if (kept) idle = kept->next;
    pthread_mutex_unlock(&idle_lock);
    if (kept) return kept;
    void* at = mmap(nullptr, sizeof(Machine), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void* alt = mmap(nullptr, ALT_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || alt == MAP_FAILED) return nullptr;
    Machine* m = (Machine*)at;
    m->alt_stack = alt;
    if (!m->dynamic.map(MAX_SHARED)) return nullptr;
    return m;
}

static void wait(Fiber::State state, int line) {
    Fiber& f = *machine->current;
    f.state = state;
    f.line = line;
    leave(f);
}

void barrier(int line) {
    if (++machine->current->barriers != machine->launch->skip) wait(Fiber::AtBarrier, line);
}

void next_may_begin() { machine->next_may_begin = true; }

// Once in a thread; the second time there is nothing to wait for.
void earlier(int line) {
    if (machine->current->waited) return;
    wait(Fiber::AtWait, line);
    machine->current->waited = true;
}

uint64_t together(Op op, int line, uint32_t mask, uint64_t value, uint32_t other) {
    Fiber& f = *machine->current;
    f.op = op, f.mask = mask, f.value = value, f.other = other;
    wait(Fiber::AtWarp, line);
    return f.result;
}

void mma(int line, int32_t* c, const uint32_t* a, const uint32_t* b) {
    Fiber& f = *machine->current;
    f.c = c, f.a = a, f.b = b;
    together(Op::Mma, line, 0xffffffffu, 0, 0);
}

void* static_shared(const void* site, size_t bytes) {
    for (Static& s : machine->statics) {
        if (s.site && s.site != site) continue;
        if (!s.site) {
            if (!s.region.map(bytes)) fail("no memory for %zu bytes of shared memory", bytes);
            s.site = site;
        }
        if (!s.used) s.region.place(bytes);
        s.used = true;
        return s.region.data;
    }
    fail("more than %u shared arrays", MAX_STATIC);
}

void* dynamic_shared() { return machine->dynamic.data; }

// C += A B of one warp: the fragments are put together to matrices by the places of the PTX manual, and taken apart
// again. Sums of 32 products of bytes cannot overflow: without the checks, which would keep them from vectors.
__attribute__((no_sanitize("undefined"))) static void multiply(Fiber* lanes) {
    int8_t a[16][32], b[8][32]; // b by columns
    for (int lane = 0; lane < 32; lane++) {
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) memcpy(&a[g + i % 2 * 8][i / 2 * 16 + 4 * t], &lanes[lane].a[i], 4);
        for (int i = 0; i < 2; i++) memcpy(&b[g][i * 16 + 4 * t], &lanes[lane].b[i], 4);
    }
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
            int sum = 0;
            for (int k = 0; k < 32; k++) sum += a[row][k] * b[col][k];
            lanes[lane].c[i] += sum;
        }
    }
}

// Lets the lanes go that wait for each other; the warp's other lanes wait at a barrier or are done.
static bool resolve(Fiber* lanes) {
    bool any = false;
    for (uint32_t first = 0; first < 32; first++) {
        Fiber& f = lanes[first];
        if (f.state != Fiber::AtWarp) continue;
        any = true;
        machine->current = &f;
        uint32_t mask = f.mask, bits = 0;
        if (!(mask >> first & 1)) fail("line %d: lane %u is not in its own mask %08x", f.line, first, mask);
        for (uint32_t i = 0; i < 32; i++) {
            Fiber& o = lanes[i];
            if (!(mask >> i & 1)) continue;
            if (o.state != Fiber::AtWarp || o.op != f.op || o.line != f.line || o.mask != mask)
                fail("line %d: lane %u of the mask %08x is not there (it is %s %d)", f.line, i, mask,
                     o.state == Fiber::Done ? "done after line" : "at line", o.line);
            bits |= (uint32_t)(o.value & 1) << i;
        }
        for (uint32_t i = 0; i < 32; i++) {
            Fiber& o = lanes[i];
            if (!(mask >> i & 1)) continue;
            uint32_t from = o.op == Op::ShuffleXor ? i ^ o.other : o.other;
            o.result = bits;
            if (o.op == Op::Shuffle || o.op == Op::ShuffleXor) {
                if (from >= 32 || !(mask >> from & 1)) fail("line %d: lane %u reads from lane %u", o.line, i, from);
                o.result = lanes[from].value;
            }
        }
        if (f.op == Op::Mma) multiply(lanes);
        for (uint32_t i = 0; i < 32; i++)
            if (mask >> i & 1) lanes[i].state = Fiber::Ready;
        machine->current = nullptr;
    }
    return any;
}

// The i-th of n in the launch's order.
static uint32_t ordered(uint32_t i, uint32_t n, uint32_t order) {
    if (order == 0) return i;
    if (order == 1) return n - 1 - i;
    // A step that has no factor in common with n visits everything once.
    uint64_t step = order % n + 1;
    for (;; step++) {
        uint64_t a = step, b = n;
        while (b) { uint64_t rest = a % b; a = b; b = rest; }
        if (a == 1) break;
    }
    return (uint32_t)(((uint64_t)i * step + order) % n);
}

static void start() {
    Machine& m = *machine;
    m.launch->entry->call(m.launch->args);
    if (m.launch->overlaps && !m.current->waited) fail("it ends without having waited for earlier launches");
    m.current->state = Fiber::Done;
    leave(*m.current);
}

static void run_warp(Fiber* lanes) {
    do {
        for (uint32_t i = 0; i < 32; i++) {
            Fiber& f = lanes[machine->lane_order[i]];
            if (f.state != Fiber::Ready) continue;
            machine->current = &f;
            self = &f.thread;
            enter(f);
            machine->current = nullptr;
        }
    } while (resolve(lanes));
}

// What earlier launches may still write; every block meets it as if they were not over when it begins.
static bool guard(const Launch& l, bool on) {
    bool done = true;
    for (size_t i = 0; i < l.n_late; i++) done = l.late[i]->guard(on) && done;
    return done;
}

// How many threads are in this state, which must be of one line, and which.
static uint32_t waiting_at(Fiber::State state, const char* what, int* line) {
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < machine->n_threads; i++) {
        const Fiber& f = machine->fibers[i];
        if (f.state != state) continue;
        if (waiting++ && f.line != *line) fail("threads wait at two %s, lines %d and %d", what, *line, f.line);
        *line = f.line;
    }
    return waiting;
}

static void run_block() {
    Machine& m = *machine;
    const Launch& l = *m.launch;
    if (!guard(l, true)) fail("buffers cannot be guarded");
    m.next_may_begin = false;
    m.dynamic.place(l.shared);
    for (Static& s : m.statics) s.used = false;
    for (uint32_t i = 0; i < m.n_threads; i++) {
        Fiber& f = m.fibers[i];
        if (!f.stack.pages && !f.stack.map(STACK)) fail("no memory for a stack");
        f.thread = {{i % l.block.x, i / l.block.x % l.block.y, i / l.block.x / l.block.y}, m.block, l.block, l.grid};
        f.state = Fiber::Ready;
        f.barriers = 0;
        f.line = 0;
        f.waited = false;
        prepare(f, start);
    }
    uint32_t warps = m.n_threads / 32;
    for (;;) {
        for (uint32_t w = 0; w < warps; w++) run_warp(m.fibers + m.warp_order[w] * 32);
        // All of a block have done what comes before the wait when the first goes on.
        int line = 0;
        uint32_t early = waiting_at(Fiber::AtWait, "waits for earlier launches", &line);
        if (early && early != m.n_threads)
            fail("only %u of %u threads reach the wait for earlier launches of line %d", early, m.n_threads, line);
        if (early && !guard(l, false)) fail("buffers cannot be opened");
        uint32_t waiting = early ? early : waiting_at(Fiber::AtBarrier, "barriers", &line);
        if (!waiting) break;
        if (waiting != m.n_threads)
            fail("only %u of %u threads reach the barrier of line %d", waiting, m.n_threads, line);
        for (uint32_t i = 0; i < m.n_threads; i++) m.fibers[i].state = Fiber::Ready;
    }
    if (l.overlaps && !m.next_may_begin) fail("it never lets the next launch begin");
    size_t shared = l.shared;
    for (Static& s : m.statics) {
        if (!s.used) continue;
        shared += s.region.bytes;
        if (!s.region.intact()) fail("a write beside a shared array of %zu bytes", s.region.bytes);
    }
    if (!m.dynamic.intact()) fail("a write beside the %u bytes of dynamic shared memory", l.shared);
    if (shared > MAX_SHARED || shared - l.shared > 48 << 10)
        fail("%zu bytes of shared memory, %u of them asked for by the launch", shared, l.shared);
}

bool run(const Launch& launch, char* text, size_t len) {
    machine = take();
    if (!machine) {
        snprintf(text, len, "no memory for the emulation");
        return false;
    }
    Machine& m = *machine;
    stack_t ours, theirs;
    memset(&ours, 0, sizeof ours);
    ours.ss_sp = m.alt_stack;
    ours.ss_size = ALT_STACK;
    sigaltstack(&ours, &theirs);
    m.launch = &launch, m.text = text, m.len = len, m.current = nullptr, m.block = {0, 0, 0};
    bool right = sigsetjmp(m.out, 1) == 0;
    if (right) {
        uint64_t threads = (uint64_t)launch.block.x * launch.block.y * launch.block.z;
        uint64_t blocks = (uint64_t)launch.grid.x * launch.grid.y * launch.grid.z;
        if (threads == 0 || threads > MAX_THREADS || threads % 32)
            fail("a block of %llu threads", (unsigned long long)threads);
        if (blocks == 0 || blocks > 1u << 31 || launch.grid.y > 65535 || launch.grid.z > 65535)
            fail("a grid of %u x %u x %u", launch.grid.x, launch.grid.y, launch.grid.z);
        if (launch.shared > MAX_SHARED) fail("%u bytes of shared memory", launch.shared);
        m.n_threads = (uint32_t)threads;
        for (uint32_t i = 0; i < 32; i++) m.lane_order[i] = (uint8_t)ordered(i, 32, launch.order);
        for (uint32_t i = 0; i < m.n_threads / 32; i++)
            m.warp_order[i] = (uint8_t)ordered(i, m.n_threads / 32, launch.order);
        for (uint32_t i = 0; i < blocks; i++) {
            uint32_t b = ordered(i, (uint32_t)blocks, launch.order);
            m.block = {b % launch.grid.x, b / launch.grid.x % launch.grid.y, b / launch.grid.x / launch.grid.y};
            run_block();
        }
    }
    guard(launch, false);
    m.launch = nullptr;
    m.current = nullptr;
    sigaltstack(&theirs, nullptr);
    machine = nullptr;
    pthread_mutex_lock(&idle_lock);
    m.next = idle;
    idle = &m;
    pthread_mutex_unlock(&idle_lock);
    return right;
}

} // namespace emu
