"""Held-out loss and bits per character of an exported GGUF, and samples.

    python evaluate.py --data DATA --model tiny-bitnet.gguf

Every held-out chapter is scored by itself from token 0.  A chapter longer than
the context is cut into windows of the context length that share no tokens: the
first token of the next window is predicted by the last row of the one before.
`--stride` is a second figure: overlapping windows, so that every token after
the first window has at least (context - stride) tokens before it.
Bits per character = sum of nats / ln 2 / characters of the chapters' text.
"""
import argparse
import json
import math

from tokenizers import Tokenizer

import infer

PROMPTS = ["In the beginning", "Jesus said to them,", "The king of Babylon", "My son, keep", "Now it happened"]


def score(model, docs, stride):
    """docs: id lists that start with token 0 -> (sum of nats, predicted tokens)"""
    total = count = 0
    for ids in docs:
        done = 1  # tokens of ids already predicted (the first never is)
        while done < len(ids):
            end = min(len(ids) - 1, done - 1 + (model.context if done == 1 else stride))
            lo = max(0, end - model.context) if stride < model.context else done - 1
            n = infer.nats(model.logits(ids[lo:end]), ids[lo + 1:end + 1])
            total += n[done - 1 - lo:].sum()
            count += end + 1 - done
            done = end + 1
    return total, count


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--data", required=True)
    ap.add_argument("--model", required=True)
    ap.add_argument("--stride", type=int, default=128)
    ap.add_argument("--split", default="heldout")
    ap.add_argument("--limit", type=int, help="score only the first so many chapters")
    ap.add_argument("--samples", type=int, default=0, help="tokens to sample for each prompt")
    a = ap.parse_args()
    tok = Tokenizer.from_file(f"{a.data}/tokenizer.json")
    texts = json.load(open(f"{a.data}/docs.json"))[a.split][:a.limit]
    docs = [[0] + tok.encode(t).ids for t in texts]
    chars = sum(map(len, texts))
    model = infer.Model(a.model)
    for name, stride in (("disjoint windows", model.context), (f"stride {a.stride}", a.stride)):
        total, count = score(model, docs, stride)
        print(f"{name}: {len(docs)} chapters, {count} tokens, {chars} characters, "
              f"{total / count:.4f} nats/token, {total / math.log(2) / chars:.4f} bits per character")
    for p in PROMPTS if a.samples else ():
        print(f"--- {p!r}: {tok.decode(model.sample([0] + tok.encode(p).ids, a.samples))}")


if __name__ == "__main__":
    main()
