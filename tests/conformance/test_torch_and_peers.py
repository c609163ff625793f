"""What the check says of released optimizers: torch's, transformers' Adafactor, and two peers where they are installed.

The defects are verified here a second time, by a few lines that use nothing of the check.
"""

import importlib.metadata
import math
from functools import partial

import pytest
import torch
from torch import nn

from decaylab.conformance import check

optim = torch.optim
TORCH = {
    "AdamW": (optim.AdamW, "torch"),
    "Adam": (optim.Adam, "l2"),
    "Adam, decoupled": (partial(optim.Adam, decoupled_weight_decay=True), "torch"),
    "SGD": (optim.SGD, "torch"),
    "SGD, momentum": (partial(optim.SGD, momentum=0.9), "l2"),
    "NAdam": (optim.NAdam, "l2"),
    "RAdam, decoupled": (partial(optim.RAdam, decoupled_weight_decay=True), "torch"),
    "Adafactor": (optim.Adafactor, "torch"),
    "RMSprop": (optim.RMSprop, "l2"),
    "Adagrad": (optim.Adagrad, "l2"),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch(name):
    factory, meaning = TORCH[name]
    report = check(factory, meaning)
    assert report.conforms and report.meaning == meaning, report
    if name in ("AdamW", "Adam", "SGD, momentum"):
        assert "published vector" in report["golden"].text and report["golden"].numbers["difference"] < 1e-12


@pytest.mark.skipif(not hasattr(optim, "Muon"), reason="this torch has no Muon")
def test_torch_muon():
    assert check(optim.Muon, "torch").conforms


def test_plain_sgd_is_both():
    report = check(optim.SGD, "l2")
    assert report.conforms and "the same as L2" in report.convention


def test_report_names_its_version():
    assert check(optim.SGD).version == f"torch {importlib.metadata.version('torch')}"


@pytest.mark.parametrize(("scale", "meaning"), [(False, "torch"), (True, "rms")])
def test_transformers_adafactor(scale, meaning):
    optimization = pytest.importorskip("transformers.optimization")
    factory = partial(optimization.Adafactor, relative_step=False, scale_parameter=scale)
    report = check(factory, meaning)
    assert report.conforms, report


def _timm(name):
    timm = pytest.importorskip("timm.optim", reason="timm (with torchvision) is not installed", exc_type=ImportError)
    return lambda params, lr, weight_decay: timm.create_optimizer_v2(params, opt=name, lr=lr, weight_decay=weight_decay)


TIMM = {"adamw": "torch", "adan": "proximal", "adamp": "switched", "novograd": "momentum"}


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    report = check(_timm(name), name=name)
    assert report.meaning == TIMM[name] and report.conforms, report


def test_timm_madgradw_decay_does_not_add_up():
    factory = _timm("madgradw")
    if importlib.metadata.version("timm") != "1.0.31":
        pytest.skip("the defect was seen in timm 1.0.31")
    assert check(factory)["zero-gradient"].status == "broken"
    weight = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    optimizer = factory([weight], 0.1, 0.1)
    for _ in range(1000):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    # decoupled decay would leave (1 - 0.01)^1000 = 4e-5; the moving average returns to a fixed point instead
    assert float(weight.detach().mean()) == pytest.approx(0.1 / (1 - 0.9 * 0.99), rel=1e-9)


def _pytorch_optimizer():
    module = pytest.importorskip("pytorch_optimizer", reason="pytorch_optimizer is not installed")
    return module, tuple(int(part) for part in importlib.metadata.version("pytorch_optimizer").split(".")[:2])


def test_adams_of_pytorch_optimizer():
    module, version = _pytorch_optimizer()
    report = check(module.AdamS)
    blows_up = (3, 8) <= version <= (3, 11)
    assert (report["second-moment"].status == "broken") == blows_up, report
    assert (report.meaning == "stable") != blows_up
    # Xie et al. 2023, by hand, in float64
    start = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    weight, expected = nn.Parameter(start.clone()), start.clone()
    optimizer = module.AdamS([weight], lr=0.01, weight_decay=0.1)
    m, v = torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, 6):
        gradient = torch.cos(step * start)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        settled = v / (1 - 0.999**step)
        expected = expected * (1 - 0.01 * 0.1 / math.sqrt(settled.mean()))
        expected = expected - 0.01 * (m / (1 - 0.9**step)) / (settled.sqrt() + 1e-8)
        weight.grad = gradient.clone()
        optimizer.step()
    assert (float((weight.detach() - expected).abs().max()) > 1e-3) == blows_up


def test_adamc_of_pytorch_optimizer_loses_its_peak():
    module, version = _pytorch_optimizer()
    if version != (4, 1):
        pytest.skip("the defects were seen in pytorch_optimizer 4.1")

    def normalized(params, lr, weight_decay):
        groups = [item if isinstance(item, dict) else {"params": [item]} for item in params]
        return module.AdamC([{**group, "normalized": True} for group in groups], lr=lr, weight_decay=weight_decay)

    report = check(normalized, "adamc")
    assert {finding.identity for finding in report.broken} == {"group-lr", "resume-elsewhere", "tensor-lr"}, report
    # by hand: with lr as a tensor that is halved in place, the share should be λ lr² / lr_max = 0.025, and is λ lr
    weight = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    rate = torch.tensor(0.1, dtype=torch.float64)
    optimizer = normalized([weight], rate, 1.0)
    optimizer.param_groups[0]["lr"].fill_(0.05)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert 1 - float(weight.detach().mean()) == pytest.approx(0.05)
