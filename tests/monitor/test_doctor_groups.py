"""Param groups matched to names, against optimizers whose groups are known."""

import random

import pytest
import torch
from torch import nn

from decaylab.monitor.doctor_groups import groups_of, match_groups


def _match(optimizer, weights, *, ordered=True, steps=1):
    for _ in range(steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.ones_like(p)
        optimizer.step()
    state = optimizer.state_dict()
    groups = groups_of([state], "here", optimizer=None)
    return match_groups(groups, [state["state"]] * len(groups), weights, ordered=ordered)


@pytest.mark.parametrize("seed", range(20))
def test_any_split_by_dimension_is_found_among_buffers(seed):
    chosen = random.Random(seed)
    weights, params = {}, {}
    for number in range(chosen.randint(2, 14)):
        shape = tuple(chosen.choice([2, 3, 4]) for _ in range(chosen.choice([1, 2, 2])))
        tensor = torch.randn(shape)
        weights[f"layer.{number}"] = tensor
        if chosen.random() < 0.8:  # the others are buffers, or frozen
            params[f"layer.{number}"] = nn.Parameter(tensor)
    matrices = [p for p in params.values() if p.dim() == 2]
    vectors = [p for p in params.values() if p.dim() == 1]
    split = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in split if group["params"]]
    if not groups:
        return
    found, _ = _match(torch.optim.AdamW(groups, lr=0.1), weights)
    assert len(found) == len(params)
    for name, held in found.items():
        assert (groups[held.group]["weight_decay"] == 0.1) == (weights[name].dim() == 2)
    shapes = sorted(tuple(weights[name].shape) for name in found)
    assert shapes == sorted(tuple(p.shape) for p in params.values())


def test_order_tells_parameters_of_one_shape_apart():
    tensors = {f"w{i}": torch.randn(3, 3) for i in range(4)}
    params = [nn.Parameter(t) for t in tensors.values()]
    optimizer = torch.optim.AdamW(params, lr=0.1)
    for number, p in enumerate(params):
        p.grad = torch.full_like(p, float(number + 1))
    optimizer.step()
    state = optimizer.state_dict()
    found, notes = match_groups(groups_of([state], "here", optimizer=None), [state["state"]], tensors, ordered=True)
    assert notes == []
    assert [float(found[f"w{i}"].state["exp_avg"][0, 0]) for i in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_names_that_the_optimizer_saved_are_taken():
    tensors = {name: torch.randn(2, 2) for name in "abc"}
    pairs = [(name, nn.Parameter(t)) for name, t in tensors.items()]
    groups = [{"params": pairs[1:2], "weight_decay": 0.0}, {"params": [pairs[2], pairs[0]], "weight_decay": 0.5}]
    found, notes = _match(torch.optim.AdamW(groups, lr=0.1), tensors, ordered=False)
    assert {name: held.group for name, held in found.items()} == {"b": 0, "c": 1, "a": 1} and notes == []


def test_shared_shapes_of_different_settings_are_said():
    tensors = {name: torch.randn(2, 2) for name in "ab"}
    a, b = (nn.Parameter(t) for t in tensors.values())
    groups = [{"params": [a], "weight_decay": 0.0}, {"params": [b], "weight_decay": 0.5}]
    found, notes = _match(torch.optim.AdamW(groups, lr=0.1), tensors)
    assert set(found) == {"a", "b"} and "from their order" in notes[0]
    found, notes = _match(torch.optim.AdamW(groups, lr=0.1), tensors, ordered=False)
    assert found == {} and "--load" in notes[0]


def test_a_state_of_another_model_is_said():
    flat = nn.Parameter(torch.randn(12))
    found, notes = _match(torch.optim.AdamW([flat], lr=0.1), {"w": torch.randn(3, 4)})
    assert found == {} and "flattened or sharded" in notes[-1]


def test_without_state_matrices_are_in_the_group_that_decays():
    tensors = {"w": torch.randn(3, 4), "b": torch.randn(3)}
    w, b = (nn.Parameter(t) for t in tensors.values())
    groups = [{"params": [b], "weight_decay": 0.0}, {"params": [w], "weight_decay": 0.5}]
    found, notes = _match(torch.optim.SGD(groups, lr=0.1), tensors, steps=0)
    assert {name: held.group for name, held in found.items()} == {"w": 1, "b": 0} and "keeps no state" in notes[0]


def test_thousands_of_tensors_that_fit_nowhere_end_soon():
    tensors = {f"t{i}": torch.zeros(1 + i % 2, 1) for i in range(3000)}
    params = [nn.Parameter(torch.zeros(1 + i % 2, 1)) for i in range(2000)] + [nn.Parameter(torch.zeros(7, 1))]
    groups = [{"params": params[:1000]}, {"params": params[1000:]}]
    found, notes = _match(torch.optim.AdamW(groups, lr=0.1), tensors)
    assert found == {} and notes


@pytest.mark.parametrize(
    "make, optimizer, meaning",
    [
        (lambda p: torch.optim.AdamW(p), "adamw", "decoupled"),
        (lambda p: torch.optim.Adam(p), "adam", "adaptive l2"),
        (lambda p: torch.optim.SGD(p, momentum=0.9), "sgd", "l2"),
        (lambda p: torch.optim.Muon(p), "muon", "decoupled"),
        (lambda p: torch.optim.Adagrad(p), "other", "decoupled"),
    ],
)
def test_the_optimizer_is_told_by_its_settings(make, optimizer, meaning):
    state = make([nn.Parameter(torch.zeros(2, 2))]).state_dict()
    group = groups_of([state], "here", optimizer=None)[0]
    assert (group.optimizer, group.meaning) == (optimizer, meaning)
