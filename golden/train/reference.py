"""Reference outputs of an exported GGUF, for other engines to be checked against.

    python reference.py --data DATA --model tiny-bitnet.gguf --out ../reference/trainer

Writes NAME.json and NAME.logits.f16 (NAME: the model's file name without
`.gguf`), and tiny-tokenizer.json.  Four held-out passages of 64 tokens (the
first is bos) are teacher-forced through the numpy forward pass of `infer.py`,
which reads the packed file.
"""
import argparse
import hashlib
import json
import os
import re

import numpy as np
from tokenizers import Tokenizer

import infer

LENGTH = 64
CHAPTERS = (1, 7, 13, 19)  # held-out chapters the passages are taken from

STRINGS = [
    "", " ", "  ", "\n", "\n\n\n", "\t", "a", "A", " a", "the", " the", "The LORD",
    "In the beginning God created the heavens and the earth.",
    "Jesus said to him, \"I am the way, the truth, and the life.\"",
    "Don't you know that he who's joined is one? We'll see; I'm sure they've gone, she'd say.",
    "DON'T SHOUT, IT'S LATE", "it's 'quoted' and ''doubled''", "rock'n'roll 'tis o'clock",
    "Nebuchadnezzar king of Babylon", "hello   world", "trailing spaces   ", "   leading spaces",
    "tabs\tand\nnew\r\nlines \n  indented", "x\u00a0y\u2003z\u3000w", "0", "1234567890", "3.14159, -2e10 and 1,000,000",
    "Genesis 1:1-2 (chapter 7; verse 14)", "caf\u00e9 na\u00efve \u00fcber \u00c5ngstr\u00f6m", "cafe\u0301 (combining)",
    "\u03b1\u03b2\u03b3 \u0416\u0443\u043a \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627", "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4",
    "\U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467", "\u00bd \u00b2 \u2167 \u0663", "\u201ccurly\u201d \u2018quotes\u2019 \u2014 dash\u2026",
    "fn main() { println!(\"{}\", 1 << 4); }", "for i in range(10):\n    print(i ** 2)\n",
    "https://example.org/a?b=c&d=%20#e", "user@example.com", "snake_case camelCase __dunder__", "!!! ??? ... ---- ==>",
    "\u0000\u0001\u007f\u0080", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]


def passage(tok, text):
    """The first LENGTH - 1 tokens after a sentence boundary that re-encode to themselves.

    -> (text, ids with bos)
    """
    start = text.find(". ", len(text) // 3) + 2
    while True:
        ids = tok.encode(text[start:]).ids[:LENGTH - 1]
        piece = tok.decode(ids)
        if len(ids) == LENGTH - 1 and text.startswith(piece, start) and tok.encode(piece).ids == ids:
            return piece, [0] + ids
        start = text.index(". ", start) + 2


def dump(path, obj):
    """JSON with one line per list of numbers."""
    text = json.dumps(obj, indent=1, ensure_ascii=True)
    text = re.sub(r"\[[-\de.,\s]*\]", lambda m: " ".join(m[0].split()).replace("[ ", "[").replace(" ]", "]"), text)
    with open(path, "w") as f:
        f.write(text + "\n")


def sha256(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--data", required=True)
    ap.add_argument("--model", required=True)
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    tok = Tokenizer.from_file(f"{a.data}/tokenizer.json")
    heldout = json.load(open(f"{a.data}/docs.json"))["heldout"]
    model, name = infer.Model(a.model), os.path.basename(a.model).removesuffix(".gguf")

    rows, passages = [], []
    for chapter in CHAPTERS:
        text, ids = passage(tok, heldout[chapter])
        z = model.logits(ids).astype(np.float32)  # [64, V]
        best = np.sort(z, -1)[:, ::-1]
        passages.append({
            "text": text, "ids": ids,
            "first_row": LENGTH * len(passages), "rows": LENGTH,
            "byte_offset": LENGTH * len(passages) * z.shape[1] * 2,
            "mean_nll_nats": float(infer.nats(z[:-1], ids[1:]).mean()),
            "predicted_tokens": LENGTH - 1,
            "top1": z.argmax(-1).tolist(),
            "gap": [round(float(g), 5) for g in best[:, 0] - best[:, 1]],
        })
        rows.append(z)
    logits = np.concatenate(rows).astype("<f2")
    binary = f"{name}.logits.f16"
    logits.tofile(f"{a.out}/{binary}")
    dump(f"{a.out}/{name}.json", {
        "about": "teacher-forced reference logits: numpy, f32, int8 activations per token; row i is the output "
                 "after tokens 0..i; gap: top-1 minus top-2 logit; NLL over rows 0..62, which predict ids 1..63",
        "model": f"{name}.gguf", "model_sha256": sha256(a.model), "architecture": model.arch,
        "logits": {"file": binary, "sha256": sha256(f"{a.out}/{binary}"), "dtype": "float16",
                   "byte_order": "little", "order": "C", "shape": list(logits.shape)},
        "passages": passages,
    })

    gguf_tokens = model.meta["tokenizer.ggml.tokens"]
    assert all(tok.token_to_id(t) == i for i, t in enumerate(gguf_tokens))
    dump(f"{a.out}/tiny-tokenizer.json", {
        "about": "ids by the HuggingFace tokenizers library, without bos; byte-level BPE, GPT-2 regex, no prefix space",
        "vocab_size": tok.get_vocab_size(),
        "cases": [{"text": s, "ids": tok.encode(s).ids} for s in
                  STRINGS + [p["text"] for p in passages]],
    })
    for p in passages:
        print(f"{p['mean_nll_nats']:.4f} nats, median gap {np.median(p['gap']):.3f}, "
              f"least {min(p['gap']):.4f}: {p['text'][:60]!r}")


if __name__ == "__main__":
    main()
