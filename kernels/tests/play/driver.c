// A library that plays NVIDIA's driver: what BitNet.rs calls of it, for machines without a card.
//
// What is not as `-D` says is as on a machine with two cards, the second of which is full. Nothing happens before it must:
// copies from pinned memory, launches and events wait in a queue until somebody waits for them, so a buffer that is written
// again too early, or a read that does not wait, shows. Calls without the context, with a stream or graph that is not
// there, or in the middle of a capture fail as a driver's do. With `-DEMULATION` the kernels run, by the emulation of
// src/cuda/emu; without it they do nothing. `$PLAY_LOG` names a file to which every call on the card is written.
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef INIT
#define INIT 0
#endif
#ifndef VERSION
#define VERSION 13000
#endif
#ifndef COUNT
#define COUNT 2
#endif
// 1: the full card is the first.
#ifndef SWAP
#define SWAP 0
#endif
// The first digit of the good card's compute capability.
#ifndef COMPUTE
#define COMPUTE 9
#endif
#ifndef FREE
#define FREE (3ul << 30)
#endif
// The launch that loses the card, counted from 1, and how.
#ifndef LOST_AT
#define LOST_AT 0
#endif
#ifndef LOST
#define LOST 700
#endif

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_CONTEXT_CODE = 201, BAD_IMAGE = 200, HANDLE = 400, NOT_FOUND = 500, NOT_SUPPORTED = 801, IN_CAPTURE = 900, INVALIDATED = 901, NEWER = 12345 };

static void note(const char* format, ...) {
    const char* at = getenv("PLAY_LOG");
    FILE* file = at ? fopen(at, "a") : 0;
    if (!file) return;
    va_list args;
    va_start(args, format);
    vfprintf(file, format, args);
    va_end(args);
    fputc('\n', file);
    fclose(file);
}

int cuGetErrorName(int code, const char** name) {
    static const struct { int code; const char* name; } names[] = {
        {1, "CUDA_ERROR_INVALID_VALUE"},       {2, "CUDA_ERROR_OUT_OF_MEMORY"},
        {34, "CUDA_ERROR_STUB_LIBRARY"},       {101, "CUDA_ERROR_INVALID_DEVICE"},
        {201, "CUDA_ERROR_INVALID_CONTEXT"},   {214, "CUDA_ERROR_ECC_UNCORRECTABLE"},
        {400, "CUDA_ERROR_INVALID_HANDLE"},    {500, "CUDA_ERROR_NOT_FOUND"},
        {200, "CUDA_ERROR_INVALID_IMAGE"},     {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {719, "CUDA_ERROR_LAUNCH_FAILED"},     {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"},
        {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}, {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
        {801, "CUDA_ERROR_NOT_SUPPORTED"},     {999, "CUDA_ERROR_UNKNOWN"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == code) return *name = names[i].name, OK;
    return *name = 0, INVALID;
}

int cuInit(unsigned flags) { return flags ? INVALID : INIT; }
int cuDriverGetVersion(int* v) { return *v = VERSION, OK; }
int cuDeviceGetCount(int* n) { return *n = COUNT, OK; }
int cuDeviceGet(int* d, int i) { return *d = 70 + (i ^ SWAP), i >= 0 && i < COUNT ? OK : 101; }
int cuDeviceGetName(char* name, int len, int d) {
    snprintf(name, (size_t)len, "%s", d == 70 ? "Play H100" : "Play T4");
    return OK;
}
int cuDeviceTotalMem_v2(size_t* n, int d) { return (void)d, *n = 80ul << 30, OK; }
int cuDeviceGetAttribute(int* v, int which, int d) {
    switch (which) {
    case 75: return *v = d == 70 ? COMPUTE : 7, OK;
    case 76: return *v = d == 70 ? 0 : 5, OK;
    case 38: return *v = 50 << 20, OK;
    case 16: return *v = 132, OK;
    }
    return INVALID;
}

// The context of card 70. What is current belongs to a thread.
static __thread void* current;
static int retained;
static int lost;
#ifndef NO_CONTEXT
int cuDevicePrimaryCtxRetain(void** c, int d) {
    if (d != 70) return OUT_OF_MEMORY;
    return retained++, *c = &retained, OK;
}
#endif
int cuDevicePrimaryCtxRelease_v2(int d) {
    note("release %d", retained);
    return d == 70 && retained-- > 0 ? OK : NO_CONTEXT_CODE;
}
int cuCtxGetCurrent(void** c) { return *c = current, OK; }
int cuCtxSetCurrent(void* c) { return current = c, OK; }

// Memory: the emulation's, whose edges are guarded, or the host's.
#ifdef EMULATION
void* bitnet_emu_alloc(size_t);
void bitnet_emu_free(void*);
int bitnet_emu_launch(const char*, const uint32_t*, const uint32_t*, uint32_t, void**, const char*, uint32_t, uint32_t, uint32_t, uint64_t, char*, size_t);
const char* play_kinds(const char*);
#else
static void* bitnet_emu_alloc(size_t n) { return malloc(n); }
static void bitnet_emu_free(void* p) { free(p); }
static const char* play_kinds(const char* name) { return strncmp(name, "bn_", 3) ? 0 : ""; }
#endif
static struct Memory { struct Memory* next; char* at; size_t bytes; } *memory;
static size_t taken;

// What waits.
struct Op {
    enum { COPY, LAUNCH, EVENT } what;
    void *to, *from;
    size_t bytes;
    const char* name;
    uint32_t grid[3], block[3], shared;
    int overlaps;
    uint64_t values[32];
    struct Event* event;
    struct Op* next;
};
// What was recorded last counts: so many records wait.
struct Event { int happened, waits; double at; };
struct Graph { struct Op* ops; int exec; };
static struct Op *queue, **queue_end = &queue, *captured, **captured_end = &captured;
static int capturing, invalid, launches, done;
static void* const stream = &queue;

#define NEED_CONTEXT if (current != &retained) return NO_CONTEXT_CODE
#define NEED_CARD NEED_CONTEXT; if (lost) return lost
#define NOT_CAPTURED NEED_CARD; if (capturing) return invalid = 1, IN_CAPTURE
#define NEED_STREAM(s) if (s != stream) return HANDLE

int cuMemGetInfo_v2(size_t* free, size_t* total) {
    NEED_CARD;
    return *free = FREE - taken, *total = 80ul << 30, OK;
}
int cuMemAlloc_v2(uint64_t* at, size_t bytes) {
    NOT_CAPTURED;
    if (!bytes) return INVALID;
#ifdef NO_ROOM
    return OUT_OF_MEMORY;
#endif
    struct Memory* m = malloc(sizeof *m);
    *m = (struct Memory){memory, bitnet_emu_alloc(bytes), bytes};
    memory = m, taken += bytes;
    note("alloc %zu", bytes);
    return *at = (uint64_t)m->at, m->at ? OK : OUT_OF_MEMORY;
}
static int holds(const void* at, size_t bytes) {
    for (struct Memory* m = memory; m; m = m->next)
        if ((char*)at >= m->at && (char*)at + bytes <= m->at + m->bytes) return 1;
    return 0;
}

static void run(struct Op* op) {
    if (lost) return;
    done++;
    switch (op->what) {
    case COPY: memcpy(op->to, op->from, op->bytes); break;
    case EVENT: op->event->happened = !--op->event->waits, op->event->at = done; break;
    case LAUNCH:
        if (++launches == LOST_AT) lost = LOST;
#ifdef EMULATION
        char text[400] = "";
        void* args[32];
        for (int i = 0; i < 32; i++) args[i] = &op->values[i];
        if (!lost && bitnet_emu_launch(op->name, op->grid, op->block, op->shared, args, play_kinds(op->name), (uint32_t)launches % 7, 0, (uint32_t)op->overlaps, ~0ull, text, sizeof text)) {
            note("fault %s", text);
            lost = 700;
        }
#endif
    }
}
// Everything up to an event; all of it for none.
static int flush(struct Event* until) {
    while (queue && !(until && until->happened)) {
        struct Op* op = queue;
        run(op);
        queue = op->next;
        if (!queue) queue_end = &queue;
        free(op);
    }
    return lost;
}
static struct Op* later(int what) {
    struct Op* op = calloc(1, sizeof *op);
    op->what = what;
    return *queue_end = op, queue_end = &op->next, op;
}

int cuMemFree_v2(uint64_t at) {
    NOT_CAPTURED;
    flush(0);
    for (struct Memory** m = &memory; *m; m = &(*m)->next) {
        if ((*m)->at != (char*)at) continue;
        struct Memory* gone = *m;
        *m = gone->next, taken -= gone->bytes;
        note("free %zu", gone->bytes);
        bitnet_emu_free(gone->at);
        return free(gone), OK;
    }
    return INVALID;
}
int cuMemHostAlloc(void** p, size_t bytes, unsigned flags) {
    NEED_CARD;
    return *p = malloc(bytes), note("pinned %zu", bytes), flags ? INVALID : OK;
}
int cuMemFreeHost(void* p) {
    NEED_CONTEXT;
    return note("unpinned"), free(p), OK;
}
static int copy(const char* call, void* to, const void* from, size_t bytes, void* s, const void* card, const void* other) {
    NOT_CAPTURED;
    NEED_STREAM(s);
    if (!holds(card, bytes) || (other && !holds(other, bytes))) return INVALID;
    struct Op* op = later(COPY);
    op->to = to, op->from = (void*)from, op->bytes = bytes;
    return note("%s %zu", call, bytes), OK;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t n, void* s) { return copy("to", (void*)to, from, n, s, (void*)to, 0); }
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t n, void* s) { return copy("from", to, (void*)from, n, s, (void*)from, 0); }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, void* s) { return copy("within", (void*)to, (void*)from, n, s, (void*)to, (void*)from); }

int cuStreamCreate(void** s, unsigned flags) {
    NEED_CARD;
    return *s = stream, note("stream"), flags == 1 ? OK : INVALID;
}
int cuStreamDestroy_v2(void* s) {
    NEED_CONTEXT;
    NEED_STREAM(s);
    return note("stream gone"), OK;
}
int cuStreamSynchronize(void* s) {
    NOT_CAPTURED;
    NEED_STREAM(s);
    return note("wait"), flush(0);
}
int cuStreamBeginCapture_v2(void* s, int mode) {
    NOT_CAPTURED;
    NEED_STREAM(s);
    return capturing = 1, invalid = 0, note("capture"), mode == 1 ? OK : INVALID;
}
int cuStreamEndCapture(void* s, void** g) {
    NEED_CARD;
    NEED_STREAM(s);
    if (!capturing) return INVALID;
    struct Graph* graph = calloc(1, sizeof *graph);
    graph->ops = captured;
    capturing = 0, captured = 0, captured_end = &captured, *g = invalid ? 0 : graph;
    return note("captured"), invalid ? INVALIDATED : OK;
}
int cuGraphInstantiateWithFlags(void** e, void* g, unsigned long long flags) {
    NEED_CARD;
    struct Graph* exec = malloc(sizeof *exec);
    *exec = *(struct Graph*)g, exec->exec = 1;
#ifdef REFUSE_GRAPH
    for (struct Op* op = exec->ops; op; op = op->next)
        if (op->overlaps) return free(exec), NOT_SUPPORTED;
#endif
    return *e = exec, note("instantiate"), flags ? INVALID : OK;
}
int cuGraphLaunch(void* e, void* s) {
    NEED_CARD;
    NEED_STREAM(s);
    if (!((struct Graph*)e)->exec) return HANDLE;
    for (struct Op* op = ((struct Graph*)e)->ops; op; op = op->next) {
        struct Op* again = later(LAUNCH);
        struct Op* next = again->next;
        *again = *op, again->next = next;
    }
    return note("replay"), OK;
}
int cuGraphDestroy(void* g) { NEED_CONTEXT; return note("graph gone"), free(g), OK; }
int cuGraphExecDestroy(void* e) { NEED_CONTEXT; flush(0); return note("replay gone"), free(e), OK; }

int cuEventCreate(void** e, unsigned flags) {
    NEED_CARD;
    return *e = calloc(1, sizeof(struct Event)), flags == 0 || flags == 2 ? OK : INVALID;
}
int cuEventDestroy_v2(void* e) { NEED_CONTEXT; flush(0); return free(e), OK; }
int cuEventRecord(void* e, void* s) {
    NOT_CAPTURED;
    NEED_STREAM(s);
    struct Event* event = e;
    event->happened = 0, event->waits++, later(EVENT)->event = event;
    return OK;
}
int cuEventSynchronize(void* e) {
    NOT_CAPTURED;
    return ((struct Event*)e)->waits ? flush(e) : OK;
}
int cuEventElapsedTime(float* ms, void* a, void* b) {
    NEED_CARD;
    if (!((struct Event*)a)->happened || !((struct Event*)b)->happened) return 600;
    return *ms = (float)(((struct Event*)b)->at - ((struct Event*)a)->at), OK;
}

// A module is its file, a function its name.
int cuModuleLoadData(void** m, const void* image) {
    NEED_CARD;
#ifdef IMAGE
    return IMAGE;
#endif
    if (strncmp(image, "cubin of ", 9)) return BAD_IMAGE;
    return *m = strdup(image), note("module %s", (const char*)image), OK;
}
int cuModuleUnload(void* m) {
    NEED_CONTEXT;
    return note("module gone"), free(m), OK;
}
int cuModuleGetFunction(void** f, void* m, const char* name) {
    NEED_CARD;
    if (!m || !play_kinds(name)) return NOT_FOUND;
    return *f = strdup(name), OK;
}
int cuFuncSetAttribute(void* f, int which, int value) {
    NEED_CARD;
    note("allow %s %d", (const char*)f, value);
    return which == 8 && value <= 227 << 10 ? OK : INVALID;
}
static int launch(void* f, const unsigned grid[3], const unsigned block[3], unsigned shared, void* s, void** args, void** extra, int overlaps) {
    NEED_CARD;
    NEED_STREAM(s);
#ifdef REFUSE
    return NEWER;
#endif
    if (!grid[0] || !grid[1] || !grid[2] || !block[0] || block[1] != 1 || block[2] != 1 || extra) return INVALID;
    struct Op op = {.what = LAUNCH, .name = f, .shared = shared, .overlaps = overlaps};
    memcpy(op.grid, grid, sizeof op.grid), memcpy(op.block, block, sizeof op.block);
    char text[600] = "";
    size_t n = 0;
    for (const char* kind = play_kinds(f); *kind; kind++, args++) {
        uint64_t* value = &op.values[kind - play_kinds(f)];
        memcpy(value, *args, *kind == 'u' || *kind == 'f' ? 4 : 8);
        if (*kind == 'f') { float v; memcpy(&v, *args, 4); n += (size_t)snprintf(text + n, sizeof text - n, " %gf", v); }
        else if (*kind == 'p') n += (size_t)snprintf(text + n, sizeof text - n, *value ? " p" : " null");
        else n += (size_t)snprintf(text + n, sizeof text - n, *kind == 'l' ? " %llul" : " %lluu", (unsigned long long)*value);
    }
    note("launch %s %ux%ux%u %u %u%s%s", (const char*)f, grid[0], grid[1], grid[2], block[0], shared, text, overlaps ? " overlapping" : "");
    struct Op* kept;
    if (capturing) kept = calloc(1, sizeof *kept), *captured_end = kept, captured_end = &kept->next;
    else kept = later(LAUNCH);
    struct Op* next = kept->next;
    *kept = op, kept->next = next;
    return OK;
}
int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void* s, void** args, void** extra) {
    return launch(f, (unsigned[]){gx, gy, gz}, (unsigned[]){bx, by, bz}, shared, s, args, extra, 0);
}
// As `cuda.h` lays them out. The one attribute that is asked for is number 6: the launch may begin while the one before ends,
// which a card from 9.0 on does, and a recording of a driver from CUDA 12.3 on. What begins so must wait in the kernel: the
// emulation looks.
struct Attribute { int id, pad; union { char all[64]; int allowed; } value; };
struct Config { unsigned grid[3], block[3], shared; void* stream; struct Attribute* attributes; unsigned n; };
int cuLaunchKernelEx(const struct Config* c, void* f, void** args, void** extra) {
    if (c->n != 1 || c->attributes->id != 6 || c->attributes->value.allowed != 1) return INVALID;
    if (COMPUTE < 9 || (capturing && VERSION < 12030)) return NOT_SUPPORTED;
    return launch(f, c->grid, c->block, c->shared, c->stream, args, extra, 1);
}
