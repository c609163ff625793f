# %% [markdown]
# # Which lambda?
#
# What a value *means* in this run is arithmetic; which one is *best* only runs of this very training can tell, and short
# ones are enough. ([What others found](../advice.md) is a start where even those are too much.)

# %%
import math

import torch
from sklearn.datasets import load_digits
from torch import nn

from decaylab import tune
from decaylab.cli import main

# %% [markdown]
# ## What a value means
#
# The same number is nothing in one run and much in another. What counts is how many *timescales* of decay pass:
# lambda times the sum of the learning rates.

# %%
_ = main("explain --optimizer adamw --lr 3e-3 --weight-decay 0.1 --schedule cosine --steps 1600".split())

# %% [markdown]
# ## What short runs measure
#
# `tune` trains complete schedules of a sixteenth, an eighth and a fourth of the run (never the beginning of a long one: a
# decay that pays at the end costs in the middle), finds the optimum of each length, and carries it to the full length with
# an interval. Here the training is a function; for a script there is `decaylab tune -- python train.py --wd {weight_decay} …`.

# %%
images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
images = images.float() / 16
torch.set_num_threads(1)  # a network this small is faster on one
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
training, test = order[:300], order[300:1300]


def train(weight_decay, lr, steps, seed):
    torch.manual_seed(seed)
    noisy = labels.clone()
    flipped = training[torch.randperm(len(training))[:60]]
    noisy[flipped] = torch.randint(0, 10, (60,))  # a fifth of the labels is wrong: there is something to regularise
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.55 + 0.45 * math.cos(math.pi * t / steps))
    for _ in range(steps):
        rows = training[torch.randint(0, len(training), (32,))]
        loss = nn.functional.cross_entropy(model(images[rows]), noisy[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return nn.functional.cross_entropy(model(images[test]), labels[test]).item()


# %%
answer = tune(train, steps=1600, lr=3e-3, weight_decay=0.01, schedule="cosine", budget=3, seeds=3, name="digits")
print("\n".join(answer.lines()))

# %% [markdown]
# The answer keeps what it rests on: every trial, what was assumed, and the verdict. `found` comes with an interval; `alike`
# says that decay does not matter above a difference that is named; `undecided` says what a larger budget would have to
# settle. [How tune works](../tune.md).
