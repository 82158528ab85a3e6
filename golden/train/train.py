"""Train the tiny BitNet b1.58 model: seeded, counted in steps, resumable.

    python train.py --data DATA --out RUN --steps N --decay-start D --seed 1

Schedule (WSD): linear warm-up, constant rate until step D, then linear decay to
zero at step N.  Nothing before step D depends on D or N, so a checkpoint of the
constant phase may be continued with any D at or after it (`--resume CKPT`) and
gives what one uninterrupted run with that D and N gives.  A schedule in several
parts is one command a part, each resuming the last one's final.npz.

Matrices: Muon (Nesterov momentum orthogonalised by Newton-Schulz iteration);
embedding and norm weights: Adam.  Checkpoints: RUN/step-000200.npz, ...;
the last one is RUN/final.npz.
"""
import argparse
import glob
import json
import math
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

import model

# Quintic Newton-Schulz coefficients, one row per iteration (Polar Express).
POLAR = ((8.28721, -23.59589, 17.30039), (4.10706, -2.94785, 0.54484),
         (3.94869, -2.90890, 0.55182), (3.31842, -2.48849, 0.51004))


def orthogonalise(g):
    """g [I, O] -> roughly the nearest semi-orthogonal matrix [I, O]."""
    wide = g.shape[0] <= g.shape[1]
    x = g if wide else g.T
    x = x / (jnp.linalg.norm(x) * 1.01 + 1e-7)
    for a, b, c in POLAR:
        s = x @ x.T
        x = a * x + (b * s + c * (s @ s)) @ x
    return x if wide else x.T


def is_matrix(name):
    return any(m in name for m in ("attn_q", "attn_k", "attn_v", "attn_output",
                                   "ffn_gate", "ffn_up", "ffn_down"))


def init_opt(p):
    """m: momentum of everything; v: Adam second moment of the non-matrices."""
    return {"m": {k: np.zeros_like(x) for k, x in p.items()},
            "v": {k: np.zeros_like(x) for k, x in p.items() if not is_matrix(k)}}


def make_step(cfg, a):
    """-> jitted (p, opt, batch [B, T+1], t, rate, decay) -> (p, opt, loss)."""
    def step(p, opt, batch, t, rate, decay):
        key = jax.random.key(t, impl="rbg")  # of the step alone
        nats, grad = jax.value_and_grad(model.loss)(p, cfg, batch, key, a.dropout)
        np_, nm, nv = {}, {}, {}
        for k, w in p.items():
            g, m = grad[k], opt["m"][k]
            if is_matrix(k):
                m = a.momentum * m + g
                u = orthogonalise(g + a.momentum * m) * (0.2 * math.sqrt(max(w.shape)))
                lr = a.lr * rate
                np_[k] = w * (1 - lr * decay) - lr * u  # update rms is 0.2 * lr
            else:
                m = 0.9 * m + 0.1 * g
                v = 0.95 * opt["v"][k] + 0.05 * g * g
                u = (m / (1 - 0.9 ** t)) / (jnp.sqrt(v / (1 - 0.95 ** t)) + 1e-10)
                np_[k] = w - a.adam_lr * rate * u
                nv[k] = v
            nm[k] = m
        return np_, {"m": nm, "v": nv}, nats
    return jax.jit(step, donate_argnums=(0, 1))


class Batches:
    """Batch of step i as a pure function of (seed, i).

    An epoch permutes the documents, concatenates them, drops a random head of
    less than one window, cuts windows and permutes those.  `parts` are pairs
    (tokens, document starts); an epoch goes through the documents of all.
    """
    def __init__(self, parts, batch, length, seed):
        self.docs = [d for tokens, starts in parts for d in np.split(tokens.astype(np.int32), starts[1:])]
        self.batch, self.length, self.seed = batch, length, seed
        self.per_epoch = (sum(map(len, self.docs)) - length - 1) // (length * batch)
        self.epoch = -1

    def get(self, i):
        """-> int32 [B, T+1]"""
        epoch, j = divmod(i, self.per_epoch)
        if epoch != self.epoch:
            r = np.random.default_rng([self.seed, epoch])
            stream = np.concatenate([self.docs[d] for d in r.permutation(len(self.docs))])
            self.stream = stream[r.integers(self.length):]
            self.order = r.permutation((len(self.stream) - 1) // self.length)
            self.epoch = epoch
        pick = self.order[j * self.batch:(j + 1) * self.batch] * self.length
        return np.stack([self.stream[o:o + self.length + 1] for o in pick])


def save(path, cfg, p, opt, step):
    arrays = {f"p/{k}": x for k, x in p.items()}
    for s in "mv":
        arrays |= {f"{s}/{k}": x for k, x in opt[s].items()}
    np.savez(path + ".tmp.npz", step=step, cfg=json.dumps(cfg.__dict__),
             **{k: np.asarray(x) for k, x in arrays.items()})
    os.replace(path + ".tmp.npz", path)


def load(path):
    """-> (Config, params, opt, steps done)"""
    z = np.load(path)
    part = lambda s: {k[2:]: z[k] for k in z.files if k.startswith(s + "/")}
    return (model.Config(**json.loads(str(z["cfg"]))), part("p"),
            {"m": part("m"), "v": part("v")}, int(z["step"]))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--data", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--steps", type=int, required=True)
    ap.add_argument("--decay-start", type=int, required=True)
    ap.add_argument("--stop", type=int, help="end after this step of the schedule [default: --steps]")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--warmup", type=int, default=60)
    ap.add_argument("--batch", type=int, default=8)
    ap.add_argument("--length", type=int, default=512)
    ap.add_argument("--lr", type=float, default=1e-2, help="Muon")
    ap.add_argument("--adam-lr", type=float, default=3e-3)
    ap.add_argument("--momentum", type=float, default=0.95)
    ap.add_argument("--decay", type=float, default=0.1, help="weight decay of the matrices, constant phase only")
    ap.add_argument("--act", default="relu2", choices=("relu2", "silu"))
    ap.add_argument("--dropout", type=float, default=0.0)
    ap.add_argument("--more", nargs="*", default=[], help="translations of tokens.npz that steps are mixed with")
    ap.add_argument("--more-rows", type=int, default=0, help="rows of a batch that are of --more, in steps before --mixed-until")
    ap.add_argument("--mixed-until", type=int, default=0)
    ap.add_argument("--save-every", type=int, default=200)
    ap.add_argument("--resume", help="continue from this checkpoint; 'last': the newest in --out")
    ap.add_argument("--init-from", help="take only the weights of this checkpoint; steps count from 0")
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)

    cfg = model.Config(context=a.length, act=a.act)
    p, done = model.init(cfg, a.seed), 0
    opt = init_opt(p)
    if a.init_from:
        p = load(a.init_from)[1]
    if a.resume == "last":
        a.resume = max(glob.glob(f"{a.out}/step-*.npz"), default=None)
    if a.resume:
        cfg, p, opt, done = load(a.resume)
    z = np.load(f"{a.data}/tokens.npz")
    part = lambda k: (z[k], z[f"{k}_starts"])
    data = Batches([part("train")], a.batch, a.length, a.seed)
    rest = Batches([part("train")], a.batch - a.more_rows, a.length, a.seed)
    more = Batches([part(k) for k in a.more], a.more_rows, a.length, a.seed) if a.more_rows else None
    mixed = lambda i: np.concatenate([rest.get(i), more.get(i)])
    ho = z["heldout"].astype(np.int32)
    n = (len(ho) - 1) // a.length
    check = np.stack([ho[i * a.length:(i + 1) * a.length + 1] for i in range(n)])[::max(1, n // 16)][:16]
    check_loss = jax.jit(lambda p: model.loss(p, cfg, jnp.asarray(check)))

    log = open(f"{a.out}/log.txt", "a")
    def say(text):
        print(text, flush=True)
        log.write(text + "\n")
        log.flush()

    say(f"{sum(x.size for x in p.values())} parameters, {len(z['train'])} training tokens, "
        f"{data.per_epoch} steps an epoch, from step {done}: {vars(a)}")
    step = make_step(cfg, a)
    p, opt = jax.tree.map(jnp.asarray, (p, opt))
    begin, mean = time.time(), None
    last = a.stop or a.steps
    for i in range(done, last):
        rate = min(1.0, (i + 1) / a.warmup)
        if i >= a.decay_start:
            rate *= (a.steps - i) / (a.steps - a.decay_start + 1)
        decay = a.decay if i < a.decay_start else 0.0
        batch = mixed(i) if more and i < a.mixed_until else data.get(i)
        p, opt, nats = step(p, opt, batch, i + 1, rate, decay)
        nats = float(nats)
        mean = nats if mean is None else 0.97 * mean + 0.03 * nats
        if (i + 1) % 20 == 0 or i < 3:
            say(f"step {i + 1} rate {rate:.3f} loss {mean:.4f} "
                f"seconds {time.time() - begin:.0f}")
        if (i + 1) % 100 == 0:
            say(f"step {i + 1} held-out {float(check_loss(p)):.4f}")
        if (i + 1) % a.save_every == 0:
            save(f"{a.out}/step-{i + 1:06d}.npz", cfg, p, opt, i + 1)
    save(f"{a.out}/final.npz", cfg, p, opt, last)


if __name__ == "__main__":
    main()
