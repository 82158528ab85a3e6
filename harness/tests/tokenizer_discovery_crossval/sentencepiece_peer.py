"""SentencePiece's C++ library as a peer: encodes the same texts again and again, and says how long it took.

    python sentencepiece_peer.py MODEL <lines

First line in: a JSON list of texts; out: {"version": ..., "ids": [[...], ...]}. Every further line in: one round
over all texts; out: seconds of this thread's CPU time. One call of the library a text, as ours.
"""
import json
import sys
import time

import sentencepiece

peer = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
texts = json.loads(sys.stdin.readline())
print(json.dumps({"version": sentencepiece.__version__, "ids": [peer.encode(t) for t in texts]}), flush=True)
for _ in sys.stdin:
    start = time.thread_time()
    for text in texts:
        peer.encode(text)
    print(time.thread_time() - start, flush=True)
