"""Checkpoint + tokenizer -> GGUF.

    python export.py --data DATA --checkpoint RUN/final.npz --name tiny-bitnet --out tiny-bitnet.gguf

relu2 checkpoints become architecture `bitnet-b1.58`, silu ones `bitnet`.
"""
import argparse
import hashlib
import json
import os

import numpy as np

import gguf_write as gw
import train

LICENCE = "MIT OR Apache-2.0"
DESCRIPTION = ("Tiny BitNet b1.58 model trained from scratch on the World English Bible "
               "(public domain) as a test fixture.")


def ternary(w):
    """Latent w [in, out] -> (codes int8 [out, in], f32 multiplier): absmean, as in training."""
    s = max(np.abs(w).mean(dtype=np.float64), 1e-5)
    s = np.float32(s)
    return np.clip(np.round(w / s), -1, 1).astype(np.int8).T, s


def fields(cfg, name, tokenizer_file):
    arch = {"relu2": "bitnet-b1.58", "silu": "bitnet"}[cfg.act]
    bpe = json.load(open(tokenizer_file))["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
    assert len(tokens) == cfg.vocab and tokens[0] == "<|endoftext|>"
    merges = [m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]]
    a = arch + "."
    return [
        ("general.architecture", gw.STRING, arch),
        ("general.name", gw.STRING, name),
        ("general.description", gw.STRING, DESCRIPTION),
        ("general.license", gw.STRING, LICENCE),
        ("general.alignment", gw.U32, gw.ALIGNMENT),
        ("general.file_type", gw.U32, 40),
        ("bitnet.i2_s.layout", gw.STRING, "x86"),  # of two layouts under one type number: not to be guessed
        (a + "vocab_size", gw.U32, cfg.vocab),
        (a + "context_length", gw.U32, cfg.context),
        (a + "embedding_length", gw.U32, cfg.hidden),
        (a + "block_count", gw.U32, cfg.layers),
        (a + "feed_forward_length", gw.U32, cfg.ffn),
        (a + "rope.dimension_count", gw.U32, cfg.head_dim),
        (a + "rope.freq_base", gw.FLOAT, cfg.theta),
        (a + "attention.head_count", gw.U32, cfg.heads),
        (a + "attention.head_count_kv", gw.U32, cfg.kv_heads),
        (a + "attention.layer_norm_rms_epsilon", gw.FLOAT, cfg.eps),
        ("tokenizer.ggml.model", gw.STRING, "gpt2"),
        ("tokenizer.ggml.pre", gw.STRING, "gpt-2"),
        ("tokenizer.ggml.tokens", gw.ARRAY, (gw.STRING, tokens)),
        ("tokenizer.ggml.token_type", gw.ARRAY, (gw.I32, [3] + [1] * (len(tokens) - 1))),
        ("tokenizer.ggml.merges", gw.ARRAY, (gw.STRING, merges)),
        ("tokenizer.ggml.bos_token_id", gw.U32, 0),
        ("tokenizer.ggml.eos_token_id", gw.U32, 0),
        ("tokenizer.ggml.add_bos_token", gw.BOOL, True),
    ]


def tensors(cfg, p):
    out = [("token_embd.weight", gw.F16, (cfg.vocab, cfg.hidden), p["token_embd"].astype("<f2").tobytes()),
           ("output_norm.weight", gw.F32, (cfg.hidden,), p["output_norm"].astype("<f4").tobytes())]
    for l in range(cfg.layers):
        for name, width in cfg.norms().items():
            data = p[f"blk.{l}.{name}"].astype("<f4").tobytes()
            out.append((f"blk.{l}.{name}.weight", gw.F32, (width,), data))
        for name, (i, o) in cfg.matrices().items():
            data = gw.pack_i2s(*ternary(p[f"blk.{l}.{name}"]))
            out.append((f"blk.{l}.{name}.weight", gw.I2_S, (o, i), data))
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--data", required=True)
    ap.add_argument("--checkpoint", required=True)
    ap.add_argument("--name", required=True)
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    cfg, p, _, step = train.load(a.checkpoint)
    gw.write(a.out + ".tmp", fields(cfg, a.name, f"{a.data}/tokenizer.json"), tensors(cfg, p))
    os.replace(a.out + ".tmp", a.out)
    digest = hashlib.sha256(open(a.out, "rb").read()).hexdigest()
    print(f"{a.out}: step {step}, {os.path.getsize(a.out)} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
