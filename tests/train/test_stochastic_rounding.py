"""Stochastic rounding against exact arithmetic: its mean, its two values, and a run that goes on bit for bit."""

from dataclasses import replace

import pytest
import torch
from tests.support import rule_cases
from tests.train.test_fit import LANGUAGE, _corpus, _curves, _home, _train  # noqa: F401  (fixtures of that file)
from torch import nn

from decaylab import decay
from decaylab.config.schema import Decay
from decaylab.errors import DecaylabError
from decaylab.train.build import LOSS_PENALTIES
from decaylab.train.checkpoints import files as checkpoint
from decaylab.train.checkpoints import layout as run_folder
from decaylab.train.stochastic_rounding import StochasticRounding, round_stochastically

ROUNDED = replace(LANGUAGE, weights="bfloat16", stochastic_rounding=True)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _neighbours(x):
    """The bfloat16 numbers around float32 values, found by asking for them: an oracle without bit tricks."""
    nearest = x.to(torch.bfloat16)
    up = torch.nextafter(nearest, torch.full_like(nearest, torch.inf)).float()
    down = torch.nextafter(nearest, torch.full_like(nearest, -torch.inf)).float()
    nearest = nearest.float()
    return torch.where(nearest <= x, nearest, down), torch.where(nearest >= x, nearest, up)


def test_the_mean_of_many_roundings_is_the_value():
    x = torch.tensor([1.001, -1.003, 257.0, -3e-5, 0.02, 1e-30, 123456.7], dtype=torch.float32)
    draws = 200_000
    rounded = round_stochastically(x.expand(draws, -1), _generator()).double()
    low, high = _neighbours(x)
    error = (high - low).double() / 2 / draws**0.5  # standard error of a mean of two values is at most this
    assert ((rounded.mean(0) - x.double()).abs() < 5 * error).all()


def test_only_the_two_neighbours_occur():
    x = torch.randn(2000, generator=_generator(1)) * 10 ** torch.linspace(-6, 6, 2000)
    low, high = _neighbours(x)
    for seed in range(5):
        rounded = round_stochastically(x, _generator(seed)).float()
        assert ((rounded == low) | (rounded == high)).all()


def test_what_bfloat16_can_hold_stays():
    x = torch.tensor([0.0, -0.0, 1.0, -256.0, 3.3895e38, torch.inf, -torch.inf]).to(torch.bfloat16)
    for seed in range(20):
        assert torch.equal(round_stochastically(x.float(), _generator(seed)), x)
    assert round_stochastically(torch.tensor([torch.nan]), _generator()).isnan().all()


def test_updates_below_half_the_spacing_happen_on_average():
    """256 + 1 = 256 in bfloat16; with stochastic rounding a hundred such steps arrive."""
    steps, count = 100, 4000
    nearest, stochastic = (nn.Parameter(torch.full((count,), 256.0, dtype=torch.bfloat16)) for _ in range(2))
    rounding = StochasticRounding([stochastic], seed=3)
    optimizers = [torch.optim.SGD([p], lr=1.0) for p in (nearest, stochastic)]
    for step in range(steps):
        for p in (nearest, stochastic):
            p.grad = torch.full_like(p, -1.0)
        optimizers[0].step()
        with rounding.widened(step):
            assert stochastic.dtype == stochastic.grad.dtype == torch.float32
            optimizers[1].step()
        assert stochastic.dtype == stochastic.grad.dtype == torch.bfloat16
    assert (nearest == 256).all()
    # Each step adds 1 on average; its variance is at most 1 * (2 - 1) below 512.
    assert abs(stochastic.double().mean().item() - 356) < 5 * (steps / count) ** 0.5


def test_the_step_and_its_state_are_computed_in_float32():
    start = torch.randn(50, generator=_generator(2)).to(torch.bfloat16)
    gradient = torch.randn(50, generator=_generator(3)).to(torch.bfloat16)
    exact = nn.Parameter(start.float())
    exact.grad = gradient.float()
    rounded = nn.Parameter(start.clone())
    rounded.grad = gradient.clone()
    reference = torch.optim.AdamW([exact], lr=1e-3, weight_decay=0.1)
    optimizer = torch.optim.AdamW([rounded], lr=1e-3, weight_decay=0.1)
    reference.step()
    with StochasticRounding([rounded], seed=0).widened(0):
        optimizer.step()
    low, high = _neighbours(exact.detach())
    assert ((rounded.float() == low) | (rounded.float() == high)).all()
    assert torch.equal(optimizer.state[rounded]["exp_avg_sq"], reference.state[exact]["exp_avg_sq"])


@pytest.mark.parametrize(
    ("case", "kind"), [pytest.param(c, k, id=f"{c.name}-{k}") for c in rule_cases.CASES for k in c.optimizers]
)
def test_every_decay_rule_is_computed_in_float32(case, kind):
    """Each step of the rounded weights is one of the two neighbours of a float32 step from the same place."""
    rounded = rule_cases.weights(torch.bfloat16)
    exact = [nn.Parameter(p.detach().float()) for p in rounded]
    optimizers = [rule_cases.optimizer(kind, params) for params in (exact, rounded)]
    for optimizer in optimizers:
        decay.attach(optimizer, case.rule())
    rounding = StochasticRounding(rounded, seed=0)
    for step, gradients in enumerate(rule_cases.gradients(3)):
        for e, r, gradient in zip(exact, rounded, gradients, strict=True):
            e.data.copy_(r.data)
            r.grad = gradient.to(torch.bfloat16)
            e.grad = r.grad.float()
        optimizers[0].step()
        with rounding.widened(step):
            optimizers[1].step()
        for e, r in zip(exact, rounded, strict=True):
            assert r.dtype == r.grad.dtype == torch.bfloat16
            low, high = _neighbours(e.detach())
            assert ((r.float() == low) | (r.float() == high)).all()


# follow_norms follows another run, which is tested where there is one.
RULES = [n for n, entry in decay.TABLE.items() if entry.use == "attach" and n != "follow_norms"] + list(LOSS_PENALTIES)


@pytest.mark.parametrize("stochastic", [False, True], ids=["nearest", "stochastic"])
@pytest.mark.parametrize("rule", RULES)
def test_every_decay_rule_trains_weights_stored_in_bfloat16(rule, stochastic):
    scheduled = rule in LOSS_PENALTIES or decay.TABLE[rule].scheduled
    own = Decay(rule=rule, weight_decay=0.3 if scheduled else 0.0, roles=("matrix", "embedding", "head"))
    config = replace(LANGUAGE, weights="bfloat16", stochastic_rounding=stochastic, decay=own, steps=6)
    records, outcome = _train(config)
    plain, _ = _train(replace(config, decay=Decay()))
    assert (outcome.status, outcome.steps) == ("done", 6)
    last, other = (curves[6, "weights/norm"] for curves in (_curves(records), _curves(plain)))
    assert 0 < last < float("inf")
    # Selective projection waits until gradient and displacement disagree, which takes longer.
    assert last != other or rule == "selective_projection"


def test_resumed_is_bit_for_bit_the_same(tmp_path, monkeypatch):
    whole, _ = _train(ROUNDED)
    clock = iter(range(10**6))
    monkeypatch.setattr("decaylab.train.trainer.time.monotonic", lambda: float(next(clock)))  # a beat every step
    beats = []
    first, outcome = _train(
        ROUNDED, folder=tmp_path, heartbeat=lambda step, total: bool(beats.append(step)) or step < 5
    )
    assert outcome.status == "interrupted"
    state = checkpoint.load_state(run_folder.checkpoints(tmp_path)[0][1])
    assert {
        v.dtype
        for s in state["optimizer"]["state"].values()
        for k, v in s.items()
        if k != "step" and torch.is_tensor(v)
    } == {torch.float32}
    second, outcome = _train(ROUNDED, folder=tmp_path)
    assert outcome.status == "done"
    assert _curves(first + second) == _curves(whole)


def test_rounding_changes_the_run_and_needs_bfloat16_weights():
    nearest, _ = _train(replace(ROUNDED, stochastic_rounding=False))
    stochastic, _ = _train(ROUNDED)
    assert _curves(nearest) != _curves(stochastic)
    with pytest.raises(DecaylabError, match="needs weights = bfloat16"):
        _train(replace(ROUNDED, weights="float32"))
