"""Muon beside AdamW: each with a lambda of its own, its own or a rule's; what decays, how far, and that it is said."""

import copy

import pytest
import torch
from torch import nn

from decaylab import audit, decay, watch
from decaylab.errors import DecaylabError

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 5, bias=False))


def _pair(net, muon=0.0, adamw=0.0):
    hidden = [net[1].weight]
    rest = [p for p in net.parameters() if p is not net[1].weight]
    return (
        torch.optim.Muon(hidden, lr=0.02, weight_decay=muon),
        torch.optim.AdamW([{"params": rest[:1] + rest[4:]}, {"params": rest[1:4], "decay": False, "weight_decay": 0.0}],
                          lr=0.01, weight_decay=adamw),
    )  # fmt: skip


def _train(net, optimizers, steps=5):
    for t in range(steps):
        tokens = torch.randint(0, 7, (9,), generator=torch.Generator().manual_seed(t))
        for optimizer in optimizers:
            optimizer.zero_grad()
        net(tokens).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("native", [True, False])
def test_rules_beside_each_other_are_the_optimizers_own_decay(native):
    net = _net()
    expected = _train(net, _pair(net, muon=0.5, adamw=0.1))
    net = _net()
    pair = _pair(net)
    for optimizer, weight_decay in zip(pair, (0.5, 0.1), strict=True):
        decay.attach(optimizer, decay.Decoupled(weight_decay), native=native)
    for a, b in zip(_train(net, pair), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_the_audit_tells_who_decays_what():
    net = _net()
    muon, adamw = _pair(net, muon=0.5)
    decay.attach(adamw, decay.Decoupled(0.1))
    table = audit(net, [muon, adamw])
    found = {row.name: (row.optimizer, row.by, row.weight_decay) for row in table if row.decay}
    assert found == {
        "0.weight": ("AdamW", "Decoupled", 0.1),
        "1.weight": ("Muon", "Muon", 0.5),
        "3.weight": ("AdamW", "Decoupled", 0.1),
    }
    assert not table.warnings


def test_watching_counts_the_decay_of_each():
    net = _net()
    muon, adamw = _pair(net, muon=0.5)
    decay.attach(adamw, decay.Decoupled(0.1))
    logs = [watch(net, optimizer, every=1) for optimizer in (muon, adamw)]
    before = net[1].weight.detach().clone()
    _train(net, (muon, adamw), steps=1)
    record = logs[0].records[0]
    assert record["timescale/passed/matrix"] == pytest.approx(0.02 * 0.5)
    # the share of the step's length that is decay, from the weights themselves
    decayed = 0.02 * 0.5 * before.norm()
    rest = (net[1].weight.detach() - before * (1 - 0.02 * 0.5)).norm()
    assert record["update/decay_share/matrix"] == pytest.approx(float(decayed / (decayed + rest)), rel=1e-4)
    assert logs[1].records[0]["timescale/passed/embedding"] == pytest.approx(0.01 * 0.1)


RULES = [
    decay.build(name, 0.05 if entry.scheduled else None)
    for name, entry in decay.TABLE.items()
    if entry.use == "attach" and name != "follow_norms"  # made for one model: see test_norm_following.py
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_every_rule_acts_on_muon_or_is_refused_with_the_reason(rule):
    net = _net()
    muon, adamw = _pair(net)
    try:
        handle = decay.attach(muon, rule)
    except DecaylabError as error:
        assert type(rule).__name__ in ("Scheduled", "Rotational") and "Muon" in str(error)
        return
    _train(net, (muon, adamw), steps=3)
    assert handle.steps == 3 and all(p.isfinite().all() for p in net.parameters())


def test_a_rules_state_is_muons():
    rule = decay.WeightNormControl(0.3, ratio=0.5)
    net = _net()
    pair = _pair(net)
    decay.attach(pair[0], rule)
    middle = _train(net, pair, steps=3)
    state = copy.deepcopy([optimizer.state_dict() for optimizer in pair])
    expected = _train(net, pair, steps=2)
    again = _net()
    for p, value in zip(again.parameters(), middle, strict=True):
        p.data.copy_(value)
    pair = _pair(again)
    for optimizer, saved in zip(pair, state, strict=True):
        optimizer.load_state_dict(saved)
    assert decay.attach(pair[0], rule).steps == 3
    assert all(map(torch.equal, _train(again, pair, steps=2), expected))
