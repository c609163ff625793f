import torch
from torch import nn

from decaylab.config.schema import Averages
from decaylab.train.weight_averages import WeightAverages, evaluating


def _walk(model, steps):
    history = []
    for step in range(steps):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        history.append([p.detach().clone() for p in model.parameters()])
        yield step, history


def test_against_the_definitions_in_float64():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    start = [p.detach().double().clone() for p in model.parameters()]
    averages = WeightAverages(Averages(ema=(0.5, 0.9), uniform=True, uniform_from=0.3), model, 10)
    assert averages.names == ("ema0.5", "ema0.9", "uniform")
    for step, _history in _walk(model, 10):
        averages.update(step)
    history = [[w.double() for w in weights] for weights in _history]
    for name, coefficient in (("ema0.5", 0.5), ("ema0.9", 0.9)):
        expected = [w.clone() for w in start]
        for weights in history:
            expected = [coefficient * a + (1 - coefficient) * w for a, w in zip(expected, weights, strict=True)]
        _same(averages, name, model, expected)
    mean = [torch.stack(ws).mean(0) for ws in zip(*history[3:], strict=True)]
    _same(averages, "uniform", model, mean)


def _same(averages, name, model, expected):
    averages.copy_to(name, model)
    for p, e in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach().double(), e, rtol=1e-5, atol=1e-6)


def test_state_goes_round():
    model = nn.Linear(2, 2)
    config = Averages(ema=(0.9,), uniform=True)
    one, two = WeightAverages(config, model, 4), None
    for step, _ in _walk(model, 4):
        one.update(step)
        if step == 1:
            two = WeightAverages(config, model, 4)
            two.load_state_dict(one.state_dict())
        elif two is not None:
            two.update(step)
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_evaluating_restores_each_modules_own_mode():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))
    model.train()
    model[1].eval()
    with evaluating(model):
        assert not any(m.training for m in model.modules())
    assert [m.training for m in model.modules()] == [True, True, False]
