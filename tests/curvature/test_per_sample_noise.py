import numpy as np
import pytest
import torch
from torch import nn

from decaylab import models
from decaylab.curvature import gradient_noise
from decaylab.errors import DecaylabError
from decaylab.probes import measure
from decaylab.probes.curvature_probes import PerExampleNoise


def _one_by_one(model, loss_fn, points):
    """Every gradient and loss by itself, float64 vectors."""
    model = model.eval()
    rows, losses = [], []
    for point in points:
        loss = loss_fn(model, tuple(t[None] for t in point))
        rows.append(torch.cat([g.double().reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))]))
        losses.append(float(loss.detach()))
    return torch.stack(rows).numpy(), np.mean(losses)


def _classify(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def _cases():
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Dropout(0.5), nn.Linear(9, 3)).double()
    yield "mlp", mlp, _classify, (torch.randn(11, 6).double(), torch.randint(0, 3, (11,)))
    net = models.preact_resnet(depth="small", num_classes=3, in_channels=1, width=4, blocks=1).double()
    yield "batch norm", net, _classify, (torch.randn(7, 1, 8, 8).double(), torch.randint(0, 3, (7,)))
    gpt = models.GPT(vocab_size=11, context=6, num_layers=1, num_heads=2, width=8).double()
    tokens = torch.randint(0, 11, (5, 7))
    yield "attention", gpt, lambda m, b: m.loss(*b), (tokens[:, :-1], tokens[:, 1:])


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case[0])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_noise_against_gradients_one_by_one(case, chunk_size):
    _, model, loss_fn, batch = case
    model.train()
    found = measure(PerExampleNoise(chunk_size=chunk_size), model, [batch], loss_fn)
    assert model.training
    rows, loss = _one_by_one(model, loss_fn, list(zip(*batch, strict=True)))
    n, mean = len(rows), rows.mean(axis=0)
    variance = rows.var(axis=0, ddof=1).sum()
    signal = mean @ mean - variance / n
    expected = {
        "noise/variance": variance,
        "noise/second_moment": (rows**2).sum(axis=1).mean(),
        "noise/loss": loss,
        "noise/second_moment_per_loss": (rows**2).sum(axis=1).mean() / loss,
        "noise/signal": signal,
        "noise/snr": mean @ mean / (variance / n),
        "noise/scale": variance / signal if signal > 0 else np.nan,
    }
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-9, nan_ok=True), key
    for key in ("noise/variance", "noise/second_moment"):
        assert sum(v for k, v in found.items() if k.startswith(f"{key}/")) == pytest.approx(found[key], rel=1e-9)


def test_signal_and_noise_scale_are_unbiased_over_all_draws():
    # Ten examples drawn from a known population: mean of the estimates over many draws.
    torch.manual_seed(0)
    net = nn.Linear(3, 1, bias=False).double()
    inputs = torch.randn(400, 3).double() + 0.5

    def loss(model, batch):
        return model(batch[0]).mean()  # the gradient of an example is its input

    population = inputs.numpy()
    truth = (population.mean(axis=0) ** 2).sum(), population.var(axis=0).sum()
    found = []
    for seed in range(60):
        draw = torch.randint(0, 400, (10,), generator=torch.Generator().manual_seed(seed))
        noise = gradient_noise(net, loss, [(inputs[draw],)])
        found.append((float(noise.mean_squares.sum() - noise.variances.sum() / 10), float(noise.variances.sum())))
    means, errors = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(60)
    assert np.all(np.abs(means - truth) < 3.5 * errors)


def test_control_flow_on_data_falls_back_to_one_by_one():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x):
            return self.linear(x) if float(x.detach().sum()) > 0 else -self.linear(x)

    torch.manual_seed(0)
    net, batch = (
        Gate().double(),
        (torch.ones(4, 3).double() * torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.arange(4) % 2),
    )
    found = measure("gradient_noise", net, [batch], _classify)
    rows, _ = _one_by_one(net, _classify, list(zip(*batch, strict=True)))
    assert found["noise/variance"] == pytest.approx(rows.var(axis=0, ddof=1).sum(), rel=1e-9)


def test_frozen_parameters_have_no_noise_and_one_point_is_too_few():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].weight.requires_grad_(False)
    found = measure("gradient_noise", net, [(torch.randn(5, 3), torch.arange(5) % 2)], _classify)
    assert "noise/variance/matrix" not in found and found["noise/variance/head"] > 0
    with pytest.raises(DecaylabError, match="at least two points"):
        gradient_noise(net, _classify, [(torch.randn(1, 3), torch.zeros(1, dtype=torch.long))])
