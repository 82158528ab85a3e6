"""BitNet b1.58 decoder in JAX with quantisation-aware training.

Everything is float32: on a CPU without bf16 matrix units that is the fastest
type, and ternary x int8 products summed in f32 are exact (|sum| < 2^24).

Shapes: B sequences of T tokens; N = B*T rows; H hidden, F ffn, V vocabulary,
h query heads and k key/value heads of d = H/h channels.  Parameters are a flat
dict under GGUF names; a matrix is stored [in, out].
"""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Config:
    vocab: int = 2048
    hidden: int = 512
    ffn: int = 1024
    layers: int = 4
    heads: int = 8
    kv_heads: int = 4
    context: int = 512
    theta: float = 10000.0
    eps: float = 1e-5
    act: str = "relu2"  # relu2: architecture bitnet-b1.58; silu: architecture bitnet

    @property
    def head_dim(self):
        return self.hidden // self.heads

    def matrices(self):
        """{name: (in, out)} of one block's ternary matrices."""
        h, f, kv = self.hidden, self.ffn, self.kv_heads * self.head_dim
        return {"attn_q": (h, h), "attn_k": (h, kv), "attn_v": (h, kv), "attn_output": (h, h),
                "ffn_gate": (h, f), "ffn_up": (h, f), "ffn_down": (f, h)}

    def norms(self):
        """{name: width} of one block's RMSNorm weights."""
        return {"attn_norm": self.hidden, "attn_sub_norm": self.hidden,
                "ffn_norm": self.hidden, "ffn_sub_norm": self.ffn}


def init(cfg, seed):
    """Seeded initial parameters: normal(0, 0.02) matrices, unit norms."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(0, 0.02, shape).astype(np.float32)
    p = {"token_embd": normal(cfg.vocab, cfg.hidden),
         "output_norm": np.ones(cfg.hidden, np.float32)}
    for l in range(cfg.layers):
        for name, shape in cfg.matrices().items():
            p[f"blk.{l}.{name}"] = normal(*shape)
        for name, width in cfg.norms().items():
            p[f"blk.{l}.{name}"] = np.ones(width, np.float32)
    return p


# --- quantisation ----------------------------------------------------------

def ternary(w):
    """w [I, O] -> codes in {-1, 0, 1} as f32 [I, O], multiplier (scalar); absmean."""
    s = jnp.maximum(jnp.mean(jnp.abs(w)), 1e-5)
    return jnp.clip(jnp.round(w / s), -1, 1), s


def int8(x):
    """x [N, I] -> integers -128..127 as f32 [N, I], s [N, 1] with x ~ q / s; absmax per row."""
    s = 127.0 / jnp.maximum(jnp.max(jnp.abs(x), -1, keepdims=True), 1e-5)
    return jnp.clip(jnp.round(x * s), -128, 127), s


def dot(a, b, ca, cb):
    """Contract axis ca of a with axis cb of b (both rank 2)."""
    return jax.lax.dot_general(a, b, (((ca,), (cb,)), ((), ())))


@jax.custom_vjp
def bitlinear(x, w):
    """x [N, I], latent w [I, O] -> [N, O]; straight-through gradients to x and w."""
    return _bitlinear_fwd(x, w)[0]


def _bitlinear_fwd(x, w):
    (t, sw), (q, sx) = ternary(w), int8(x)
    return dot(q, t, 1, 0) * (sw / sx), (q, sx, t, sw)


def _bitlinear_bwd(saved, g):
    q, sx, t, sw = saved
    return dot(g, t, 1, 1) * sw, dot(q, g / sx, 0, 0)


bitlinear.defvjp(_bitlinear_fwd, _bitlinear_bwd)


# --- layers ----------------------------------------------------------------

@jax.custom_vjp
def rmsnorm(x, w):
    """x [N, C], w [C] -> x / rms(x) * w (eps 1e-5)."""
    return _rmsnorm_fwd(x, w)[0]


def _rmsnorm_fwd(x, w):
    r = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + Config.eps)
    return x * r * w, (x, r, w)


def _rmsnorm_bwd(saved, g):
    x, r, w = saved
    xh, gw = x * r, g * w
    dw = dot(jnp.ones((1, x.shape[0])), g * xh, 1, 0)[0]  # a column sum, as a product: faster
    return r * (gw - xh * jnp.mean(gw * xh, -1, keepdims=True)), dw


rmsnorm.defvjp(_rmsnorm_fwd, _rmsnorm_bwd)


def rope_tables(cfg, length):
    """cos, sin [T, d/2]."""
    inv = cfg.theta ** (-np.arange(0, cfg.head_dim, 2) / cfg.head_dim)
    f = np.outer(np.arange(length), inv)
    return jnp.asarray(np.cos(f), jnp.float32), jnp.asarray(np.sin(f), jnp.float32)


def rope(x, cos, sin):
    """x [..., T, d]: channel i turns together with i + d/2 (NEOX order)."""
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


@jax.custom_vjp
def attend(q, k, v, bias):
    """q [M, R, d], k and v [M, S, d], bias [R, S] (0 or -1e30) -> [M, R, d]."""
    return _attend_fwd(q, k, v, bias)[0]


def _attend_fwd(q, k, v, bias):
    s = jnp.einsum("mrd,msd->mrs", q * (q.shape[-1] ** -0.5), k) + bias
    p = jnp.exp(s - jnp.max(s, -1, keepdims=True))
    p = p / jnp.sum(p, -1, keepdims=True)
    y = jnp.einsum("mrs,msd->mrd", p, v)
    return y, (q, k, v, p, y)


def _attend_bwd(saved, g):
    q, k, v, p, y = saved
    scale = q.shape[-1] ** -0.5
    dp = jnp.einsum("mrd,msd->mrs", g, v)
    ds = p * (dp - jnp.sum(g * y, -1, keepdims=True))
    return (jnp.einsum("mrs,msd->mrd", ds, k) * scale,
            jnp.einsum("mrs,mrd->msd", ds, q) * scale,
            jnp.einsum("mrs,mrd->msd", p, g), None)


attend.defvjp(_attend_fwd, _attend_bwd)


def causal_attention(q, k, v, chunk):
    """q [B, k, g, T, d], k and v [B, k, T, d] -> [B, k, g, T, d].

    Queries go in chunks so that keys after a chunk's end are never touched;
    the g query heads of a group share their keys as extra rows.
    """
    B, K, G, T, d = q.shape
    k, v = k.reshape(B * K, T, d), v.reshape(B * K, T, d)
    out = []
    for lo in range(0, T, chunk):
        hi = min(lo + chunk, T)
        mask = np.arange(hi)[None, :] <= np.arange(lo, hi)[:, None]
        bias = jnp.asarray(np.tile(np.where(mask, 0, -1e30), (G, 1)), jnp.float32)
        qc = q[:, :, :, lo:hi].reshape(B * K, G * (hi - lo), d)
        out.append(attend(qc, k[:, :hi], v[:, :hi], bias).reshape(B, K, G, hi - lo, d))
    return jnp.concatenate(out, 3)


def drop(key, rate, x):
    """x with a share `rate` of its elements zeroed and the rest scaled up; x itself without a key."""
    if key is None:
        return x
    keep = jax.random.bits(key, x.shape, jnp.uint8) >= round(256 * rate)
    return jnp.where(keep, x * (256 / (256 - round(256 * rate))), 0)


def hidden_states(p, cfg, ids, chunk=128, key=None, dropout=0.0):
    """ids [B, T] -> final normalised hidden states [B*T, H]; with a key, dropout of what each
    branch adds to the residual stream, the embedding among them."""
    keys = iter(jax.random.split(key, 2 * cfg.layers + 1)) if key is not None and dropout else None
    lose = lambda x: drop(next(keys), dropout, x) if keys else x
    B, T = ids.shape
    H, h, kv, d = cfg.hidden, cfg.heads, cfg.kv_heads, cfg.head_dim
    cos, sin = rope_tables(cfg, T)
    x = lose(p["token_embd"][ids.reshape(-1)])
    for l in range(cfg.layers):
        w = lambda name: p[f"blk.{l}.{name}"]
        a = rmsnorm(x, w("attn_norm"))
        split = lambda z, n: z.reshape(B, T, n, d).transpose(0, 2, 1, 3)  # -> [B, n, T, d]
        q = rope(split(bitlinear(a, w("attn_q")), h), cos, sin)
        k = rope(split(bitlinear(a, w("attn_k")), kv), cos, sin)
        v = split(bitlinear(a, w("attn_v")), kv)
        y = causal_attention(q.reshape(B, kv, h // kv, T, d), k, v, chunk)
        y = y.reshape(B, h, T, d).transpose(0, 2, 1, 3).reshape(B * T, H)
        x = x + lose(bitlinear(rmsnorm(y, w("attn_sub_norm")), w("attn_output")))
        a = rmsnorm(x, w("ffn_norm"))
        gate, up = bitlinear(a, w("ffn_gate")), bitlinear(a, w("ffn_up"))
        gate = jnp.square(jax.nn.relu(gate)) if cfg.act == "relu2" else jax.nn.silu(gate)
        x = x + lose(bitlinear(rmsnorm(gate * up, w("ffn_sub_norm")), w("ffn_down")))
    return rmsnorm(x, p["output_norm"])


@jax.custom_vjp
def cross_entropy(x, emb, target):
    """x [N, H], tied emb [V, H], target [N] -> mean negative log-likelihood in nats."""
    return _cross_entropy_fwd(x, emb, target)[0]


def _cross_entropy_fwd(x, emb, target):
    logits = dot(x, emb, 1, 1)
    top = jnp.max(logits, -1, keepdims=True)
    e = jnp.exp(logits - top)
    z = jnp.sum(e, -1, keepdims=True)
    picked = jnp.take_along_axis(logits, target[:, None], 1)
    return jnp.mean(jnp.log(z) + top - picked), (x, emb, target, e, z)


def _cross_entropy_bwd(saved, g):
    x, emb, target, e, z = saved
    n = x.shape[0]
    d = (e / z).at[jnp.arange(n), target].add(-1.0) * (g / n)
    return dot(d, emb, 1, 0), dot(d, x, 0, 0), None


cross_entropy.defvjp(_cross_entropy_fwd, _cross_entropy_bwd)


def loss(p, cfg, batch, key=None, dropout=0.0):
    """batch int32 [B, T+1] -> mean nats per predicted token."""
    x = hidden_states(p, cfg, batch[:, :-1], key=key, dropout=dropout)
    return cross_entropy(x, p["token_embd"], batch[:, 1:].reshape(-1))
