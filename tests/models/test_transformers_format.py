"""Checkpoints cross over to transformers and back with the same logits."""

import json

import pytest
import torch

from decaylab.errors import DecaylabError
from decaylab.models import GPT
from decaylab.models.transformers_format import load, read, write

transformers = pytest.importorskip("transformers")
SHAPE = {"vocab_size": 50, "context": 16, "num_layers": 2, "num_heads": 2, "width": 8}


def _noisy(model):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model.eval()


@pytest.mark.parametrize(
    "settings", [{}, {"bias": True}, {"tied": False}, {"activation": "gelu_tanh"}, {"activation": "relu"}]
)
def test_ours_loads_in_transformers_and_comes_back(settings, tmp_path):
    torch.manual_seed(0)
    model = _noisy(GPT(**SHAPE, **settings))
    write(model, tmp_path)
    tokens = torch.randint(50, (3, 16))
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = model(tokens)
        torch.testing.assert_close(theirs(tokens).logits, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(load(tmp_path)(tokens), expected, rtol=0, atol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_theirs_loads_in_ours(tied, tmp_path):
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=8, n_layer=2, n_head=2, tie_word_embeddings=tied
    )
    theirs = _noisy(transformers.GPT2LMHeadModel(config))
    theirs.save_pretrained(tmp_path)
    tokens = torch.randint(50, (2, 10))
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path).eval()(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)


def test_older_and_larger_checkpoints_load(tmp_path):
    """A checkpoint in parts, and the ``.bin`` of earlier versions, whole and in parts."""
    torch.manual_seed(2)
    shape = {"vocab_size": 50, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2}
    theirs = _noisy(transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape)))
    tokens = torch.randint(50, (2, 10))
    with torch.no_grad():
        expected = theirs(tokens).logits
    theirs.save_pretrained(tmp_path / "parts", max_shard_size="2KB")
    assert len(list((tmp_path / "parts").glob("model-*.safetensors"))) > 1
    states = theirs.state_dict()
    names = sorted(states)
    for folder, files in (("bin", [names]), ("bins", [names[:9], names[9:]])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text((tmp_path / "parts" / "config.json").read_text())
        if len(files) == 1:
            torch.save(states, tmp_path / folder / "pytorch_model.bin")
            continue
        places = {}
        for number, part in enumerate(files, start=1):
            places |= dict.fromkeys(part, f"pytorch_model-{number}-of-2.bin")
            torch.save({n: states[n] for n in part}, tmp_path / folder / f"pytorch_model-{number}-of-2.bin")
        (tmp_path / folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    for folder in ("parts", "bin", "bins"):
        with torch.no_grad():
            torch.testing.assert_close(load(tmp_path / folder).eval()(tokens), expected, rtol=1e-4, atol=1e-4)
    (tmp_path / "bins" / "pytorch_model-2-of-2.bin").unlink()
    with pytest.raises(DecaylabError, match=r"2-of-2\.bin is missing"):
        load(tmp_path / "bins")


def test_biases_of_zero_are_kept_where_they_are_wanted(tmp_path):
    write(GPT(**SHAPE, bias=True), tmp_path)
    settings, tensors = read(tmp_path)
    assert not settings["bias"] and not any(name.endswith(".bias") for name in tensors)
    settings, tensors = read(tmp_path, bias=True)
    assert settings["bias"] and tensors.keys() == dict(GPT(**SHAPE, bias=True).named_parameters()).keys()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_only_a_gpt2_is_replaced(name, tmp_path):
    model = GPT(**SHAPE)
    write(model, tmp_path / "gpt2")
    write(model, tmp_path / "gpt2")
    (tmp_path / name).write_text("{}")
    with pytest.raises(DecaylabError, match=f"{name} is there already and not a GPT-2's"):
        write(model, tmp_path)
    assert (tmp_path / name).read_text() == "{}"


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, ("raise SystemExit('executed')",))

    write(GPT(**SHAPE), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DecaylabError, match="more than tensors") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_cannot_cross_is_refused(tmp_path):
    with pytest.raises(DecaylabError, match="ln_"):
        write(GPT(**SHAPE, branch_norm=True), tmp_path)
    with pytest.raises(DecaylabError, match=r"config\.json is missing"):
        load(tmp_path)
    write(GPT(**SHAPE), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(DecaylabError, match="damaged"):
        load(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"model_type": "llama"}))
    with pytest.raises(DecaylabError, match="llama"):
        load(tmp_path)
