"""Tiny random models of every family, as GGUF files, from a seed.

    python tiny.py --family qwen3 --seed 1 --out tiny-qwen3.gguf

They say nothing sensible.  They are there so that a forward pass can be tried without a download.
"""
import argparse

import numpy as np

import gguf_write as gw

VOCAB, CONTEXT = 96, 64
TYPES = {bool: gw.BOOL, int: gw.U32, float: gw.FLOAT, str: gw.STRING}


def field(key, v):
    """(key, GGUF type, value) of a Python value; a list is an array of its first element's type."""
    if isinstance(v, list):
        return key, gw.ARRAY, (TYPES[type(v[0])], v)
    return key, TYPES[type(v)], v


def save(path, arch, keys, weights, kinds=lambda name: gw.F32, general=None):
    """keys: {name without the architecture: value}.  weights: {tensor name: array}.  kinds: name -> ggml type."""
    fields = [field("general.architecture", arch)] + [field(k, v) for k, v in (general or {}).items()]
    fields += [field(f"{arch}.{k}", v) for k, v in keys.items()]
    tensors = [(name, kinds(name), w.shape, gw.pack(kinds(name), w)) for name, w in weights.items()]
    gw.write(path, fields, tensors)


def shape(arch, width=64, heads=4, kv_heads=2, head_dim=24, ffn=96, layers=3, experts=4):
    """-> (keys, {name: shape}) of a family's model, without rope scaling, `_norm_in` and `.scale`."""
    keys = {"block_count": layers, "context_length": CONTEXT, "embedding_length": width, "feed_forward_length": ffn,
            "attention.head_count": heads, "vocab_size": VOCAB}
    out = {"token_embd.weight": (VOCAB, width), "output_norm.weight": (width,)}
    if arch == "gpt2":
        keys["attention.layer_norm_epsilon"] = 1e-5
        out |= {"position_embd.weight": (CONTEXT, width), "output_norm.bias": (width,)}
        block = {"attn_norm": (width,), "attn_qkv": (3 * width, width), "attn_output": (width, width),
                 "ffn_norm": (width,), "ffn_up": (ffn, width), "ffn_down": (width, ffn)}
        for i in range(layers):
            out |= {f"blk.{i}.{n}.weight": s for n, s in block.items()}
            out |= {f"blk.{i}.{n}.bias": s[:1] for n, s in block.items()}
        return keys, out

    keys |= {"attention.head_count_kv": kv_heads, "attention.layer_norm_rms_epsilon": 1e-6,
             "attention.key_length": head_dim, "attention.value_length": head_dim,
             "rope.dimension_count": head_dim, "rope.freq_base": 10000.0}
    block = {"attn_norm": (width,), "attn_q": (heads * head_dim, width), "attn_k": (kv_heads * head_dim, width),
             "attn_v": (kv_heads * head_dim, width), "attn_output": (width, heads * head_dim), "ffn_norm": (width,)}
    if arch == "maple":
        keys |= {"expert_count": experts, "expert_used_count": 2, "expert_feed_forward_length": ffn,
                 "swiglu_clamp_exp": [7.0] * layers}
        block |= {"ffn_gate_inp": (experts, width), "ffn_gate_exps": (experts, ffn, width),
                  "ffn_up_exps": (experts, ffn, width), "ffn_down_exps": (experts, width, ffn)}
        out["output.weight"] = (VOCAB, width)
    else:
        block |= {"ffn_gate": (ffn, width), "ffn_up": (ffn, width), "ffn_down": (width, ffn)}
    if arch in ("qwen3", "gemma3", "maple"):
        block |= {"attn_q_norm": (head_dim,), "attn_k_norm": (head_dim,)}
    if arch in ("gemma3", "maple"):
        keys |= {"attention.sliding_window": 4}
        keys |= {"attention.sliding_window_pattern": [i % 2 == 0 for i in range(layers)] if arch == "maple" else 2}
    if arch == "gemma3":
        block |= {"post_attention_norm": (width,), "post_ffw_norm": (width,)}
        keys["rope.freq_base"] = 1e6
    if arch.startswith("bitnet"):
        block |= {"attn_sub_norm": (heads * head_dim,), "ffn_sub_norm": (ffn,)}
    if arch == "minicpm":
        keys |= {"embedding_scale": 12.0, "residual_scale": 0.8, "logit_scale": 0.25}
    for i in range(layers):
        out |= {f"blk.{i}.{n}.weight": s for n, s in block.items()}
        if arch == "qwen2":
            out |= {f"blk.{i}.attn_{n}.bias": block[f"attn_{n}"][:1] for n in "qkv"}
    return keys, out


def random_weights(shapes, seed):
    """Norms near 1, biases near 0, matrices with outputs about as large as their inputs."""
    rng, out = np.random.default_rng(seed), {}
    for name, s in shapes.items():
        z = rng.standard_normal(s).astype(np.float32)
        matrix = len(s) > 1
        out[name] = z / np.float32(np.sqrt(s[-1])) if matrix else z * np.float32(0.1) + (not name.endswith("bias"))
    return out


def norm_in(arch, layers=3, **sizes):
    """What BitNet's embedding models have more: a norm before each matrix of a block."""
    keys, shapes = shape(arch, layers=layers, **sizes)
    matrices = [n for n, s in shapes.items() if n.startswith("blk.") and len(s) == 2]
    return keys, shapes | {n.replace(".weight", "_norm_in.weight"): shapes[n][1:] for n in matrices}


def model(path, arch, seed=0, kind=gw.F32, embedding=False, more=None, **sizes):
    """Writes a model; matrices inside blocks are of the given ggml type.  more: further keys.  -> (keys, weights)"""
    keys, shapes = (norm_in if embedding else shape)(arch, **sizes)
    if embedding:
        keys["pooling_type"] = 3
    keys |= more or {}
    weights = random_weights(shapes, seed)
    in_block = lambda name: name.startswith("blk.") and weights[name].ndim > 1 and "gate_inp" not in name
    if kind in (gw.I2_S, gw.TQ2_0, gw.Q2_0):  # a third each of -s, 0, s, with s exact in f16
        rng = np.random.default_rng(seed + 1)
        for name in filter(in_block, weights):
            s = np.float32(np.float16(np.sqrt(1.5 / weights[name].shape[-1])))
            weights[name] = rng.integers(-1, 2, weights[name].shape).astype(np.float32) * s
    save(path, arch, keys, weights, lambda name: kind if in_block(name) else gw.F32)
    return keys, weights


def main():
    kinds = {"f32": gw.F32, "f16": gw.F16, "bf16": gw.BF16, "q8_0": gw.Q8_0, "tq2_0": gw.TQ2_0, "i2_s": gw.I2_S,
             "q2_0": gw.Q2_0}
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--family", required=True, help="architecture, as in families.py")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--quant", choices=kinds, default="f32", help="of the matrices in blocks; 256 wide if not a float")
    ap.add_argument("--embedding", action="store_true", help="with a norm before each matrix, pooled by the last token")
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    wide = {} if a.quant in ("f32", "f16", "bf16") else dict(width=256, head_dim=64, ffn=256)
    model(a.out, a.family, a.seed, kinds[a.quant], a.embedding, **wide)


if __name__ == "__main__":
    main()
