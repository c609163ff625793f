"""Hostile and broken folders in transformers' format: one bounded line, soon, with nothing built or executed."""

import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from decaylab.errors import DecaylabError
from decaylab.models import GPT
from decaylab.models.transformers_config import read_settings, shapes
from decaylab.models.transformers_format import load, read, write

SHAPE = {"vocab_size": 50, "context": 16, "num_layers": 2, "num_heads": 2, "width": 8}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    write(GPT(**SHAPE), tmp_path)
    return tmp_path


def _refused(folder):
    began = time.monotonic()
    with pytest.raises(DecaylabError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500 and time.monotonic() - began < 20
    return message


HOSTILE = [10**7, 10**9, 10**30, -1, 0, 1.5, True, None, "12", "x" * 3_000_000, [1] * 10**6, {"a": {"b": {"c": 1}}}]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda v: f"{type(v).__name__} {str(v)[:8]}")
@pytest.mark.parametrize("name", ["vocab_size", "n_positions", "n_layer", "n_head", "n_embd"])
def test_sizes(folder, name, value):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {name: value}))
    assert name in (message := _refused(folder)) or "by its config.json" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_type", ["gpt2"]),
        ("model_type", "x" * 10**6),
        ("activation_function", {"a": 1}),
        ("layer_norm_epsilon", "1e-5"),
        ("layer_norm_epsilon", -1),
        ("layer_norm_epsilon", float("inf")),
        ("tie_word_embeddings", "yes"),
        ("tie_word_embeddings", 0),
        ("scale_attn_weights", []),
        ("scale_attn_by_inverse_layer_idx", True),
        ("n_inner", 7),
    ],
)
def test_other_settings(folder, name, value):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {name: value}))
    _refused(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe{", b"[" * 10**6, b'{"a":' * 10**5, b'{"n_layer": ' + b"9" * 5000 + b"}"],
    ids=lambda c: str(c[:9]),
)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_broken_json(folder, name, content):
    if name != "config.json":
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    assert name in _refused(folder)


INDEXES = [
    *(
        None,
        [],
        {},
        {"a": 1},
        {"a": ["b"]},
        {"a": None},
        {"a": "../secret.safetensors"},
        {"a": "/etc/passwd"},
        {"a": ""},
    ),
    *({"a": "x" * 3_000_000}, {"a": "no.safetensors"}, {"a": "a\0b"}, {str(i): f"{i}.bin" for i in range(20_000)}),
]


@pytest.mark.parametrize("places", INDEXES, ids=lambda p: str(p)[:20])
def test_indexes(folder, places):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    _refused(folder)


def test_weights_that_are_not_those_of_the_settings(folder):
    whole = load_file(folder / "model.safetensors")
    for name in ("transformer.h.1.mlp.c_fc.weight", "transformer.wte.weight", "transformer.ln_f.bias"):
        for changed in ({}, {name: torch.ones(3)}, {name: torch.ones(2, 2, 2)}):
            save_file({**{n: t for n, t in whole.items() if n != name}, **changed}, folder / "model.safetensors")
            if name.endswith("bias") and not changed:
                continue  # all other biases are zero: it counts as a model without any
            assert name in _refused(folder)
    save_file({**whole, "more": torch.zeros(1)}, folder / "model.safetensors")
    assert "'transformer.more' is missing or not part" in _refused(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": torch.zeros(1).expand(10**6, 10**6)}, folder / "pytorch_model.bin")
    assert "claims more values than the file holds" in _refused(folder)


@pytest.mark.parametrize("settings", [{}, {"bias": True}, {"tied": False}, {"bias": True, "tied": False}])
def test_shapes_are_those_of_the_model(settings, tmp_path):
    model = GPT(**SHAPE, **settings)
    write(model, tmp_path)
    found = shapes(read_settings(tmp_path), bias=settings.get("bias", False))
    assert found == {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert read(tmp_path, bias=settings.get("bias", False))[1].keys() == found.keys()


def test_either_name_of_the_tied_embedding(folder):
    whole = load_file(folder / "model.safetensors")
    expected = load(folder).lm_head.weight
    save_file({n.replace("transformer.wte", "lm_head"): t for n, t in whole.items()}, folder / "model.safetensors")
    assert torch.equal(load(folder).transformer["wte"].weight, expected)
