"""The computed sign descent against this package's own optimizer, rules and autograd."""

import math

import numpy as np
import pytest
import torch

from decaylab import decay, schedules, studies
from decaylab.experiments.evidence import Verdict
from decaylab.experiments.results import Results
from decaylab.studies.why_weight_decay import signgd
from decaylab.train.signsgd import SignSGD

SEED = 3


@pytest.mark.parametrize("invariant", [True, False])
def test_the_gradient_is_autograds(invariant):
    rng = np.random.default_rng(0)
    w = rng.standard_normal((2, 3, signgd.DIMENSION))
    x, y = rng.standard_normal((2, signgd.BATCH, signgd.DIMENSION)), np.sign(rng.standard_normal((2, signgd.BATCH)))
    found = signgd.gradient(w, x, y, invariant)
    for data, vector in np.ndindex(2, 3):
        tensor = torch.tensor(w[data, vector], requires_grad=True)
        scores = torch.tensor(x[data]) @ tensor
        scores = 8 * scores / tensor.norm() if invariant else scores
        torch.nn.functional.softplus(-torch.tensor(y[data]) * scores, threshold=1e3).mean().backward()
        np.testing.assert_allclose(found[data, vector], tensor.grad.numpy(), rtol=1e-10, atol=1e-14)
    if invariant:
        np.testing.assert_allclose(signgd.gradient(2 * w, x, y, True), found / 2, rtol=1e-12)


def test_the_effective_lr_is_that_of_the_packages_optimizer_and_decay_rule(monkeypatch):
    monkeypatch.setattr(signgd, "STEPS", 40)
    signgd.simulate.cache_clear()
    found = signgd.simulate((7, SEED), True)[0.3]
    signgd.simulate.cache_clear()
    rng = np.random.default_rng(SEED)
    teacher = rng.standard_normal(signgd.DIMENSION)
    w = torch.nn.Parameter(torch.tensor(rng.standard_normal(signgd.DIMENSION)))
    optimizer = SignSGD([w], lr=signgd.LR)
    decay.attach(optimizer, decay.build("decoupled", weight_decay=0.3))
    for step in range(40):
        lr = schedules.value(signgd.LR_SCHEDULE, step, signgd.LR, 40)
        optimizer.param_groups[0]["lr"] = lr
        assert math.isclose(found.effective_lr[1, step], lr / ((1 - lr * 0.3) * w.detach().norm().item()), rel_tol=1e-9)
        x = rng.standard_normal((signgd.BATCH, signgd.DIMENSION))
        y = np.sign(x @ teacher + rng.standard_normal(signgd.BATCH))
        scores = 8 * torch.tensor(x) @ (w / w.norm())
        optimizer.zero_grad()
        torch.nn.functional.softplus(-torch.tensor(y) * scores, threshold=1e3).mean().backward()
        optimizer.step()
    assert found.distance.max() < 1e-13


def test_the_claims_hold_and_the_charts_have_rows(monkeypatch):
    monkeypatch.setattr(signgd, "STEPS", 300)
    monkeypatch.setattr(signgd, "SEEDS", {"mini": (1, 2, 3)})
    signgd.simulate.cache_clear()
    experiment = studies.get("signgd")
    assert experiment.runs("mini") == ()
    results = Results((), {}, lambda keys: pytest.fail("nothing was trained"), budget="mini")
    assert [claim.evaluate(results).verdict for claim in experiment.claims] == [Verdict.HOLDS, Verdict.HOLDS]
    for chart in experiment.charts:
        table = chart.data(results)
        assert {chart.x, chart.y, chart.color, "seed"} <= set(table)
        assert (table["value"] > 0).all()
    signgd.simulate.cache_clear()
