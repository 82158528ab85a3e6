"""Plain numpy forward pass of an exported GGUF: f32, int8 activations, no cache."""
import numpy as np

import gguf_read

f32 = np.float32


def rmsnorm(x, w, eps):
    """x [T, C] -> x / sqrt(mean(x^2) + eps) * w"""
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * w


def linear(x, tensor):
    """x [T, in], (codes [out, in], multiplier) -> [T, out].

    Per row: s = 127 / max(absmax, 1e-5); q = round-half-even(x * s) clipped to
    -128..127; y = (q . codes) / s * multiplier.  The f32 sum of the integer
    products is exact (below 2^24).
    """
    codes, scale = tensor
    s = f32(127) / np.maximum(np.abs(x).max(-1, keepdims=True), f32(1e-5))
    q = np.clip(np.rint(x * s), -128, 127)
    return (q @ codes.T) / s * scale


def rope(x, theta):
    """x [heads, T, d]: channel i turns together with i + d/2."""
    d = x.shape[-1]
    angle = np.outer(np.arange(x.shape[1]), theta ** (-np.arange(0, d, 2) / d))
    cos, sin = np.cos(angle).astype(f32), np.sin(angle).astype(f32)
    a, b = x[..., :d // 2], x[..., d // 2:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


class Model:
    def __init__(self, path):
        self.meta, self.t = gguf_read.read(path)
        self.arch = self.meta["general.architecture"]
        get = lambda k: self.meta[f"{self.arch}.{k}"]
        self.layers, self.context = get("block_count"), get("context_length")
        self.heads, self.kv = get("attention.head_count"), get("attention.head_count_kv")
        self.eps, self.theta = f32(get("attention.layer_norm_rms_epsilon")), get("rope.freq_base")

    def logits(self, ids):
        """ids [T] -> f32 [T, V]; row i predicts token i + 1."""
        T, g = len(ids), self.heads // self.kv
        norm = lambda x, name: rmsnorm(x, self.t[name + ".weight"], self.eps)
        hide = np.triu(np.full((T, T), -np.inf, f32), 1)
        x = self.t["token_embd.weight"][ids]
        for l in range(self.layers):
            w = lambda name: self.t[f"blk.{l}.{name}.weight"]
            a = norm(x, f"blk.{l}.attn_norm")
            split = lambda z, n: z.reshape(T, n, -1).transpose(1, 0, 2)  # -> [n, T, d]
            q = rope(split(linear(a, w("attn_q")), self.heads), self.theta)
            k = rope(split(linear(a, w("attn_k")), self.kv), self.theta)
            v = split(linear(a, w("attn_v")), self.kv)
            k, v = k.repeat(g, 0), v.repeat(g, 0)  # query head j reads key head j // g
            score = q @ k.transpose(0, 2, 1) / f32(np.sqrt(q.shape[-1])) + hide
            score = np.exp(score - score.max(-1, keepdims=True))
            y = (score / score.sum(-1, keepdims=True)) @ v
            y = y.transpose(1, 0, 2).reshape(T, -1)
            x = x + linear(norm(y, f"blk.{l}.attn_sub_norm"), w("attn_output"))
            a = norm(x, f"blk.{l}.ffn_norm")
            gate, up = linear(a, w("ffn_gate")), linear(a, w("ffn_up"))
            if self.arch == "bitnet":  # silu
                u = gate / (1 + np.exp(-gate)) * up
            else:                      # bitnet-b1.58: squared relu
                u = np.square(np.maximum(gate, 0)) * up
            x = x + linear(norm(u, f"blk.{l}.ffn_sub_norm"), w("ffn_down"))
        return norm(x, "output_norm") @ self.t["token_embd.weight"].T

    def sample(self, ids, n, temperature=0.7, top_k=40, penalty=1.1, seed=0):
        """Continue ids by n tokens; penalty divides (or multiplies) logits of the last 64 tokens."""
        rng, ids = np.random.default_rng(seed), list(ids)
        for _ in range(n):
            z = self.logits(ids[-self.context:])[-1].astype(np.float64)
            seen = np.unique(ids[-64:])
            z[seen] = np.where(z[seen] > 0, z[seen] / penalty, z[seen] * penalty)
            best = np.argsort(-z)[:top_k]
            p = np.exp((z[best] - z[best[0]]) / temperature)
            ids.append(int(rng.choice(best, p=p / p.sum())))
        return ids


def nats(logits, targets):
    """logits [T, V], targets [T] -> f64 [T] negative log-likelihoods"""
    z = logits.astype(np.float64)
    top = z.max(-1)
    return np.log(np.exp(z - top[:, None]).sum(-1)) + top - z[np.arange(len(z)), targets]
