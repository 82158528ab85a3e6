"""An independent forward pass of every model family, from a GGUF file, in numpy and float64.

    python families.py --model M.gguf --ids 1,2,3 --out X.json
    python families.py --model M.gguf --ids 1,2,3 --activations int8-token --record ../reference/numpy --name M --quant Q

It shares no code with the engine and is written to be read: the graph is below, the formulas are in `formulas.py`, the
weight formats in `gguf_blocks.py`.  No cache, no batches: one call computes all positions of one sequence.
"""
import argparse
import base64
import hashlib
import json
import math
import os

import numpy as np

import formulas as fm
import gguf_read

# rope: which channels form a pair.  act: of the gate.  The rest: what the graph has more than Llama's.
FAMILIES = {
    "gpt2": {},  # has its own block
    "llama": dict(rope="norm", act=fm.silu),
    "minicpm": dict(rope="norm", act=fm.silu, scaled=True),
    "qwen2": dict(rope="neox", act=fm.silu),
    "qwen3": dict(rope="neox", act=fm.silu, head_norms=True),
    "gemma3": dict(rope="neox", act=fm.gelu, head_norms=True, post_norms=True, window=True),
    "maple": dict(rope="neox", head_norms=True, window=True, experts=True),
    "bitnet": dict(rope="neox", act=fm.silu, sub_norms=True),
    "bitnet-b1.58": dict(rope="neox", act=fm.relu2, sub_norms=True),
    "bitnet-25": dict(rope="neox", act=fm.relu2, sub_norms=True),
}
POOLINGS = {1: "mean", 2: "cls", 3: "last"}
OPTIONAL = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight", "output.weight")
MISSING = object()


class Model:
    """activations: rounding of the input of every matrix in a block (never of a router or the head).

    context: the number of positions that an engine would allocate, which LongRoPE asks for.
    """

    def __init__(self, path, activations="float", context=None):
        self.meta, self.tensors = gguf_read.open_file(path)
        self.arch = self.meta["general.architecture"]
        if self.arch not in FAMILIES:
            raise ValueError(f"architecture {self.arch} is not one of {', '.join(FAMILIES)}")
        family = FAMILIES[self.arch]
        self.has = lambda feature: family.get(feature, False)
        self.pairing, self.act = family.get("rope"), family.get("act")
        self.round, self.used = fm.ROUNDINGS[activations], set()
        if not self.get("attention.causal", True) or self.get("final_logit_softcapping", 0):
            raise ValueError("attention in both directions and logit soft-capping are not computed here")

        self.layers, self.width = self.get("block_count"), self.get("embedding_length")
        self.heads = self.get("attention.head_count")
        self.kv_heads = self.get("attention.head_count_kv", self.heads)
        self.head_dim = self.get("attention.key_length", self.width // self.heads)
        self.eps = self.get("attention.layer_norm_epsilon" if self.arch == "gpt2" else "attention.layer_norm_rms_epsilon")
        self.context = context or self.get("context_length")
        if self.has("scaled"):
            # The logit scale divides.  llama.cpp's default is 256 / width, the inverse of what is meant.
            self.embedding_scale = self.get("embedding_scale", 12)
            self.residual_scale = self.get("residual_scale", 1.4 / math.sqrt(self.layers))
            self.logit_scale = self.get("logit_scale", self.width / 256)
        else:
            self.embedding_scale = math.sqrt(self.width) if self.arch == "gemma3" else 1
            self.residual_scale = self.logit_scale = 1

    def get(self, key, default=MISSING):
        value = self.meta.get(f"{self.arch}.{key}", default)
        if value is MISSING:
            raise ValueError(f"the key {self.arch}.{key} is missing")
        return value

    # ---- weights

    def weight(self, name):
        if name not in self.tensors:
            raise ValueError(f"the tensor {name} is missing")
        self.used.add(name)
        return self.tensors[name].decode().astype(np.float64)

    def optional(self, name):
        return self.weight(name) if name in self.tensors else None

    def norm(self, x, name):
        if self.arch == "gpt2":
            return fm.layer_norm(x, self.weight(name + ".weight"), self.weight(name + ".bias"), self.eps)
        return fm.rms_norm(x, self.weight(name + ".weight"), self.eps)

    def linear(self, x, name, rounding=None):
        """x [T, in] -> [T, out]: the matrix `name.weight` [out, in], and what the file has beside it.

        `name_norm_in.weight`: an RMS norm before the rounding (BitNet embeddings).  `name.scale`: multiplies the
        product.  `name.bias`: added at the end.
        """
        before, scale = self.optional(name + "_norm_in.weight"), self.optional(name + ".scale")
        bias = self.optional(name + ".bias")
        if before is not None:
            x = fm.rms_norm(x, before, self.eps)
        y = (rounding or self.round)(x) @ self.weight(name + ".weight").T
        y = y if scale is None else y * scale
        return y if bias is None else y + bias

    # ---- positions

    def is_local(self, block):
        """Whether a block sees only a window."""
        if not self.has("window") or not self.get("attention.sliding_window", 0):
            return False
        pattern = self.get("attention.sliding_window_pattern", MISSING if self.arch == "maple" else 6)
        if isinstance(pattern, list):
            return bool(pattern[block])
        return block % pattern < pattern - 1

    def rope(self, block):
        """-> (radians a position of each pair, what cos and sin are multiplied by), or None: no positions."""
        if self.arch == "maple" and not self.is_local(block):
            return None
        n_rot, base = self.get("rope.dimension_count", self.head_dim), self.get("rope.freq_base", 10000)
        if self.is_local(block):
            if self.arch == "gemma3":  # never scaled
                return fm.frequencies(n_rot, self.get("rope.freq_base_swa", 10000)), 1
            base = self.get("rope.freq_base_swa", base)
        freq, magnitude = fm.frequencies(n_rot, base), self.get("rope.scaling.attn_factor", 1)
        kind = self.get("rope.scaling.type", "linear")
        factor = self.get("rope.scaling.factor", self.get("rope.scale_linear", 1)) or 1
        original = self.get("rope.scaling.original_context_length", self.get("context_length"))
        divisors = "rope_freqs.weight"
        if kind == "longrope":
            divisors = f"rope_factors_{'long' if self.context > original else 'short'}.weight"
            freq = freq / self.weight(divisors)
        elif divisors in self.tensors:
            freq = freq / self.weight(divisors)
        if kind == "linear":
            freq = freq / factor
        elif kind == "yarn":
            freq = fm.yarn(freq, n_rot, base, factor, original)
            magnitude *= fm.yarn_magnitude(factor)
        elif kind not in ("none", "longrope"):
            raise ValueError(f"rope scaling {kind} is not computed here")
        return freq, magnitude

    # ---- the graph

    def self_attention(self, x, block):
        """x [T, C], normed -> [T, C]"""
        b = f"blk.{block}."
        if self.arch == "gpt2":  # the rows of the fused matrix: all of q, then k, then v
            q, k, v = np.split(self.linear(x, b + "attn_qkv"), 3, -1)
        else:
            q, k, v = (self.linear(x, b + name) for name in ("attn_q", "attn_k", "attn_v"))
        by_head = lambda z, heads: z.reshape(len(z), heads, -1).swapaxes(0, 1)  # -> [heads, T, d]
        q, k, v = by_head(q, self.heads), by_head(k, self.kv_heads), by_head(v, self.kv_heads)
        if self.has("head_norms"):
            q, k = self.norm(q, b + "attn_q_norm"), self.norm(k, b + "attn_k_norm")
        turn = self.rope(block) if self.pairing else None
        if turn is not None:
            q, k = fm.rotate(q, *turn, self.pairing), fm.rotate(k, *turn, self.pairing)
        y = fm.attention(q, k, v, self.get("attention.sliding_window") if self.is_local(block) else None)
        if self.has("sub_norms"):
            y = self.norm(y, b + "attn_sub_norm")
        return self.linear(y, b + "attn_output")

    def feed_forward(self, x, block):
        """x [T, C], normed -> [T, C]"""
        b = f"blk.{block}."
        if self.arch == "gpt2":
            return self.linear(fm.gelu(self.linear(x, b + "ffn_up")), b + "ffn_down")
        if self.has("experts"):
            return self.experts(x, block)
        y = self.act(self.linear(x, b + "ffn_gate")) * self.linear(x, b + "ffn_up")
        if self.has("sub_norms"):
            y = self.norm(y, b + "ffn_sub_norm")
        return self.linear(y, b + "ffn_down")

    def experts(self, x, block):
        b = f"blk.{block}."
        limit = self.get("swiglu_clamp_exp")
        limit = limit[block] if isinstance(limit, list) else limit
        count = self.get("expert_count")
        matrices, scales = {}, {}
        for name in ("gate", "up", "down"):
            matrices[name] = self.weight(f"{b}ffn_{name}_exps.weight")  # [experts, out, in]
            scale = self.optional(f"{b}ffn_{name}_exps.scale")          # one, or one an expert
            scales[name] = np.broadcast_to(1.0 if scale is None else scale, count)
        product = lambda row, name, e: self.round(row) @ matrices[name][e].T * scales[name][e]
        chosen, share = fm.route(self.linear(x, b + "ffn_gate_inp", fm.ROUNDINGS["float"]), self.get("expert_used_count"))
        out = np.zeros_like(x)
        for t in range(len(x)):
            for e, part in zip(chosen[t], share[t]):
                inner = fm.swiglu_clamped(product(x[t], "gate", e), product(x[t], "up", e), limit)
                out[t] += part * product(inner, "down", e)
        return out

    def hidden(self, ids):
        """ids [T] -> [T, C], after the last norm"""
        x = self.weight("token_embd.weight")[ids] * self.embedding_scale
        if self.arch == "gpt2":
            x = x + self.weight("position_embd.weight")[:len(ids)]
        for i in range(self.layers):
            y = self.self_attention(self.norm(x, f"blk.{i}.attn_norm"), i)
            y = self.norm(y, f"blk.{i}.post_attention_norm") if self.has("post_norms") else y
            x = x + y * self.residual_scale
            y = self.feed_forward(self.norm(x, f"blk.{i}.ffn_norm"), i)
            y = self.norm(y, f"blk.{i}.post_ffw_norm") if self.has("post_norms") else y
            x = x + y * self.residual_scale
        x = self.norm(x, "output_norm")
        unread = sorted(set(self.tensors) - self.used - set(OPTIONAL))
        if unread:
            raise ValueError(f"tensors that this graph does not read: {', '.join(unread)}")
        return x

    def logits(self, ids):
        """ids [T] -> [T, V]; row i predicts token i + 1.  Without `output` the head is the embedding."""
        head = "output" if "output.weight" in self.tensors else "token_embd"
        return self.linear(self.hidden(ids), head, fm.ROUNDINGS["float"]) / self.logit_scale

    def embedding(self, ids, pooling=None):
        """ids [T] -> [C], length 1.  pooling: `mean`, `cls` or `last`; by default what the file says."""
        pooling = pooling or POOLINGS.get(self.get("pooling_type", 0))
        if pooling is None:
            raise ValueError(f"{self.arch}.pooling_type {self.get('pooling_type', 0)} is not a pooling")
        return fm.pooled(self.hidden(ids), pooling)


# ---- answers as files

def packed(x):
    """f32, little-endian, C order, base64."""
    return {"shape": list(x.shape), "dtype": "float32", "base64": base64.b64encode(x.astype("<f4").tobytes()).decode()}


def unpacked(entry):
    return np.frombuffer(base64.b64decode(entry["base64"]), "<f4").reshape(entry["shape"])


def answers(path, sequences, activations="float", context=None, pooling=None, embed=False):
    """The recording of one model file, as it is written."""
    model = Model(path, activations, context)
    passages = []
    for ids in sequences:
        if embed:
            passages.append({"ids": ids, "embedding": packed(model.embedding(ids, pooling))})
        else:
            z = model.logits(ids)
            passages.append({"ids": ids, "top1": z.argmax(-1).tolist(), "logits": packed(z)})
    with open(path, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    out = {"model_sha256": digest, "architecture": model.arch, "activations": activations, "context": model.context}
    if embed:
        out["pooling"] = pooling or POOLINGS[model.get("pooling_type")]
    return out | {"passages": passages}


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--model", required=True, help="GGUF file")
    ap.add_argument("--ids", required=True, action="append", help="comma-separated token ids; once for each sequence")
    ap.add_argument("--activations", choices=fm.ROUNDINGS, default="float")
    ap.add_argument("--context", type=int, help="allocated positions (LongRoPE); default: context_length of the file")
    ap.add_argument("--embed", action="store_true", help="the pooled vector instead of logits, pooled as the file says")
    ap.add_argument("--pooling", choices=POOLINGS.values(), help="the pooled vector, pooled like this")
    ap.add_argument("--out", help="file to write")
    ap.add_argument("--record", help="folder of recordings to write NAME__QUANT.json into")
    ap.add_argument("--name", help="with --record: name of the model in the matrix")
    ap.add_argument("--quant", help="with --record: its weight format in the matrix")
    a = ap.parse_args()
    if bool(a.out) == bool(a.record) or (a.record and not (a.name and a.quant)):
        ap.error("either --out FILE, or --record FOLDER with --name and --quant")
    sequences = [[int(i) for i in ids.split(",")] for ids in a.ids]
    result = answers(a.model, sequences, a.activations, a.context, a.pooling, a.embed or a.pooling is not None)
    path = a.out
    if a.record:
        result = {"schema": 1, "backend": "numpy", "model": a.name, "quant": a.quant} | result
        os.makedirs(a.record, exist_ok=True)
        path = os.path.join(a.record, f"{a.name}__{a.quant}.json")
    with open(path, "w") as f:
        f.write(json.dumps(result, separators=(",", ":")).replace('{"ids"', '\n{"ids"') + "\n")


if __name__ == "__main__":
    main()
