"""Under a GradScaler: a fused optimizer sees scaled gradients, and a step with an overflow must leave all as it was."""

import pytest
import torch
from tests.support.rule_cases import CASES, weights

from decaylab import decay
from decaylab.errors import DecaylabError

EDITORS = [case for case in CASES if case.name in ("l2", "l2_to_anchor")]


def scaled_step(params, opt, scaler, value=1.0, unscale=False):
    opt.zero_grad()
    scaler.scale(sum((value * p).sum() for p in params)).backward()
    if unscale:
        scaler.unscale_(opt)
    scaler.step(opt)
    scaler.update()


def build(rule, fused, native=True):
    params = weights(torch.float32)
    opt = torch.optim.AdamW(params, lr=0.1, weight_decay=0.0, fused=fused)
    decay.attach(opt, rule, native=native)
    return params, opt, torch.amp.GradScaler("cpu", init_scale=1024.0)


@pytest.mark.parametrize("case", EDITORS, ids=lambda case: case.name)
def test_rules_that_edit_gradients_refuse_scaled_ones(case):
    params, opt, scaler = build(case.rule(), fused=True, native=False)
    with pytest.raises(DecaylabError, match=r"fused optimizer under a GradScaler.*unscale_\(optimizer\)"):
        scaled_step(params, opt, scaler)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_scaled_step_is_the_step(case, fused):
    # Gradient editors need unscaled gradients first when the optimizer is fused.
    params, opt, scaler = build(case.rule(), fused)
    twins = weights(torch.float32)
    twin_opt = torch.optim.AdamW(twins, lr=0.1, weight_decay=0.0, fused=fused)
    decay.attach(twin_opt, case.rule())
    for _ in range(3):
        scaled_step(params, opt, scaler, unscale=fused and case in EDITORS)
        twin_opt.zero_grad()
        sum(p.sum() for p in twins).backward()
        twin_opt.step()
    for p, q in zip(params, twins, strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_overflow_changes_nothing(case, fused):
    params, opt, scaler = build(case.rule(), fused)
    scaled_step(params, opt, scaler, unscale=fused and case in EDITORS)
    before = [p.detach().clone() for p in params]
    steps = decay.handles(opt)[0].steps
    scaled_step(params, opt, scaler, value=float("inf"), unscale=fused and case in EDITORS)
    assert all(torch.equal(p.detach(), b) for p, b in zip(params, before, strict=True))
    assert decay.handles(opt)[0].steps == steps
