"""Holds families.py against HuggingFace transformers on tiny random models.  Not part of CI: it needs torch.

    pip install torch transformers gguf numpy
    TORCHDYNAMO_DISABLE=1 python against_transformers.py

Each case makes a model of transformers from a seed, writes its weights as a GGUF file, and compares all logits (or the
last token's vector) of one sequence.  Ours is float64, theirs float32, so differences near 1e-6 are roundings.  A case
of int8 activations may differ by more where one value is rounded to the other side.

What transformers does not have is tried in the nearest shape: MiniCPM as Granite (the same three factors, its logit
scale divides too), Maple as Qwen3-MoE (no clamp, every block local, so with positions), BitNet embeddings as Qwen3 and
Gemma3 with AutoBitLinear and its RMS norm before each matrix.
"""
import os
import tempfile
from importlib.metadata import version

import gguf
import numpy as np
import torch
import transformers as tf
from transformers.integrations.bitnet import AutoBitLinear, WeightQuant

import families
import formulas as fm
import gguf_blocks
import gguf_write as gw
import tiny

tf.logging.set_verbosity_error()
EPS, LIMIT = 1e-6, {"float": 2e-5, "int8-token": 2e-2}  # the largest difference allowed, as a part of the largest logit
SIZES = dict(vocab_size=tiny.VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, head_dim=24, rms_norm_eps=EPS, tie_word_embeddings=False,
             max_position_embeddings=tiny.CONTEXT, attn_implementation="eager", pad_token_id=None)
WIDE = dict(hidden_size=256, intermediate_size=384, head_dim=64)  # I2_S wants rows of whole 128s
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "self_attn.attn_sub_norm": "attn_sub_norm", "mlp.ffn_sub_norm": "ffn_sub_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "mlp.gate": "ffn_gate_inp", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
GEMMA = NAMES | {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                 "post_feedforward_layernorm": "post_ffw_norm"}
GPT2 = {"attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
        "ln_1": "attn_norm", "ln_2": "ffn_norm"}
TOP = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output",
       "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}


def interleaved(w, heads):
    """Rows of q or k for pairs 2i, 2i + 1 out of rows for pairs i, i + d / 2."""
    return w.reshape(heads, 2, -1, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def tensors(model, arch):
    """The state of a transformers model under GGUF names."""
    names, out, c = {"gemma3": GEMMA, "gpt2": GPT2}.get(arch, NAMES), {}, model.config
    for key, value in model.state_dict().items():
        w = value.detach().numpy().astype(np.float32)
        if key == "lm_head.weight" and c.tie_word_embeddings:
            continue
        key = key.removeprefix("model.").removeprefix("transformer.")
        if not key.startswith(("layers.", "h.")):
            module, kind = key.rsplit(".", 1)
            name = TOP[module]
        elif ".experts." in key:
            block = f"blk.{key.split('.')[1]}."
            if key.endswith("down_proj"):
                out[block + "ffn_down_exps.weight"] = w
            else:
                out[block + "ffn_gate_exps.weight"], out[block + "ffn_up_exps.weight"] = np.split(w, 2, 1)
            continue
        else:
            _, i, rest = key.split(".", 2)
            module, kind = rest.rsplit(".", 1)
            before = module.endswith(".rms_norm")
            name = f"blk.{i}.{names[module.removesuffix('.rms_norm')]}" + "_norm_in" * before
            if kind == "weight" and isinstance(model.get_submodule(f"model.layers.{i}.{module}" if arch != "gpt2" else
                                               f"transformer.h.{i}.{module}"), AutoBitLinear):
                w = WeightQuant.apply(value).detach().numpy()
            if arch == "gpt2" and w.ndim == 2:
                w = w.T
            if arch == "gemma3" and w.ndim == 1 and not before:
                w = w + 1
            if arch in ("llama", "minicpm") and name.endswith(("attn_q", "attn_k")):
                w = interleaved(w, c.num_attention_heads if name.endswith("attn_q") else c.num_key_value_heads)
        if arch == "gemma3" and name == "output_norm":
            w = w + 1
        out[f"{name}.{kind}"] = np.ascontiguousarray(w)
    return out


def compare(title, arch, model, keys, extra=None, length=24, activations="float", context=None, vector=False, kind=gw.F32):
    """Prints and checks the largest difference of one case; keys: what tiny.shape does not say of the model."""
    c = model.config
    gpt2 = arch == "gpt2"
    base, _ = tiny.shape(arch, c.hidden_size, c.num_attention_heads, None if gpt2 else c.num_key_value_heads,
                         None if gpt2 else c.head_dim, None if gpt2 else c.intermediate_size, c.num_hidden_layers)
    base = {k: v for k, v in base.items() if v is not None} | keys
    if gpt2:
        base["feed_forward_length"] = 4 * c.hidden_size
    weights = tensors(model, arch) | (extra or {})
    ids = np.random.default_rng(7).integers(0, tiny.VOCAB, length).tolist()
    in_block = lambda name: name.startswith("blk.") and weights[name].ndim > 1
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = os.path.join(folder, "m.gguf")
        tiny.save(path, arch, base, weights, lambda name: kind if in_block(name) else gw.F32)
        ours = families.Model(path, activations, context)
        if vector:
            a = ours.embedding(ids, "last")
            y = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
            b = torch.nn.functional.normalize(y, dim=-1).numpy()
        else:
            a, b = ours.logits(ids), model(torch.tensor([ids])).logits[0].numpy()
    part = np.abs(a - b).max() / np.abs(b).max()
    rms = np.sqrt(np.mean((a - b) ** 2) / np.mean(b ** 2))
    print(f"{title:46} largest difference {np.abs(a - b).max():.2e} of {np.abs(b).max():.2f} "
          f"({part:.1e}), rms {rms:.1e}", flush=True)
    return part <= LIMIT[activations]


def formats():
    """The decoders of blocks against the PyPI package gguf, on random bytes."""
    rng = np.random.default_rng(5)
    for kind, (name, width, size, decode) in gguf_blocks.BLOCKS.items():
        if name not in gguf.GGMLQuantizationType.__members__ or gguf.GGMLQuantizationType[name] != kind:
            print(f"{name}: the package gguf {version('gguf')} does not have it")
            continue
        raw = rng.integers(0, 256, (64, size), np.uint8)
        ours = decode(raw)
        try:
            theirs = gguf.dequantize(raw.reshape(-1), gguf.GGMLQuantizationType(kind)).reshape(ours.shape)
        except NotImplementedError:
            print(f"{name}: the package gguf {version('gguf')} does not decode it")
            continue
        usable = np.isfinite(theirs) & np.isfinite(ours)  # random scales are now and then no number
        error = np.abs(np.where(usable, ours - theirs, 0)).max() / np.abs(theirs[usable]).max()
        print(f"{name:8} largest difference {error:.1e} of the largest weight, {usable.mean():.0%} of the weights compared")
        yield error < 1e-6 and usable.mean() > 0.8


def build(kind, config):
    torch.manual_seed(3)
    model = getattr(tf, kind)(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():  # norms and biases that are not all 1 or 0, matrices that matter
            centre = 1.0 if p.ndim == 1 and ("norm" in name or "ln_" in name and "weight" in name) and "Gemma3" not in kind else 0.0
            p.copy_(centre + torch.randn_like(p) * (0.1 if p.ndim == 1 else p.shape[-1] ** -0.5))
    return model


def bit_linear(model):
    """Every matrix of a block becomes BitNet's: RMS norm, int8 activations, ternary weights."""
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and ".layers." in "." + name:
            new = AutoBitLinear(module.in_features, module.out_features, module.bias is not None, online_quant=True,
                                use_rms_norm=True, rms_norm_eps=EPS)
            with torch.no_grad():
                new.weight.copy_(module.weight)
                new.rms_norm.weight.copy_(1 + 0.1 * torch.randn(module.in_features))
            model.set_submodule(name, new)
    return model.eval()


def rope(kind, theta=10000.0, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


def cases():
    gpt2 = tf.GPT2Config(vocab_size=tiny.VOCAB, n_embd=64, n_layer=3, n_head=4, n_positions=tiny.CONTEXT,
                         attn_implementation="eager", tie_word_embeddings=True)
    yield compare("gpt2: GPT2LMHeadModel", "gpt2", build("GPT2LMHeadModel", gpt2), {})

    qwen2 = tf.Qwen2Config(**{k: v for k, v in SIZES.items() if k != "head_dim"}, **rope("default", 1e6))
    qwen2.head_dim = 16
    yield compare("qwen2: Qwen2ForCausalLM", "qwen2", build("Qwen2ForCausalLM", qwen2), {"rope.freq_base": 1e6})
    yield compare("qwen3: Qwen3ForCausalLM", "qwen3",
                  build("Qwen3ForCausalLM", tf.Qwen3Config(**SIZES, **rope("default", 1e6))), {"rope.freq_base": 1e6})
    yield compare("qwen3, yarn 4 x 16, 40 tokens", "qwen3", build("Qwen3ForCausalLM", tf.Qwen3Config(**SIZES, **rope(
        "yarn", factor=4.0, original_max_position_embeddings=16))), yarn(4.0, 16), length=40)

    llama = lambda **r: build("LlamaForCausalLM", tf.LlamaConfig(**SIZES, **r))
    yield compare("llama: LlamaForCausalLM, heads of 24", "llama", llama(**rope("default")), {})
    yield compare("llama, linear 4", "llama", llama(**rope("linear", factor=4.0)),
                  {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0})
    # Base 100 puts the corners of the ramp inside the head; with base 10000 and 16 positions it is nearly flat.
    for base, original, factor in ((10000.0, 16, 4.0), (100.0, 1024, 4.0), (10000.0, 4096, 8.0)):
        yield compare(f"llama, yarn {factor} x {original}, base {base:.0f}, 40 tokens", "llama", llama(**rope(
            "yarn", base, factor=factor, original_max_position_embeddings=original)),
            yarn(factor, original) | {"rope.freq_base": base}, length=40)
    for scale in (dict(low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192),
                  dict(low_freq_factor=1.0, high_freq_factor=3.0, original_max_position_embeddings=200)):
        factors = fm.llama3_factors(fm.frequencies(24, 10000), 8, *scale.values()).astype(np.float32)
        yield compare(f"llama, llama3 8 x {scale['original_max_position_embeddings']}", "llama",
                      llama(**rope("llama3", factor=8.0, **scale)), {}, {"rope_freqs.weight": factors}, length=40)
    short, long = np.linspace(1, 1.4, 12).astype(np.float32), np.linspace(1, 5, 12).astype(np.float32)
    magnitude = float(np.sqrt(1 + np.log(tiny.CONTEXT / 16) / np.log(16)))
    config = rope("longrope", short_factor=short.tolist(), long_factor=long.tolist(), factor=tiny.CONTEXT / 16,
                  original_max_position_embeddings=16)
    for length, context, name in ((12, 16, "short"), (40, 64, "long")):
        yield compare(f"llama, longrope of {name} factors, {length} tokens", "llama", llama(**config),
                      {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 16,
                       "rope.scaling.attn_factor": magnitude},
                      {"rope_factors_short.weight": short, "rope_factors_long.weight": long}, length, context=context)

    granite = tf.GraniteConfig(**SIZES, **rope("default"), embedding_multiplier=12.0, residual_multiplier=0.8,
                               logits_scaling=0.25, attention_multiplier=24 ** -0.5)
    granite.head_dim = 24
    yield compare("minicpm: GraniteForCausalLM", "minicpm", build("GraniteForCausalLM", granite), {})

    for scaling, keys in ((dict(rope_type="default"), {}),
                          (dict(rope_type="linear", factor=8.0), {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0})):
        parameters = {"full_attention": dict(rope_theta=1e6, **scaling),
                      "sliding_attention": dict(rope_type="default", rope_theta=1e4)}
        config = lambda **sizes: tf.Gemma3TextConfig(
            **SIZES | {"tie_word_embeddings": True} | sizes, sliding_window=4, rope_parameters=parameters,
            query_pre_attn_scalar=sizes.get("head_dim", 24),
            layer_types=["sliding_attention", "full_attention", "sliding_attention"])
        yield compare(f"gemma3: Gemma3ForCausalLM, window 4, {scaling['rope_type']}", "gemma3",
                      build("Gemma3ForCausalLM", config()), keys)

    bitnet = tf.BitNetConfig(**SIZES | WIDE | {"tie_word_embeddings": True}, hidden_act="relu2", **rope("default", 5e5))
    yield compare("bitnet-b1.58: BitNetForCausalLM, float", "bitnet-b1.58", build("BitNetForCausalLM", bitnet),
                  {"rope.freq_base": 5e5})

    moe = tf.Qwen3MoeConfig(**SIZES, **rope("default"), num_experts=4, num_experts_per_tok=2, norm_topk_prob=True,
                            moe_intermediate_size=96, decoder_sparse_step=1, mlp_only_layers=[])
    yield compare("maple: Qwen3MoeForCausalLM", "maple", build("Qwen3MoeForCausalLM", moe),
                  {"swiglu_clamp_exp": [0.0] * 3, "attention.sliding_window": 1000,
                   "attention.sliding_window_pattern": [True] * 3})

    embedding = dict(activations="int8-token", vector=True, kind=gw.I2_S)
    yield compare("qwen3 embedding, I2_S: AutoBitLinear", "qwen3", bit_linear(build(
        "Qwen3ForCausalLM", tf.Qwen3Config(**SIZES | WIDE, **rope("default", 1e6)))), {"rope.freq_base": 1e6}, **embedding)
    yield compare("gemma3 embedding, I2_S: AutoBitLinear", "gemma3",
                  bit_linear(build("Gemma3ForCausalLM", config(**WIDE))), keys, **embedding)


def yarn(factor, original):
    return {"rope.scaling.type": "yarn", "rope.scaling.factor": factor, "rope.scaling.original_context_length": original}


def main():
    print(f"torch {torch.__version__}, transformers {tf.__version__}, gguf {version('gguf')}")
    results = [*formats(), *cases()]
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    raise SystemExit(not all(results))


if __name__ == "__main__":
    main()
