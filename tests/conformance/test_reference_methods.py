"""The reference methods against the published vectors and against torch's own optimizers."""

import pytest
import torch

from decaylab.conformance import GOLDEN
from decaylab.conformance.cases import GRADIENTS, LR, MULTIPLIERS, START
from decaylab.conformance.reference import METHODS, Constants, trajectory


def _tensors():
    start = torch.tensor(START, dtype=torch.float64)
    return start, [torch.tensor(gradient, dtype=torch.float64) for gradient in GRADIENTS]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.name)
def test_published_vectors(case):
    start, gradients = _tensors()
    end = trajectory(
        case.base,
        Constants(momentum=case.momentum),
        gradients,
        start=start,
        lr=LR,
        multipliers=MULTIPLIERS,
        weight_decay=case.weight_decay,
        meaning=case.meaning,
        entry=case.entry,
    )[-1]
    torch.testing.assert_close(end.flatten(), torch.tensor(case.result, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("base", "entry", "build"),
    [
        ("sgd", "l2", lambda p: torch.optim.SGD(p, lr=LR, weight_decay=0.1)),
        ("sgd", "l2", lambda p: torch.optim.SGD(p, lr=LR, weight_decay=0.1, momentum=0.8, dampening=0.3)),
        ("sgd", "l2", lambda p: torch.optim.SGD(p, lr=LR, weight_decay=0.1, momentum=0.8, nesterov=True)),
        ("adam", "l2", lambda p: torch.optim.Adam(p, lr=LR, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-3)),
        ("adam", "before", lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=0.1, eps=1e-2)),
    ],
)
def test_agrees_with_torch(base, entry, build):
    start, gradients = _tensors()
    weight = torch.nn.Parameter(start.clone())
    optimizer = build([weight])
    steps = trajectory(
        base, Constants.of(optimizer.param_groups[0]), gradients,
        start=start, lr=LR, multipliers=MULTIPLIERS, weight_decay=0.1, entry=entry,
    )  # fmt: skip
    for gradient, multiplier, expected in zip(gradients, MULTIPLIERS, steps, strict=True):
        optimizer.param_groups[0]["lr"] = LR * multiplier
        weight.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-14)


def test_lion_by_hand():
    start, gradients = _tensors()
    (first, second) = trajectory(
        "lion", Constants(betas=(0.5, 0.5)), gradients[:2], start=start, lr=1.0, multipliers=(1.0, 1.0)
    )
    torch.testing.assert_close(first, start - gradients[0].sign())
    torch.testing.assert_close(second, first - (0.25 * gradients[0] + 0.5 * gradients[1]).sign())


def test_eps_before_the_correction_differs_where_eps_matters():
    start, gradients = _tensors()
    ends = [
        trajectory(base, Constants(eps=0.1), gradients, start=start, lr=LR, multipliers=MULTIPLIERS)[0]
        for base in ("adam", "adam_eps_before")
    ]
    g, correction = gradients[0], (1 - 0.999) ** 0.5
    torch.testing.assert_close(ends[0], start - LR * g / (g.abs() + 0.1))
    torch.testing.assert_close(ends[1], start - LR * g / (g.abs() + 0.1 / correction))


def test_constants_are_read_from_a_group():
    found = Constants.of({"betas": (0.7, 0.8), "eps": 1e-6, "momentum": 0.5, "nesterov": True, "dampening": None})
    assert found == Constants(betas=(0.7, 0.8), eps=1e-6, momentum=0.5, nesterov=True)
    assert Constants.of({"betas": (None, 0.9), "eps": (1e-30, 1e-3)}) == Constants()
    assert set(METHODS) == {"sgd", "adam", "adam_eps_before", "lion"}
