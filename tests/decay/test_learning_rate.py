"""Groups as other libraries keep them: no learning rate, no betas, a peak that comes later."""

import pytest
import torch
from torch import nn

from decaylab import decay
from decaylab.errors import DecaylabError

RULES = [
    decay.build(name, 0.05 if entry.scheduled else None)
    for name, entry in decay.TABLE.items()
    if entry.use == "attach" and name != "follow_norms"  # made for one model: see test_norm_following.py
]
NEEDS_NO_RATE = (
    "L2", "Constant", "SphereProjection", "FixedNorm", "NormalizeAndProject", "MaxNorm", "Constrained",
    "SelectiveProjection", "L2ToAnchor",
)  # fmt: skip


class Own(torch.optim.Optimizer):
    """An optimizer of another library: it chooses its learning rate, or calls its betas by other names."""

    def __init__(self, params, **defaults):
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=group.get("lr") or 0.01)


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))


def _steps(net, optimizer):
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(3, 4)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("group", [{"lr": None}, {}], ids=["None", "missing"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_without_a_learning_rate_a_rule_acts_or_is_refused_at_once(rule, group):
    net = _net()
    optimizer = Own(net.parameters(), **group)
    if type(rule).__name__ in NEEDS_NO_RATE:
        decay.attach(optimizer, rule)
        _steps(net, optimizer)
    else:
        words = {"Scheduled": "not for Own", "Rotational": "give kind"}.get(
            type(rule).__name__, "give the optimizer lr"
        )
        with pytest.raises(
            DecaylabError, match=rf"Own has no learning rate in group 0 .*give the optimizer lr|{words}"
        ):
            decay.attach(optimizer, rule)


def test_transformers_adafactor():
    transformers = pytest.importorskip("transformers")
    net = _net()
    optimizer = transformers.Adafactor(net.parameters(), lr=None, scale_parameter=True, relative_step=True)
    with pytest.raises(DecaylabError, match="Adafactor has no learning rate in group 0"):
        decay.attach(optimizer, decay.Decoupled(0.1))
    decay.attach(optimizer, decay.Constant(0.1))
    _steps(net, optimizer)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_without_betas_a_rule_acts_or_is_refused_at_once(rule):
    net = _net()

    class AdamW(Own):
        pass

    optimizer = AdamW(net.parameters(), lr=0.01, beta1=0.9, beta2=0.99, weight_decay=0.0)
    try:
        decay.attach(optimizer, rule)
    except DecaylabError:
        assert type(rule).__name__ in ("Scheduled", "Rotational")
        return
    _steps(net, optimizer)


@pytest.mark.parametrize("kind", ["adamw", "lion", "sgdm"])
def test_a_kind_of_rotation_that_the_groups_cannot_have_is_refused_at_once(kind):
    net = _net()
    optimizer = Own(net.parameters(), lr=0.01)
    if kind == "sgdm":
        decay.attach(optimizer, decay.Rotational(0.1, kind=kind))
        _steps(net, optimizer)
    else:
        with pytest.raises(DecaylabError, match="has no betas in its groups"):
            decay.attach(optimizer, decay.Rotational(0.1, kind=kind))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_weights_without_an_entry(rule):
    """FSDP with use_orig_params leaves empty pieces on some ranks."""
    full, empty = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.empty(0, 4))
    optimizer = torch.optim.AdamW([full, empty], lr=0.01, weight_decay=0.0)
    decay.attach(optimizer, rule)
    for _ in range(2):
        full.grad, empty.grad = torch.ones(3, 4), torch.empty(0, 4)
        optimizer.step()
    assert full.isfinite().all()
