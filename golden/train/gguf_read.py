"""A minimal GGUF v3 reader for F32, F16 and I2_S (x86 layout) tensors.

Written apart from the writer on purpose: what it returns is checked against
the file's bytes, not against the trainer's arrays.
"""
import struct

import numpy as np

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, fmt):
        v = struct.unpack_from("<" + fmt, self.data, self.at)
        self.at += struct.calcsize("<" + fmt)
        return v[0] if len(v) == 1 else v

    def string(self):
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode("utf-8")

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            element, n = self.take("IQ")
            return [self.value(element) for _ in range(n)]
        return self.take(SCALARS[kind])


def unpack_i2s(raw, rows, cols):
    """raw bytes -> (codes f32 [rows, cols] in {-1, 0, 1}, f32 multiplier)."""
    n = rows * cols
    packed = np.frombuffer(raw, np.uint8, n // 4).reshape(-1, 32)
    codes = np.empty((n // 128, 128), np.float32)
    for i, shift in enumerate((6, 4, 2, 0)):
        codes[:, 32 * i:32 * (i + 1)] = (packed >> shift) & 3
    if codes.max() > 2:
        raise ValueError("I2_S code 3")
    return codes.reshape(rows, cols) - 1, np.frombuffer(raw, "<f4", 1, n // 4)[0]


def read(path):
    """-> (metadata dict, {tensor name: f32 array, or (codes, multiplier) of an I2_S one})"""
    c = Cursor(open(path, "rb").read())
    magic, version, n_tensors, n_fields = c.take("4sIQQ")
    if magic != b"GGUF" or version != 3:
        raise ValueError("not a GGUF v3 file")
    meta = {}
    for _ in range(n_fields):
        key = c.string()
        meta[key] = c.value(c.take("I"))
    infos = []
    for _ in range(n_tensors):
        name = c.string()
        dims = [c.take("Q") for _ in range(c.take("I"))]
        infos.append((name, dims[::-1], *c.take("IQ")))
    align = meta.get("general.alignment", 32)
    base = -(-c.at // align) * align
    tensors = {}
    for name, shape, kind, offset in infos:
        n, at = int(np.prod(shape)), base + offset
        if kind == 36:
            tensors[name] = unpack_i2s(c.data[at:at + n // 4 + 32], *shape)
        else:
            dtype = {0: "<f4", 1: "<f2"}[kind]
            tensors[name] = np.frombuffer(c.data, dtype, n, at).reshape(shape).astype(np.float32)
    return meta, tensors
