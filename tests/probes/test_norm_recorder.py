"""What is recorded is the norm of each tensor after each step, also after decay rules, and it survives a restart."""

import pytest
import torch
from torch import nn

from decaylab import decay
from decaylab.errors import DecaylabError
from decaylab.probes import norm_recorder, record_norms


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def _step(model, optimizer, seed):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=next(model.parameters()).dtype)
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("chunk", [2, 1024])
def test_rows_are_the_norms_after_each_step(chunk, monkeypatch):
    monkeypatch.setattr(norm_recorder, "_CHUNK", chunk)
    model = _model()
    model[2].double()
    model[2].register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    decay.attach(optimizer, decay.Constant(0.3), params=[model[0].weight])
    recorder = record_norms(optimizer, model)
    expected = []
    for seed in range(5):
        _step(model, optimizer, seed)
        expected.append([float(p.detach().double().square().sum().sqrt()) for p in model.parameters()])
    found = recorder.trajectory()
    assert found.names == tuple(name for name, _ in model.named_parameters())
    assert found.shapes == tuple(tuple(p.shape) for p in model.parameters())
    torch.testing.assert_close(found.norms.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)
    recorder.remove()
    _step(model, optimizer, 9)
    assert recorder.trajectory().steps == 5


def test_it_goes_on_from_a_checkpoint():
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = record_norms(optimizer, model)
    for seed in range(3):
        _step(model, optimizer, seed)
    state = recorder.state_dict()
    for seed in range(3, 6):
        _step(model, optimizer, seed)
    whole = recorder.trajectory().norms
    recorder.load_state_dict(state)
    assert torch.equal(recorder.trajectory().norms, whole[:3])
    with pytest.raises(DecaylabError, match="other parameters"):
        recorder.load_state_dict({**state, "names": ["a"]})


def test_only_what_the_optimizer_holds_and_is_named():
    model = _model()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    assert record_norms(optimizer, model).trajectory().names == ("0.weight", "0.bias")
    assert record_norms(optimizer, model, names=["0.bias"]).trajectory().names == ("0.bias",)
    with pytest.raises(DecaylabError, match=r"no parameter 0\.wait"):
        record_norms(optimizer, model, names=["0.wait"])
    with pytest.raises(DecaylabError, match="no norms to record"):
        record_norms(torch.optim.SGD(model[2].parameters(), lr=0.1), model, names=["0.bias"])
