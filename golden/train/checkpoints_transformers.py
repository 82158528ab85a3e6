"""The logits that HuggingFace transformers computes from the tiny checkpoints; not part of CI, the recordings are.

    pip install torch transformers accelerate
    python checkpoints_transformers.py --record ../reference/transformers

Everything in float32 on the CPU.  Checkpoints whose class transformers does not have (1bitLLM's, MiniCPM's) are named and left out.
"""
import argparse
import json
import os
import tempfile

import numpy as np
import torch
import torch._dynamo
import transformers as tf

import checkpoints as ck
from families import packed

torch._dynamo.config.disable = True  # the small helpers of BitNet layers are as they are written
# Code of their own repositories.
ABSENT = {"bitnet-1bitllm": "BitnetForCausalLM", "minicpm-plain": "MiniCPMForCausalLM"}


def logits(folder):
    model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    torch.nn.Module.float(model)
    for module in model.modules():  # packed layers keep the type that they compute in apart
        if hasattr(module, "weight_scale") and hasattr(module, "dtype"):
            module.dtype = torch.float32
    with torch.no_grad():
        return model(torch.tensor([ck.IDS])).logits[0].float().numpy()


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--record", required=True, help="folder to write NAME.json into")
    a = ap.parse_args()
    os.makedirs(a.record, exist_ok=True)
    for name, (kind, activations, config) in ck.CONFIGS.items():
        if name in ABSENT:
            print(f"{name}: transformers has no {ABSENT[name]}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            ck.write(folder, name)
            z, numpy = logits(folder), ck.Checkpoint(folder, activations).logits(ck.IDS)
            result = ck.recording(name, folder, "transformers", activations, packed(z))
        result["version"] = f"transformers {tf.__version__}, torch {torch.__version__}"
        cosine = (z * numpy).sum(-1) / np.sqrt((z ** 2).sum(-1) * (numpy ** 2).sum(-1))
        print(f"{name}: against numpy least cosine {cosine.min():.7f}, largest difference {np.abs(z - numpy).max():.1e}")
        with open(os.path.join(a.record, name + ".json"), "w") as f:
            f.write(json.dumps(result, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
