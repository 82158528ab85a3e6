// Our names for the nodes of a reference's graph.
//
// A step is named after the weights that it uses, which are the same in every vintage; only what uses no weight is known
// by the name that the graph gives it, or by what it is computed from.
#ifndef STEPS_H
#define STEPS_H

#include "ggml.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

namespace steps {

inline bool ends_with(const std::string & text, const std::string & end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// "ffn_inp-3" -> "ffn_inp", 3; a name without a layer -> the name, -1.
inline std::pair<std::string, int> split(const std::string & name) {
    const size_t dash = name.rfind('-');
    if (dash == std::string::npos || dash + 1 == name.size() ||
        name.find_first_not_of("0123456789", dash + 1) != std::string::npos) {
        return {name, -1};
    }
    return {name.substr(0, dash), std::atoi(name.c_str() + dash + 1)};
}

// "blk.3.attn_q.weight" -> "blk.3.attn_q", if the name ends so.
inline std::string without(const ggml_tensor * tensor, const std::string & end) {
    const std::string name = tensor ? tensor->name : "";
    return ends_with(name, end) ? name.substr(0, name.size() - end.size()) : std::string();
}

inline std::string of_weight(const ggml_tensor * tensor) { return without(tensor, ".weight"); }

// A name with another end, if it ends so.
inline std::string renamed(const std::string & name, const std::string & end, const std::string & other) {
    return ends_with(name, end) ? name.substr(0, name.size() - end.size()) + other : name;
}

// The norms, but for those behind attention and the feed-forward part, are named as their weights are.
inline std::string of_norm(const std::string & weight) {
    return renamed(renamed(weight, "post_attention_norm", "attn_post_norm"), "post_ffw_norm", "ffn_post_norm");
}

// Rows of the embedding, as the text's tokens choose them.
inline bool looks_up(const ggml_tensor * t, const char * table) {
    return t && t->op == GGML_OP_GET_ROWS && of_weight(t->src[0]) == table;
}

inline bool of_tokens(const ggml_tensor * t) {
    // Today's graph looks up a second time, for batches that are partly vectors.
    return looks_up(t, "token_embd") && std::strcmp(t->src[1]->name, "inp_tokens") == 0;
}

// What a node works on: the last block chooses rows in between.
inline const ggml_tensor * input(const ggml_tensor * t) {
    const ggml_tensor * from = t->src[0];
    while (from && (from->op == GGML_OP_GET_ROWS || from->op == GGML_OP_RESHAPE || from->op == GGML_OP_VIEW ||
                    from->op == GGML_OP_CONT) && of_weight(from->src[0]).empty()) {
        from = from->src[0];
    }
    return from;
}

// A product with one number.
inline std::string of_scale(const ggml_tensor * t) {
    const ggml_tensor * from = input(t);
    if (!from) {
        return "";
    }
    if (from->op == GGML_OP_ROPE) {
        const auto [name, layer] = split(from->name);
        return name == "Qcur" ? "blk." + std::to_string(layer) + ".attn_q_scale" : "";
    }
    if (of_tokens(from)) {
        return "embd_scale";
    }
    const std::string step = from->op == GGML_OP_MUL_MAT ? of_weight(from->src[0]) : "";
    for (const auto & [product, scaled] : {std::pair("attn_output", "attn_output_scale"), std::pair("ffn_down", "ffn_scale")}) {
        if (ends_with(step, std::string(".") + product)) {
            return renamed(step, product, scaled);
        }
    }
    return "";
}

// Our name of a step, or nothing.
inline std::string step_of(const ggml_tensor * t) {
    // The logits, scaled if the graph does so: not always the product itself.
    if (std::strcmp(t->name, "result_output") == 0) {
        return "output";
    }
    const auto [name, layer] = split(t->name);
    switch (t->op) {
        case GGML_OP_MUL_MAT: {
            const std::string step = of_weight(t->src[0]);
            return step == "token_embd" || step == "output" ? "" : step;
        }
        case GGML_OP_GET_ROWS:
            return of_tokens(t) ? "token_embd" : "";
        case GGML_OP_MUL: {
            const std::string norm = of_weight(t->src[1]);
            // A norm with a bias is its sum with it.
            if (ends_with(norm, "_norm")) {
                return name == "norm_w" ? "" : of_norm(norm);
            }
            if (std::strcmp(t->src[1]->name, "inp_scale_rows") == 0 && of_tokens(input(t))) {
                return "embd_scale";
            }
            break;
        }
        case GGML_OP_SCALE:
            return std::strcmp(t->name, "lmhead_scaling") == 0 ? "output_scale" : of_scale(t);
        case GGML_OP_ADD: {
            const std::string bias = without(t->src[1], ".bias");
            if (!bias.empty()) {
                return ends_with(bias, "_norm") ? of_norm(bias) : bias + "_bias";
            }
            if (looks_up(t->src[1], "position_embd")) {
                return "position_embd";
            }
            break;
        }
        default:
            break;
    }
    if (layer < 0) {
        return "";
    }
    const std::string block = "blk." + std::to_string(layer) + ".";
    if (t->op == GGML_OP_ROPE) {
        return name == "Qcur" ? block + "attn_q_rope" : name == "Kcur" ? block + "attn_k_rope" : "";
    }
    if (t->op == GGML_OP_ADD) {
        return name == "ffn_inp" || name == "sa_out" ? block + "attn_residual"
               : name == "l_out"                     ? block + "ffn_residual"
               : name == "ffn_moe_out"               ? block + "ffn_experts"
                                                     : "";
    }
    if (name == "kqv_out" || name == "kqv_merged_cont") {
        return block + "attn";
    }
    // The activation, gated or not: ffn_sub_out in `bitnet`, otherwise by its kind.
    for (const char * act : {"ffn_sub_out", "ffn_gate_par", "ffn_swiglu", "ffn_reglu", "ffn_geglu", "ffn_gelu"}) {
        if (name == act) {
            return block + "ffn_act";
        }
    }
    return "";
}

// Whether heads are a dimension of their own: around RoPE.
inline bool by_heads(const ggml_tensor * t, const std::string & step) {
    return t->op == GGML_OP_ROPE || ends_with(step, ".attn_q_norm") || ends_with(step, ".attn_k_norm") ||
           ends_with(step, ".attn_q_scale");
}

} // namespace steps

#endif
