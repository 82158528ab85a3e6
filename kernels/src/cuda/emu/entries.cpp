// The kernels, compiled as C++; their table; what Rust calls.
#include "machine.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <utility>

#include "../common.cuh"
#include "../head.cuh"
#include "../norm.cuh"
#include "../rope.cuh"

// Each file's names are its own, as they are to NVRTC.
namespace attention {
#include "../attention.cu"
}
namespace gemm {
#include "../gemm.cu"
}
namespace gemv {
#include "../gemv.cu"
}
namespace head {
#include "../head.cu"
}
namespace norm {
#include "../norm.cu"
}
namespace pieces {
#include "../pieces.cu"
}
namespace rope {
#include "../rope.cu"
}
namespace rows {
#include "../rows.cu"
}
namespace screen {
#include "../screen.cu"
}
namespace top {
#include "../top.cu"
}
namespace tokenize {
#include "../tokenize.cu"
}
namespace faults {
#include "faults.cu"
}

namespace emu {

template <class T> constexpr char kind_of() {
    if constexpr (__is_same(T, float)) return 'f';
    else if constexpr (sizeof(T) == 8) return __is_same(T, u64) ? 'l' : 'p';
    else return 'u';
}

template <class F> struct Signature;

template <class... A> struct Signature<void (*)(A...)> {
    static constexpr char kinds[sizeof...(A) + 1] = {kind_of<A>()..., 0};
    template <size_t... I> static void spread(void (*f)(A...), void** args, std::index_sequence<I...>) {
        f(*(A*)args[I]...);
    }
    static void call(void (*f)(A...), void** args) { spread(f, args, std::index_sequence_for<A...>()); }
};

#define LISTED(file, name)                                                                                             \
    {#name, [](void** args) { Signature<decltype(&file::name)>::call(file::name, args); },                             \
     Signature<decltype(&file::name)>::kinds}

const Entry entries[] = {
    LISTED(attention, bn_attention_scores_4),
    LISTED(attention, bn_attention_values_4),
    LISTED(attention, bn_attention_scores_16),
    LISTED(attention, bn_attention_values_16),
    LISTED(gemm, bn_gemm_i2s),
    LISTED(gemv, bn_gemv_store),
    LISTED(gemv, bn_gemv_add),
    LISTED(gemv, bn_gemv_gate),
    LISTED(gemv, bn_gemv_rope),
    LISTED(head, bn_head_f16),
    LISTED(head, bn_argmax),
    LISTED(head, bn_next),
    LISTED(norm, bn_norm_quant),
    LISTED(pieces, bn_tokens_split),
    LISTED(rope, bn_rope_append),
    LISTED(rows, bn_embed_f16),
    LISTED(rows, bn_add),
    LISTED(rows, bn_gate),
    LISTED(screen, bn_screen_build),
    LISTED(screen, bn_screen_token),
    LISTED(screen, bn_screen_1),
    LISTED(screen, bn_screen_4),
    LISTED(screen, bn_rescore),
    LISTED(top, bn_rank),
    LISTED(top, bn_pick),
    LISTED(tokenize, bn_tokens_words),
    LISTED(tokenize, bn_tokens_offsets),
    LISTED(tokenize, bn_tokens_gather),
    LISTED(faults, fault_write_beyond),
    LISTED(faults, fault_read_beyond),
    LISTED(faults, fault_shared_beyond),
    LISTED(faults, fault_misaligned),
    LISTED(faults, fault_some_at_barrier),
    LISTED(faults, fault_absent_lane),
    LISTED(faults, fault_holds_up),
    LISTED(faults, fault_reads_early),
    LISTED(faults, fault_writes_early),
    LISTED(faults, fault_does_not_wait),
    LISTED(faults, fault_waits_apart),
    LISTED(faults, fault_no_barrier),
};
const size_t n_entries = sizeof entries / sizeof *entries;

// Device memory: every buffer, so that pointers can be checked before a launch and edges after it.
struct Buffer {
    Region region;
    Buffer* next;
};
static Buffer* buffers;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static Buffer* holding(const void* at) {
    pthread_mutex_lock(&lock);
    Buffer* b = buffers;
    while (b && !((uint8_t*)at >= b->region.data && (uint8_t*)at <= b->region.data + b->region.bytes)) b = b->next;
    pthread_mutex_unlock(&lock);
    return b;
}

} // namespace emu

using namespace emu;

extern "C" {

// Memory of the emulated device, all bytes 0xff; null if there is none.
void* bitnet_emu_alloc(size_t bytes) {
    Buffer* b = (Buffer*)calloc(1, sizeof(Buffer));
    if (!b || !b->region.map(bytes)) {
        free(b);
        return nullptr;
    }
    b->region.place(bytes);
    pthread_mutex_lock(&lock);
    b->next = buffers;
    buffers = b;
    pthread_mutex_unlock(&lock);
    return b->region.data;
}

void bitnet_emu_free(void* data) {
    pthread_mutex_lock(&lock);
    for (Buffer** at = &buffers; *at; at = &(*at)->next) {
        if ((*at)->region.data != data) continue;
        Buffer* b = *at;
        *at = b->next;
        b->region.unmap();
        free(b);
        break;
    }
    pthread_mutex_unlock(&lock);
}

// The i-th entry's name, null behind the last.
const char* bitnet_emu_entry(size_t i) { return i < n_entries ? entries[i].name : nullptr; }

// 0 if all went well; else `text` (at least 1 byte) says what was wrong. `kinds` are those of `args`. If the launch `overlaps`
// earlier ones, argument i may be read before the kernel waits for them where bit i of `early` is 1.
int bitnet_emu_launch(const char* name, const uint32_t* grid, const uint32_t* block, uint32_t shared, void** args,
                      const char* kinds, uint32_t order, uint32_t skip, uint32_t overlaps, uint64_t early, char* text,
                      size_t len) {
    const Entry* entry = nullptr;
    for (const Entry& e : entries)
        if (strcmp(e.name, name) == 0) entry = &e;
    if (!entry) {
        snprintf(text, len, "%s: no such entry", name);
        return 1;
    }
    if (strcmp(entry->kinds, kinds) != 0) {
        snprintf(text, len, "%s: takes the arguments `%s`, given `%s`", name, entry->kinds, kinds);
        return 1;
    }
    Region* late[64];
    size_t n_late = 0;
    for (size_t i = 0; kinds[i]; i++) {
        const void* at = kinds[i] == 'p' ? *(void**)args[i] : nullptr;
        Buffer* buffer = at ? holding(at) : nullptr;
        if (at && !buffer) {
            snprintf(text, len, "%s: argument %zu points to no buffer", name, i);
            return 1;
        }
        if (!buffer || !overlaps || (i < 64 && early >> i & 1)) continue;
        if (n_late == 64) {
            snprintf(text, len, "%s: too many arguments", name);
            return 1;
        }
        late[n_late++] = &buffer->region;
    }
    Launch launch = {entry, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared, args, order, skip,
                     overlaps != 0, late, n_late};
    if (!run(launch, text, len)) return 1;
    for (size_t i = 0; kinds[i]; i++) {
        const void* at = kinds[i] == 'p' ? *(void**)args[i] : nullptr;
        if (at && !holding(at)->region.intact()) {
            snprintf(text, len, "%s: a write beside the buffer of argument %zu", name, i);
            return 1;
        }
    }
    return 0;
}
}
