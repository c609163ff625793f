"""The audit says what the optimizer does, and warns where that is not what the roles say."""

import pytest
import torch
from torch import nn

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


def test_groups_for_an_attached_rule():
    model = _net()
    table = audit(model, torch.optim.SGD(decay_groups(model), lr=0.1))
    assert not table.warnings and table["1.weight"].decay and "attached rule" in table["1.weight"].why


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
