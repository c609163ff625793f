"""Three steps on a 2 x 2 weight in float64, worked out apart from this package and written down to twelve digits."""

import pytest
import torch

from decaylab import decay

GRADIENTS = [[[0.1, 0.2], [-0.3, 0.4]], [[-0.2, 0.1], [0.3, 0.5]], [[0.3, -0.4], [0.1, -0.2]]]
LEARNING_RATES = (0.1, 0.05, 0.025)
ADAMW_01 = (0.893014520571, -2.105759526097, 0.583263539871, 2.784979802043)

GOLDEN = {
    "AdamW 0.1": ("adam", decay.Decoupled(0.1), ADAMW_01),
    "independent 0.01": ("adam", decay.Independent(0.01), ADAMW_01),
    "Adam L2 0.1": ("adam", decay.L2(0.1), (0.872577285533, -1.944665235322, 0.578928194567, 2.829362915035)),
    "CWD 0.1": ("adam", decay.Cautious(0.1), (0.897453395621, -2.136083526072, 0.588226102371, 2.784979802043)),
    "AdamWN 0.05, 0.8": (
        "adam",
        decay.WeightNormControl(0.05, ratio=0.8),
        (0.894926848769, -2.106864024093, 0.582945098613, 2.789369677430),
    ),
    "Adam, norms 3.5, 3, 2.5": (
        "adam",
        decay.FollowNorms(torch.tensor([[3.5], [3.0], [2.5]], dtype=torch.float64)),
        (0.612183273875, -1.443686312418, 0.398335655719, 1.905867302807),
    ),
    "SGD, norms 3.5, 3, 2.5": (
        "sgd",
        decay.FollowNorms(torch.tensor([[3.5], [3.0], [2.5]], dtype=torch.float64)),
        (0.666885211755, -1.368212027567, 0.353399828179, 1.951504169457),
    ),
    "SGD L2 0.01": ("sgd", decay.L2(0.01), (0.987857086125, -2.025024427250, 0.523982984937, 2.894820882125)),
}


@pytest.mark.parametrize("native", [True, False], ids=["native", "own"])
@pytest.mark.parametrize("name", GOLDEN)
def test_three_steps(name, native):
    kind, rule, expected = GOLDEN[name]
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64))
    make = {
        "adam": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.0),
        "sgd": lambda p: torch.optim.SGD(p, 0.1, 0.9),
    }
    optimizer = make[kind]([weight])
    decay.attach(optimizer, rule, native=native)
    for lr, gradient in zip(LEARNING_RATES, GRADIENTS, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    assert weight.detach().flatten().tolist() == pytest.approx(expected, rel=0, abs=1e-12)


def test_max_norm():
    rows = torch.tensor([[3.0, 4.0], [0.6, 0.8], [0.0, 2.0]], dtype=torch.float64)
    weight = torch.nn.Parameter(rows.clone())
    optimizer = torch.optim.SGD([weight], lr=0.1)
    decay.attach(optimizer, decay.MaxNorm(fraction=0.1))  # threshold 1.4
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert weight.detach().flatten().tolist() == pytest.approx((0.84, 1.12, 0.6, 0.8, 0, 1.4), abs=1e-12)
