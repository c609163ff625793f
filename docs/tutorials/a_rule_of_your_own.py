# %% [markdown]
# # A rule of your own
#
# A decay rule is a small frozen dataclass. It sees the weights, gradients and optimizer state of a step, before or after the
# optimizer, and works on any `torch.optim` optimizer.

# %%
from dataclasses import dataclass

import torch
from torch import nn

from decaylab import attach, watch
from decaylab.decay import DecayRule


@dataclass(frozen=True)
class Halves(DecayRule):
    """Decoupled decay at half of its strength: p <- p (1 - lr lambda / 2)."""

    def before(self, step):
        for part in step.parts:
            torch._foreach_mul_(part.weights, 1 - part.lr * self.weight_decay / 2)


# %% [markdown]
# `attach` installs it. The optimizer's own weight decay stays at 0: decay is the rule's business.

# %%
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
attach(optimizer, Halves(weight_decay=1.0), params=[p for p in model.parameters() if p.dim() > 1])
log = watch(model, optimizer, every=10)
for _ in range(400):
    x = torch.randn(32, 16)
    loss = nn.functional.cross_entropy(model(x), x[:, :4].argmax(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(log.summary())

# %% [markdown]
# Is it what it says? A linear layer without gradients must shrink by exactly that factor:

# %%
layer = nn.Linear(4, 4, bias=False)
before = layer.weight.detach().clone()
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
attach(optimizer, Halves(weight_decay=0.2), params=[layer.weight])
layer.weight.grad = torch.zeros_like(layer.weight)
optimizer.step()
torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.1 * 0.2 / 2))
print("shrinks by", (layer.weight / before).mean().item())

# %% [markdown]
# The same file works from the command line: `decaylab train language --decay.rule my_rules.py:Halves --decay.weight-decay 0.1`,
# and in a study of your own.
