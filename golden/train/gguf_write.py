"""A minimal GGUF v3 writer: key-values, F32, F16 and I2_S tensors."""
import struct

import numpy as np

ALIGNMENT = 32
F32, F16, I2_S = 0, 1, 36                      # ggml tensor types
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
