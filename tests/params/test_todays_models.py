"""Roles, groups and watching on families of transformers, and on models written in the style of other libraries."""

import math

import pytest
import torch
from tests.support.families import FAMILIES

from decaylab import watch
from decaylab.params import assign, decay_groups

pytest.importorskip("transformers")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_family(family):
    """Bare parameters have the role that the family's paper gives them, and no vector decays but a learned token."""
    model = family.build()
    items = assign(model)
    assert [item.name for item in items if item.role == "unknown"] == []
    expected = family.roles()
    found: dict[str, set[str]] = {}
    for item in items:
        found.setdefault(item.name.rpartition(".")[2], set()).add(item.role)
    assert {attribute: found.get(attribute) for attribute in expected} == {
        attribute: {role} for attribute, role in expected.items()
    }
    decayed = {id(parameter) for group in decay_groups(model) if group["decay"] for parameter in group["params"]}
    for item in items:
        wide = sum(size > 1 for size in item.parameter.shape) >= 2
        if id(item.parameter) in decayed:
            assert wide or item.role == "embedding" or item.owner == "Linear" or "Conv" in item.owner, item.name
        elif item.parameter.requires_grad:  # what is left out is a vector, or named as what must not decay
            last = item.name.rpartition(".")[2]
            assert not wide or expected.get(last) in ("bias", "scalar") or item.role == "norm", item.name
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    log = watch(model, optimizer, every=5, probes=["norms"])
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    log.remove()
    (record,) = log.records
    whole = math.sqrt(sum(float(parameter.detach().square().sum()) for parameter in model.parameters()))
    assert math.isclose(record["weights/norm"], whole, rel_tol=1e-4)
    assert {key for key in record if key.startswith("weights/norm/")} == {
        f"weights/norm/{item.role}" for item in items if item.parameter.requires_grad
    }
