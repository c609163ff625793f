"""One formula for every share: conventions, rules, conformance, the check of settings and torch's own steps agree."""

import ast
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import decaylab
from decaylab import decay
from decaylab.conformance.meaning import MEANINGS, Moment
from decaylab.conventions import step_decay
from decaylab.conventions.equilibrium import RotationInputs, relative_update, update_ratio
from decaylab.conventions.table import CONVENTIONS, RULE_CONVENTIONS, Setting, get
from decaylab.decay.registry import TABLE

LR, PEAK, LAMBDA, MOMENTUM = 0.03, 0.1, 0.2, 0.9
SHARED = {"torch": "torch", "independent": "independent", "constant": "constant", "palm": "palm", "adamc": "adamc"}


@pytest.mark.parametrize("key", CONVENTIONS)
def test_a_share_is_lambda_times_its_scale_times_the_schedule_to_its_power(key):
    convention, setting = get(key), Setting(lr=PEAK, total_steps=400, momentum=MOMENTUM)
    expected = LAMBDA * convention.scale(setting) * (LR / PEAK) ** convention.power
    assert convention.share(LR, LAMBDA, setting) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("key", "meaning"), SHARED.items())
def test_conformance_looks_for_the_same_shares(key, meaning):
    at = Moment(
        lr=LR, lr_first=PEAK, lr_seen=PEAK, weight_decay=LAMBDA, weight=torch.ones(1), gradients=[torch.ones(1)]
    )
    assert MEANINGS[meaning].share(at) == get(key).share(LR, LAMBDA, Setting(lr=PEAK))


@pytest.mark.parametrize("name", [name for name in RULE_CONVENTIONS if name in TABLE])
def test_a_rule_states_the_share_of_its_convention_and_takes_it(name):
    weight = nn.Parameter(torch.randn(4, 5, dtype=torch.float64))
    optimizer = torch.optim.SGD([{"params": [weight], "initial_lr": PEAK}], lr=LR, momentum=MOMENTUM)
    options = {"anchor": "zero"} if name == "l2_to_anchor" else {}
    handle = decay.attach(optimizer, decay.build(name, LAMBDA, **options), native=False)
    terms = handle.terms(0, optimizer.param_groups[0])
    convention = get(RULE_CONVENTIONS[name])
    expected = convention.share(LR, LAMBDA, Setting(lr=PEAK))
    if convention.through_momentum:
        assert terms.coupled == LAMBDA
    elif name != "cautious":  # of which this is the most: all entries decay where the update is zero
        assert terms.share == pytest.approx(expected, rel=1e-12)
    old = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    optimizer.step()  # the first step: no momentum has gathered yet
    taken = 1 - float((weight.detach() * old).sum() / old.square().sum())
    assert taken == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", [name for name, entry in TABLE.items() if entry.use == "attach"])
def test_every_rule_of_the_table_states_its_terms(name):
    weight = nn.Parameter(torch.randn(4, 5))
    optimizer = torch.optim.AdamW([weight], lr=0.01, weight_decay=0.0)
    options = {"norms": torch.ones(1, 1)} if name == "follow_norms" else {}
    handle = decay.attach(optimizer, decay.build(name, 0.001 if TABLE[name].scheduled else None, **options))
    terms = handle.terms(0, optimizer.param_groups[0])
    assert terms is not None and terms.target in ("zero", "anchor", "norm")
    assert terms.coupled > 0 or terms.share > 0 or math.isnan(terms.share)


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lion"])
def test_rotation_is_that_of_the_equilibrium(kind):
    inputs = RotationInputs(optimizer=kind, betas=(0.9, 0.95), momentum=MOMENTUM if kind == "sgd" else 0.0)
    share = step_decay.coupled(LR, LAMBDA, MOMENTUM) if kind == "sgd" else step_decay.decoupled(LR, LAMBDA)
    weight = nn.Parameter(torch.randn(4, 5))
    optimizer = (
        torch.optim.SGD([weight], lr=LR, momentum=MOMENTUM)
        if kind == "sgd"
        else torch.optim.AdamW([weight], lr=LR, betas=(0.9, 0.95), weight_decay=0.0)
    )
    rule = decay.Rotational(LAMBDA, kind={"sgd": "sgdm"}.get(kind, kind))
    handle = decay.attach(optimizer, rule)
    expected = math.sqrt(2 * share * update_ratio(inputs))
    assert rule.rotation(optimizer, handle.part(0, optimizer.param_groups[0])) == pytest.approx(expected)
    assert relative_update(share, inputs) == pytest.approx(expected)


def test_nobody_asks_for_the_class_name_of_a_rule():
    rules = {entry.path.rpartition(":")[2] for entry in TABLE.values()}
    for room in ("probes", "monitor", "config", "conventions", "conformance"):
        for path in (Path(decaylab.__file__).parent / room).rglob("*.py"):
            compared = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Compare)]
            strings = {item.value for node in compared for item in ast.walk(node) if isinstance(item, ast.Constant)}
            assert not strings & rules, f"{path} compares with {strings & rules}"
