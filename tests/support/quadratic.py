"""A stand-in for a training script with a known optimum: its loss is a formula of lambda, lr, steps and seed."""

import argparse
import json
import math
import random


def loss(weight_decay, lr, steps, seed, *, best=3.0, noise=0.002):
    """The lowest loss lies at ``best`` timescales; the noise depends on the seed, and a little on the setting."""
    x = lr * weight_decay * steps
    base = random.Random(seed).gauss(0, 0.01)
    own = random.Random(f"{seed} {weight_decay:.6g} {steps}").gauss(0, noise)
    return 3 - 0.1 * math.log(steps) + 0.02 * math.log((x + 0.05) / (best + 0.05)) ** 2 + base + own


def alike(weight_decay, lr, steps, seed):
    """Decay never helps: the loss rises with it."""
    x = lr * weight_decay * steps
    own = random.Random(f"{seed} {weight_decay:.6g} {steps}").gauss(0, 0.002)
    return 3 - 0.1 * math.log(steps) + 0.01 * math.log1p(x) ** 1.5 + own


def overfits(weight_decay, lr, steps, seed):
    """Runs that are too short to overfit are harmed by any decay; longer ones are best at 3 timescales."""
    x = lr * weight_decay * steps
    long = 1 / (1 + (1500 / steps) ** 12)
    own = random.Random(f"{seed} {weight_decay:.6g} {steps}").gauss(0, 0.002)
    harm, bowl = 0.3 * math.log1p(x), 0.02 * math.log((x + 0.05) / 3.05) ** 2
    return 3 - 0.1 * math.log(steps) + (1 - long) * harm + long * bowl + own


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name, kind in (("lr", float), ("wd", float), ("steps", int), ("seed", int)):
        parser.add_argument(f"--{name}", type=kind)
    a = parser.parse_args()
    print(json.dumps({"loss": loss(a.wd, a.lr, a.steps, a.seed), "lr": a.lr / 10}))
