"""What an optimizer's own coefficient does, measured on a private copy, against the steps of the optimizer itself."""

import importlib
import math

import pytest
import torch
from torch import nn

from decaylab.conformance.instance import own_decay
from decaylab.probes.active_decay import DecayReader

LR, LAMBDA = 0.03, 0.1
# (module, class, settings, what the decay is): a share of the weight known beforehand, one that goes through the
# gradient (l2), one that cannot be stated (unknown), or no decay at all (none).
RELEASED = [
    ("lion_pytorch", "Lion", {}, "share"),
    ("lion_pytorch", "Lion", {"decoupled_weight_decay": True}, "share"),
    ("optimi", "AdamW", {}, "share"),
    ("optimi", "AdamW", {"decouple_lr": True, "weight_decay": 9e-4}, "share"),
    ("optimi", "Adam", {}, "l2"),
    ("optimi", "SGD", {}, "share"),  # without momentum both are one
    ("optimi", "SGD", {"momentum": 0.9}, "l2"),
    ("optimi", "Lion", {}, "share"),
    ("optimi", "Adan", {}, "share"),
    ("schedulefree", "AdamWScheduleFree", {}, "unknown"),
    ("adabelief_pytorch", "AdaBelief", {"print_change_log": False}, "share"),
    ("adan_pytorch", "Adan", {}, "share"),
    ("came_pytorch", "CAME", {}, "share"),
    ("prodigyopt", "Prodigy", {"lr": 1.0}, "unknown"),
    ("dadaptation", "DAdaptAdam", {"lr": 1.0}, "l2"),
    ("torch_optimizer", "AdamP", {}, "unknown"),
    ("torch_optimizer", "DiffGrad", {}, "l2"),
    ("torch_optimizer", "Lamb", {}, "unknown"),
    ("torch_optimizer", "NovoGrad", {}, "unknown"),
    ("torch_optimizer", "QHAdam", {}, "l2"),
    ("torch_optimizer", "Yogi", {}, "l2"),
    ("pytorch_optimizer", "ADOPT", {}, "l2"),
    ("pytorch_optimizer", "AdEMAMix", {}, "l2"),
    ("pytorch_optimizer", "MADGRAD", {}, "l2"),
    ("pytorch_optimizer", "QHAdam", {}, "l2"),
    ("pytorch_optimizer", "NovoGrad", {}, "unknown"),
    ("pytorch_optimizer", "AdamP", {}, "unknown"),
    ("pytorch_optimizer", "SGDP", {}, "unknown"),
    ("pytorch_optimizer", "Lion", {}, "share"),
    ("pytorch_optimizer", "Tiger", {}, "share"),
    ("pytorch_optimizer", "AdaBelief", {}, "share"),
    ("pytorch_optimizer", "SM3", {}, "none"),
    ("bitsandbytes.optim", "Adam", {}, "share"),
    ("bitsandbytes.optim", "AdamW", {}, "share"),
    ("bitsandbytes.optim", "Lion", {}, "share"),
    ("transformers.optimization", "Adafactor", {"relative_step": False, "scale_parameter": False}, "share"),
]


def _weight():
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(6, 4))


def _make(module, name, settings, weight, **changes):
    library = pytest.importorskip(module, exc_type=ImportError)
    cls = getattr(library, name, None)
    if cls is None:
        pytest.skip(f"this {module} has no {name}")
    options = {"lr": LR, "weight_decay": LAMBDA, **settings, **changes}
    try:
        return cls([weight], **options)
    except TypeError:
        options.pop("weight_decay")
        return cls([weight], **options)


def _taken(module, name, settings):
    """The share of the weight that the first steps of the optimizer itself take, from runs with and without decay."""
    ends = []
    lam = settings.get("weight_decay", LAMBDA)
    for coefficient in (1e-30, lam):
        weight = _weight()
        optimizer = _make(module, name, settings, weight, weight_decay=coefficient)
        if callable(getattr(optimizer, "train", None)):
            optimizer.train()
        old = weight.detach().clone()
        generator = torch.Generator().manual_seed(1)
        for _ in range(2):  # ADOPT's first step only sets up its memory
            old = weight.detach().clone()
            weight.grad = torch.randn(6, 4, generator=generator)
            optimizer.step()
        ends.append((old, weight.detach().clone()))
    (free_old, free), (old, decayed) = ends
    before = (free_old - old).double()
    effect = (free - decayed).double() - before
    return float((effect * old.double()).sum() / old.double().square().sum())


@pytest.mark.parametrize(
    ("module", "name", "settings", "kind"), RELEASED, ids=lambda x: x if isinstance(x, str) else ",".join(x)
)
def test_released_optimizers_are_read_as_they_step(module, name, settings, kind, capsys):
    weight = _weight()
    before = weight.detach().clone()
    optimizer = _make(module, name, settings, weight)
    capsys.readouterr()
    state = torch.get_rng_state()
    found = list(DecayReader(optimizer).read(0))
    assert torch.equal(state, torch.get_rng_state()) and torch.equal(weight, before)
    assert not optimizer.state and weight.grad is None
    assert capsys.readouterr().out == ""
    if kind == "none":
        assert not [d for d in found if d.knowledge != "none"]
        return
    (decay,) = found
    if kind == "share":
        assert decay.knowledge == "stated" and decay.coupled == 0
        assert decay.shrink == pytest.approx(_taken(module, name, settings), rel=0.02)
    elif kind == "l2":
        assert decay.coupled == LAMBDA and decay.decay == 0
        assert math.isnan(decay.shrink) or "SGD" in name
    else:
        assert decay.knowledge == "unknown" and math.isnan(decay.shrink) and decay.reason


def test_a_class_is_measured_once_and_a_flag_is_another_class(monkeypatch):
    module = importlib.import_module("decaylab.conformance.instance")
    calls = []
    measure = module.measure
    monkeypatch.setattr(module, "measure", lambda subject: calls.append(subject.name) or measure(subject))
    monkeypatch.setattr(module, "_CACHE", {})

    class Mine(torch.optim.SGD):
        pass

    for options in ({}, {}, {"nesterov": True, "momentum": 0.9}):
        optimizer = Mine([_weight()], lr=0.1, weight_decay=0.1, **options)
        assert own_decay(optimizer, optimizer.param_groups[0]).kind in ("l2", "before")
    assert calls == ["Mine", "Mine"]


class _Wrong(torch.optim.AdamW):
    """Named like the family, and does something else: decays by lambda alone, after the step."""

    def step(self, closure=None):
        kept = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            group["weight_decay"] = 0.0
        super().step(closure)
        with torch.no_grad():
            for group, coefficient in zip(self.param_groups, kept, strict=True):
                group["weight_decay"] = coefficient
                for p in group["params"]:
                    if p.grad is not None:
                        p.mul_(1 - coefficient)


def test_a_subclass_is_measured_and_not_taken_for_its_family():
    optimizer = _Wrong([_weight()], lr=1e-3, weight_decay=0.01)
    (found,) = DecayReader(optimizer).read(0)
    assert found.shrink == pytest.approx(0.01)  # by the name it would be 1e-5


def test_an_optimizer_that_cannot_be_copied_is_unknown_and_says_why():
    class Odd(torch.optim.Optimizer):
        def __init__(self, params, secret, weight_decay):
            super().__init__(params, {"lr": 0.1, "weight_decay": weight_decay})

        def step(self, closure=None):
            raise RuntimeError("never called here")

    optimizer = Odd([_weight()], secret=object(), weight_decay=0.1)
    (found,) = DecayReader(optimizer).read(0)
    assert found.knowledge == "unknown" and "cannot build Odd" in found.reason
