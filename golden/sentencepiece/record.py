"""Trains small SentencePiece models and records the ids that sentencepiece itself gives.

    pip install sentencepiece==0.2.3 && python golden/sentencepiece/record.py

Each model has a few hundred pieces and one peculiar setting or more (MODELS).  The corpus is texts/passage.txt and the
lines below.  Training is on one thread and so gives the same file again.
"""
import io
import json
import os
import random
from pathlib import Path

import sentencepiece as sp

HERE = Path(__file__).parent
PASSAGE = (HERE.parent / "texts" / "passage.txt").read_text(encoding="utf-8")
LINES = """The quick brown fox jumps over the lazy dog. It's what they'd call "a quiet day", isn't it?
Der Käufer überprüft die Größe der Straße; das Mädchen läuft. L'été dernier, où était-ce?
Привет, мир! Как дела? Все хорошо, спасибо. Ελληνικά γράμματα: αβγδε.
你好，世界！今天天气很好。こんにちは世界、元気ですか？ 안녕하세요 세계.
fn main() { let x = (0..10).map(|i| i * 2); }   if (a != b) { return 1234567890; }
१२३ नमस्ते दुनिया. ＡＢＣ ｱｲｳ ﬁne ½ Ⅷ ㍿ e\u0301 😀 👍🏽""".split("\n")

USER = ["<sep>", "<s", "\u2581\u2581", "the", "é!", "a b", "<|x|>", "ＡＢ"]
MODELS = {
    "unigram-nmt": dict(model_type="unigram", normalization_rule_name="nmt_nfkc", byte_fallback=True,
                        user_defined_symbols=USER, control_symbols=["<ctl>", "[MASK]"]),
    "unigram-identity": dict(model_type="unigram", normalization_rule_name="identity", add_dummy_prefix=False,
                             remove_extra_whitespaces=False, user_defined_symbols=["  ", "<u>", "<user>", "he"],
                             control_symbols=["<ctl>"], split_by_whitespace=False),
    "unigram-plain": dict(model_type="unigram", normalization_rule_name="identity", remove_extra_whitespaces=False,
                          byte_fallback=True),
    "bpe-rules": dict(model_type="bpe", normalization_rule_tsv="rules.tsv", byte_fallback=True,
                      user_defined_symbols=USER, control_symbols=["<ctl>", "[MASK]"]),
    "bpe-identity": dict(model_type="bpe", normalization_rule_name="identity", remove_extra_whitespaces=False,
                         user_defined_symbols=["<u>", "<user>", "he", "\u2581the", "nd"], control_symbols=["<ctl>"]),
    "bpe-unprefixed": dict(model_type="bpe", normalization_rule_name="identity", remove_extra_whitespaces=False,
                           add_dummy_prefix=False, byte_fallback=True, split_by_whitespace=False),
}
# What becomes what, as code points; the longest counts.
RULES = {"A": "a", "B": "b", "AB": "x y", "é": "e", "ß": "ss", "\u3000": " ", "\t": " ", "\n": " ", "。": ". ", "…": "   ",
         "０": "0", "😀": ":)", "\u200b": ""}
SPECIALS = ["<s>", "</s>", "<unk>", "<ctl>", "[MASK]", "<0x41>", "<0x0A>", "<0x", "<sep>", "<user>", "<u>", "<|x|>", "\u2581"]
NASTY = ["", " ", "  ", "   ", "\n", "\t", "\u3000", "a", " a", "a ", "  a  b  ", "a\n\nb", "a\tb", "\u2581", "\u2581a", "a\u2581",
         "\u2581\u2581a \u2581", "a\u2581\u2581", "the", " the", "thethe", "the the", "he", "nd the end", "é!", "é !", "É!",
         "a b", "a  b", "xa by", "ＡＢＣ", "ＡＢ", "ﬁ", "½", "Ⅷ", "㍿", "e\u0301", "\u0301", "\u00a0a\u00a0", "\u200b", "a\u200bb",
         "\ufeffa", "\x00", "a\x00b", "\x07", "\u2028", "\ufffd", "\U0010ffff", "日本語", "龘靐", "龘 靐龘", "😀😀", "👍🏽", "ß",
         "ABBA", "AB", "…", "a…b", "。", "a。。b", "０１", "a" * 40, "ab" * 30, " " * 33, "the " * 12, "\u2581" * 9, "x" * 25,
         "<s", "<s>x", "<se", "<s ep>", "<sep><sep>", "<sep> a", "a<sep>", " <sep>", "<user", "<u><user>", "<s>", " <s> ",
         "</s></s>", "x<0x41>y", "<0x41><0x42>", "[MASK]", "a [MASK] b", "<unk>", "<unk> <unk>", "<ctl><ctl>", "<|x|>y <|x|>"]


def texts():
    rng = random.Random(20261128)
    out = list(NASTY) + [line for line in LINES] + PASSAGE.strip().split(". ")[:4]
    corpus = PASSAGE + "\n".join(LINES)
    alphabet = sorted(set(corpus)) + [" ", " ", "\u2581", "\u3000", "\n", "龘", "\u0301", "\x01"] + ["a", "t", "h", "e"] * 4
    for n in range(110):
        parts = []
        for _ in range(rng.randint(1, 5)):
            kind = rng.randint(0, 3)
            at = rng.randrange(len(corpus) - 24)
            parts.append([lambda: corpus[at:at + rng.randint(1, 24)], lambda: rng.choice(SPECIALS),
                          lambda: "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 12))),
                          lambda: " " * rng.randint(1, 3)][kind]())
        out.append("".join(parts))
    return out


def main():
    (HERE / "rules.tsv").write_text("".join(
        " ".join(f"{ord(c):04X}" for c in old) + "\t" + " ".join(f"{ord(c):04X}" for c in new) + "\n"
        for old, new in RULES.items()), encoding="ascii")
    sentences = [s for s in PASSAGE.replace(". ", ".\n").split("\n") + LINES if s]
    record = {"sentencepiece": sp.__version__, "texts": texts(), "models": {}}
    for name, options in MODELS.items():
        options = dict(options)
        if "normalization_rule_tsv" in options:
            os.chdir(HERE)  # The model keeps the name of the file.
        file = io.BytesIO()
        size = 470 if options.get("byte_fallback") else 280
        sp.SentencePieceTrainer.train(sentence_iterator=iter(sentences), model_writer=file, vocab_size=size, num_threads=1,
                                      hard_vocab_limit=False, character_coverage=0.98, minloglevel=2, **options)
        (HERE / f"{name}.model").write_bytes(file.getvalue())
        model = sp.SentencePieceProcessor(model_proto=file.getvalue())
        ids = [model.encode(text) for text in record["texts"]]
        # What an unknown token stood for is not in its id.
        back = [None if model.unk_id() in i else model.decode(i) for i in ids]
        record["models"][name] = {"ids": ids, "decoded": back}
    lines = [f' "sentencepiece": {json.dumps(record["sentencepiece"])},\n "texts": {json.dumps(record["texts"])},\n "models": {{']
    for name, one in record["models"].items():
        lines.append(f'  "{name}": {{\n   "ids": {json.dumps(one["ids"], separators=(",", ":"))},\n'
                     f'   "decoded": {json.dumps(one["decoded"])}\n  }}' + ("" if name == list(MODELS)[-1] else ","))
    (HERE / "expected.json").write_text("{\n" + "\n".join(lines) + "\n }\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
