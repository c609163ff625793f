"""A stand-in for nanoGPT's train.py: the same flags (--name=value of the type of its default), the same output."""

import math
import sys
from ast import literal_eval

import torch
from torch import nn
from torch.nn.functional import cross_entropy

out_dir = "out"
eval_interval = 2000
max_iters = 3200
lr_decay_iters = 3200
warmup_iters = 20
learning_rate = 1e-2
min_lr = 1e-3
weight_decay = 1e-1
seed = 1337

for argument in sys.argv[1:]:
    name, _, text = argument.removeprefix("--").partition("=")
    if name not in globals():
        raise ValueError(f"unknown config key: {name}")
    value = text if isinstance(globals()[name], str) else literal_eval(text)
    assert type(value) is type(globals()[name]), f"{name} must be {type(globals()[name]).__name__}, got {text}"
    globals()[name] = value

task = torch.Generator().manual_seed(0)
text = torch.randint(1, 4, (4000,), generator=task).cumsum(0) % 16  # each next character is 1 to 3 further
torch.manual_seed(seed)
model = nn.Sequential(nn.Embedding(16, 32), nn.LayerNorm(32), nn.Linear(32, 16))
matrices = [p for p in model.parameters() if p.dim() >= 2]
groups = [
    {"params": matrices, "weight_decay": weight_decay},
    {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
]
optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95))


def rate(step):
    """Warm-up and cosine."""
    if step < warmup_iters:
        return learning_rate * (step + 1) / (warmup_iters + 1)
    progress = min(1.0, (step - warmup_iters) / max(1, lr_decay_iters - warmup_iters))
    return min_lr + 0.5 * (1 + math.cos(math.pi * progress)) * (learning_rate - min_lr)


def loss_of(part):
    """Mean loss on a part of the text."""
    return cross_entropy(model(part[:-1]), part[1:])


for step in range(max_iters + 1):
    for group in optimizer.param_groups:
        group["lr"] = rate(step)
    if step % eval_interval == 0:
        with torch.no_grad():
            print(f"step {step}: train loss {loss_of(text[:400]):.4f}, val loss {loss_of(text[400:]):.4f}")
    start = int(torch.randint(0, 300, ()))
    optimizer.zero_grad()
    loss_of(text[start : start + 64]).backward()
    optimizer.step()
