"""Parameter groups: the authors' substring filter as the reference, exceptions, and torch's fused kernels."""

import pytest
import torch
from torch import nn

from decaylab import models
from decaylab.errors import DecaylabError
from decaylab.params import decay_groups

AUTHORS_FILTER = ("wte", "wpe", "mlp", "attn", "lm_head")


def _gpt(**options):
    return models.GPT(vocab_size=64, context=16, num_layers=2, num_heads=2, width=16, **options)


def _net():
    return nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 6))


def _names(model, group):
    ids = {id(parameter) for parameter in group["params"]}
    return [name for name, parameter in model.named_parameters() if id(parameter) in ids]


def _decayed(model, **options):
    return [name for group in decay_groups(model, **options) if group["decay"] for name in _names(model, group)]


@pytest.mark.parametrize("options", [{}, {"tied": False}, {"branch_norm": True, "qk_norm": True}])
def test_same_set_as_the_authors_substring_filter_on_our_gpt(options):
    model = _gpt(bias=False, **options)
    by_name = {name for name, _ in model.named_parameters() if any(part in name for part in AUTHORS_FILTER)}
    # their filter reads names: it would also take the normalisations inside the attention, which GPT-2 has none of
    by_name -= {name for name in by_name if "ln_" in name}
    assert set(_decayed(model)) == by_name


def test_same_set_as_the_authors_substring_filter_on_transformers_gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=64, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    names = [name for name, _ in model.named_parameters() if not name.endswith(".bias")]
    assert _decayed(model) == [name for name in names if any(part in name for part in AUTHORS_FILTER)]


def test_two_groups_in_model_order():
    model = _net()
    decays, rest = decay_groups(model, weight_decay=0.1)
    assert _names(model, decays) == ["0.weight", "1.weight", "3.weight"]
    assert _names(model, rest) == ["1.bias", "2.weight", "2.bias", "3.bias"]
    assert (decays["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    assert (decays["decay"], rest["decay"]) == (True, False)


def test_without_a_coefficient_the_optimizers_own_holds():
    optimizer = torch.optim.AdamW(decay_groups(_net()), weight_decay=0.3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"decay": ("matrix",)}, ["1.weight", "3.weight"]),
        ({"decay": ("head",)}, ["3.weight"]),
        ({"exclude": ("head",)}, ["0.weight", "1.weight"]),
        ({"decay": (), "include": ("3.",)}, ["3.weight", "3.bias"]),
        ({"decay": ("bias",), "exclude": ("3.*",)}, ["1.bias"]),
        ({"include": ("norm",), "exclude": ("2.bias",)}, ["0.weight", "1.weight", "2.weight", "3.weight"]),
        ({"roles": {"1.weight": "scalar"}}, ["0.weight", "3.weight"]),
        ({"decay": ("scalar",)}, []),
    ],
)
def test_exceptions(options, expected):
    assert _decayed(_net(), **options) == expected


def test_tied_parameter_is_in_one_group_and_selected_by_either_name():
    model = _gpt()
    groups = decay_groups(model)
    flat = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(flat) == len(set(flat)) == len(list(model.parameters()))
    assert "transformer.wte.weight" not in _decayed(model, exclude=("lm_head",))


def test_frozen_parameters_are_in_no_group():
    model = _net()
    model[0].requires_grad_(False)
    assert _decayed(model) == ["1.weight", "3.weight"]
    with pytest.raises(DecaylabError, match="no trainable parameter"):
        decay_groups(model.requires_grad_(False))


def test_all_decayed_gives_one_group():
    (group,) = decay_groups(nn.Linear(2, 2, bias=False))
    assert group["decay"] and "weight_decay" not in group


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_decay": -0.1}, "zero or positive"),
        ({"weight_decay": float("nan")}, "zero or positive"),
        ({"decay": ("matrx",)}, "did you mean 'matrix'"),
        ({"decay": "matrix"}, r'decay=\("matrix",\)'),
        ({"exclude": ("lm_head",)}, "unknown name in exclude="),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(DecaylabError, match=message):
        decay_groups(_net(), **options)


@pytest.mark.parametrize("kind", [{"foreach": True}, {"fused": True}])
def test_groups_run_through_torchs_fast_kernels(kind):
    model = _net()
    optimizer = torch.optim.AdamW(decay_groups(model, weight_decay=0.5), lr=0.1, **kind)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for (name, parameter), old in zip(model.named_parameters(), before, strict=True):
        factor = 0.95 if name in ("0.weight", "1.weight", "3.weight") else 1.0
        torch.testing.assert_close(parameter.detach(), old * factor)
