"""A minimal GGUF v3 reader; `gguf_blocks.py` knows the weight formats.

Written apart from the writer on purpose: what it returns is checked against
the file's bytes, not against the trainer's arrays.
"""
import struct

import numpy as np

import gguf_blocks

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


class Tensor:
    """A tensor of an open file.  `decode()` gives f32 of `shape` (numpy order: the fastest dimension last)."""

    def __init__(self, name, shape, kind, raw, q2_0_width):
        self.name, self.shape, self.kind = name, shape, kind
        try:
            self.format, size, self._decoder = gguf_blocks.layout(kind, shape, q2_0_width)
        except ValueError as e:
            raise ValueError(f"{name}: {e}") from None
        if size > len(raw):
            raise ValueError(f"{name}: {self.format} needs {size} bytes, the file has {len(raw)}")
        self.raw = raw[:size]

    def decode(self):
        return self._decoder(self.raw)


def open_file(path):
    """-> (metadata dict, {name: Tensor})"""
    with open(path, "rb") as f:
        c = Cursor(f.read())
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
    ends = sorted([offset for *_, offset in infos] + [len(c.data) - base])
    space = {name: next((e for e in ends if e > at), at) - at for name, _, _, at in infos}
    doubtful = [(int(np.prod(shape)), space[name]) for name, shape, kind, _ in infos if kind == gguf_blocks.Q2_0]
    width = gguf_blocks.q2_0_form(doubtful, align) if doubtful else None
    tensors = {}
    for name, shape, kind, at in infos:
        tensors[name] = Tensor(name, shape, kind, c.data[base + at:base + at + space[name]], width)
    return meta, tensors


def read(path):
    """-> (metadata dict, {tensor name: f32 array, or (codes f32, multiplier) of an I2_S one})"""
    meta, tensors = open_file(path)

    def whole(t):
        if t.kind != gguf_blocks.I2_S:
            return t.decode()
        codes, multiplier = gguf_blocks.i2_s_codes(t.raw, int(np.prod(t.shape)))
        return codes.reshape(t.shape).astype(np.float32), multiplier
    return meta, {name: whole(t) for name, t in tensors.items()}
