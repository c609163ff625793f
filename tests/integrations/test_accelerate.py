"""A rule beside accelerate: its wrapper, and the checkpoints that it writes and reads."""

import pytest
import torch
from torch import nn

from decaylab import decay

accelerate = pytest.importorskip("accelerate", reason="needs the transformers extra")


def _rule():
    schedule = decay.DecaySchedule(kind="cosine_to_zero")
    return decay.WeightNormControl(0.3, ratio=0.5, schedule=schedule, total_steps=8)


def _build(order):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05, weight_decay=0.0)
    accelerator = accelerate.Accelerator(cpu=True)
    if order == "before":
        decay.attach(optimizer, _rule())
    net, optimizer = accelerator.prepare(net, optimizer)
    if order == "after":
        decay.attach(optimizer, _rule())
    return accelerator, net, optimizer


def _train(accelerator, net, optimizer, steps):
    for t in steps:
        optimizer.zero_grad()
        accelerator.backward(net(torch.randn(8, 4, generator=torch.Generator().manual_seed(t))).square().mean())
        optimizer.step()


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize("order", ["before", "after", "last"])
def test_a_rule_goes_on_from_a_saved_state(tmp_path, order):
    """Attached before the optimizer is prepared, after that, or after the state was loaded."""
    accelerator, expected, optimizer = _build("after")
    _train(accelerator, expected, optimizer, range(8))
    accelerator, net, optimizer = _build("before")
    _train(accelerator, net, optimizer, range(4))
    accelerator.save_state(str(tmp_path))
    accelerator, net, optimizer = _build(order)
    accelerator.load_state(str(tmp_path))
    if order == "last":
        decay.attach(optimizer, _rule())
    (handle,) = decay.handles(optimizer)
    assert handle.restored and handle.steps == 4
    _train(accelerator, net, optimizer, range(4, 8))
    assert all(map(torch.equal, net.parameters(), expected.parameters()))
