# %% [markdown]
# # A study of your own
#
# A claim is a sentence with a statistical rule that is fixed before the runs. `judge` applies such rules to any table with
# one row a run: a CSV export of a tracker, a spreadsheet, a loop as below.

# %%
import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch import nn

from decaylab.experiments import judge

images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
images = images.float() / 16


def final_loss(weight_decay, seed):
    torch.manual_seed(seed)  # initialisation and data: runs of one seed are a pair
    rows = torch.randperm(len(images))
    training, test = rows[:200], rows[200:]
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=weight_decay)
    for _ in range(150):
        batch = training[torch.randint(0, 200, (32,))]
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return nn.functional.cross_entropy(model(images[test]), labels[test]).item()


table = pd.DataFrame([{"seed": s, "wd": wd, "test loss": final_loss(wd, s)} for s in range(5) for wd in (0.0, 1.0)])
table.groupby("wd")["test loss"].describe()[["count", "mean", "std"]]

# %%
for judgement in judge(table, ["test loss is lower for wd=1 than for wd=0"]):
    print(judgement)

# %% [markdown]
# A claim that fails is an answer too: here, on clean digits and a short run, strong decay only costs.
#
# Without a notebook: `decaylab judge results.csv --claim "test loss is lower for wd=1 than for wd=0"`. A whole study, with
# runs that are trained side by side, resumed after a crash and shown on a page with charts, is a file with an `EXPERIMENT`
# (see `examples/own/`): `decaylab reproduce ./my_study.py`.
