"""Tests of formulas.py and families.py that need no engine and no download: python -m unittest"""
import json
import os
import tempfile
import unittest

import numpy as np

import families
import formulas as fm
import gguf_write as gw
import infer
import tiny

IDS = [5, 17, 3, 90, 41, 8, 66, 2, 29, 71, 13, 54]
HERE = os.path.dirname(os.path.abspath(__file__))


def rms(x):
    return np.sqrt(np.mean(x ** 2))


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


class Formulas(unittest.TestCase):
    def close(self, a, b, tolerance=1e-12):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)

    def test_layer_norm_is_the_direct_formula(self):
        x, w, b = random(3, 8), random(8, seed=1), random(8, seed=2)
        for row, got in zip(x, fm.layer_norm(x, w, b, 1e-5)):
            mean = sum(row) / 8
            variance = sum((v - mean) ** 2 for v in row) / 8
            self.close(got, [(v - mean) / (variance + 1e-5) ** 0.5 * wi + bi for v, wi, bi in zip(row, w, b)])

    def test_rms_norm_is_the_direct_formula(self):
        x, w = random(1, 8), random(8, seed=1)
        square = sum(v * v for v in x[0]) / 8
        self.close(fm.rms_norm(x, w, 1e-6)[0], [v / (square + 1e-6) ** 0.5 * wi for v, wi in zip(x[0], w)])

    def test_activations_at_known_points(self):
        self.close(fm.gelu(np.array([0.0, 1, -1, 3])), [0, 0.8411920, -0.1588080, 2.9963627], 1e-6)
        self.close(fm.silu(np.array([0.0, 1, -1])), [0, 0.7310586, -0.2689414], 1e-6)
        self.close(fm.relu2(np.array([-2.0, 0, 3])), [0, 0, 9])
        self.close(fm.softmax(np.log(np.array([[1.0, 2, 5]]))), [[0.125, 0.25, 0.625]])

    def test_the_clamp_of_a_gated_unit(self):
        gate, up = np.array([9.0, -9, 1]), np.array([-9.0, 9, 2])
        self.close(fm.swiglu_clamped(gate, up, 7), fm.silu(np.array([7.0, -9, 1])) * [-7, 7, 2])
        self.close(fm.swiglu_clamped(gate, up, 0), fm.silu(gate) * up)

    def test_rope_is_complex_multiplication(self):
        x, freq = random(2, 5, 8), fm.frequencies(8, 100)
        self.close(freq, [100 ** -0.0, 100 ** -0.25, 100 ** -0.5, 100 ** -0.75])
        turn = np.exp(1j * np.outer(np.arange(5), freq))
        z = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
        self.close(fm.rotate(x, freq, 1, "norm"), np.stack([z.real, z.imag], -1).reshape(x.shape))
        z = (x[..., :4] + 1j * x[..., 4:]) * turn * 1.5
        self.close(fm.rotate(x, freq, 1.5, "neox"), np.concatenate([z.real, z.imag], -1))

    def test_rope_leaves_what_lies_behind_the_rotated_channels(self):
        x = random(2, 5, 12)
        for pairing in ("norm", "neox"):
            y = fm.rotate(x, fm.frequencies(8, 100), 1, pairing)
            self.close(y[..., 8:], x[..., 8:])
            self.close(y[..., :8], fm.rotate(x[..., :8], fm.frequencies(8, 100), 1, pairing))

    def test_yarn_of_factor_one_is_plain(self):
        freq = fm.frequencies(64, 1e4)
        self.close(fm.yarn(freq, 64, 1e4, 1, 256), freq)
        self.assertEqual(fm.yarn_magnitude(1), 1)

    def test_yarn_between_its_corners(self):
        # n_rot 128, base 10000, 4096 positions: d(32) = 20.9, d(1) = 45.03.
        freq = fm.frequencies(128, 1e4)
        ratio = fm.yarn(freq, 128, 1e4, 8, 4096) / freq
        self.close(ratio[:21], 1)
        self.close(ratio[46:], 1 / 8)
        self.close(ratio[33], 0.5 + 0.5 / 8)  # half of the ramp from 20 to 46
        self.close(fm.yarn_magnitude(8), 1.2079441541679836)

    def test_llama3_factors(self):
        freq = 2 * np.pi / np.array([100.0, 2048, 4096, 8192, 20000])
        # s of 4096: (8192 / 4096 - 1) / 3 = 1/3
        self.close(fm.llama3_factors(freq, 8), [1, 1, 1 / ((1 - 1 / 3) / 8 + 1 / 3), 8, 8])

    def test_a_window_as_long_as_the_text_is_full_attention(self):
        q, k, v = random(4, 6, 8), random(2, 6, 8, seed=1), random(2, 6, 8, seed=2)
        full = fm.attention(q, k, v)
        self.close(fm.attention(q, k, v, 6), full)
        self.close(fm.attention(q, k, v, 100), full)
        self.assertGreater(np.abs(fm.attention(q, k, v, 5) - full)[5].max(), 1e-3)
        self.close(fm.attention(q, k, v, 5)[:5], full[:5])

    def test_attention_is_the_direct_sum(self):
        q, k, v = random(4, 6, 8), random(2, 6, 8, seed=1), random(2, 6, 8, seed=2)
        got = fm.attention(q, k, v, 3)
        for h in range(4):
            for t in range(6):
                seen = [s for s in range(6) if s <= t and t - s < 3]
                e = [np.exp(sum(q[h, t] * k[h // 2, s]) / 8 ** 0.5) for s in seen]
                self.close(got[t, 8 * h:8 * h + 8], sum(ei * v[h // 2, s] for ei, s in zip(e, seen)) / sum(e))

    def test_route(self):
        chosen, share = fm.route(np.log(np.array([[0.1, 0.4, 0.2, 0.3]])), 2)
        self.assertEqual(chosen.tolist(), [[1, 3]])
        self.close(share, [[4 / 7, 3 / 7]])

    def test_int8_token(self):
        # The largest value is 127, so the scale is 1; halves go to the even neighbour.
        self.close(fm.int8_token(np.array([[127, -63.5, 0.5, 1.5, 0.4]])), [[127, -64, 0, 2, 0]])
        self.close(fm.int8_token(np.array([[-2.0, 1.0]])), [[-2, 1.0078740157480315]], 1e-7)  # -127, 63.5 -> 64
        self.close(fm.int8_token(np.array([[5e-6, 0.0]])), [[64e-5 / 127, 0]], 1e-6)        # from 1e-5 on: 63.5 -> 64

    def test_int8_block32(self):
        x = np.zeros((1, 64))
        x[0, :3], x[0, 40:42] = [127, 2.5, -3.5], [1.27, 0.014]
        want = np.zeros((1, 64))
        want[0, :3], want[0, 40:42] = [127, 2, -4], [1.27, 0.01]
        self.close(fm.int8_block32(x), want, 1e-6)

    def test_pooling(self):
        y = np.array([[3.0, 0], [0, 4], [0, 2]])
        self.close(fm.pooled(y, "mean"), np.array([1, 2]) / 5 ** 0.5)
        self.close(fm.pooled(y, "cls"), [1, 0])
        self.close(fm.pooled(y, "last"), [0, 1])


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "m.gguf")

    def saved(self, arch, keys, weights, **more):
        tiny.save(self.path, arch, keys, weights)
        return families.Model(self.path, **more)

    def model(self, arch, activations="float", context=None, **more):
        self.keys, self.weights = tiny.model(self.path, arch, **more)
        return families.Model(self.path, activations, context)

    def close(self, a, b, tolerance=1e-9):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


class Graphs(Files):
    def test_every_family_is_causal_and_depends_on_what_came_before(self):
        for arch in families.FAMILIES:
            m = self.model(arch)
            a, b = m.logits(IDS), m.logits(IDS[:5] + [1] + IDS[6:])
            self.assertEqual(a.shape, (len(IDS), tiny.VOCAB))
            self.close(a[:5], b[:5])
            self.assertGreater(np.abs(a[6:] - b[6:]).max(), 1e-3, arch)
            self.close(m.logits(IDS[:7]), a[:7])

    def test_one_token_through_one_block(self):
        """With one token attention gives its own value, so the whole graph is a few lines."""
        for arch in families.FAMILIES:
            if arch in ("gpt2", "maple"):  # their blocks are written out below
                continue
            m = self.model(arch, layers=1)
            w = {n.removesuffix(".weight"): v.astype(float) for n, v in self.weights.items()}
            b = {n.removeprefix("blk.0."): v for n, v in w.items()}
            norm = lambda x, g: x / np.sqrt(np.mean(x * x) + np.float32(1e-6)) * g
            x = w["token_embd"][7] * {"gemma3": 8, "minicpm": 12}.get(arch, 1)
            part = np.float32(0.8) if arch == "minicpm" else 1
            v = b["attn_v"] @ norm(x, b["attn_norm"]) + b.get("attn_v.bias", 0)
            y = v.reshape(2, 24)[[0, 0, 1, 1]].reshape(-1)
            y = norm(y, b["attn_sub_norm"]) if "attn_sub_norm" in b else y
            y = b["attn_output"] @ y
            x = x + part * (norm(y, b["post_attention_norm"]) if arch == "gemma3" else y)
            a = norm(x, b["ffn_norm"])
            act = {"gemma3": fm.gelu, "bitnet-b1.58": fm.relu2, "bitnet-25": fm.relu2}.get(arch, fm.silu)
            y = act(b["ffn_gate"] @ a) * (b["ffn_up"] @ a)
            y = norm(y, b["ffn_sub_norm"]) if "ffn_sub_norm" in b else y
            y = b["ffn_down"] @ y
            x = x + part * (norm(y, b["post_ffw_norm"]) if arch == "gemma3" else y)
            want = w["token_embd"] @ norm(x, w["output_norm"]) / (0.25 if arch == "minicpm" else 1)
            self.close(m.logits([7])[0], want)

    def test_the_trained_model_against_the_trainers_own_forward_pass(self):
        path = os.path.join(HERE, "../models/tiny-bitnet.gguf")
        ours, theirs = families.Model(path, "int8-token").logits(IDS), infer.Model(path).logits(IDS)
        self.assertLess(rms(ours - theirs), 0.02 * rms(theirs))  # one int8 rounding to the other side costs so much

    def test_the_fused_matrix_of_gpt2_is_q_then_k_then_v(self):
        m, x = self.model("gpt2"), random(5, 64)
        w = self.weights
        q, k, v = (x @ w["blk.0.attn_qkv.weight"][i:i + 64].T + w["blk.0.attn_qkv.bias"][i:i + 64] for i in (0, 64, 128))
        heads = []
        for h in range(4):
            part = slice(16 * h, 16 * h + 16)
            heads.append(fm.attention(q[None, :, part], k[None, :, part], v[None, :, part]))
        want = np.concatenate(heads, -1) @ w["blk.0.attn_output.weight"].T + w["blk.0.attn_output.bias"]
        self.close(m.self_attention(x, 0), want)

    def test_gpt2_adds_its_positions(self):
        keys, shapes = tiny.shape("gpt2")
        weights = tiny.random_weights(shapes, 0)
        m = self.saved("gpt2", keys, weights)
        self.assertGreater(np.abs(np.diff(m.logits([4] * 6), axis=0)).max(), 1e-3)
        weights["position_embd.weight"] *= 0
        self.close(np.diff(self.saved("gpt2", keys, weights).logits([4] * 6), axis=0), 0)

    def test_equal_routing_to_all_experts_is_the_mean(self):
        keys, shapes = tiny.shape("maple")
        weights = tiny.random_weights(shapes, 0)
        weights["blk.0.ffn_gate_inp.weight"] *= 0
        m, x = self.saved("maple", keys | {"expert_used_count": 4, "swiglu_clamp_exp": [0.0] * 3}, weights), random(5, 64)
        each = []
        for e in range(4):
            gate, up, down = (weights[f"blk.0.ffn_{n}_exps.weight"][e].astype(float) for n in ("gate", "up", "down"))
            each.append(fm.silu(x @ gate.T) * (x @ up.T) @ down.T)
        self.close(m.experts(x, 0), np.mean(each, 0))

    def test_one_expert_of_one_is_a_gated_feed_forward(self):
        keys, shapes = tiny.shape("maple", experts=1)
        weights = tiny.random_weights(shapes, 0)
        m, x = self.saved("maple", keys | {"expert_used_count": 1, "swiglu_clamp_exp": 0.5}, weights), random(5, 64)
        gate, up, down = (weights[f"blk.1.ffn_{n}_exps.weight"][0].astype(float) for n in ("gate", "up", "down"))
        self.close(m.experts(x, 1), fm.swiglu_clamped(x @ gate.T, x @ up.T, 0.5) @ down.T)

    def test_global_blocks_of_maple_have_no_positions(self):
        swapped = [IDS[1], IDS[0], *IDS[2:]]
        for local in (False, True):
            m = self.model("maple", layers=1, more={"attention.sliding_window_pattern": [local], "attention.sliding_window": 99})
            change = np.abs(m.logits(IDS)[-1] - m.logits(swapped)[-1]).max()
            self.assertEqual(change > 1e-6, local)

    def test_which_blocks_of_gemma3_are_local(self):
        m = self.model("gemma3", layers=12, more={"attention.sliding_window_pattern": 6})
        self.assertEqual([i for i in range(12) if not m.is_local(i)], [5, 11])
        m = self.model("gemma3", layers=4, more={"attention.sliding_window_pattern": [True, False, False, True]})
        self.assertEqual([m.is_local(i) for i in range(4)], [True, False, False, True])
        m = self.model("gemma3", more={"attention.sliding_window": 0})
        self.assertFalse(any(m.is_local(i) for i in range(3)))

    def test_a_wide_window_is_full_attention(self):
        base = {"rope.freq_base_swa": 1e6}
        wide = self.model("gemma3", more=base | {"attention.sliding_window": 12}).logits(IDS)
        self.close(self.model("gemma3", more=base | {"attention.sliding_window": 0}).logits(IDS), wide)
        narrow = self.model("gemma3", more=base | {"attention.sliding_window": 4}).logits(IDS)
        self.close(narrow[:4], wide[:4])
        self.assertGreater(np.abs(narrow - wide)[4:].max(), 1e-3)

    def test_local_blocks_of_gemma3_have_their_own_unscaled_base(self):
        m = self.model("gemma3", more={"rope.freq_base_swa": 500.0, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0})
        self.close(m.rope(0)[0], fm.frequencies(24, 500))
        self.close(m.rope(1)[0], fm.frequencies(24, 1e6) / 8)

    def test_rope_of_keys(self):
        plain = fm.frequencies(24, 1e4)
        yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16}
        for keys, freq, magnitude in (
                ({}, plain, 1),
                ({"rope.scale_linear": 2.0}, plain / 2, 1),
                ({"rope.scaling.type": "none", "rope.scaling.factor": 2.0}, plain, 1),
                ({"rope.freq_base": 500.0, "rope.dimension_count": 8}, fm.frequencies(8, 500), 1),
                (yarn, fm.yarn(plain, 24, 1e4, 4, 16), 1 + 0.1 * np.log(4)),
                (yarn | {"rope.scaling.attn_factor": 0.5}, fm.yarn(plain, 24, 1e4, 4, 16), 0.5 + 0.05 * np.log(4))):
            got = self.model("llama", more=keys).rope(0)
            self.close(got[0], freq)
            self.close(got[1], magnitude)
        with self.assertRaisesRegex(ValueError, "rope scaling su is not computed"):
            self.model("llama", more={"rope.scaling.type": "su"}).logits(IDS)

    def test_longrope_asks_for_the_context(self):
        keys, shapes = tiny.shape("minicpm")
        factors = {"rope_factors_short.weight": np.full(12, 2.0), "rope_factors_long.weight": np.full(12, 5.0)}
        weights = tiny.random_weights(shapes, 0) | factors
        keys |= {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 32}
        for context, by in ((None, 5), (32, 2), (33, 5)):
            m = self.saved("minicpm", keys, weights, context=context)
            self.close(m.rope(0)[0], fm.frequencies(24, 1e4) / by)

    def test_rope_freqs_divide(self):
        keys, shapes = tiny.shape("llama")
        divisors = np.linspace(1, 8, 12, dtype=np.float32)
        m = self.saved("llama", keys, tiny.random_weights(shapes, 0) | {"rope_freqs.weight": divisors})
        self.close(m.rope(0)[0], fm.frequencies(24, 1e4) / divisors)

    def test_neox_and_norm_differ_by_a_permutation(self):
        keys, shapes = tiny.shape("llama")
        weights = tiny.random_weights(shapes, 0)
        norm = self.saved("llama", keys, weights).logits(IDS)
        for i in range(3):
            for n, heads in (("q", 4), ("k", 2)):  # rows 2i, 2i + 1 of a head become rows i, i + 12
                name = f"blk.{i}.attn_{n}.weight"
                weights[name] = weights[name].reshape(heads, 12, 2, 64).swapaxes(1, 2).reshape(-1, 64)
                weights[f"blk.{i}.attn_{n}.bias"] = np.zeros(heads * 24, np.float32)
            weights[f"blk.{i}.attn_v.bias"] = np.zeros(48, np.float32)
        self.close(self.saved("qwen2", keys, weights).logits(IDS), norm)

    def test_minicpm_of_factors_one_is_llama(self):
        keys, shapes = tiny.shape("minicpm")
        weights = tiny.random_weights(shapes, 0)
        one = {"embedding_scale": 1.0, "residual_scale": 1.0, "logit_scale": 1.0}
        self.close(self.saved("minicpm", keys | one, weights).logits(IDS), self.saved("llama", keys, weights).logits(IDS))
        scaled = self.saved("minicpm", keys | one | {"logit_scale": 0.25}, weights).logits(IDS)
        self.close(scaled, 4 * self.saved("llama", keys, weights).logits(IDS))

    def test_a_scale_multiplies_its_product(self):
        for arch, names in (("qwen3", ("attn_q", "attn_v", "ffn_gate", "ffn_down")), ("maple", ("ffn_up_exps",)),
                            ("gpt2", ("attn_qkv", "ffn_up"))):
            keys, shapes = tiny.shape(arch)
            weights = tiny.random_weights(shapes, 0)
            factors = {f"blk.{i}.{n}": np.float32(1.5 + 0.25 * i) for i in range(3) for n in names}
            scales = {f"{n}.scale": np.array([s]) for n, s in factors.items()}
            folded = {n: w * factors.get(n.removesuffix(".weight"), 1) for n, w in weights.items()}
            self.close(self.saved(arch, keys, weights | scales).logits(IDS), self.saved(arch, keys, folded).logits(IDS), 1e-5)
        per_expert = np.arange(1, 5, dtype=np.float32)
        keys, shapes = tiny.shape("maple")
        weights = tiny.random_weights(shapes, 0)
        name = "blk.1.ffn_down_exps"
        folded = weights | {name + ".weight": weights[name + ".weight"] * per_expert[:, None, None]}
        self.close(self.saved("maple", keys, weights | {name + ".scale": per_expert}).logits(IDS),
                   self.saved("maple", keys, folded).logits(IDS), 1e-6)

    def test_int8_rounds_blocks_but_neither_head_nor_router(self):
        for rounding in ("int8-token", "int8-block32"):
            m = self.model("maple", rounding)
            seen, real = [], m.round
            m.round = lambda x: seen.append(x.shape) or real(x)
            exact = self.model("maple").logits(IDS)
            got = m.logits(IDS)
            self.assertGreater(np.abs(got - exact).max(), 1e-5)
            self.assertLess(rms(got - exact), 0.1 * rms(exact))
            # Three blocks: q, k, v, output; then gate, up and down of two experts for each token.
            self.assertEqual(len(seen), 3 * (4 + 3 * 2 * len(IDS)))

    def test_embeddings(self):
        for arch in ("qwen3", "gemma3"):
            m = self.model(arch, "int8-token", embedding=True, kind=gw.I2_S, width=128, head_dim=32, ffn=128)
            y = m.embedding(IDS)
            self.close(y, m.embedding(IDS, "last"))
            self.close(np.sum(y ** 2), 1)
            self.close(m.hidden(IDS)[-1] / np.linalg.norm(m.hidden(IDS)[-1]), y)
            self.assertGreater(np.abs(y - m.embedding(IDS, "mean")).max(), 1e-3)
            x = random(5, 128)
            self.close(m.linear(x, "blk.1.ffn_up"), fm.int8_token(
                fm.rms_norm(x, self.weights["blk.1.ffn_up_norm_in.weight"].astype(float), np.float32(1e-6)))
                @ self.weights["blk.1.ffn_up.weight"].T.astype(float), 1e-6)
        with self.assertRaisesRegex(ValueError, "pooling_type 0 is not a pooling"):
            self.model("qwen3").embedding(IDS)

    def test_what_cannot_be_meant_is_refused(self):
        keys, shapes = tiny.shape("qwen3")
        weights = tiny.random_weights(shapes, 0)
        with self.assertRaisesRegex(ValueError, "does not read: blk.0.attn_q.rotation"):
            self.saved("qwen3", keys, weights | {"blk.0.attn_q.rotation": np.zeros(4)}).logits(IDS)
        with self.assertRaisesRegex(ValueError, "tensor blk.2.ffn_up.weight is missing"):
            self.saved("qwen3", keys, {n: w for n, w in weights.items() if n != "blk.2.ffn_up.weight"}).logits(IDS)
        with self.assertRaisesRegex(ValueError, "key qwen3.block_count is missing"):
            self.saved("qwen3", {k: v for k, v in keys.items() if k != "block_count"}, weights)
        with self.assertRaisesRegex(ValueError, "key maple.attention.sliding_window_pattern is missing"):
            keys, shapes = tiny.shape("maple")
            del keys["attention.sliding_window_pattern"]
            self.saved("maple", keys, tiny.random_weights(shapes, 0)).logits(IDS)
        with self.assertRaisesRegex(ValueError, "architecture qwen35"):
            self.saved("qwen35", keys, weights)

    def test_answers(self):
        m = self.model("qwen3")
        out = json.loads(json.dumps(families.answers(self.path, [IDS, IDS[:3]])))
        self.assertEqual((out["architecture"], out["activations"], out["context"]), ("qwen3", "float", tiny.CONTEXT))
        self.assertEqual([p["ids"] for p in out["passages"]], [IDS, IDS[:3]])
        self.close(families.unpacked(out["passages"][0]["logits"]), m.logits(IDS), 1e-6)
        out = families.answers(self.path, [IDS], pooling="mean", embed=True)
        self.assertEqual(out["pooling"], "mean")
        self.close(families.unpacked(out["passages"][0]["embedding"]), m.embedding(IDS, "mean"), 1e-6)


if __name__ == "__main__":
    unittest.main()
