"""Scale invariance is measured: networks whose answer is known from their construction."""

import math

import pytest
import torch
from tests.support.families import FAMILIES
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from decaylab import models
from decaylab.errors import DecaylabError
from decaylab.params import jointly_scale_invariant, scale_invariant


def _conv_net():
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.GELU()),
        *(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)),
    )


def test_convolutions_in_front_of_batch_norm():
    model = _conv_net()
    found = scale_invariant(model, torch.randn(8, 3, 8, 8))
    assert {name: bool(evidence) for name, evidence in found.items()} == {
        "0.weight": True, "3.weight": True, "8.weight": False
    }  # fmt: skip
    assert found["0.weight"].cosine < 1e-9 and found["0.weight"].output_change < 1e-9
    assert found["8.weight"].output_change > 0.1


def test_gain_before_relu_and_norm_is_invariant_and_shift_is_not_seen_at_all():
    # ReLU is homogeneous, so a gain with zero shift passes its scale on to the next norm; GELU is not
    model = _conv_net()
    names = ["1.weight", "3.bias", "4.weight"]
    found = scale_invariant(model, torch.randn(8, 3, 8, 8), names=names)
    assert [bool(found[name]) for name in names] == [True, False, False]
    assert "does not depend" in found["3.bias"].note


def test_weight_norm_direction_is_invariant_and_gain_is_not():
    model = nn.Sequential(weight_norm(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 2))
    names = [name for name, _ in model.named_parameters()]
    found = scale_invariant(model, torch.randn(6, 5), names=names)
    assert [name for name in names if found[name]] == ["0.parametrizations.weight.original1"]


def test_gpt_with_branch_and_qk_norm_has_invariant_hidden_matrices():
    sizes = {"vocab_size": 16, "context": 8, "num_layers": 1, "num_heads": 2, "width": 8, "activation": "relu"}
    tokens = torch.randint(0, 16, (2, 8))
    found = scale_invariant(models.GPT(**sizes, branch_norm=True, qk_norm=True), tokens)
    assert {name for name, evidence in found.items() if evidence} == {
        name for name in found if ".attn." in name or ".mlp." in name
    }
    assert not any(scale_invariant(models.GPT(**sizes), tokens).values())


def test_resnet_with_the_switch_is_invariant_as_a_whole():
    images = torch.randn(16, 1, 8, 8)
    model = models.preact_resnet("small", 10, 1, width=4, scale_invariant=True)
    whole = jointly_scale_invariant(model, images)
    assert whole and whole.cosine < 1e-9 and whole.output_change < 1e-9
    assert not jointly_scale_invariant(models.preact_resnet("small", 10, 1, width=4), images)
    # alone, only the first convolution of a block is: the second adds to the residual stream
    alone = scale_invariant(model, images, names=["blocks.0.conv1.weight", "blocks.0.conv2.weight"])
    assert [bool(evidence) for evidence in alone.values()] == [True, False]


def test_zero_weight_gives_no_verdict():
    model = _conv_net()
    nn.init.zeros_(model[0].weight)
    evidence = scale_invariant(model, torch.randn(4, 3, 8, 8), names=["0.weight"])["0.weight"]
    assert not evidence and evidence.note == "the weight is zero" and math.isnan(evidence.cosine)


def test_model_and_random_state_are_left_alone():
    model = _conv_net().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    scale_invariant(model, (torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)),))
    assert torch.equal(torch.get_rng_state(), state) and not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.dtype == torch.float32 for parameter in model.parameters())


def test_keyword_inputs_and_transformers_output():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=1, n_embd=8, n_head=2, vocab_size=16, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    found = scale_invariant(transformers.GPT2LMHeadModel(config), {"input_ids": torch.randint(0, 16, (2, 8))})
    assert found and not any(found.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"names": ["0.wieght"]}, "did you mean '0.weight'"), ({"factor": 1.0}, "must be positive and not 1")],
)
def test_mistakes(options, message):
    with pytest.raises(DecaylabError, match=message):
        scale_invariant(_conv_net(), torch.randn(2, 3, 8, 8), **options)


_EXPERTS = "model.layers.0.mlp.experts.gate_up_proj"


class _Experts(nn.Module):
    """A normalised product that, as a grouped product of experts, knows no float64."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 6, 6) / 3)
        self.router = nn.Parameter(torch.randn(6, 2))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        if x.dtype == torch.float64:
            raise RuntimeError("Expected mat_a to be Float32")
        hidden = torch.einsum("bi,eij->bej", x, self.weight)
        hidden = hidden / hidden.norm(dim=(1, 2), keepdim=True)
        return self.head((hidden * (x @ self.router).softmax(-1)[..., None]).sum(1))


def test_a_model_whose_kernels_know_no_float64():
    torch.manual_seed(0)
    found = scale_invariant(_Experts(), torch.randn(16, 6))
    assert {name: bool(evidence) for name, evidence in found.items()} == {
        "weight": True,
        "router": False,
        "head.weight": False,
    }


def test_a_model_that_does_not_run_is_one_line():
    with pytest.raises(DecaylabError, match=r"does not run on these inputs.*RuntimeError") as error:
        scale_invariant(nn.Linear(3, 2), torch.randn(4, 5))
    assert "\n" not in str(error.value)


def test_stacked_experts_of_a_library():
    """Mixtral's own grouped kernels."""
    family = next(family for family in FAMILIES if family.name == "Mixtral")
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    names = [_EXPERTS, "lm_head.weight"]
    found = scale_invariant(family.build(), {"input_ids": torch.randint(3, 19, (2, 8))}, names=names)
    assert not found[_EXPERTS] and found[_EXPERTS].note == "" and not found["lm_head.weight"]
