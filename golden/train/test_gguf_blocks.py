"""Tests of the weight formats and of the GGUF reader and writer: python -m unittest"""
import os
import tempfile
import unittest

import numpy as np

import gguf_blocks as gb
import gguf_read
import gguf_write as gw
import tiny


def half(x):
    return np.float16(x).tobytes()


class Blocks(unittest.TestCase):
    """Blocks written by hand: a few codes at known places, everything else 0."""

    def decode(self, name, raw):
        kind, (_, width, size, f) = next((k, v) for k, v in gb.BLOCKS.items() if v[0] == name)
        self.assertEqual(len(raw), size)
        return gb.layout(kind, [1, width])[2](bytes(raw))[0]

    def expect(self, got, background, values):
        """values: {place: weight}; all other weights are the background."""
        want = np.full(len(got), background, np.float32)
        for i, v in values.items():
            want[i] = v
        np.testing.assert_allclose(got, want, rtol=1e-6)

    def test_q4_0(self):
        self.expect(self.decode("Q4_0", half(0.5) + bytes([0x1f]) + bytes([0x88] * 15)), 0, {0: 3.5, 16: -3.5})

    def test_q4_1(self):
        self.expect(self.decode("Q4_1", half(0.5) + half(-1) + bytes([0, 0x2f] + [0] * 14)), -1, {1: 6.5, 17: 0})

    def test_q5_0(self):
        raw = half(2) + (1 << 31 | 1).to_bytes(4, "little") + bytes([3] + [0] * 15)
        self.expect(self.decode("Q5_0", raw), -32, {0: 6, 31: 0})

    def test_q5_1(self):
        raw = half(2) + half(10) + (1 << 17).to_bytes(4, "little") + bytes([0, 0x30] + [0] * 14)
        self.expect(self.decode("Q5_1", raw), 10, {17: 2 * 19 + 10})

    def test_q8_0(self):
        self.expect(self.decode("Q8_0", half(0.25) + bytes([128, 127] + [0] * 30)), 0, {0: -32, 1: 31.75})

    def test_iq4_nl(self):
        self.expect(self.decode("IQ4_NL", half(1) + bytes([0xf0] + [0x88] * 15)), 1, {0: -127, 16: 113})

    def test_q1_0(self):
        self.expect(self.decode("Q1_0", half(3) + bytes([2] + [0] * 14 + [128])), -3, {1: 3, 127: 3})

    def test_tq2_0(self):
        raw = bytearray([0b01010101] * 64) + half(2)
        raw[0], raw[33] = 0b00100110, 0b10010101  # 0: codes 2, 1, 2, 0 from the low bits; 33: 1, 1, 1, 2
        self.expect(self.decode("TQ2_0", raw), 0, {0: 2, 64: 2, 96: -2, 128 + 1 + 96: 2})

    def test_tq1_0(self):
        byte = lambda digits: -(-int("".join(str(d + 1) for d in digits), 3) * 256 // 243)
        raw = bytearray([byte([0] * 5)] * 48 + [byte([0] * 5)] * 4) + half(2)
        raw[3], raw[32], raw[51] = byte([1, 0, -1, 0, 1]), byte([-1, 0, 0, 0, 1]), byte([1, 0, 0, -1, -1])
        self.expect(self.decode("TQ1_0", raw), 0, {3: 2, 67: -2, 131: 2, 160: -2, 224: 2, 243: 2, 255: -2})

    def test_q2_0_of_both_group_sizes(self):
        for width, size in gb.Q2_0_FORMS.items():
            _, total, decode = gb.layout(gb.Q2_0, [16, width], width)
            self.assertEqual(total, 16 * size)
            block = half(2) + bytes([0b11100100] + [0x55] * (size - 3))  # codes 0, 1, 2, 3
            for row in decode(block * 16):
                self.expect(row, 0, {0: -2, 2: 2, 3: 4})

    def test_q2_0_is_told_by_its_size(self):
        either = (128, 64)  # 36 or 34 bytes and padding
        self.assertEqual(gb.q2_0_form([either, (4096, 64 * 18)], 32), 64)
        self.assertEqual(gb.q2_0_form([either, (4096, 32 * 34)], 32), 128)
        self.assertEqual(gb.q2_0_form([(64, 32)], 32), 64)  # 18 bytes and padding; not whole blocks of 128
        with self.assertRaisesRegex(ValueError, "fit 2 of the two"):
            gb.q2_0_form([either], 32)
        with self.assertRaisesRegex(ValueError, "fit 0 of the two"):
            gb.q2_0_form([(4096, 64 * 18), (4096, 32 * 34)], 32)

    def test_i2_s(self):
        raw = bytearray([0b01010101] * 32) + np.float32(1.5).tobytes() + bytes(28)
        raw[0], raw[31] = 0b10010100, 0b01010110  # weights 0, 32, 64, 96: 2, 1, 1, 0; 31, 63, 95, 127: 1, 1, 1, 2
        got = gb.layout(gb.I2_S, [1, 128])[2](bytes(raw))[0]
        self.expect(got, 0, {0: 1.5, 96: -1.5, 127: 1.5})
        raw[0] = 255
        with self.assertRaisesRegex(ValueError, "I2_S code 3"):
            gb.layout(gb.I2_S, [1, 128])[2](bytes(raw))

    def test_iq2_bn(self):
        row = bytearray(np.float32(0.5).tobytes() + bytes([0b01010101] * 16))
        row[4], row[19] = 0b01010110, 0b00010101  # weight 0: 2; weight 15 + 48: 0
        got = gb.layout(gb.IQ2_BN, [2, 64])[2](bytes(row) * 2)
        self.expect(got[1], 0, {0: 0.5, 63: -0.5})

    def test_iq1_bn(self):
        # Five trits, the first least significant: v = sum (t + 1) 3^k; the byte is ceil(256 v / 243).
        byte = lambda t: -(-sum((x + 1) * 3 ** k for k, x in enumerate(t)) * 256 // 243)
        row = bytearray(half(2) + bytes([byte([0] * 5)] * 13))
        row[2], row[2 + 4] = byte([1, 0, 0, -1, 0]), byte([0, 0, 0, 0, 1])  # weights 0, 3; group 1, second byte: 25
        row[2 + 12] = byte([0, 1, 0, -1, 0])                               # weights 31 and 63
        got = gb.layout(gb.IQ1_BN, [2, 64])[2](bytes(row) * 2)
        self.expect(got[1], 0, {0: 2, 3: -2, 25: 2, 31: 2, 63: -2})

    def k_block(self, name, weight):
        """Random bytes with ordinary scales against a formula of one weight at a time."""
        size = next(v[2] for v in gb.BLOCKS.values() if v[0] == name)
        raw = np.random.default_rng(3).integers(0, 256, size).astype(np.uint8)
        d, m, at = 0.125, 0.5, {"Q2_K": 80, "Q3_K": 108, "Q4_K": 0, "Q5_K": 0, "Q6_K": 208}[name]
        raw[at:at + 2] = list(half(d))
        if name not in ("Q3_K", "Q6_K"):
            raw[at + 2:at + 4] = list(half(m))
        b = [int(x) for x in raw]
        np.testing.assert_allclose(self.decode(name, raw.tobytes()), [weight(b, i, d, m) for i in range(256)], rtol=1e-5)

    def test_q2_k(self):
        code = lambda b, i: b[16 + i // 128 * 32 + i % 32] >> i % 128 // 32 * 2 & 3
        self.k_block("Q2_K", lambda b, i, d, m: d * (b[i // 16] & 15) * code(b, i) - m * (b[i // 16] >> 4))

    def test_q3_k(self):
        def weight(b, i, d, _):
            j, s = i // 16, b[96:108]
            scale = (s[j] & 15 if j < 8 else s[j - 8] >> 4) | (s[8 + j % 4] >> j // 4 * 2 & 3) << 4
            code = b[32 + i // 128 * 32 + i % 32] >> i % 128 // 32 * 2 & 3
            return d * (scale - 32) * (code - (0 if b[i % 32] >> i // 32 & 1 else 4))
        self.k_block("Q3_K", weight)

    @staticmethod
    def six_bits(s, j):
        if j < 4:
            return s[j] & 63, s[j + 4] & 63
        return s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4

    def test_q4_k_and_q5_k(self):
        def weight(codes, high):
            def one(b, i, d, m):
                scale, low = self.six_bits(b[4:16], i // 32)
                code = b[codes + i // 64 * 32 + i % 32] >> i % 64 // 32 * 4 & 15
                return d * scale * (code + (16 * (b[16 + i % 32] >> i // 32 & 1) if high else 0)) - m * low
            return one
        self.k_block("Q4_K", weight(16, False))
        self.k_block("Q5_K", weight(48, True))

    def test_q6_k(self):
        def weight(b, i, d, _):
            h, q, l = i // 128, i % 128 // 32, i % 32
            code = b[h * 64 + q % 2 * 32 + l] >> q // 2 * 4 & 15 | (b[128 + h * 32 + l] >> 2 * q & 3) << 4
            scale = b[192 + i // 16]
            return d * (scale - 256 if scale > 127 else scale) * (code - 32)
        self.k_block("Q6_K", weight)

    def test_bf16(self):
        got = gb.layout(gb.BF16, [2])[2](bytes([0x80, 0x3f, 0x49, 0xc0]))
        np.testing.assert_array_equal(got, [1, -3.140625])

    def test_half_blocks_and_unknown_types_are_refused(self):
        with self.assertRaisesRegex(ValueError, "Q4_K: rows of 128"):
            gb.layout(12, [2, 128])
        with self.assertRaisesRegex(ValueError, "ggml type 39"):
            gb.layout(39, [2, 128])


class Writing(unittest.TestCase):
    def test_what_is_written_is_read(self):
        for kind in (gw.F32, gw.F16, gw.BF16, gw.Q8_0, gw.TQ2_0, gw.Q2_0, gw.I2_S):
            sizes = dict(width=256, head_dim=64, ffn=256, layers=1)
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "m.gguf")
                _, weights = tiny.model(path, "qwen3", kind=kind, **sizes)
                meta, tensors = gguf_read.open_file(path)
            self.assertEqual(meta["qwen3.attention.key_length"], 64)
            self.assertEqual(set(tensors), set(weights))
            allowed = {gw.F16: 1e-3, gw.BF16: 5e-3, gw.Q8_0: 2e-2}.get(kind, 0)
            for name, w in weights.items():
                np.testing.assert_allclose(tensors[name].decode(), w, atol=allowed, rtol=0, err_msg=f"{kind} {name}")

    def test_the_bytes_of_the_writer(self):
        w = np.zeros((1, 128), np.float32)
        w[0, 0], w[0, 127] = 2, -2
        self.assertEqual(gw.pack(gw.Q8_0, w[:, :32]), half(2 / 127) + bytes([127] + [0] * 31))
        self.assertEqual(gw.pack(gw.Q2_0, w[:, :64]), half(2) + bytes([0b01010110] + [0x55] * 15))
        i2s = bytes([0b10010101] + [0x55] * 30 + [0b01010100]) + np.float32(2).tobytes() + bytes(28)
        self.assertEqual(gw.pack(gw.I2_S, w), i2s)
        self.assertEqual(gw.pack(gw.BF16, np.array([1.0, -3.140625])), bytes([0x80, 0x3f, 0x49, 0xc0]))


if __name__ == "__main__":
    unittest.main()
