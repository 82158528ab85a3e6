"""The formulas of the transformer families, in float64, one short function each.

Shapes: T tokens, C channels, H heads, d width of a head.  Positions are 0..T-1.  Sources: LayerNorm arXiv:1607.06450,
GELU 1606.08415, RMSNorm 1910.07467, rotary positions 2104.09864, gated units 2002.05202, YaRN 2309.00071, LongRoPE
2402.13753, BitNet b1.58 2402.17764.
"""
import numpy as np

f32 = np.float32


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x ** 2, -1, keepdims=True) + eps) * weight


def layer_norm(x, weight, bias, eps):
    """The variance is the population's: the sum is divided by C, not C - 1."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred ** 2, -1, keepdims=True) + eps) * weight + bias


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    """The tanh form, which GPT-2 and Gemma use."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def relu2(x):
    return np.maximum(x, 0) ** 2


def swiglu_clamped(gate, up, limit):
    """silu(min(gate, L)) * clamp(up, -L, L); no limit below 1e-6."""
    if limit < 1e-6:
        return silu(gate) * up
    return silu(np.minimum(gate, limit)) * np.clip(up, -limit, limit)


# ---- rounding of the input of a matrix product: x [T, C] -> the values that the product sees

def int8_token(x):
    """One scale a token: s = 127 / max(absmax, 1e-5); q = round-half-even(x s) in -128..127; the product sees q / s.

    In f32, as engines do it, so that a value near a half is rounded to the same side.
    """
    x = x.astype(f32)
    s = f32(127) / np.maximum(np.abs(x).max(-1, keepdims=True), f32(1e-5))
    return np.clip(np.rint(x * s), -128, 127) / s.astype(np.float64)


def int8_block32(x):
    """One scale for 32 values: step = absmax / 127; q = round-half-even(x / step), 0 if the step is 0."""
    x = x.astype(f32).reshape(*x.shape[:-1], -1, 32)
    step = np.abs(x).max(-1, keepdims=True) / f32(127)
    inverse = np.divide(f32(1), step, out=np.zeros_like(step), where=step > 0)
    q = np.clip(np.rint(x * inverse), -127, 127)
    return (q * step.astype(np.float64)).reshape(*x.shape[:-2], -1)


ROUNDINGS = {"float": lambda x: x, "int8-token": int8_token, "int8-block32": int8_block32}


# ---- rotary positions

def frequencies(n_rot, base):
    """Radians a position for each of the n_rot / 2 pairs: base^(-2i / n_rot)."""
    return float(base) ** (-np.arange(0, n_rot, 2) / n_rot)


def yarn(freq, n_rot, base, factor, original):
    """YaRN: slow pairs are interpolated (divided by the factor), fast pairs are kept, with a ramp between.

    Pair d(b) makes b turns in the original context: original * base^(-2 d / n_rot) / 2 pi = b.  The ramp goes from
    d(32), rounded down, to d(1), rounded up.
    """
    pair = lambda turns: n_rot * np.log(original / (2 * np.pi * turns)) / (2 * np.log(base))
    low, high = max(0, np.floor(pair(32))), min(n_rot - 1, np.ceil(pair(1)))
    interpolated = np.clip((np.arange(n_rot // 2) - low) / max(0.001, high - low), 0, 1)
    return freq / factor * interpolated + freq * (1 - interpolated)


def yarn_magnitude(factor):
    """What YaRN multiplies cos and sin by: 0.1 ln(factor) + 1."""
    return 1 + 0.1 * np.log(max(1, factor))


def llama3_factors(freq, factor=8.0, low=1.0, high=4.0, original=8192):
    """The divisors of Llama 3.1: short waves 1, long waves the factor, a smooth step between."""
    wave = 2 * np.pi / freq
    s = (original / wave - low) / (high - low)
    return np.where(wave < original / high, 1, np.where(wave > original / low, factor, 1 / ((1 - s) / factor + s)))


def rotate(x, freq, magnitude, pairing):
    """x [H, T, d]: pair i of a head turns by position * freq[i].

    `norm`: a pair is channels 2i and 2i + 1.  `neox`: channels i and i + n_rot / 2.  Channels from n_rot on stay.
    """
    n_rot, angle = 2 * len(freq), np.outer(np.arange(x.shape[1]), freq)
    cos, sin = np.cos(angle) * magnitude, np.sin(angle) * magnitude
    out = x.copy()
    first, second = {"norm": (slice(0, n_rot, 2), slice(1, n_rot, 2)),
                     "neox": (slice(0, n_rot // 2), slice(n_rot // 2, n_rot))}[pairing]
    a, b = x[..., first], x[..., second]
    out[..., first], out[..., second] = a * cos - b * sin, a * sin + b * cos
    return out


# ---- attention

def attention(q, k, v, window=None):
    """q [H, T, d], k and v [H / g, T, d] -> [T, H d].  Causal; query head h reads key head h // g.

    With a window, a query sees the keys with position(query) - position(key) < window.
    """
    heads, T, d = q.shape
    group = heads // len(k)
    distance = np.arange(T)[:, None] - np.arange(T)[None, :]
    seen = (distance >= 0) & (distance < (window or T))
    score = q @ k.repeat(group, 0).swapaxes(1, 2) / np.sqrt(d)
    y = softmax(np.where(seen, score, -np.inf)) @ v.repeat(group, 0)
    return y.swapaxes(0, 1).reshape(T, -1)


def route(logits, used):
    """Router logits [T, experts] -> (chosen experts [T, used], their shares [T, used]).

    The softmax is over all experts; the shares of the chosen ones are then made to sum to 1.
    """
    p = softmax(logits)
    chosen = np.argsort(-p, -1, kind="stable")[:, :used]
    share = np.take_along_axis(p, chosen, -1)
    return chosen, share / np.maximum(share.sum(-1, keepdims=True), 2.0 ** -14)


def pooled(hidden, kind):
    """hidden [T, C] -> the L2-normalised vector of a text."""
    y = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[kind]
    return y / np.sqrt((y ** 2).sum())
