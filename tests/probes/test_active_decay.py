import math

import pytest
import torch
from torch import nn

from decaylab import decay, watch
from decaylab.errors import DecaylabError
from decaylab.params.inner_optimizer import inner_optimizer
from decaylab.probes.active_decay import DecayReader

LR, LAMBDA = 0.1, 0.05
MAKERS = {
    "SGD": {"momentum": 0.0},
    "Adam": {},
    "AdamW": {},
    "NAdam": {},
    "RAdam": {},
    "Adamax": {},
    "Adagrad": {},
    "RMSprop": {},
    "Adadelta": {},
    "Adafactor": {},
    "Muon": {},
}
FLAGGED = ("Adam", "NAdam", "RAdam")


def _zero_gradient_shrink(optimizer, weight, steps=12):
    """What a step really takes away from the weight when the loss says nothing."""
    for _ in range(steps):
        weight.grad = torch.zeros_like(weight)
        old = weight.detach().clone()
        optimizer.step()
    return 1 - float((weight.detach() * old).sum() / (old * old).sum())


def _weight():
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(4, 6, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "options"),
    [*MAKERS.items(), *((name, {"decoupled_weight_decay": True}) for name in FLAGGED)],
    ids=lambda x: x if isinstance(x, str) else ",".join(x),
)
def test_own_weight_decay_is_read_in_the_convention_of_the_optimizer(name, options):
    if not hasattr(torch.optim, name):
        pytest.skip(f"this torch has no {name}")
    weight = _weight()
    optimizer = getattr(torch.optim, name)([weight], lr=LR, weight_decay=LAMBDA, **options)
    (found,) = DecayReader(optimizer).read(0)
    shrink = _zero_gradient_shrink(optimizer, weight)
    if found.coupled:
        assert (found.coupled, found.decay) == (LAMBDA, 0)
        if name == "SGD":
            assert shrink == pytest.approx(found.shrink, rel=1e-9)
        else:  # the normaliser makes a step of full size out of the decay alone
            assert math.isnan(found.shrink) and shrink != pytest.approx(LR * LAMBDA, rel=1e-3)
    else:
        assert found.shrink == found.decay
        assert shrink == pytest.approx(found.decay, rel=1e-9)


@pytest.mark.parametrize(
    "rule", ["decoupled", "independent", "constant", "quadratic_lr", "corrected", "scheduled", "l2"]
)
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_attached_rules_are_read_whether_lent_to_the_kernel_or_not(rule, native, kind):
    weight = _weight()
    if kind == "sgd":
        optimizer = torch.optim.SGD([weight], lr=LR)
    else:
        optimizer = torch.optim.AdamW([weight], lr=LR, weight_decay=0.0)
    decay.attach(optimizer, decay.build(rule, LAMBDA), native=native)
    seen = []
    optimizer.register_step_pre_hook(
        lambda *_: seen.extend(DecayReader(optimizer).read(0))
    )  # while a coefficient is lent
    (before,) = DecayReader(optimizer).read(0)
    shrink = _zero_gradient_shrink(optimizer, weight, steps=1)
    (during,) = seen
    for found in (before, during):
        assert found.key == f"0/{rule.replace('_', '')}" and found.covers(weight)
        if kind == "adam" and rule in ("l2", "scheduled"):
            assert math.isnan(found.shrink)
        else:
            assert found.shrink == pytest.approx(shrink, rel=1e-9)
            assert (found.coupled == LAMBDA) == (rule == "l2")


def test_rules_that_control_norms_pull_to_one_and_others_are_measured():
    for rule, target in [("fixed_norm", "norm"), ("cautious", "zero"), ("l2_to_anchor", "anchor")]:
        optimizer = torch.optim.SGD([_weight()], lr=LR)
        decay.attach(optimizer, decay.build(rule, LAMBDA if decay.TABLE[rule].scheduled else None))
        (found,) = DecayReader(optimizer).read(0)
        assert (found.target, found.knowledge) == (target, "measured") and math.isnan(found.shrink)


@pytest.mark.parametrize("order", ["watch first", "rule first"])
@pytest.mark.parametrize("native", [True, False])
def test_the_measured_update_contains_the_rule_whichever_is_installed_first(order, native):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    log = watch(net, optimizer, every=1) if order == "watch first" else None
    decay.attach(optimizer, decay.Decoupled(0.5), params=[net[0].weight], native=native)
    decay.attach(optimizer, decay.FixedNorm(2.0), params=[net[1].weight])
    log = log or watch(net, optimizer, every=1)
    for _ in range(3):
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        old = [p.detach().clone() for p in (net[0].weight, net[1].weight)]
        optimizer.step()
    record = log.records[-1]
    moved = [float((p.detach() - o).norm()) for p, o in zip((net[0].weight, net[1].weight), old, strict=True)]
    assert record["update/norm/matrix"] == pytest.approx(moved[0], rel=1e-9)
    assert record["update/norm/head"] == pytest.approx(moved[1], rel=1e-9)
    assert record["weights/norm/head"] == pytest.approx(2)
    decayed, rest = LR * 0.5 * old[0].norm(), LR * net[0].weight.grad.norm()
    assert record["update/decay_share/matrix"] == pytest.approx(float(decayed / (decayed + rest)), rel=1e-9)
    assert record["timescale/passed/matrix"] == pytest.approx(3 * LR * 0.5)
    assert not any(key.startswith("timescale") and key.endswith(("bias", "head")) for key in record)


def test_wrappers_are_taken_off():
    optimizer = torch.optim.SGD([_weight()], lr=LR)

    class Wrapper:
        def __init__(self, inner):
            self.optimizer = inner

    assert inner_optimizer(Wrapper(Wrapper(optimizer))) is optimizer
    with pytest.raises(DecaylabError, match="expected a torch optimizer, got int"):
        inner_optimizer(3)
