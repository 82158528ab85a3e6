// llama.h of two vintages under one set of names. The build defines SHIM_MEMORY_API where the header has
// llama_memory_clear: today's llama.cpp. Without it: bitnet.cpp's fork of late 2024.
#ifndef VINTAGE_H
#define VINTAGE_H

#include "llama.h"

#include <cstdlib>
#include <string>

namespace vintage {

// A value of the file's metadata, or nothing.
inline std::string meta(const llama_model * model, const std::string & key) {
    char text[256];
    const int32_t length = llama_model_meta_val_str(model, key.c_str(), text, sizeof(text));
    return length < 0 ? std::string() : std::string(text);
}

#ifdef SHIM_MEMORY_API

inline const llama_vocab * vocab(const llama_model * model) { return llama_model_get_vocab(model); }
inline llama_model * load(const char * path, llama_model_params params) { return llama_model_load_from_file(path, params); }
inline void release(llama_model * model) { llama_model_free(model); }
inline llama_context * context(llama_model * model, llama_context_params params) { return llama_init_from_model(model, params); }
inline void clear(llama_context * ctx) { llama_memory_clear(llama_get_memory(ctx), true); }
// Without it attention is separate steps in both vintages, and its result can be traced.
inline void no_flash(llama_context_params & params) { params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED; }
inline int32_t vocab_size(const llama_model * model) { return llama_vocab_n_tokens(vocab(model)); }
inline llama_token bos(const llama_model * model) { return llama_vocab_bos(vocab(model)); }
inline llama_token eos(const llama_model * model) { return llama_vocab_eos(vocab(model)); }
inline bool add_bos(const llama_model * model) { return llama_vocab_get_add_bos(vocab(model)); }
inline bool ends(const llama_model * model, llama_token id) { return llama_vocab_is_eog(vocab(model), id); }
inline int32_t trained(const llama_model * model) { return llama_model_n_ctx_train(model); }
inline int32_t layers(const llama_model * model) { return llama_model_n_layer(model); }
inline int32_t width(const llama_model * model) { return llama_model_n_embd(model); }
inline int32_t heads(const llama_model * model) { return llama_model_n_head(model); }
inline int32_t kv_heads(const llama_model * model) { return llama_model_n_head_kv(model); }

#else

inline const llama_model * vocab(const llama_model * model) { return model; }
inline llama_model * load(const char * path, llama_model_params params) { return llama_load_model_from_file(path, params); }
inline void release(llama_model * model) { llama_free_model(model); }
inline llama_context * context(llama_model * model, llama_context_params params) { return llama_new_context_with_model(model, params); }
inline void clear(llama_context * ctx) { llama_kv_cache_clear(ctx); }
inline void no_flash(llama_context_params & params) { params.flash_attn = false; }
inline int32_t vocab_size(const llama_model * model) { return llama_n_vocab(model); }
inline llama_token bos(const llama_model * model) { return llama_token_bos(model); }
inline llama_token eos(const llama_model * model) { return llama_token_eos(model); }
inline bool add_bos(const llama_model * model) { return llama_add_bos_token(model); }
inline bool ends(const llama_model * model, llama_token id) { return llama_token_is_eog(model, id); }
inline int32_t trained(const llama_model * model) { return llama_n_ctx_train(model); }
inline int32_t layers(const llama_model * model) { return llama_n_layer(model); }
inline int32_t width(const llama_model * model) { return llama_n_embd(model); }
inline int32_t heads(const llama_model * model) { return llama_n_head(model); }
inline int32_t kv_heads(const llama_model * model) {
    // This vintage has no call for it; a file without the key has as many as heads.
    const std::string text = meta(model, meta(model, "general.architecture") + ".attention.head_count_kv");
    return text.empty() ? heads(model) : std::atoi(text.c_str());
}

#endif

} // namespace vintage

#endif
