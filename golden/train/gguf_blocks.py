"""Weight formats of GGUF tensors, decoded to f32: one function for each block layout.

A block function takes uint8 [blocks, bytes of a block] and gives f32 [blocks, weights of a block].  Sources: ggml's
public description of its block types; BitNet's I2_S (one multiplier for the tensor, x86 layout); ik_llama.cpp's IQ1_BN
and IQ2_BN (one scale a row).  Nothing here is fast; each function is the layout, written down.
"""
import numpy as np

f32 = np.float32
F32, F16, BF16, I2_S, IQ1_BN, IQ2_BN, Q2_0 = 0, 1, 30, 36, 134, 135, 42  # ggml types that are more than a row of BLOCKS


def half(block, at):
    """The f16 number at a byte of every block -> f32 [blocks, 1]."""
    return np.ascontiguousarray(block[:, at:at + 2]).view("<f2").astype(f32)


def planes(codes, bits, shifts):
    """[..., m] bytes -> [..., len(shifts) * m]: first the fields at shifts[0] of all bytes, then those at shifts[1]..."""
    mask = (1 << bits) - 1
    return np.concatenate([(codes >> s) & mask for s in shifts], -1).astype(np.int32)


def neighbours(codes, bits):
    """[..., m] bytes -> [..., m * 8 / bits]: the fields of one byte lie beside each other, low bits first."""
    fields = np.stack([(codes >> s) & ((1 << bits) - 1) for s in range(0, 8, bits)], -1)
    return fields.reshape(*codes.shape[:-1], -1).astype(np.int32)


def trits(codes, count):
    """Base-3 digits in {-1, 0, 1} of bytes ceil(v * 256 / 243), most significant first: [..., m] -> [..., count, m]."""
    digit = lambda n: ((codes.astype(np.int32) * 3 ** n & 255) * 3 >> 8) - 1
    return np.stack([digit(n) for n in range(count)], -2)


def flat(x):
    return x.reshape(len(x), -1)


def spread(scales, width):
    """[blocks, n] -> [blocks, n * width]: each scale serves `width` neighbouring weights."""
    return np.repeat(scales, width, -1).astype(f32)


def q8_0(b):
    return b[:, 2:].view(np.int8) * half(b, 0)


def q4_0(b):
    return (planes(b[:, 2:], 4, (0, 4)) - 8) * half(b, 0)


def q4_1(b):
    return planes(b[:, 4:], 4, (0, 4)) * half(b, 0) + half(b, 2)


def q5_0(b):
    return (planes(b[:, 6:], 4, (0, 4)) + 16 * neighbours(b[:, 2:6], 1) - 16) * half(b, 0)


def q5_1(b):
    return (planes(b[:, 8:], 4, (0, 4)) + 16 * neighbours(b[:, 4:8], 1)) * half(b, 0) + half(b, 2)


IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], f32)


def iq4_nl(b):
    return IQ4_VALUES[planes(b[:, 2:], 4, (0, 4))] * half(b, 0)


def q1_0(b):
    return (2 * neighbours(b[:, 2:], 1) - 1) * half(b, 0)


def q2_0(b):
    """Both group sizes: 16 bytes of codes (64 weights) or 32 (128 weights) after the scale."""
    return (neighbours(b[:, 2:], 2) - 1) * half(b, 0)


def tq2_0(b):
    return (flat(planes(b[:, :64].reshape(-1, 2, 32), 2, (0, 2, 4, 6))) - 1) * half(b, 64)


def tq1_0(b):
    parts = trits(b[:, :32], 5), trits(b[:, 32:48], 5), trits(b[:, 48:52], 4)
    return np.concatenate([flat(p) for p in parts], -1) * half(b, 52)


def k_codes(b):
    """64 bytes of two-bit codes of 256 weights, as Q2_K and Q3_K store them: two halves of 32 bytes."""
    return flat(planes(b.reshape(-1, 2, 32), 2, (0, 2, 4, 6)))


def q2_k(b):
    scale, low = b[:, :16] & 15, b[:, :16] >> 4
    return half(b, 80) * spread(scale, 16) * k_codes(b[:, 16:80]) - half(b, 82) * spread(low, 16)


def q3_k(b):
    high = planes(b[:, :32], 1, range(8))        # bit j of byte l: weight 32 j + l; 0 means 4 less
    s = b[:, 96:108]                             # 16 scales of six bits: nibbles in 8 bytes, then pairs in 4 bytes
    scale = (planes(s[:, :8], 4, (0, 4)) | planes(s[:, 8:], 2, (0, 2, 4, 6)) << 4) - 32
    return half(b, 108) * spread(scale, 16) * (k_codes(b[:, 32:96]) - 4 + 4 * high)


def six_bit_pairs(s):
    """12 bytes -> (scale [.., 8], minimum [.., 8]) of Q4_K and Q5_K, six bits each."""
    a, b, c = s[:, :4], s[:, 4:8], s[:, 8:]
    scale = np.concatenate([a & 63, c & 15 | a >> 6 << 4], -1)
    low = np.concatenate([b & 63, c >> 4 | b >> 6 << 4], -1)
    return scale, low


def k_nibbles(b):
    """128 bytes of 256 nibbles: 32 bytes hold 32 weights in their low and the next 32 in their high halves."""
    return flat(planes(b.reshape(-1, 4, 32), 4, (0, 4)))


def q4_k(b):
    scale, low = six_bit_pairs(b[:, 4:16])
    return half(b, 0) * spread(scale, 32) * k_nibbles(b[:, 16:]) - half(b, 2) * spread(low, 32)


def q5_k(b):
    scale, low = six_bit_pairs(b[:, 4:16])
    code = k_nibbles(b[:, 48:]) + 16 * planes(b[:, 16:48], 1, range(8))  # bit j of byte l: weight 32 j + l
    return half(b, 0) * spread(scale, 32) * code - half(b, 2) * spread(low, 32)


def q6_k(b):
    low = flat(planes(b[:, :128].reshape(-1, 2, 64), 4, (0, 4)))
    high = flat(planes(b[:, 128:192].reshape(-1, 2, 32), 2, (0, 2, 4, 6)))
    return half(b, 208) * spread(b[:, 192:208].view(np.int8), 16) * ((low | high << 4) - 32)


# ggml type: (name, weights of a block, bytes of a block, function)
BLOCKS = {
    2: ("Q4_0", 32, 18, q4_0), 3: ("Q4_1", 32, 20, q4_1), 6: ("Q5_0", 32, 22, q5_0), 7: ("Q5_1", 32, 24, q5_1),
    8: ("Q8_0", 32, 34, q8_0), 10: ("Q2_K", 256, 84, q2_k), 11: ("Q3_K", 256, 110, q3_k),
    12: ("Q4_K", 256, 144, q4_k), 13: ("Q5_K", 256, 176, q5_k), 14: ("Q6_K", 256, 210, q6_k),
    20: ("IQ4_NL", 32, 18, iq4_nl), 34: ("TQ1_0", 256, 54, tq1_0), 35: ("TQ2_0", 256, 66, tq2_0),
    41: ("Q1_0", 128, 18, q1_0),
}
Q2_0_FORMS = {64: 18, 128: 34}  # weights of a block: bytes of a block; both are ggml type 42
PLAIN = {F32: ("F32", "<f4"), F16: ("F16", "<f2"), BF16: ("BF16", "<u2")}


def i2_s_codes(raw, n):
    """-> (int8 codes [n] in {-1, 0, 1}, f32 multiplier).  Byte p of 32: weight p in bits 7-6, p + 32 in 5-4..."""
    codes = flat(planes(np.frombuffer(raw, np.uint8, n // 4).reshape(-1, 32), 2, (6, 4, 2, 0)))
    if codes.max() > 2:
        raise ValueError("I2_S code 3")
    return codes.reshape(n).astype(np.int8) - 1, np.frombuffer(raw, "<f4", 1, n // 4)[0]


def iq2_bn(rows, cols):
    """Row: f32 scale, then 16 bytes for each 64 weights: j, j + 16, j + 32, j + 48 from the low bits up."""
    scale = np.ascontiguousarray(rows[:, :4]).view("<f4")
    return (flat(planes(rows[:, 4:].reshape(len(rows), cols // 64, 16), 2, (0, 2, 4, 6))) - 1) * scale


def iq1_bn(rows, cols):
    """Row: f16 scale, then 13 bytes for each 64 weights.

    Group g of 16 has weights 0-14 in bytes 3g..3g+2, five in each, the first least significant, and weight 15 as trit
    g of byte 12.
    """
    t = trits(rows[:, 2:].reshape(len(rows), cols // 64, 13), 5)[:, :, ::-1]  # least significant first
    fifteen = t[..., :12].swapaxes(-1, -2).reshape(len(rows), -1, 4, 15)      # byte by byte, five trits each
    return flat(np.concatenate([fifteen, t[:, :, :4, 12, None]], -1)) * half(rows, 0)


def q2_0_form(places, align):
    """Weights of a Q2_0 block, 64 or 128: which size fills the space up to the next tensor, for all tensors of a file.

    places: [(weights, bytes up to the next tensor)].  The last tensor of a file may lack its padding.
    """
    filled = lambda size, space: space in (size, -(-size // align) * align)
    fits = [w for w, size in Q2_0_FORMS.items() if all(n % w == 0 and filled(n // w * size, s) for n, s in places)]
    if len(fits) != 1:
        raise ValueError(f"Q2_0: the sizes of {len(places)} tensors fit {len(fits)} of the two block sizes")
    return fits[0]


def layout(kind, shape, q2_0_width=64):
    """-> (name, size in bytes, decoder of exactly so many bytes to f32 of the shape)."""
    n, cols = int(np.prod(shape)), shape[-1]
    rows = n // cols
    if kind in PLAIN:
        name, dtype = PLAIN[kind]
        widen = (lambda x: (x.astype(np.uint32) << 16).view(f32)) if kind == BF16 else (lambda x: x.astype(f32))
        return name, n * np.dtype(dtype).itemsize, lambda raw: widen(np.frombuffer(raw, dtype)).reshape(shape)
    if kind == I2_S:
        need(cols % 128 == 0, "I2_S", shape)

        def whole(raw):
            codes, multiplier = i2_s_codes(raw, n)
            return codes.reshape(shape) * multiplier
        return "I2_S", n // 4 + 32, whole
    if kind in (IQ1_BN, IQ2_BN):
        name, head, part, decode = {IQ1_BN: ("IQ1_BN", 2, 13, iq1_bn), IQ2_BN: ("IQ2_BN", 4, 16, iq2_bn)}[kind]
        need(cols % 64 == 0, name, shape)
        size = rows * (head + cols // 64 * part)
        return name, size, lambda raw: decode(np.frombuffer(raw, np.uint8).reshape(rows, -1), cols).reshape(shape)
    if kind == Q2_0:
        width = q2_0_width
        name, size, decode = f"Q2_0 of {width}", Q2_0_FORMS[width], q2_0
    elif kind in BLOCKS:
        name, width, size, decode = BLOCKS[kind]
    else:
        raise ValueError(f"ggml type {kind} is not decoded here")
    need(cols % width == 0, name, shape)
    total = n // width * size
    return name, total, lambda raw: decode(np.frombuffer(raw, np.uint8).reshape(-1, size)).astype(f32).reshape(shape)


def need(true, name, shape):
    if not true:
        raise ValueError(f"{name}: rows of {shape[-1]} weights are not whole blocks")
