"""Roles against hand-written answers, on our models and on other people's."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from decaylab import models
from decaylab.errors import DecaylabError
from decaylab.params import ROLES, assign, roles


def _by_role(model, **options):
    found = {}
    for name, role in roles(model, **options).items():
        found.setdefault(role, set()).add(name)
    return found


@pytest.mark.parametrize("tied", [True, False])
def test_our_gpt(tied):
    model = models.GPT(vocab_size=32, context=32, num_layers=2, num_heads=2, width=32, tied=tied, qk_norm=True)
    found = roles(model)
    assert found.pop("transformer.wte.weight") == found.pop("transformer.wpe.weight") == "embedding"
    assert (
        found.pop("lm_head.weight", "head") == "head" and ("lm_head.weight" in dict(model.named_parameters())) != tied
    )
    for name, role in found.items():
        assert role == ("norm" if ".ln_" in name else "matrix"), name


def test_tied_parameter_appears_once_with_its_other_name():
    model = models.GPT(vocab_size=32, context=8, num_layers=1, num_heads=2, width=8)
    (tied,) = [item for item in assign(model) if item.aliases]
    assert (tied.name, tied.aliases, tied.role) == ("transformer.wte.weight", ("lm_head.weight",), "embedding")
    assert "tied with lm_head.weight" in tied.why


@pytest.mark.parametrize("options", [{}, {"scale_invariant": True}])
def test_our_preact_resnet(options):
    for name, role in roles(models.preact_resnet("small", 10, 1, width=8, **options)).items():
        last, kind = name.split(".")[0], name.split(".")[-1]
        expected = (
            "norm" if "norm" in name else ("head" if last == "head" else "matrix") if kind == "weight" else "bias"
        )
        assert role == expected, name


@pytest.mark.parametrize("batch_norm", [True, False])
def test_our_vgg(batch_norm):
    model = models.vgg_small(batch_norm=batch_norm)
    modules = dict(model.named_modules())
    for name, role in roles(model).items():
        owner, _, attribute = name.rpartition(".")
        if isinstance(modules[owner], nn.BatchNorm2d):
            assert role == "norm"
        elif attribute == "bias":
            assert role == "bias"
        else:
            assert role == ("head" if modules[owner] is model.classifier[-1] else "matrix")


@pytest.mark.parametrize("name", ["vgg16", "preact_resnet"])
def test_full_size_on_meta_device(name):
    with torch.device("meta"):
        model = getattr(models, name)()
    assert list(roles(model).values()).count("head") == 1


def _gpt2(**options):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=16, n_positions=16, bos_token_id=0, eos_token_id=0, **options
    )
    return transformers.GPT2LMHeadModel(config)


def test_transformers_gpt2_conv1d_is_a_matrix():
    found = _by_role(_gpt2())
    assert found["embedding"] == {"transformer.wte.weight", "transformer.wpe.weight"}
    assert found["matrix"] == {
        f"transformer.h.{layer}.{name}.weight"
        for layer in range(2)
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert (
        len(found["bias"]) == 8
        and len(found["norm"]) == 10
        and found.keys() == {*["embedding", "matrix", "bias", "norm"]}
    )


def test_transformers_gpt2_untied_head():
    assert _by_role(_gpt2(tie_word_embeddings=False))["head"] == {"lm_head.weight"}


def test_transformers_llama():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=16
    )
    model = transformers.LlamaForCausalLM(config)
    found = _by_role(model)
    assert found["embedding"] == {"model.embed_tokens.weight"} and found["head"] == {"lm_head.weight"}
    assert len(found["matrix"]) == 14 and all("proj" in name for name in found["matrix"])
    assert len(found["norm"]) == 5 and found.keys() == {"embedding", "head", "matrix", "norm"}
    assert "head" not in _by_role(model.model), "a base model has no head"


def test_transformers_vit():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    found = _by_role(transformers.ViTForImageClassification(config))
    assert found["embedding"] == {"vit.embeddings.cls_token", "vit.embeddings.position_embeddings"}
    assert found["head"] == {"classifier.weight"} and "classifier.bias" in found["bias"]
    assert "vit.embeddings.patch_embeddings.projection.weight" in found["matrix"] and len(found["matrix"]) == 7
    assert all("norm" in name for name in found["norm"]) and len(found["norm"]) == 6
    assert "head" not in _by_role(transformers.ViTModel(config)), "the pooler is not a head"


def test_torch_transformer_encoder():
    layer = nn.TransformerEncoderLayer(8, 2, batch_first=True)
    found = _by_role(nn.TransformerEncoder(layer, 1))
    assert {name.removeprefix("layers.0.") for name in found["matrix"]} == {
        "self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"
    }  # fmt: skip
    assert "layers.0.self_attn.in_proj_bias" in found["bias"] and found.keys() == {"matrix", "bias", "norm"}


def test_attention_with_other_key_sizes_and_bias_vectors():
    found = _by_role(nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True))
    assert found["matrix"] == {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}
    assert found["bias"] == {"in_proj_bias", "bias_k", "bias_v", "out_proj.bias"}


def test_weight_norm_direction_is_the_matrix_and_its_gain_a_scalar():
    norm = parametrizations.weight_norm
    model = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Flatten(), norm(nn.Linear(4, 2)))
    assert roles(model) == {
        "0.bias": "bias",
        "0.parametrizations.weight.original0": "scalar",
        "0.parametrizations.weight.original1": "matrix",
        "3.bias": "bias",
        "3.parametrizations.weight.original0": "scalar",
        "3.parametrizations.weight.original1": "head",
    }
    assert assign(model)[2].why == "weight of Conv2d"


def test_older_weight_norm_and_spectral_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.utils.weight_norm(nn.Conv2d(3, 4, 3))
    model = nn.Sequential(old, nn.PReLU(), nn.Flatten(), parametrizations.spectral_norm(nn.Linear(4, 2)), nn.Tanh())
    assert roles(model) == {
        "0.weight_g": "scalar",
        "0.weight_v": "matrix",
        "0.bias": "bias",
        "1.weight": "scalar",
        "3.parametrizations.weight.original": "head",
        "3.bias": "bias",
    }


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.LSTM(3, 4), {"matrix", "bias"}),
        (nn.GRUCell(3, 4), {"matrix", "bias"}),
        (nn.Bilinear(2, 3, 4), {"matrix", "bias"}),
        (nn.EmbeddingBag(4, 2), {"embedding"}),
        (nn.ConvTranspose1d(2, 3, 3), {"matrix", "bias"}),
        (nn.GroupNorm(2, 4), {"norm"}),
        (nn.InstanceNorm2d(4, affine=True), {"norm"}),
        (nn.RMSNorm(4), {"norm"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_single_modules(module, expected):
    assert set(roles(module).values()) == expected


class _RootMeanSquareNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))


class _Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.ones(4, 4))
        self.bias = nn.Parameter(torch.zeros(4))
        self.temperature = nn.Parameter(torch.ones(()))


def test_unknown_owner_is_an_error_that_names_the_parameter_and_the_cure():
    model = nn.ModuleDict({"norm": _RootMeanSquareNorm(), "gate": _Gate()})
    with pytest.raises(
        DecaylabError, match=r"'gate.mix' \(_Gate, shape \(4, 4\)\).*roles=\{\"gate.mix\": \"matrix\"\}"
    ):
        roles(model)
    expected = {"norm.gain": "norm", "gate.mix": "matrix", "gate.bias": "bias", "gate.temperature": "scalar"}
    assert roles(model, {"gate.mix": "matrix"}) == roles(model, {"*.mix": "matrix"}) == expected
    assert roles(model, {"gate.*": "scalar", "gate.mix": "embedding"})["gate.mix"] == "embedding"


@pytest.mark.parametrize("overrides", [{"wieght": "matrix"}, {"weight": "matrices"}, {"*.x": "bias"}])
def test_override_with_a_typing_error(overrides):
    with pytest.raises(DecaylabError, match="unknown"):
        roles(nn.Linear(2, 2), overrides)


def test_lazy_module_needs_a_batch_first():
    with pytest.raises(DecaylabError, match="run one batch"):
        roles(nn.LazyLinear(3))


def test_wrappers_do_not_hide_the_owner():
    inner = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    assert list(roles(torch.compile(inner)).values()) == list(roles(inner).values()) == ["embedding", "head", "bias"]


def test_repeated_block_has_no_head():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    assert "head" not in roles(nn.Sequential(Block(), Block())).values()


def test_every_role_is_known():
    assert set(ROLES) == {"matrix", "embedding", "head", "norm", "bias", "scalar"}
