"""A minimal GGUF v3 writer: key-values, and tensors of F32, F16, BF16, Q8_0, TQ2_0, Q2_0 and I2_S."""
import struct

import numpy as np

ALIGNMENT = 32
F32, F16, Q8_0, BF16, TQ2_0, I2_S, Q2_0 = 0, 1, 8, 30, 35, 36, 42  # ggml tensor types
U32, I32, FLOAT, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # GGUF value types
SCALARS = {U32: "<I", I32: "<i", FLOAT: "<f", BOOL: "<?"}


def string(s):
    b = s.encode("utf-8")
    return struct.pack("<Q", len(b)) + b


def value(kind, v):
    """One value without its type tag; an array is given as (element type, list)."""
    if kind == STRING:
        return string(v)
    if kind == ARRAY:
        element, items = v
        return struct.pack("<IQ", element, len(items)) + b"".join(value(element, x) for x in items)
    return struct.pack(SCALARS[kind], v)


def pack_i2s(codes, scale):
    """codes [out, in] of -1, 0, 1 and a multiplier -> bytes, x86 layout.

    128 consecutive weights lie in 32 bytes: byte p holds weight p in bits 7-6,
    p+32 in 5-4, p+64 in 3-2, p+96 in 1-0, each as code + 1.  The f32 multiplier
    follows the codes, then 28 zero bytes.
    """
    groups = (np.asarray(codes, np.int8) + 1).astype(np.uint8).reshape(-1, 4, 32)
    assert groups.max() <= 2
    packed = groups[:, 0] << 6 | groups[:, 1] << 4 | groups[:, 2] << 2 | groups[:, 3]
    return packed.tobytes() + struct.pack("<f", scale) + bytes(28)


def absmax(w, group):
    """w -> ([groups, group], f16 absolute maximum of each group [groups, 1]); 1 where all are 0."""
    w = np.asarray(w, np.float32).reshape(-1, group)
    d = np.abs(w).max(-1, keepdims=True)
    return w, np.where(d > 0, d, 1).astype("<f2")


def pack(kind, w):
    """w [..., in] of floats -> bytes.  The ternary formats and Q8_0 take the largest |w| of a block for their scale."""
    w = np.asarray(w, np.float32)
    if kind in (F32, F16):
        return w.astype({F32: "<f4", F16: "<f2"}[kind]).tobytes()
    if kind == BF16:  # round half to even
        bits = np.ascontiguousarray(w).view(np.uint32)
        return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()
    if kind == I2_S:
        scale = np.abs(w).max()
        return pack_i2s(np.rint(w / scale), scale)
    if kind == Q8_0:  # f16 step, then 32 int8
        w, d = absmax(w, 32)
        d = (d.astype(np.float32) / 127).astype("<f2")
        q = np.clip(np.rint(w / d.astype(np.float32)), -127, 127).astype(np.int8)
        return np.concatenate([d.view(np.uint8), q.view(np.uint8)], -1).tobytes()
    w, d = absmax(w, {TQ2_0: 256, Q2_0: 64}[kind])
    codes = (np.clip(np.rint(w / d.astype(np.float32)), -1, 1) + 1).astype(np.uint8)
    shifts = np.array([0, 2, 4, 6], np.uint8)
    if kind == Q2_0:   # f16 scale, then four neighbours in a byte, the first in the low bits
        packed = (codes.reshape(-1, 16, 4) << shifts).sum(-1, dtype=np.uint8)
        return np.concatenate([d.view(np.uint8), packed], -1).tobytes()
    # TQ2_0: two halves of 32 bytes, byte m holding m, m + 32, m + 64, m + 96 of the half from the low bits up; f16 scale
    packed = (codes.reshape(-1, 2, 4, 32) << shifts[:, None]).sum(2, dtype=np.uint8)
    return np.concatenate([packed.reshape(-1, 64), d.view(np.uint8)], -1).tobytes()


def write(path, fields, tensors):
    """fields: [(key, type, value)]; tensors: [(name, ggml type, numpy shape, bytes)].

    Shapes are given in numpy order and written in ggml order (fastest first).
    """
    pad = lambda n: -n % ALIGNMENT
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(fields))
    for key, kind, v in fields:
        head += string(key) + struct.pack("<I", kind) + value(kind, v)
    offset = 0
    for name, kind, shape, data in tensors:
        head += string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        head += struct.pack("<IQ", kind, offset)
        offset += len(data) + pad(len(data))
    with open(path, "wb") as f:
        f.write(head + bytes(pad(len(head))))
        for *_, data in tensors:
            f.write(data + bytes(pad(len(data))))
