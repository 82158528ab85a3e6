// A reference behind the C interface of shim.h.

#include "shim.h"
#include "steps.h"
#include "vintage.h"

#include "ggml.h"
#include "ggml-backend.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// Physical batch: bounds the compute buffers, whose logits alone are 256 MiB for 512 tokens of a vocabulary of 128 Ki.
constexpr int32_t LARGEST_BATCH = 512;
constexpr int32_t LONGEST_DEFAULT_CONTEXT = 4096;

llama_model * model = nullptr;
llama_context * ctx = nullptr;
std::string error;

struct trace_state {
    bool active = false;
    shim_wants wants = nullptr;
    shim_takes takes = nullptr;
    void * user = nullptr;
    std::string problem;
    std::vector<float> values;
} trace;

// ggml asks about every node first (ask), and shows those that were wanted after computing them.
bool on_eval(ggml_tensor * t, bool ask, void *) {
    if (!trace.active || !trace.problem.empty()) {
        return !ask;
    }
    const std::string step = steps::step_of(t);
    if (step.empty() || !trace.wants(trace.user, step.c_str())) {
        return !ask;
    }
    if (ask) {
        return true;
    }
    if (t->type != GGML_TYPE_F32 || !ggml_is_contiguous(t) || t->ne[3] != 1) {
        trace.problem = step + " (" + t->name + ") is not a plain f32 matrix";
        return true;
    }
    const bool heads = steps::by_heads(t, step);
    const int64_t width = heads ? t->ne[0] * t->ne[1] : t->ne[0];
    const int64_t rows = heads ? t->ne[2] : t->ne[1] * t->ne[2];
    trace.values.resize(static_cast<size_t>(width * rows));
    ggml_backend_tensor_get(t, trace.values.data(), 0, ggml_nbytes(t));
    trace.takes(trace.user, step.c_str(), t->name, ggml_op_name(t->op), rows, width, trace.values.data());
    return true;
}

template <typename F> int32_t guard(F body) {
    try {
        error.clear();
        return body();
    } catch (const std::exception & e) {
        error = e.what();
    } catch (...) {
        error = "an exception that is no std::exception";
    }
    return -1;
}

double now() {
    const auto time = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(time).count();
}

void release() {
    if (ctx) {
        llama_free(ctx);
        ctx = nullptr;
    }
    if (model) {
        vintage::release(model);
        model = nullptr;
    }
}

// A batch that frees itself.
struct batch {
    llama_batch raw;
    explicit batch(int32_t size) : raw(llama_batch_init(size, 0, 1)) {}
    ~batch() { llama_batch_free(raw); }
    batch(const batch &) = delete;
    batch & operator=(const batch &) = delete;

    void add(llama_token id, llama_pos position, bool output) {
        const int32_t i = raw.n_tokens++;
        raw.token[i] = id;
        raw.pos[i] = position;
        raw.n_seq_id[i] = 1;
        raw.seq_id[i][0] = 0;
        raw.logits[i] = output;
    }

    void decode() {
        const int32_t code = llama_decode(ctx, raw);
        if (code != 0) {
            throw std::runtime_error("llama_decode returned " + std::to_string(code));
        }
    }
};

// Runs a sequence from an empty cache; `row(position, logits)` for every token with an output.
template <typename Wanted, typename Row>
void run(const int32_t * ids, int32_t count, int32_t chunk, Wanted wanted, Row row) {
    if (!ctx) {
        throw std::runtime_error("no context");
    }
    vintage::clear(ctx);
    chunk = std::max(1, std::min(chunk, LARGEST_BATCH));
    batch part(chunk);
    for (int32_t start = 0; start < count; start += chunk) {
        part.raw.n_tokens = 0;
        const int32_t end = std::min(count, start + chunk);
        for (int32_t i = start; i < end; ++i) {
            part.add(ids[i], i, wanted(i));
        }
        part.decode();
        for (int32_t i = start; i < end; ++i) {
            if (!wanted(i)) {
                continue;
            }
            const float * logits = llama_get_logits_ith(ctx, i - start);
            if (!logits) {
                throw std::runtime_error("no logits of position " + std::to_string(i));
            }
            row(i, logits);
        }
    }
}

llama_token best(const float * logits, int32_t size) {
    // The first of equals.
    return static_cast<llama_token>(std::max_element(logits, logits + size) - logits);
}

} // namespace

void shim_start(shim_log log) {
    static shim_log sink;
    sink = log;
    llama_log_set(
        [](ggml_log_level level, const char * text, void *) {
            // The numbers of the levels differ between the vintages.
            static bool notable = false, detail = false;
            if (level != GGML_LOG_LEVEL_CONT) {
                notable = level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR;
                detail = level == GGML_LOG_LEVEL_DEBUG;
            }
            // Details would push what matters out of the last lines.
            if (!detail) {
                sink(notable, text);
            }
        },
        nullptr);
    llama_backend_init();
}

const char * shim_error(void) { return error.c_str(); }

const char * shim_system(void) { return llama_print_system_info(); }

int32_t shim_load(const char * path, int32_t context, int32_t vocab_only, int32_t cache_f32, int32_t threads,
                  shim_info * info) {
    return guard([&]() -> int32_t {
        release();
        llama_model_params model_params = llama_model_default_params();
        model_params.n_gpu_layers = 0;
        model_params.vocab_only = vocab_only != 0;
        model = vintage::load(path, model_params);
        if (!model) {
            throw std::runtime_error("it cannot load the file");
        }
        *info = {};
        if (!vocab_only) {
            if (context <= 0) {
                context = std::min(vintage::trained(model), LONGEST_DEFAULT_CONTEXT);
            }
            llama_context_params params = llama_context_default_params();
            params.n_ctx = context;
            params.n_batch = params.n_ubatch = std::min(context, LARGEST_BATCH);
            params.n_threads = params.n_threads_batch = threads;
            params.cb_eval = on_eval;
            if (cache_f32) {
                params.type_k = params.type_v = GGML_TYPE_F32;
            }
            vintage::no_flash(params);
            ctx = vintage::context(model, params);
            if (!ctx) {
                release();
                throw std::runtime_error("it cannot make a context of " + std::to_string(context) + " tokens");
            }
            info->context = context;
        }
        info->vocab = vintage::vocab_size(model);
        info->layers = vintage::layers(model);
        info->width = vintage::width(model);
        info->heads = vocab_only ? 0 : vintage::heads(model);
        info->kv_heads = vocab_only ? 0 : vintage::kv_heads(model);
        info->bos = vintage::bos(model);
        info->eos = vintage::eos(model);
        info->add_bos = vintage::add_bos(model);
        const std::string file_type = vintage::meta(model, "general.file_type");
        info->file_type = file_type.empty() ? -1 : std::atoi(file_type.c_str());
        info->bytes = llama_model_size(model);
        info->parameters = llama_model_n_params(model);
        llama_model_desc(model, info->description, sizeof(info->description));
        return 0;
    });
}

int32_t shim_tokenize(const char * text, int32_t length, int32_t add_special, int32_t parse_special, int32_t * ids,
                      int32_t room) {
    return guard([&]() -> int32_t {
        const int32_t count =
            llama_tokenize(vintage::vocab(model), text, length, ids, room, add_special != 0, parse_special != 0);
        return count < 0 ? -count : count; // negative: that many would not fit
    });
}

int32_t shim_detokenize(const int32_t * ids, int32_t count, int32_t special, char * text, int32_t room) {
    return guard([&]() -> int32_t {
        const int32_t length =
            llama_detokenize(vintage::vocab(model), ids, count, text, room, false, special != 0);
        return length < 0 ? -length : length;
    });
}

int32_t shim_logits(const int32_t * ids, int32_t count, const uint8_t * wanted, int32_t chunk, float * logits) {
    return guard([&]() -> int32_t {
        const size_t size = vintage::vocab_size(model);
        run(ids, count, chunk, [&](int32_t i) { return wanted[i] != 0; },
            [&](int32_t, const float * row) {
                std::memcpy(logits, row, size * sizeof(float));
                logits += size;
            });
        return 0;
    });
}

int32_t shim_generate(const int32_t * ids, int32_t count, int32_t chunk, int32_t most, int32_t * made,
                      int32_t * made_count, int32_t * ended, double * prompt_seconds, double * decode_seconds) {
    return guard([&]() -> int32_t {
        const int32_t size = vintage::vocab_size(model);
        llama_token next = 0;
        const double start = now();
        run(ids, count, chunk, [&](int32_t i) { return i + 1 == count; },
            [&](int32_t, const float * row) { next = best(row, size); });
        const double middle = now();
        *prompt_seconds = middle - start;
        *made_count = 0;
        *ended = 0;
        batch one(1);
        while (*made_count < most) {
            if (vintage::ends(model, next)) {
                *ended = 1;
                break;
            }
            made[(*made_count)++] = next;
            if (*made_count == most) {
                break;
            }
            one.raw.n_tokens = 0;
            one.add(next, count + *made_count - 1, true);
            one.decode();
            const float * logits = llama_get_logits_ith(ctx, 0);
            if (!logits) {
                throw std::runtime_error("no logits of a new token");
            }
            next = best(logits, size);
        }
        *decode_seconds = now() - middle;
        return 0;
    });
}

int32_t shim_trace(const int32_t * ids, int32_t count, int32_t chunk, shim_wants wants, shim_takes takes, void * user) {
    trace = {};
    trace.active = true;
    trace.wants = wants;
    trace.takes = takes;
    trace.user = user;
    const int32_t code = guard([&]() -> int32_t {
        // Every token has an output: the last block would otherwise leave rows out.
        run(ids, count, chunk, [](int32_t) { return true; }, [](int32_t, const float *) {});
        if (!trace.problem.empty()) {
            throw std::runtime_error(trace.problem);
        }
        return 0;
    });
    trace = {};
    return code;
}

int32_t shim_provoke(int32_t fault) {
    return guard([&]() -> int32_t {
        switch (fault) {
            case 0:
                GGML_ASSERT(fault != 0 && "provoked");
                break;
            case 1:
                for (;;) {
                    sleep(3600);
                }
            case 2:
                for (int i = 0; i < 20000; ++i) {
                    std::printf("chatter on stdout, line %d\n", i);
                }
                std::fflush(stdout);
                break;
            default:
                throw std::runtime_error("an unknown fault");
        }
        return 0;
    });
}
