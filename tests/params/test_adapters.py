"""Roles and groups of PEFT's adapters, by what each adapter's layers declare."""

import pytest
from tests.support.families import ADAPTERS

from decaylab.params import assign, decay_groups

pytest.importorskip("peft")


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_adapter(adapter):
    model = adapter.build()
    items = assign(model)
    trained = [item for item in items if item.parameter.requires_grad]
    seen = set()
    for item in trained:
        part = next(part for part in adapter.trained if part in item.name)
        assert item.role == adapter.trained[part], f"{item.name}: {item.why}"
        seen.add(part)
    assert seen == adapter.trained.keys()
    # the base model's parameters keep their roles, and the head is found through the wrappers
    assert [
        item.name.replace("base_layer.", "").replace("original_module.", "") for item in items if item.role == "head"
    ]
    grouped = {id(parameter) for group in decay_groups(model) for parameter in group["params"]}
    assert grouped == {id(item.parameter) for item in trained}
    decayed = {id(parameter) for group in decay_groups(model) if group["decay"] for parameter in group["params"]}
    assert decayed == {id(item.parameter) for item in trained if item.role in ("matrix", "embedding", "head")}
