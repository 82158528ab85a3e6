"""Checks of checkpoints.py that need numpy alone: files, packing, the rule of the scale, the order of rows."""
import os
import tempfile
import unittest

import numpy as np

import checkpoints as ck


class Checkpoints(unittest.TestCase):
    def made(self, name):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        ck.write(folder.name, name)
        return folder.name, ck.Checkpoint(folder.name, "float")

    def test_what_is_written_is_read(self):
        for name, (kind, _, config) in ck.CONFIGS.items():
            folder, _ = self.made(name)
            wanted = ck.tensors(kind, config)
            found = ck.load(folder)
            self.assertEqual(set(found), set(wanted), name)
            for tensor, (dtype, w) in wanted.items():
                self.assertEqual(found[tensor], (dtype, list(w.shape), ck.encode(w, dtype)), tensor)

    def test_seven_bits_fit_every_type(self):
        w = ck.draw("a.weight", (3, 5), False)
        for dtype, back in (("F32", lambda b: np.frombuffer(b, "<f4")), ("F16", lambda b: np.frombuffer(b, "<f2")),
                            ("BF16", lambda b: (np.frombuffer(b, "<u2").astype("<u4") << 16).view("<f4"))):
            self.assertTrue((back(ck.encode(w, dtype)) == w.ravel()).all(), dtype)

    def test_low_bits_are_the_first_quarter(self):
        _, model = self.made("bitnet-packed")
        name = "model.layers.0.mlp.up_proj.weight"
        t, m = ck.quantised(ck.draw(name, (256, 256), False))
        self.assertTrue((model.matrix(name) == t * np.float64(m)).all())
        self.assertTrue((model.raw(name)[5] & 3 == t[5] + 1).all())
        self.assertTrue((model.raw(name)[5] >> 6 == t[5 + 192] + 1).all())

    def test_the_scale_multiplies_or_divides(self):
        name = "model.layers.0.mlp.up_proj.weight"
        for folder, power in (("bitnet-packed", 1), ("llama-packed", -1)):
            _, model = self.made(folder)
            scale = model.raw(name + "_scale")[0]
            self.assertAlmostEqual(np.abs(model.matrix(name)).max(), scale ** power, places=6)

    def test_forms_of_one_model(self):
        for packed, master, limit in (("bitnet-packed", "bitnet-master", 0), ("llama-packed", "llama-master", 2e-6)):
            a, b = (self.made(name)[1].logits(ck.IDS) for name in (packed, master))
            self.assertLessEqual(np.abs(a - b).max(), limit)

    def test_the_digest_is_of_the_content(self):
        folder, model = self.made("llama-master")
        whole = os.path.join(folder, "whole")
        os.makedirs(whole)
        ck.save(os.path.join(whole, "model.safetensors"), ck.tensors(*ck.CONFIGS["llama-master"][::2]))
        self.assertEqual(ck.digest(model.tensors), ck.digest(ck.load(whole)))


if __name__ == "__main__":
    unittest.main()
