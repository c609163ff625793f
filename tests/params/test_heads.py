"""The head, whatever the order of definition; and what is said when there is none."""

import pytest
import torch
from torch import nn

from decaylab.errors import DecaylabError
from decaylab.params import decay_groups, roles


def _heads(model):
    return [name for name, role in roles(model).items() if role == "head"]


class _Parts(nn.Module):
    """Modules under given names, in the order given."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def _body(width=16):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # a classifier that is defined first: the sizes say it, whatever its name
        (_Parts(classifier=nn.Linear(16, 10), body=_body()), ["classifier.weight"]),
        (_Parts(verdict=nn.Linear(16, 10), body=_body()), ["verdict.weight"]),
        (_Parts(verdict=nn.Sequential(nn.Linear(16, 12), nn.Linear(12, 10)), body=_body()), ["verdict.1.weight"]),
        (_Parts(fc=nn.Linear(4, 10), conv=nn.Conv2d(3, 4, 3)), ["fc.weight"]),
        (_Parts(lm_head=nn.Linear(16, 50), embed=nn.Embedding(50, 16), body=_body()), ["lm_head.weight"]),
        # the sizes say nothing (as many classes as features): the name does, else the order of definition
        (_Parts(body=nn.Linear(8, 16), out=nn.Linear(16, 8)), ["out.weight"]),
        # defined last, as ever
        (_Parts(body=_body(), head=nn.Linear(16, 10)), ["head.weight"]),
        (_Parts(body=_body(), actor=nn.Linear(16, 4), critic=nn.Linear(16, 1)), ["critic.weight"]),
        # a classifier and one for distillation
        (_Parts(body=_body(), head=nn.Linear(16, 9), dist=nn.Linear(16, 9)), ["head.weight", "dist.weight"]),
        # a projection that feeds repeated blocks is no head, nor is anything in them
        (_Parts(into=nn.Linear(3, 16), blocks=nn.ModuleList([_body(), nn.Linear(16, 9)])), []),
        (_Parts(squeeze=_Parts(one=nn.Linear(4, 3), two=nn.Linear(3, 5)), conv=nn.Conv2d(3, 4, 3)), []),
    ],
    ids=lambda value: ",".join(name for name, _ in value.named_children()) if isinstance(value, nn.Module) else "",
)
def test_head(model, expected):
    assert _heads(model) == expected
    assert (
        _heads(torch.compile(model)) == [f"_orig_mod.{name}" for name in expected]
        or _heads(torch.compile(model)) == expected
    )


@pytest.mark.parametrize("argument", ["include", "exclude"])
def test_a_head_that_is_not_there_is_said(argument):
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6, bias=False))
    model[2].weight = model[0].weight
    assert _heads(model) == []
    with pytest.raises(DecaylabError, match=r"no parameter has that role.*tied to an embedding"):
        decay_groups(model, **{argument: ("head",)})
    assert decay_groups(model, exclude=("norm",)), "a role that is not there for certain excludes nothing, rightly"


def test_a_classifier_and_one_for_distillation_are_both_heads():
    transformers = pytest.importorskip("transformers")
    config = transformers.SwiftFormerConfig(embed_dims=[8] * 4, depths=[1] * 4)
    model = transformers.SwiftFormerForImageClassification(config)
    assert _heads(model) == ["head.weight", "dist_head.weight"]
