"""The audit says what the optimizer does, and warns where that is not what the roles say."""

import pytest
import torch
from torch import nn

from decaylab import decay
from decaylab.errors import DecaylabError
from decaylab.params import audit, decay_groups


def _net():
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 6, bias=False))
    model[3].weight = model[0].weight
    return model


def test_rows():
    table = audit(_net())
    assert [(row.name, row.role, row.shape, row.decay) for row in table] == [
        ("0.weight", "embedding", (6, 4), True),
        ("1.weight", "matrix", (4, 4), True),
        ("1.bias", "bias", (4,), False),
        ("2.weight", "norm", (4,), False),
        ("2.bias", "norm", (4,), False),
    ]
    assert "tied with 3.weight" in table["0.weight"].why
    assert table.totals()["norm"] == {"tensors": 2, "elements": 8, "decayed": 0}


def test_text_and_frame():
    table = audit(_net(), exclude=("1.weight",))
    text = str(table)
    assert repr(table) == text and "excluded by '1.weight'" in text and "52 elements" in text.split("\n")[-1]
    frame = table.to_frame()
    assert list(frame["name"]) == [row.name for row in table] and frame["decay"].sum() == 1


def test_optimizer_that_decays_everything_is_warned_of():
    model = _net()
    table = audit(model, torch.optim.AdamW(model.parameters(), weight_decay=0.1))
    assert {row.name for row in table.warnings} == {"1.bias", "2.weight", "2.bias"}
    assert all(row.decay and row.weight_decay == 0.1 for row in table)
    assert "3 of them" in str(table)


def test_optimizer_with_our_groups_has_no_warning():
    model = _net()
    table = audit(model, torch.optim.AdamW(decay_groups(model, weight_decay=0.1)))
    assert not table.warnings and table["1.weight"].weight_decay == 0.1 and table["1.bias"].weight_decay == 0.0


def test_groups_for_a_rule_decay_once_it_is_attached():
    model = _net()
    optimizer = torch.optim.SGD(decay_groups(model), lr=0.1)
    before = audit(model, optimizer)
    assert not any(row.decay for row in before) and len(before.warnings) == 2
    assert "left to a rule (the group's own weight_decay is 0), and none is attached" in before["1.weight"].why
    handle = decay.attach(optimizer, decay.Decoupled(0.3))
    table = audit(model, optimizer)
    assert not table.warnings and _decaying(table) == {"0.weight", "1.weight"}
    assert table["1.weight"].weight_decay == 0.3 and (table["1.weight"].by, table["1.bias"].by) == ("Decoupled", "")
    assert "0.3 Decoupled" in str(table)
    handle.remove()
    assert not any(row.decay for row in audit(model, optimizer))


def _decaying(table):
    return {row.name for row in table if row.decay}


def _shrinking(model, *optimizers):
    """The truth: what a step with gradients of 0 makes smaller."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for optimizer in optimizers:
        optimizer.step()
    return {name for name, p in model.named_parameters() if p.norm() < before[name].norm()}


def _nonzero(model):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5)
    return model


def test_a_schedule_of_the_weight_decay_is_read_as_it_is_now():
    model = _nonzero(_net())
    optimizer = torch.optim.AdamW(decay_groups(model, weight_decay=0.1), lr=0.1)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.5
    table = audit(model, optimizer)
    assert all(row.decay and row.weight_decay == 0.5 for row in table)
    assert {row.name for row in table.warnings} == {"1.bias", "2.weight", "2.bias"}
    assert "marked not to decay, but its group's weight_decay=0.5 acts" in table["2.weight"].why
    assert _decaying(table) == _shrinking(model, optimizer)


def test_a_rule_attached_without_groups_decays_all():
    model = _nonzero(_net())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0)
    decay.attach(optimizer, decay.Decoupled(0.1))
    table = audit(model, optimizer)
    assert all(row.decay for row in table) and {row.name for row in table.warnings} == {"1.bias", "2.weight", "2.bias"}
    assert "WARNING: the rule Decoupled decays it by 0.1" in table["2.weight"].why
    assert _decaying(table) == _shrinking(model, optimizer)


@pytest.mark.parametrize("loaded", ["before", "after"])
def test_a_strangers_state_changes_no_row(loaded):
    model = _nonzero(_net())
    groups = [{"params": group["params"]} for group in decay_groups(model)]
    state = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.0).state_dict()
    optimizer = torch.optim.AdamW(decay_groups(model), lr=0.1, weight_decay=0.0)
    if loaded == "before":
        optimizer.load_state_dict(state)
        decay.attach(optimizer, decay.Decoupled(0.1))
    else:
        decay.attach(optimizer, decay.Decoupled(0.1))
        with pytest.warns(UserWarning, match="holds nothing of the attached rule"):
            optimizer.load_state_dict(state)
    table = audit(model, optimizer)
    assert not table.warnings and _decaying(table) == _shrinking(model, optimizer) == {"0.weight", "1.weight"}


def test_rules_that_hold_norms_and_rules_of_zero():
    model = _net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    decay.attach(optimizer, decay.Decoupled(0.0), params=[model[0].weight])
    decay.attach(optimizer, decay.MaxNorm(threshold=1.0), params=[model[1].weight])
    table = audit(model, optimizer)
    assert not table["0.weight"].decay and "does not decay it" in table["0.weight"].why


@pytest.mark.parametrize("given", [list, tuple, lambda pair: dict(zip("ab", pair, strict=True))])
def test_several_optimizers(given):
    model = _nonzero(_net())
    muon = torch.optim.Muon([model[1].weight], lr=0.1, weight_decay=0.2)
    rest = [p for p in model.parameters() if p is not model[1].weight]
    adamw = torch.optim.AdamW(rest, lr=0.1, weight_decay=0.0)
    table = audit(model, given((muon, adamw)))
    assert (table["1.weight"].optimizer, table["1.weight"].weight_decay) == ("Muon", 0.2)
    assert {row.optimizer for row in table if row.name != "1.weight"} == {"AdamW"}
    assert {row.name for row in table.warnings} == {"0.weight"}
    assert _decaying(table) == _shrinking(model, muon, adamw) == {"1.weight"}


def test_a_parameter_of_two_optimizers_is_warned_of():
    model = _net()
    pair = [torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1), torch.optim.SGD([model[1].weight], lr=0.1)]
    assert "WARNING: held by 2 optimizers, SGD and SGD" in audit(model, pair)["1.weight"].why


class _Ours(torch.optim.Optimizer):
    """An optimizer of somebody else."""

    def __init__(self, params, lr=0.1, hidden=0.0, uses=False, **defaults):
        super().__init__(params, {"lr": lr, **defaults})
        self.hidden, self.uses = hidden, uses

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * (self.hidden + (group["weight_decay"] if self.uses else 0.0)))
                p.sub_(p.grad, alpha=group["lr"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight_decay": 0.1, "uses": True}, "_Ours decays"),
        ({"weight_decay": 0.1}, "the group's weight_decay=0.1 has no effect in _Ours"),
        ({"hidden": 0.1}, "_Ours shrinks it without a coefficient in its group"),
        ({}, "does not decay it"),
    ],
)
def test_what_an_unknown_optimizer_does_is_tried(options, words):
    model = _nonzero(_net())
    optimizer = _Ours(model.parameters(), **options)
    table, seed = audit(model, optimizer), torch.random.get_rng_state()
    assert _decaying(table) == _shrinking(model, optimizer)
    text = " ".join(row.why for row in table)
    assert words in text or "the optimizer decays it by 0.1" in text
    assert torch.equal(seed, torch.random.get_rng_state())


def test_parameters_of_a_loss_are_counted_apart():
    model, loss = _net(), nn.Linear(2, 2)
    table = audit(model, torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1))
    assert table.foreign == 2 and "2 parameters of the optimizer are not the model's" in str(table)


def test_undecayed_matrix_and_forgotten_parameter_are_warned_of():
    model = _net()
    table = audit(model, torch.optim.SGD([model[0].weight, model[1].weight], lr=0.1))
    assert "does not decay it" in table["1.weight"].why and "not in the optimizer" in table["1.bias"].why


def test_frozen_parameter():
    model = _net()
    model[1].requires_grad_(False)
    row = audit(model)["1.weight"]
    assert (row.trainable, row.decay) == (False, False) and "frozen" in row.why


def test_optimizer_of_another_model():
    with pytest.raises(DecaylabError, match="not the model's"):
        audit(_net(), torch.optim.SGD(_net().parameters()))
