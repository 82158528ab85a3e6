// The C interface of a reference: what the worker's Rust side calls, the same over both vintages of llama.h.
// bindgen reads this file, shim.cpp implements it. One model and one context live at a time, in globals: a worker serves
// one client. Functions return 0, or -1 with a message in shim_error(); no exception leaves them.
#ifndef SHIM_H
#define SHIM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// A loaded model. Ids are -1 where the vocabulary has none; file_type is -1 where the file does not say.
struct shim_info {
    int32_t vocab, context, layers, width, heads, kv_heads, bos, eos, add_bos, file_type;
    uint64_t bytes, parameters;
    char description[256];
};

// Takes what the reference logs, a piece of text and not always a whole line; notable: a warning or an error.
typedef void (*shim_log)(int32_t notable, const char * text);
// Whether a step of this name (ours) is wanted.
typedef int32_t (*shim_wants)(void * user, const char * step);
// Takes a step's values, [rows][width], once per batch.
typedef void (*shim_takes)(void * user, const char * step, const char * tensor, const char * op, int64_t rows,
                           int64_t width, const float * values);

// Once, before anything else.
void shim_start(shim_log log);
const char * shim_error(void);
const char * shim_system(void);

// cache_f32: keep keys and values in f32 instead of f16.
int32_t shim_load(const char * path, int32_t context, int32_t vocab_only, int32_t cache_f32, int32_t threads,
                  struct shim_info * info);
// Writes at most `room` ids; returns how many there are, or -1.
int32_t shim_tokenize(const char * text, int32_t length, int32_t add_special, int32_t parse_special, int32_t * ids,
                      int32_t room);
// Writes at most `room` bytes; returns how many there are, or -1.
int32_t shim_detokenize(const int32_t * ids, int32_t count, int32_t special, char * text, int32_t room);
// From an empty cache. wanted[i] != 0: the logits of token i go to `logits`, one row after another.
int32_t shim_logits(const int32_t * ids, int32_t count, const uint8_t * wanted, int32_t chunk, float * logits);
// Greedy, from an empty cache; `made` has room for `most` ids.
int32_t shim_generate(const int32_t * ids, int32_t count, int32_t chunk, int32_t most, int32_t * made,
                      int32_t * made_count, int32_t * ended, double * prompt_seconds, double * decode_seconds);
// From an empty cache, all positions.
int32_t shim_trace(const int32_t * ids, int32_t count, int32_t chunk, shim_wants wants, shim_takes takes, void * user);
// 0: fail an assertion; 1: never return; 2: print to stdout. For tests.
int32_t shim_provoke(int32_t fault);

#ifdef __cplusplus
}
#endif

#endif
