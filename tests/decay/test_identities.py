"""Equations that must hold between rules, or in what a rule leaves behind, for any shape, schedule and group."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.rule_cases import gradients, train, weights

from decaylab import decay
from decaylab.schedules import DecaySchedule

few = settings(max_examples=20, deadline=None, derandomize=True)
shapes = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple), min_size=1, max_size=4).map(tuple)
rates = st.lists(st.floats(0.0, 0.2), min_size=1, max_size=5)
lambdas = st.floats(0.0, 2.0)
seeds = st.integers(0, 99)
MAKERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.2, momentum=0.9),
    "adam": lambda groups: torch.optim.AdamW(groups, lr=0.2, weight_decay=0.0),
}


def run(kind, rule, forms, lrs, seed, native=True, split=True):
    """Train on random gradients with one or two groups, and return the weights."""
    params = weights(shapes=forms, seed=seed)
    groups = [{"params": params[:1]}, {"params": params[1:]}] if split and len(params) > 1 else [{"params": params}]
    optimizer = MAKERS[kind](groups)
    if rule is not None:
        decay.attach(optimizer, rule, native=native)
    return train(optimizer, gradients(len(lrs), seed=seed + 1, shapes=forms), lrs)


def close(left, right, atol=1e-12):
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=atol)


@few
@given(shapes, rates, lambdas, seeds, st.sampled_from(sorted(MAKERS)), st.booleans())
def test_independent_times_the_peak_is_decoupled(forms, lrs, lam, seed, kind, native):
    peak = 0.2
    close(
        run(kind, decay.Independent(lam * peak, max_lr=peak), forms, lrs, seed, native),
        run(kind, decay.Decoupled(lam), forms, lrs, seed, not native),
    )


@few
@given(shapes, rates, lambdas, seeds)
def test_rules_agree_at_the_peak_of_a_constant_schedule(forms, lrs, lam, seed):
    flat = [0.2] * len(lrs)
    expected = run("adam", decay.Decoupled(lam), forms, flat, seed)
    for rule in (decay.Corrected(lam), decay.QuadraticLR(lam / 0.2), decay.Constant(lam * 0.2)):
        close(run("adam", rule, forms, flat, seed), expected)


@few
@given(shapes, rates, st.floats(0.0, 0.5), seeds, st.floats(0.0, 0.9), st.floats(0.0, 0.5))
def test_sgds_is_decoupled_decay_over_one_minus_momentum(forms, lrs, lam, seed, momentum, dampening):
    ends = []
    for rule in (decay.Scheduled(lam), decay.Decoupled(lam * (1 - dampening) / (1 - momentum))):
        optimizer = torch.optim.SGD(weights(shapes=forms), lr=0.2, momentum=momentum, dampening=dampening)
        if lam * 0.2 / (1 - momentum) >= 1:
            return
        decay.attach(optimizer, rule)
        ends.append(train(optimizer, gradients(len(lrs), seed=seed, shapes=forms), lrs))
    close(*ends)


@few
@given(rates, st.floats(0.01, 2.0), seeds)
def test_decay_is_an_exponential_learning_rate(lrs, lam, seed):
    # For a scale-invariant loss, gradient descent with lr and decay keeps the direction of gradient descent without
    # decay at lr alpha^(-2t-1), alpha = 1 - lr lambda; the norms differ by alpha^t.
    lr = max(lrs[0], 1e-3)
    alpha = 1 - lr * lam
    target = torch.from_numpy(np.random.default_rng(seed).normal(size=6))

    def descend(optimizer, weight, steps, rate):
        for t in range(steps):
            optimizer.param_groups[0]["lr"] = rate(t)
            optimizer.zero_grad()
            (-(weight @ target) / weight.norm()).backward()
            optimizer.step()
        return weight.detach()

    start = weights(shapes=((6,),), seed=seed)[0]
    decayed, plain = start.detach().clone().requires_grad_(), start.detach().clone().requires_grad_()
    with_decay = torch.optim.SGD([decayed], lr=lr)
    decay.attach(with_decay, decay.Decoupled(lam))
    left = descend(with_decay, decayed, 8, lambda t: lr)
    right = descend(torch.optim.SGD([plain], lr=lr), plain, 8, lambda t: lr * alpha ** (-2 * t - 1))
    torch.testing.assert_close(left, right * alpha**8, rtol=1e-9, atol=1e-12)


@few
@given(shapes, st.floats(0.0, 1.0), st.floats(0.1, 3.0), seeds)
def test_weight_norm_control_at_its_end_points(forms, rate, ratio, seed):
    lrs = [0.2]
    plain = run("adam", None, forms, lrs, seed)
    to_zero = run("adam", decay.WeightNormControl(rate, ratio=0.0), forms, lrs, seed)
    close(to_zero, [p * (1 - rate) for p in plain])
    at_once = run("adam", decay.WeightNormControl(1.0, ratio=ratio), forms, lrs, seed)
    for p, start in zip(at_once, weights(shapes=forms, seed=seed), strict=True):
        assert p.norm().item() == pytest.approx(ratio * start.detach().norm().item(), rel=1e-12)


@few
@given(shapes, st.integers(2, 5), seeds, st.sampled_from(["initial", "zero"]))
def test_selective_projection_of_strength_one_keeps_the_distance(forms, steps, seed, anchor):
    params = weights(shapes=forms, seed=seed)
    origin = [p.detach().clone() if anchor == "initial" else torch.zeros_like(p) for p in params]
    optimizer = MAKERS["adam"](params)
    decay.attach(optimizer, decay.SelectiveProjection(1.0, anchor=anchor))
    for step in gradients(steps, seed=seed, shapes=forms):
        before = [(p.detach() - o).norm() for p, o in zip(params, origin, strict=True)]
        inner = [(g * (p.detach() - o)).sum() for p, o, g in zip(params, origin, step, strict=True)]
        train(optimizer, [step])
        for p, o, distance, product in zip(params, origin, before, inner, strict=True):
            if product > 0:
                assert (p.detach() - o).norm() <= distance * (1 + 1e-12)


@few
@given(shapes, rates, st.floats(0.1, 5.0), seeds, st.booleans())
def test_weights_stay_on_their_sphere(forms, lrs, radius, seed, joint):
    ends = run("sgd", decay.SphereProjection(radius=radius, joint=joint), forms, lrs, seed)
    norms = [p.norm().item() for p in ends]
    if joint:
        assert math.hypot(*norms) == pytest.approx(radius, rel=1e-12)
    else:
        assert norms == pytest.approx([radius] * len(norms), rel=1e-12)


SHARES = {
    "decoupled": lambda lr, lam: lr * lam,
    "independent": lambda lr, lam: lr * lam / 0.2,
    "constant": lambda lr, lam: lam,
    "quadratic_lr": lambda lr, lam: lr**2 * lam,
    "corrected": lambda lr, lam: lr**2 * lam / 0.2,
    "scheduled": lambda lr, lam: lr * lam / 0.1,
}
SCHEDULES = {
    "constant": (DecaySchedule(), lambda t, lr: 1.0),
    "with_lr": (DecaySchedule(kind="with_lr"), lambda t, lr: lr / 0.2),
    "cosine": (DecaySchedule(kind="cosine_to_zero"), lambda t, lr: 0.5 * (1 + math.cos(math.pi * min(t / 4, 1)))),
    "early": (DecaySchedule(kind="early_only", fraction=0.5), lambda t, lr: float(t < 2)),
    "step": (
        DecaySchedule(kind="step", drop_at=(0.25, 0.75), drop_factor=0.5),
        lambda t, lr: 0.5 ** ((t >= 1) + (t >= 3)),
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SHARES)
def test_a_zero_gradient_shrinks_by_the_product(name, schedule):
    shape, multiplier = SCHEDULES[schedule]
    lrs = [0.2, 0.15, 0.1, 0.05, 0.0]
    for kind in ("sgd", "adam") if name != "scheduled" else ("sgd",):
        params = weights()
        start = [p.detach().clone() for p in params]
        optimizer = MAKERS[kind](params)
        decay.attach(optimizer, decay.build(name, 0.3, schedule=shape, total_steps=4, **_peak(name)))
        ends = train(optimizer, [[torch.zeros_like(p) for p in params]] * 5, lrs)
        kept = math.prod(1 - SHARES[name](lr, 0.3 * multiplier(t, lr)) for t, lr in enumerate(lrs))
        close(ends, [p * kept for p in start])


def _peak(name):
    return {"max_lr": 0.2} if name in ("independent", "corrected") else {}


def test_rotation_in_equilibrium_is_the_one_that_rotational_sets_at_once():
    # AdamW with decay on random gradients turns by sqrt(2 lr lambda (1 - b1) / (1 + b1)) a step once the norm has
    # settled; the rotational variant does so from the start.
    lr, lam, dim = 0.01, 0.5, 400
    predicted = math.sqrt(2 * lr * lam * 0.1 / 1.9)
    angles = {}
    for rule in (decay.Decoupled(lam), decay.Rotational(lam, zero_mean=False)):
        weight = weights(shapes=((1, dim),))[0]
        optimizer = torch.optim.AdamW([weight], lr=lr, weight_decay=0.0)
        decay.attach(optimizer, rule)
        generator = torch.Generator().manual_seed(3)
        turned = []
        for t in range(1500):
            before = weight.detach().clone()
            weight.grad = torch.randn((1, dim), generator=generator, dtype=torch.float64)
            optimizer.step()
            if t >= (1000 if isinstance(rule, decay.Decoupled) else 20):
                cosine = torch.nn.functional.cosine_similarity(before.flatten(), weight.detach().flatten(), dim=0)
                turned.append(math.acos(min(cosine.item(), 1.0)))
        angles[type(rule).__name__] = sum(turned) / len(turned)
    assert angles["Decoupled"] == pytest.approx(predicted, rel=0.02)
    assert angles["Rotational"] == pytest.approx(predicted, rel=0.02)


def test_constrained_brings_a_tensor_down_to_its_bound_and_lets_go():
    weight = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    decay.attach(optimizer, decay.Constrained(bound="uniform", kappa=0.25, update=0.05))
    for _ in range(200):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    assert weight.detach().square().sum().item() <= 0.25 * 16
    inside = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert torch.equal(inside, weight.detach())


@pytest.mark.parametrize("bound", ["warm_start", "inflection"])
def test_constrained_sets_its_bound_on_the_way(bound):
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    handle = decay.attach(optimizer, decay.Constrained(bound=bound, steps=3, update=1e-9))
    squares = []
    for move in (0.1, 0.3, 0.2, 0.1, 0.1):  # growth of the norm slows down from the third step on
        weight.grad = torch.full_like(weight, -move)
        optimizer.step()
        squares.append(weight.detach().square().sum().item())
    kappa = handle._members.state[weight]["kappa"].item()
    growth = [b - a for a, b in zip([4.0, *squares], squares, strict=False)]
    slower = next(t for t in range(1, 5) if growth[t] < growth[t - 1])
    assert kappa == pytest.approx(squares[2] if bound == "warm_start" else squares[slower], rel=1e-6)
