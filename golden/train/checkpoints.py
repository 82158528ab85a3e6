"""Tiny HuggingFace checkpoints of every form, from their names alone, and a forward pass on them in numpy and float64.

    python checkpoints.py --write FOLDER                     # FOLDER/llama-packed/config.json, model.safetensors, ...
    python checkpoints.py --record ../reference/checkpoint   # the logits of each, as JSON
    python checkpoints.py --large FOLDER                     # random, packed, as large as BitNet-2B-4T: for memory
    python checkpoints.py --folder F --ids 1,2,3 --activations int8-token --out X.json

The forward pass reads a checkpoint as HuggingFace has it: rows in their own order, heads rotated by halves, packed weights and
masters unpacked here.  It reads no GGUF and shares no code with the engine; the formulas are in `formulas.py`.

Weights are a function of the tensor's name: SplitMix64 from the name's FNV-1a hash.  Whoever makes the same tensors (the tests of
the engine do) gets the same digest, which is recorded with the logits.
"""
import argparse
import hashlib
import json
import os
import struct

import numpy as np

import formulas as fm
from families import packed

VOCAB, CONTEXT, IDS = 96, 64, [1, 95, 17, 17, 3, 60, 42, 8, 71, 2, 33, 90, 5, 64, 29, 77]
TYPES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1}


# ---- the seed

def numbers(name, count):
    """-64..63, as SplitMix64 (Steele, Lea, Flood 2014) gives them from the FNV-1a hash of the name."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % 2 ** 64
    z = np.uint64(state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(57)).astype(np.float64) - 64


def draw(name, shape, plus_one):
    """Values of seven bits, so that every floating-point type holds them."""
    k = numbers(name, int(np.prod(shape))).reshape(shape)
    if len(shape) > 1:
        return k / 512
    return k / 512 if name.endswith("bias") else (k + 1 / 2) / 64 / 4 if plus_one else 1 + k / 128


def quantised(w):
    """A master [out, in] -> (t, m): m = max(mean |w|, 1e-5), t = w / m rounded half to even, -1 to 1; in f32."""
    m = np.float32(max(np.float32(np.abs(w).mean()), np.float32(1e-5)))
    return np.clip(np.rint(w.astype(np.float32) / m), -1, 1), m


# ---- safetensors: u64 length, JSON, bytes

def encode(w, dtype):
    if dtype == "BF16":
        return (w.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return w.astype({"F32": "<f4", "F16": "<f2", "U8": "u1"}[dtype]).tobytes()


def save(path, tensors):
    """tensors: {name: (dtype, array)}"""
    header, at, data = {"__metadata__": {"format": "pt"}}, 0, []
    for name, (dtype, w) in tensors.items():
        data.append(encode(w, dtype))
        header[name] = {"dtype": dtype, "shape": list(w.shape), "data_offsets": [at, at + len(data[-1])]}
        at += len(data[-1])
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data))


def load(folder):
    """-> {name: (dtype, shape, bytes)}"""
    index, out = os.path.join(folder, "model.safetensors.index.json"), {}
    names = ["model.safetensors"]
    if os.path.exists(index):
        with open(index) as f:
            names = sorted(set(json.load(f)["weight_map"].values()))
    for name in names:
        with open(os.path.join(folder, name), "rb") as f:
            raw = f.read()
        size = struct.unpack("<Q", raw[:8])[0]
        for tensor, info in json.loads(raw[8:8 + size]).items():
            if tensor != "__metadata__":
                a, b = info["data_offsets"]
                out[tensor] = (info["dtype"], info["shape"], raw[8 + size + a:8 + size + b])
    return out


def digest(tensors):
    """SHA-256 over (name, dtype, shape, bytes) in the order of names: the checkpoint, however it lies in files."""
    h = hashlib.sha256()
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        h.update(f"{name} {dtype} {'x'.join(map(str, shape))}\n".encode())
        h.update(data)
    return h.hexdigest()


# ---- the checkpoints

BASE = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "vocab_size": VOCAB, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0}
AUTO = {"quant_method": "bitnet", "linear_class": "autobitlinear", "modules_to_not_convert": ["lm_head"]}
BIT = {"quant_method": "bitnet", "modules_to_not_convert": ["lm_head"]}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
CONFIGS = {
    # weights of the same names are the same: packed and master are one model
    "bitnet-packed": ("U8", "int8-token", BASE | {"architectures": ["BitNetForCausalLM"], "model_type": "bitnet",
        "hidden_act": "relu2", "tie_word_embeddings": True, "quantization_config": AUTO}),
    "bitnet-master": ("BF16", "int8-token", BASE | {"architectures": ["BitNetForCausalLM"], "model_type": "bitnet",
        "hidden_act": "relu2", "tie_word_embeddings": True, "quantization_config": AUTO | {"quantization_mode": "online"}}),
    "bitnet-1bitllm": ("F16", "int8-token", BASE | {"architectures": ["BitnetForCausalLM"], "model_type": "llama",
        "hidden_act": "silu", "tie_word_embeddings": False}),
    "llama-packed": ("U8", "int8-token", BASE | {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_act": "silu", "num_attention_heads": 8, "head_dim": 64, "tie_word_embeddings": False, "rope_scaling": LLAMA3,
        "quantization_config": BIT}),
    "llama-master": ("F32", "int8-token", BASE | {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_act": "silu", "num_attention_heads": 8, "head_dim": 64, "tie_word_embeddings": False,
        "rope_parameters": LLAMA3 | {"rope_theta": 10000.0},
        "quantization_config": AUTO | {"quantization_mode": "online"}}),
    "llama-plain": ("F16", "float", BASE | {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_act": "silu", "rope_theta": 500000.0,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}}),
    "qwen2-plain": ("BF16", "float", BASE | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
        "hidden_act": "silu", "tie_word_embeddings": False, "use_sliding_window": False}),
    "qwen3-packed": ("U8", "int8-token", BASE | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
        "hidden_act": "silu", "head_dim": 64, "tie_word_embeddings": True, "rope_theta": 1000000.0,
        "quantization_config": AUTO | {"use_rms_norm": True, "rms_norm_eps": 1e-5}}),
    "minicpm-plain": ("BF16", "float", BASE | {"architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm",
        "hidden_act": "silu", "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 64}),
    "gemma3-plain": ("BF16", "float", BASE | {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh", "head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 4,
        "sliding_window_pattern": 2, "rope_local_base_freq": 10000.0, "rope_theta": 1000000.0,
        "tie_word_embeddings": True}),
    "gpt2-plain": ("F32", "float", {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 256, "n_layer": 2,
        "n_head": 4, "n_positions": CONTEXT, "vocab_size": VOCAB, "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new"}),
}


def shapes(config):
    """-> {name: shape} of the float form of a checkpoint; [out, in], but [in, out] for GPT-2's Conv1D."""
    c, out = config, {}
    if c["model_type"] == "gpt2":
        n = c["n_embd"]
        out |= {"transformer.wte.weight": (VOCAB, n), "transformer.wpe.weight": (CONTEXT, n)}
        for i in range(c["n_layer"]):
            b = f"transformer.h.{i}."
            for m, (a, z) in {"attn.c_attn": (n, 3 * n), "attn.c_proj": (n, n), "mlp.c_fc": (n, 4 * n), "mlp.c_proj": (4 * n, n)}.items():
                out |= {f"{b}{m}.weight": (a, z), f"{b}{m}.bias": (z,)}
            for m in ("ln_1", "ln_2"):
                out |= {f"{b}{m}.weight": (n,), f"{b}{m}.bias": (n,)}
        return out | {"transformer.ln_f.weight": (n,), "transformer.ln_f.bias": (n,)}
    n, ffn = c["hidden_size"], c["intermediate_size"]
    d = c.get("head_dim", n // c["num_attention_heads"])
    q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    out["model.embed_tokens.weight"] = (VOCAB, n)
    for i in range(c["num_hidden_layers"]):
        b = f"model.layers.{i}."
        for m, (a, z) in {"self_attn.q_proj": (q, n), "self_attn.k_proj": (kv, n), "self_attn.v_proj": (kv, n),
                          "self_attn.o_proj": (n, q), "mlp.gate_proj": (ffn, n), "mlp.up_proj": (ffn, n),
                          "mlp.down_proj": (n, ffn)}.items():
            out[f"{b}{m}.weight"] = (a, z)
            if c.get("quantization_config", {}).get("use_rms_norm"):
                out[f"{b}{m}.rms_norm.weight"] = (z,)
            if c["model_type"] == "qwen2" and m[-6:] in ("q_proj", "k_proj", "v_proj"):
                out[f"{b}{m}.bias"] = (a,)
        norms = {"input_layernorm": n, "post_attention_layernorm": n}
        if c["architectures"] == ["BitNetForCausalLM"]:
            norms |= {"self_attn.attn_sub_norm": q, "mlp.ffn_sub_norm": ffn}
        if c["architectures"] == ["BitnetForCausalLM"]:
            norms |= {"self_attn.inner_attn_ln": q, "mlp.ffn_layernorm": ffn}
        if c["model_type"] in ("qwen3", "gemma3_text"):
            norms |= {"self_attn.q_norm": d, "self_attn.k_norm": d}
        if c["model_type"] == "gemma3_text":
            norms |= {"pre_feedforward_layernorm": n, "post_feedforward_layernorm": n}
        out |= {f"{b}{m}.weight": (s,) for m, s in norms.items()}
    out["model.norm.weight"] = (n,)
    if not c.get("tie_word_embeddings", False):
        out["lm_head.weight"] = (VOCAB, n)
    return out


def is_linear(name):
    return name.endswith("_proj.weight")


def tensors(kind, config):
    """-> {name: (dtype, array)} of a checkpoint."""
    out = {}
    for name, shape in shapes(config).items():
        w = draw(name, shape, config["model_type"] == "gemma3_text")
        if kind != "U8":
            out[name] = (kind, w)
        elif not is_linear(name):
            out[name] = ("BF16", w)
        else:
            t, m = quantised(w)
            codes = (t + 1).astype(np.uint8).reshape(4, -1, shape[1])  # the low bits: the first quarter of the rows
            out[name] = ("U8", codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6)
            multiplies = config["quantization_config"].get("linear_class") == "autobitlinear"
            out[name + "_scale"] = ("F32", np.array([m if multiplies else np.float32(1) / m]))
    return out


def write(folder, name):
    kind, _, config = CONFIGS[name]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
    all_of_it = tensors(kind, config)
    if name != "llama-master":
        save(os.path.join(folder, "model.safetensors"), all_of_it)
        return
    parts, where = [{}, {}], {}  # in two files, block by block
    for i, (tensor, entry) in enumerate(all_of_it.items()):
        part = int(i > len(all_of_it) // 2)
        parts[part][tensor] = entry
        where[tensor] = f"model-0000{part + 1}-of-00002.safetensors"
    for part, content in enumerate(parts):
        save(os.path.join(folder, f"model-0000{part + 1}-of-00002.safetensors"), content)
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {}, "weight_map": where}, f, indent=1)


def write_large(folder):
    """A packed checkpoint of the shape of BitNet-b1.58-2B-4T with random codes, 1.2 GB; never two tensors in memory."""
    config = BASE | CONFIGS["bitnet-packed"][2] | {"hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 30,
        "num_attention_heads": 20, "num_key_value_heads": 5, "vocab_size": 128256, "max_position_embeddings": 4096}
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    all_shapes = shapes(config) | {"model.embed_tokens.weight": (128256, 2560)}
    header, at = {}, 0
    for name, shape in list(all_shapes.items()):
        if is_linear(name):
            all_shapes[name] = shape = (shape[0] // 4, shape[1])
            all_shapes[name + "_scale"] = (1,)
    for name, shape in all_shapes.items():
        dtype = "U8" if is_linear(name) else "BF16"
        size = int(np.prod(shape)) * TYPES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    rng, text = np.random.default_rng(1), json.dumps(header).encode()
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in all_shapes.items():
            if is_linear(name):
                codes = rng.integers(0, 3, (4, *shape), np.uint8)
                f.write((codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6).tobytes())
            else:
                w = rng.standard_normal(shape, np.float32) * np.float32(0.02) if len(shape) > 1 else np.ones(shape, np.float32)
                f.write(encode(w, "BF16"))


# ---- the forward pass

class Checkpoint:
    def __init__(self, folder, activations):
        with open(os.path.join(folder, "config.json")) as f:
            self.c = json.load(f)
        self.tensors, self.round = load(folder), fm.ROUNDINGS[activations]
        self.quant = self.c.get("quantization_config")
        self.kind = self.c["model_type"] if self.c["architectures"] != ["BitnetForCausalLM"] else "bitnet"
        gpt2 = self.kind == "gpt2"
        self.heads = self.c["n_head" if gpt2 else "num_attention_heads"]
        self.kv_heads = self.heads if gpt2 else self.c["num_key_value_heads"]
        self.width = self.c["n_embd" if gpt2 else "hidden_size"]
        self.layers = self.c["n_layer" if gpt2 else "num_hidden_layers"]
        self.d = self.c.get("head_dim", self.width // self.heads)
        self.eps = self.c["layer_norm_epsilon" if gpt2 else "rms_norm_eps"]
        self.act = {"silu": fm.silu, "relu2": fm.relu2, "gelu_pytorch_tanh": fm.gelu}.get(
            self.c.get("hidden_act", self.c.get("hidden_activation")))

    def raw(self, name):
        dtype, shape, data = self.tensors[name]
        if dtype == "BF16":
            return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64).reshape(shape)
        return np.frombuffer(data, {"F32": "<f4", "F16": "<f2", "U8": "u1"}[dtype]).reshape(shape).astype(
            np.uint8 if dtype == "U8" else np.float64)

    def matrix(self, name):
        """[out, in] as the model was trained with it."""
        w = self.raw(name)
        if w.dtype == np.uint8:
            t = np.concatenate([(w >> 2 * i & 3).astype(np.float64) - 1 for i in range(4)])
            scale = self.raw(name + "_scale")[0]
            return t * scale if self.quant.get("linear_class") == "autobitlinear" else t / scale
        online = self.quant and self.quant.get("quantization_mode") == "online"
        if is_linear(name) and (online or self.kind == "bitnet"):
            t, m = quantised(w)
            return t * np.float64(m)
        return w

    def linear(self, x, module):
        norm, bias = module + ".rms_norm.weight", module + ".bias"
        if norm in self.tensors:
            x = fm.rms_norm(x, self.raw(norm), self.eps)
        w = self.matrix(module + ".weight")
        y = self.round(x) @ (w if self.kind == "gpt2" else w.T)
        return y + self.raw(bias) if bias in self.tensors else y

    def norm(self, x, module):
        w = self.raw(module + ".weight")
        if self.kind == "gpt2":
            return fm.layer_norm(x, w, self.raw(module + ".bias"), self.eps)
        return fm.rms_norm(x, w + (self.kind == "gemma3_text"), self.eps)

    def norm_if(self, x, *modules):
        found = [m for m in modules if m + ".weight" in self.tensors]
        return self.norm(x, found[0]) if found else x

    def is_local(self, block):
        pattern = self.c.get("sliding_window_pattern")
        return bool(pattern) and (block + 1) % pattern != 0

    def rope(self, block):
        if self.is_local(block):
            return fm.frequencies(self.d, self.c["rope_local_base_freq"]), 1
        scaling = self.c.get("rope_parameters", self.c.get("rope_scaling", {}))
        base = scaling.get("rope_theta", self.c.get("rope_theta"))
        freq, kind = fm.frequencies(self.d, base), scaling.get("rope_type", scaling.get("type"))
        if kind == "llama3":
            return freq / fm.llama3_factors(freq, scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"],
                                            scaling["original_max_position_embeddings"]), 1
        if kind == "yarn":
            return (fm.yarn(freq, self.d, base, scaling["factor"], scaling["original_max_position_embeddings"]),
                    fm.yarn_magnitude(scaling["factor"]))
        return freq, 1

    def attention(self, x, b, block):
        if self.kind == "gpt2":
            q, k, v = np.split(self.linear(x, b + "attn.c_attn"), 3, -1)
        else:
            q, k, v = (self.linear(x, f"{b}self_attn.{n}_proj") for n in "qkv")
        by_head = lambda z, heads: z.reshape(len(z), heads, -1).swapaxes(0, 1)
        q, k, v = by_head(q, self.heads), by_head(k, self.kv_heads), by_head(v, self.kv_heads)
        q, k = self.norm_if(q, b + "self_attn.q_norm"), self.norm_if(k, b + "self_attn.k_norm")
        if self.kind != "gpt2":  # HuggingFace rotates halves, whatever the family
            q, k = (fm.rotate(z, *self.rope(block), "neox") for z in (q, k))
        y = fm.attention(q, k, v, self.c["sliding_window"] if self.is_local(block) else None)
        y = self.norm_if(y, b + "self_attn.attn_sub_norm", b + "self_attn.inner_attn_ln")
        return self.linear(y, b + ("attn.c_proj" if self.kind == "gpt2" else "self_attn.o_proj"))

    def feed_forward(self, x, b):
        if self.kind == "gpt2":
            return self.linear(fm.gelu(self.linear(x, b + "mlp.c_fc")), b + "mlp.c_proj")
        y = self.act(self.linear(x, b + "mlp.gate_proj")) * self.linear(x, b + "mlp.up_proj")
        return self.linear(self.norm_if(y, b + "mlp.ffn_sub_norm", b + "mlp.ffn_layernorm"), b + "mlp.down_proj")

    def logits(self, ids):
        """ids [T] -> [T, V]"""
        gpt2, gemma, cpm = (self.kind == k for k in ("gpt2", "gemma3_text", "minicpm"))
        embed = self.raw("transformer.wte.weight" if gpt2 else "model.embed_tokens.weight")
        x = embed[ids] * (np.sqrt(self.width) if gemma else self.c["scale_emb"] if cpm else 1)
        if gpt2:
            x = x + self.raw("transformer.wpe.weight")[:len(ids)]
        part = self.c["scale_depth"] / np.sqrt(self.layers) if cpm else 1
        for i in range(self.layers):
            b = f"transformer.h.{i}." if gpt2 else f"model.layers.{i}."
            y = self.attention(self.norm(x, b + ("ln_1" if gpt2 else "input_layernorm")), b, i)
            if gemma:
                y = self.norm(y, b + "post_attention_layernorm")
            x = x + y * part
            before = "ln_2" if gpt2 else "pre_feedforward_layernorm" if gemma else "post_attention_layernorm"
            y = self.feed_forward(self.norm(x, b + before), b)
            if gemma:
                y = self.norm(y, b + "post_feedforward_layernorm")
            x = x + y * part
        x = self.norm(x, "transformer.ln_f" if gpt2 else "model.norm")
        tied = gpt2 or self.c.get("tie_word_embeddings", False)
        z = x @ (embed if tied else self.raw("lm_head.weight")).T
        return z / (self.width / self.c["dim_model_base"]) if cpm else z


def recording(name, folder, backend, activations, logits):
    """What is written about a checkpoint of CONFIGS: of what it is made, and what a backend computes from it."""
    made = {n: (d, list(w.shape)) for n, (d, w) in tensors(*CONFIGS[name][::2]).items()}
    return {"schema": 1, "backend": backend, "model": name, "config": CONFIGS[name][2],
            "files": len([f for f in os.listdir(folder) if f.endswith(".safetensors")]),
            "tensors": [[n, d, s] for n, (d, s) in made.items()], "digest": digest(load(folder)),
            "activations": activations, "ids": IDS, "logits": logits}


def main():
    import tempfile
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--write", help="folder to write all checkpoints into")
    ap.add_argument("--record", help="folder to write NAME.json with the logits of each into")
    ap.add_argument("--large", help="folder to write a checkpoint of real size into")
    ap.add_argument("--folder", help="one checkpoint to compute")
    ap.add_argument("--ids", help="comma-separated token ids")
    ap.add_argument("--activations", choices=fm.ROUNDINGS, default="float")
    ap.add_argument("--out", help="file to write")
    a = ap.parse_args()
    if a.write:
        for name in CONFIGS:
            write(os.path.join(a.write, name), name)
    if a.large:
        write_large(a.large)
    if a.record:
        os.makedirs(a.record, exist_ok=True)
        for name, (_, activations, _) in CONFIGS.items():
            with tempfile.TemporaryDirectory() as folder:
                write(folder, name)
                logits = packed(Checkpoint(folder, activations).logits(IDS))
                result = recording(name, folder, "numpy", activations, logits)
            with open(os.path.join(a.record, name + ".json"), "w") as f:
                f.write(json.dumps(result, separators=(",", ":")) + "\n")
    if a.folder:
        ids = [int(i) for i in a.ids.split(",")]
        result = {"ids": ids, "logits": packed(Checkpoint(a.folder, a.activations).logits(ids))}
        with open(a.out, "w") as f:
            json.dump(result, f)


if __name__ == "__main__":
    main()
