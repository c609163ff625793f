"""The summary says what decays and what the weights lose: rules, optimizers, storage, parameters that change."""

import json
import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from decaylab import attach, decay, watch
from decaylab.conventions.step_decay import DecayTerms
from decaylab.decay import DecayRule
from decaylab.decay.registry import TABLE

ATTACHED = [name for name, entry in TABLE.items() if entry.use == "attach"]
STRONG = {"independent": 1e-3, "quadratic_lr": 100.0, "constant": 1e-3, "scheduled": 1e-3}


def _net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def _train(net, optimizer, steps=40, begin=0):
    for step in range(begin, begin + steps):
        data = torch.randn(16, 16, generator=torch.Generator().manual_seed(step))
        net(data).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def _rule(name):
    options = {"norms": torch.ones(1, sum(p.dim() > 1 for p in _net().parameters()))} if name == "follow_norms" else {}
    return decay.build(name, STRONG.get(name, 0.1) if TABLE[name].scheduled else None, **options)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("name", ATTACHED)
def test_no_rule_of_the_table_is_overlooked(name, kind):
    net = _net()
    optimizer = (
        torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.0)
        if kind == "adamw"
        else torch.optim.SGD(net.parameters(), lr=1e-2, momentum=0.5)
    )
    handle = attach(optimizer, _rule(name), params=[p for p in net.parameters() if p.dim() > 1])
    log = watch(net, optimizer, every=5)
    _train(net, optimizer)
    text, verdict = log.summary(), log.diagnosis().verdict
    assert "no weight decay" not in text.lower() and verdict != "no decay"
    terms = handle.terms(0, optimizer.param_groups[0])
    unknown = name == "l2" and kind == "adamw"
    expected = {"norm": "norm held", "anchor": "anchored"}.get(terms.target)
    if expected or unknown:
        assert verdict == (expected or "unknown rate") and type(handle.rule).__name__ in text
    else:
        assert log.records[-1]["timescale/passed"] > 0


@dataclass(frozen=True)
class Halves(DecayRule):
    """A user's rule that states nothing."""

    def before(self, step):
        for part in step.parts:
            torch._foreach_mul_(part.weights, 1 - part.lr * self.weight_decay / 2)


@dataclass(frozen=True)
class InTheGradient(DecayRule):
    """A user's rule that adds to the gradient and states nothing."""

    edits_gradients = True

    def before(self, step):
        for part in step.parts:
            for p, weight in zip(part.params, part.weights, strict=True):
                p.grad = p.grad + self.weight_decay * weight


@dataclass(frozen=True)
class Boasts(Halves):
    """States twice what it does."""

    def decay_terms(self, part):
        return DecayTerms(share=part.lr * self.weight_decay)


@dataclass(frozen=True)
class Hides(Halves):
    """States that it does nothing."""

    def decay_terms(self, part):
        return DecayTerms(share=0.0)


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("rule", [Halves, Boasts, Hides])
def test_a_users_rule_is_measured_from_the_weights_whatever_it_states(rule, every):
    net = _net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.0)
    attach(optimizer, rule(0.2))
    log = watch(net, optimizer, every=every)
    _train(net, optimizer, 29)
    assert log.records[-1]["timescale/steps"] == pytest.approx(100, rel=1e-4)
    assert log.records[-1]["timescale/passed"] == pytest.approx(29 * 0.01, rel=1e-4)
    assert log.records[-1]["timescale/passed/bias"] == pytest.approx(29 * 0.01, rel=1e-4)
    text = log.summary()
    if rule is Halves:
        assert "The decay by Halves is measured from the weights" in text
    else:
        stated = "0.02" if rule is Boasts else "0"
        assert f"{rule.__name__} states that a step takes {stated} of the weight, and the weights lose 0.01" in text


def test_a_users_rule_in_the_gradient_has_a_rate_with_sgd_and_none_with_adam():
    for kind in (torch.optim.SGD, torch.optim.Adam):
        net = _net()
        optimizer = kind(net.parameters(), lr=0.1)
        attach(optimizer, InTheGradient(0.2))
        log = watch(net, optimizer, every=5)
        _train(net, optimizer, 26)
        if kind is torch.optim.SGD:
            assert log.records[-1]["timescale/passed"] == pytest.approx(26 * 0.02, rel=1e-3)
        else:
            assert log.diagnosis().verdict == "unknown rate" and "InTheGradient" in log.summary()


def test_cautious_is_measured_as_its_equation_says():
    net = _net().double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    attach(optimizer, decay.Cautious(0.5), params=[net[0].weight])
    log = watch(net, optimizer, every=1)
    passed = 0.0
    for step in range(5):
        data = torch.randn(16, 16, generator=torch.Generator().manual_seed(step)).double()
        net(data).square().mean().backward()
        w, update = net[0].weight.detach().clone(), 0.1 * net[0].weight.grad
        moved = w - update
        taken = 0.1 * 0.5 * torch.where(update * w >= 0, w, 0.0)
        passed += float((taken * moved).sum() / moved.square().sum())  # the rule acts on the updated weights
        optimizer.step()
        optimizer.zero_grad()
    assert log.records[-1]["timescale/passed/matrix"] == pytest.approx(passed, rel=1e-9)


def test_of_the_decayed_weights_means_these_tensors_alone():
    """One layer decays among others of its role that do not."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(20, 20, bias=False) for _ in range(4)), nn.Linear(20, 3, bias=False))
    groups = [
        {"params": [net[0].weight], "weight_decay": 0.5},
        {"params": [layer.weight for layer in net[1:]], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.05)
    log = watch(net, optimizer, every=5)
    start = float(net[0].weight.detach().norm())
    for _ in range(150):
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
    last, found = log.records[-1], log.diagnosis()
    assert last["decayed/norm"] == pytest.approx(last["decayed/norm/matrix"])
    assert last["decayed/norm"] < 0.9 * last["weights/norm/matrix"]
    _train_norm = [record["decayed/norm"] for record in log.records]
    assert found.state.norm == _train_norm[-1] and found.roles[0].norm == _train_norm[-1]
    assert found.state.norm_change == pytest.approx(_train_norm[-1] / _train_norm[0] - 1)
    assert abs(_train_norm[0] - start) < 0.5
    assert found.state.predicted == pytest.approx(math.sqrt(2 * 0.025 * 0.1 / 1.9))


def test_parameters_of_another_optimizer_are_left_out():
    net = _net()
    mine = torch.optim.AdamW(net[0].parameters(), lr=1e-2, weight_decay=0.1)
    other = torch.optim.SGD(net[2].parameters(), lr=1e-2)
    log = watch(net, mine, every=1)
    net(torch.randn(4, 16)).square().mean().backward()
    mine.step()
    other.step()
    total = math.sqrt(sum(float(p.detach().square().sum()) for p in net[0].parameters()))
    assert log.records[0]["weights/norm"] == pytest.approx(total, rel=1e-6)
    assert "weights/norm/head" not in log.records[0]


@pytest.mark.parametrize("way", ["own", "lent", "rule"])
def test_decay_below_the_spacing_of_stored_numbers_is_said_and_not_counted(way):
    dtype = torch.bfloat16
    norms = {}
    for coefficient in (0.0, 0.1):
        torch.manual_seed(0)
        net = nn.Linear(64, 32, bias=False).to(dtype)
        own = coefficient if way == "own" else 0.0
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=own)
        if way != "own" and coefficient:
            attach(optimizer, decay.Decoupled(coefficient), native=way == "lent")
        log = watch(net, optimizer, every=10)
        generator = torch.Generator().manual_seed(0)
        for _ in range(60):
            net.weight.grad = torch.randn(32, 64, generator=generator).to(dtype)
            optimizer.step()
        norms[coefficient] = float(net.weight.detach().float().norm())
    assert norms[0.1] == norms[0.0]  # what is really lost: nothing
    text = log.summary()
    assert "only 0 % reaches the bfloat16 weights" in text
    assert "AdamW's weight_decay" in text if way == "own" else "Decoupled" in text
    assert log.records[-1].get("timescale/passed", 0.0) == pytest.approx(0.0, abs=1e-9)
    assert log.diagnosis().verdict == "lost" and text.startswith("The decay by")


def test_decay_that_survives_low_precision_is_counted():
    torch.manual_seed(0)
    net = nn.Linear(64, 32, bias=False).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-1, weight_decay=0.1)
    log = watch(net, optimizer, every=5)
    for _ in range(20):
        net.weight.grad = torch.randn_like(net.weight)
        optimizer.step()
    assert log.records[-1]["timescale/passed"] == pytest.approx(16 * 0.01, rel=1e-6)
    assert "reaches" not in log.summary()


class _Ignores(torch.optim.SGD):
    """An optimizer whose weight_decay does nothing."""

    def step(self, closure=None):
        kept = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            group["weight_decay"] = 0.0
        try:
            return super().step(closure)
        finally:
            for group, coefficient in zip(self.param_groups, kept, strict=True):
                group["weight_decay"] = coefficient


def test_a_decay_that_no_weight_gets_is_said():
    net = _net()
    log = watch(net, optimizer := _Ignores(net.parameters(), lr=1e-2, weight_decay=0.1), every=5)
    _train(net, optimizer, 11)
    assert "_Ignores's weight_decay has no effect" in log.summary() and log.diagnosis().verdict == "no decay"
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    attach(optimizer, decay.Decoupled(0.1), params=[net[0].weight])
    net[0].weight.requires_grad_(False)
    log = watch(net, optimizer, every=5)
    _train(net, optimizer, 11)
    assert "Decoupled acts on no parameter that is watched" in log.summary()
    assert log.diagnosis().verdict == "no decay"


def test_layers_that_are_unfrozen_are_picked_up_at_once_and_said():
    net = _net()
    net[0].requires_grad_(False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    log = watch(net, optimizer, every=10)
    _train(net, optimizer, 13)
    assert "weights/norm/matrix" not in log.records[-1]
    net[0].requires_grad_(True)
    _train(net, optimizer, 8, begin=13)
    last = log.records[-1]
    total = math.sqrt(sum(float(p.detach().square().sum()) for p in net.parameters()))
    assert last["step"] == 20 and last["weights/norm"] == pytest.approx(total, rel=1e-6)
    assert last["timescale/passed/matrix"] == pytest.approx(8 * 0.01)
    assert last["timescale/passed/head"] == pytest.approx(21 * 0.01)
    text = log.summary()
    assert "From step 13 on 0.weight, 0.bias are watched too" in text


def test_groups_that_are_added_and_tensors_that_are_replaced():
    net = _net()
    optimizer = torch.optim.SGD(net[0].parameters(), lr=0.1, weight_decay=0.1)
    log = watch(net, optimizer, every=5)
    _train(net, optimizer, 6)
    optimizer.add_param_group({"params": list(net[2].parameters()), "weight_decay": 0.2})
    _train(net, optimizer, 5, begin=6)
    assert log.records[-1]["timescale/passed/head"] == pytest.approx(5 * 0.02)
    with torch.no_grad():
        new = nn.Parameter(0.1 * torch.randn(32, 16))
    optimizer.param_groups[0]["params"][0] = net[0].weight = new
    _train(net, optimizer, 5, begin=11)
    last = log.records[-1]
    assert last["step"] == 15 and last["weights/norm/matrix"] == pytest.approx(float(new.detach().norm()), rel=1e-6)
    assert last["timescale/passed/matrix"] == pytest.approx(5 * 0.01)
    assert "From step 11 on 0.weight is watched too" in log.summary()
    optimizer.param_groups.pop()
    _train(net, optimizer, 5, begin=16)
    assert "weights/norm/head" not in log.records[-1]
    assert "2.weight, 2.bias are no longer trained by this optimizer" in log.summary()


def test_a_tensor_that_the_model_holds_no_more_is_noticed_at_the_next_record():
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    log = watch(net, optimizer, every=5)
    _train(net, optimizer, 6)
    net[0].weight = nn.Parameter(torch.randn(32, 16))  # and the optimizer is not told
    _train(net, optimizer, 5, begin=6)
    assert "weights/norm/matrix" not in log.records[-1]
    assert "0.weight is no longer trained by this optimizer" in log.summary()


class _Twice(torch.optim.Optimizer):
    """Sharpness-aware in the usual form: two methods, neither of which is ``step``."""

    def __init__(self, params, base, **options):
        super().__init__(params, options)
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["old"] = p.clone()
                    p.add_(0.01 * p.grad)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.copy_(self.state[p]["old"])
        self.base_optimizer.step()
        self.zero_grad()

    def step(self, closure=None):
        raise RuntimeError("not used")


def test_an_optimizer_stepped_by_other_methods_is_watched_through_its_base():
    net = _net()
    optimizer = _Twice(net.parameters(), torch.optim.SGD, lr=0.1, weight_decay=0.1)
    log = watch(net, optimizer, every=5)
    for step in range(11):
        for move in (optimizer.first_step, optimizer.second_step):
            net(torch.randn(16, 16, generator=torch.Generator().manual_seed(step))).square().mean().backward()
            move()
    assert log.step == 11 and log.records[-1]["timescale/passed"] == pytest.approx(11 * 0.01)


def test_weights_that_change_without_a_step_are_said():
    class Odd(torch.optim.SGD):
        @torch.no_grad()
        def advance(self):
            for p in self.param_groups[0]["params"]:
                p.sub_(0.1 * p.grad)

    net = _net()
    optimizer = Odd(net.parameters(), lr=0.1)
    log = watch(net, optimizer, every=5)
    net(torch.randn(4, 16)).square().mean().backward()
    optimizer.advance()
    assert "step() of this Odd was never called" in log.summary()


def test_the_end_of_the_run_is_told():
    net = _net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, weight_decay=0.01)
    log = watch(net, optimizer, every=5, total_steps=1000)
    _train(net, optimizer, 40)
    assert "in this run decay will stay idle" in log.summary()
    net = _net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    log = watch(net, optimizer, every=5, total_steps=500)
    _train(net, optimizer, 40)
    assert "0.496 timescales will have passed by step 500: in this run equilibrium will not be reached" in log.summary()
    long = watch(net, optimizer, every=5, total_steps=10**6)
    _train(net, optimizer, 10)
    assert "in this run" not in long.summary()


def test_what_decays_survives_an_interruption():
    net = _net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.0)
    attach(optimizer, decay.Cautious(0.1))
    log = watch(net, optimizer, every=5)
    _train(net, optimizer, 12)
    state = json.loads(json.dumps(log.state_dict()))
    passed = log.records[-1]["timescale/passed"]
    log.remove()
    again = watch(net, optimizer, every=5)
    again.load_state_dict(state)
    assert again.summary() == log.summary() and "Cautious" in again.summary()
    _train(net, optimizer, 9, begin=12)
    assert again.step == 21 and again.records[-1]["timescale/passed"] > 1.5 * passed
