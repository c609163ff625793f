"""A plain training loop that `decaylab tune` can drive: noisy labels of a random teacher."""

import argparse
import json
import math

import torch
from torch import nn
from torch.nn.functional import cross_entropy

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--weight-decay", type=float, default=0.0)
parser.add_argument("--steps", type=int, default=3200)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

task = torch.Generator().manual_seed(0)  # the task is the same in every run
teacher = torch.randn(20, 5, generator=task)
x, x_test = torch.randn(20_000, 20, generator=task), torch.randn(2000, 20, generator=task)
y = (x @ teacher + 3 * torch.randn(20_000, 5, generator=task)).argmax(1)
y_test = (x_test @ teacher + 3 * torch.randn(2000, 5, generator=task)).argmax(1)

torch.manual_seed(args.seed)  # initialisation and the order of the data
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5))
optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
for step in range(args.steps):
    lr = args.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * step / args.steps)))  # the whole schedule ends at --steps
    for group in optimizer.param_groups:
        group["lr"] = lr
    batch = torch.randint(0, 20_000, (32,))
    optimizer.zero_grad()
    cross_entropy(model(x[batch]), y[batch]).backward()
    optimizer.step()

with torch.no_grad():
    print(json.dumps({"loss": cross_entropy(model(x_test), y_test).item(), "lr": lr}))
