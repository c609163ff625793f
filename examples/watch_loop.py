"""A training loop of one's own, watched: three lines are added, the weights come out bit-equal.

Handwritten digits, a small network with LayerNorm, AdamW. Prints what weight decay did, and writes the log beside it.

    python examples/watch_loop.py [--weight-decay 0.5] [--lr 0.003] [--steps 3000] [--out FOLDER]
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from decaylab import watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weight-decay", type=float, default=0.5)
    parser.add_argument("--lr", type=float, default=0.003)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = images.float() / 16
    model = nn.Sequential(
        nn.Linear(64, 128, bias=False), nn.LayerNorm(128), nn.ReLU(),
        nn.Linear(128, 128, bias=False), nn.LayerNorm(128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=arguments.weight_decay)

    log = watch(model, optimizer, every=50)

    for _ in range(arguments.steps):
        rows = torch.randint(0, len(images), (64,))
        loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    print(log.summary())
    if arguments.out is not None:
        log.save(arguments.out / "watch.csv")
        log.plot().save(arguments.out / "watch.svg")


if __name__ == "__main__":
    main()
