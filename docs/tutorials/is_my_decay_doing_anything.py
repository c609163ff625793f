# %% [markdown]
# # Is my decay doing anything?
#
# A weight decay that is written in a script may act on everything, on half of the weights, or on nothing. Three lines
# around a training loop tell which. Here is a small network on handwritten digits.

# %%
import torch
from sklearn.datasets import load_digits
from torch import nn

from decaylab import audit, watch

images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
images = images.float() / 16


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 64, bias=False),
        nn.LayerNorm(64),
        nn.ReLU(),
        nn.Linear(64, 64, bias=False),
        nn.LayerNorm(64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train(model, optimizer, steps=1500):
    log = watch(model, optimizer, every=50, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(0, len(images), (64,))
        loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return log


# %% [markdown]
# ## A usual setting
#
# `audit` reads what an optimizer decays, parameter by parameter, and says why it thinks that this is right or not.

# %%
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
print(audit(model, optimizer))

# %% [markdown]
# Gains and biases decay too, because all parameters stand in one group. And 0.01 over 1,500 steps at this learning rate
# is little: the log says so.

# %%
log = train(model, optimizer)
print(log.summary())

# %% [markdown]
# ## A decay that acts
#
# `decay_groups` puts the weights that should decay into a group of their own, and 0.5 is thirty times what the run can
# forget in its length.

# %%
from decaylab import decay_groups

model = network()
optimizer = torch.optim.AdamW(decay_groups(model, weight_decay=0.5), lr=3e-3)
log = train(model, optimizer)
print(log.summary())

# %% [markdown]
# The norm of the weights settles where decay and updates balance, and a step then turns the weights by an angle that the
# learning rate and the decay set. `log.table()` has every number that was recorded, `log.plot()` draws them;
# [every quantity with its equation](../probes.md) says what they mean.

# %%
log.table()[["step", "weights/norm"]].iloc[::6]
