"""Modules of one's own: subclasses with additions, layers of other libraries' style, containers, marks, the unknown."""

import pytest
import torch
from torch import nn

from decaylab import watch
from decaylab.errors import DecaylabError
from decaylab.params import assign, audit, decay_groups, roles, scale_invariant


class _Holder(nn.Module):
    def __init__(self, **tensors):
        super().__init__()
        for name, shape in tensors.items():
            setattr(self, name, nn.Parameter(torch.ones(shape)))


def _named(name, base=_Holder, **tensors):
    """A module of a class of that name that holds parameters of these shapes."""
    return type(name, (base,), {})(**tensors)


def _subclass(base, arguments, **tensors):
    def __init__(self):
        base.__init__(self, *arguments)
        for name, shape in tensors.items():
            setattr(self, name, nn.Parameter(torch.ones(shape)))

    return type("Own" + base.__name__, (base,), {"__init__": __init__})()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("scale", ()),
        ("sigma", (1,)),
        ("temperature", ()),
        ("magnitude", (3, 1)),
        ("step_size", ()),
        ("clip_value", ()),
        ("tau", (3,)),
        ("unbiased_gain", (3,)),
        ("m", (3,)),  # one number an output: the shape says it
        ("m", (4,)),  # one number an input
        ("mask_scores", (3, 4)),
        ("weight_scale_inv", (2, 2)),
    ],
)
@pytest.mark.parametrize("base", [nn.Linear, nn.Bilinear], ids=["Linear", "Bilinear"])
def test_a_subclass_of_linear_with_a_number_of_its_own(base, name, shape):
    model = _subclass(base, (4, 3) if base is nn.Linear else (4, 4, 3), **{name: shape})
    found = roles(model)
    assert found[name] == "scalar"
    assert found["weight"] in ("matrix", "head") and found["bias"] == "bias"
    decayed = {id(p) for group in decay_groups(model) if group["decay"] for p in group["params"]}
    assert decayed == {id(model.weight)}


@pytest.mark.parametrize(
    ("base", "arguments", "own"),
    [
        (nn.Conv2d, (3, 4, 3), "matrix"),
        (nn.LSTM, (3, 4), "matrix"),
        (nn.GRUCell, (3, 4), "matrix"),
        (nn.MultiheadAttention, (4, 2), "matrix"),
        (nn.Embedding, (6, 4), "embedding"),
        (nn.LayerNorm, (4,), "norm"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_subclasses_of_other_owners(base, arguments, own):
    model = _subclass(base, arguments, temperature=(), extra_proj=(4, 4), extra_bias=(4,))
    found = roles(model)
    plain = roles(base(*arguments))
    assert {name: found[name] for name in plain} == plain and own in plain.values()
    assert found["temperature"] == ("norm" if own == "norm" else "scalar")
    assert found["extra_proj"] == "matrix"
    assert found["extra_bias"] == ("norm" if own == "norm" else "bias")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (_named("LayerNorm2d", weight=(1, 8, 1, 1), bias=(1, 8, 1, 1)), {"norm"}),
        (_named("BatchNormalization", gain=(8,), bias=(8,)), {"norm"}),
        (_named("GRN", gamma=(1, 1, 1, 8), beta=(1, 1, 1, 8)), {"norm"}),
        (_named("DyT", alpha=(1,), weight=(8,), bias=(8,)), {"norm"}),
        (_named("DynamicTanh", alpha=(), gamma=(8,)), {"norm"}),
        (_named("MultiHeadRMSNorm", weight=(2, 8)), {"norm"}),
        (_named("layernorm", g=(8,)), {"norm"}),
        (_named("RMSNormGated", weight=(8,)), {"norm"}),
        (_named("NormLinear", weight=(8, 4), bias=(8,)), {"matrix", "bias"}),
        (_named("NormalizedThing", weight=(8, 4)), {"matrix"}),
        (_named("PostNormBlock", layer_scale=(8,)), {"scalar"}),
        (_named("LayerScale2d", gamma=(8, 1, 1)), {"scalar"}),
        (_named("Affine", alpha=(8,), beta=(8,)), {"scalar"}),
        (_named("Router", weight=(2, 8)), {"matrix"}),
        (_named("ParallelExperts", gate=(2, 8, 4), inner_bias=(2, 8)), {"matrix", "bias"}),
        (_named("AxialPositionEmbeddings", weights=(4, 1, 8)), {"embedding"}),
        (_named("S4DKernel", log_dt=(8,), C=(8, 1), log_A_real=(8, 4)), {"scalar"}),
        (_named("ScoreHead", mu=(1,)), {"scalar"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers_as_other_libraries_write_them(module, expected):
    found = roles(module, strict=False)
    found.pop("C", None)  # complex coefficients of a vector's length: unknown, and no one's business here
    assert set(found.values()) == expected


def test_containers_of_parameters_are_named_by_what_holds_them():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ParameterList([torch.ones(4, 3), torch.ones(3, 4)])
            self.layer_scales = nn.ParameterDict({"up": torch.ones(4), "down": torch.ones(4)})
            self.params = nn.ParameterDict({"weight": torch.ones(4, 3), "bias": torch.ones(4)})
            self.sets = nn.ModuleList([nn.ParameterDict({"cls_token": torch.ones(1, 4)})])

    assert roles(Net()) == {
        "experts.0": "matrix",
        "experts.1": "matrix",
        "layer_scales.down": "scalar",
        "layer_scales.up": "scalar",
        "params.bias": "bias",
        "params.weight": "matrix",
        "sets.0.cls_token": "embedding",
    }
    assert roles(nn.ParameterList([torch.ones(3)]), {"0": "bias"}) == {"0": "bias"}


class _Marked(nn.Module):
    """As timm's vision transformers and Mamba mark theirs."""

    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.ones(1, 5, 4))
        self.decoder = nn.Module()
        self.decoder.rel_table = nn.Parameter(torch.ones(5, 4))
        self.mystery = nn.Parameter(torch.ones(4, 4))
        self.mystery._no_weight_decay = True
        self.fc = nn.Linear(4, 4)
        self.kernel = nn.Parameter(torch.ones(4, 4))
        self.kernel._optim = {"weight_decay": 0.0, "lr": 1e-3}

    def no_weight_decay(self):
        return {"pos_embed", "decoder.*"}


def test_marks_of_the_author_keep_from_decaying():
    model = nn.Sequential(_Marked(), nn.Linear(4, 2))

    def decayed(**options):
        ids = {id(p) for group in decay_groups(model, **options) if group["decay"] for p in group["params"]}
        return [name for name, parameter in model.named_parameters() if id(parameter) in ids]

    assert decayed() == ["0.fc.weight", "1.weight"]
    assert decayed(include=("pos_embed",)) == ["0.pos_embed", "0.fc.weight", "1.weight"], "the caller knows better"
    assert "0.kernel" in decayed(include=("0.kernel",))
    table = audit(model)
    assert "no_weight_decay()" in table["0.pos_embed"].why and "by its author" in table["0.mystery"].why


def test_a_mark_that_cannot_be_read_says_nothing():
    class Odd(nn.Linear):
        def no_weight_decay(self, needed):
            raise AssertionError(needed)

    assert roles(Odd(2, 2)) == {"weight": "head", "bias": "bias"}


class _Mystery(nn.Module):
    def __init__(self):
        super().__init__()
        self.blend = nn.Parameter(torch.ones(4, 4))
        self.quirk = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return (x @ self.blend) * self.quirk


def _mysterious():
    return nn.Sequential(nn.Linear(4, 4), _Mystery(), _Mystery(), nn.LayerNorm(4), nn.Linear(4, 2))


def test_deciding_asks_and_proposes_what_the_shape_suggests():
    with pytest.raises(DecaylabError) as caught:
        decay_groups(_mysterious())
    text = str(caught.value)
    assert "'1.blend' (_Mystery, shape (4, 4))" in text
    assert 'roles={"*.blend": "matrix", "*.quirk": "scalar"}' in text, "one pattern for all of a kind, ready to paste"
    assert "\n" not in text
    given = {"*.blend": "matrix", "*.quirk": "scalar"}
    assert len(decay_groups(_mysterious(), roles=given)[0]["params"]) == 4
    assert decay_groups(_mysterious(), exclude=("*.blend", "*.quirk")), "excluding decides too"
    frozen = _mysterious()
    for module in (frozen[1], frozen[2]):
        module.requires_grad_(False)
    assert decay_groups(frozen), "nothing is to be decided about a frozen parameter"


def test_reading_goes_on():
    model = _mysterious()
    assert roles(model, strict=False)["1.blend"] == "unknown"
    assert [item.role for item in assign(model)].count("unknown") == 4
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    with pytest.warns(UserWarning, match=r"no role is known for 1\.blend") as seen:
        log = watch(model, optimizer, every=1)
    assert len(seen) == 1
    model(torch.randn(3, 4)).square().mean().backward()
    optimizer.step()
    log.remove()
    assert log.records[0]["weights/norm/unknown"] > 0
    table = audit(model)
    assert not table["1.blend"].decay and '{"1.blend": "matrix"}' in table["1.blend"].why and not table.warnings
    rows = audit(model, optimizer)
    assert rows["1.blend"].weight_decay == 0.1 and rows["1.blend"].decay and not rows["1.blend"].warns
    assert scale_invariant(model, torch.randn(8, 4))["1.blend"].invariant in (True, False)


@pytest.mark.parametrize(("pattern", "hint"), [("bias_", None), ("ead", r'\("\*ead\*",\)')])
def test_patterns_are_matched_by_whole_parts(pattern, hint):
    model = nn.ModuleDict({"head": nn.Linear(3, 3), "overhead": nn.Linear(3, 4)})
    with pytest.raises(DecaylabError, match=hint or "unknown name"):
        decay_groups(model, exclude=(pattern,))
    (yes, no) = decay_groups(model, include=("head.bias",))
    assert any(parameter is model["head"].bias for parameter in yes["params"])
    assert all(parameter is not model["overhead"].bias for parameter in yes["params"]) and no
