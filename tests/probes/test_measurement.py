import pytest
import torch
from torch import nn

from decaylab import models
from decaylab.curvature import evaluation_twin
from decaylab.errors import DecaylabError
from decaylab.probes import measure


def _loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def test_a_model_is_measured_at_its_average_as_if_it_held_the_average():
    torch.manual_seed(0)
    net = models.preact_resnet(depth="small", num_classes=3, in_channels=1, width=4, blocks=1)
    average = {name: torch.randn_like(t) if t.is_floating_point() else t for name, t in net.state_dict().items()}
    average = {k: v.abs() + 0.5 if "var" in k else v for k, v in average.items()}
    batch = [(torch.randn(6, 1, 8, 8), torch.arange(6) % 3)]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    at_average = [
        measure(probe, net, batch, _loss, weights=average, optimizer=optimizer)
        for probe in ("norms", "gradient_noise", "effective_lr")
    ]
    for k, v in net.state_dict().items():
        assert torch.equal(v, before[k])
    net.load_state_dict(average)
    own = [
        measure(probe, net, batch, _loss, optimizer=optimizer) for probe in ("norms", "gradient_noise", "effective_lr")
    ]
    for a, b in zip(at_average, own, strict=True):
        assert a == pytest.approx(b, rel=1e-6, nan_ok=True)


def test_the_twin_shares_tensors_not_modes():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    twin = evaluation_twin(nn.DataParallel(net))
    assert net.training and not any(m.training for m in twin.modules())
    for a, b in zip(net.state_dict(keep_vars=True).values(), twin.state_dict(keep_vars=True).values(), strict=True):
        assert a is b
    with pytest.raises(DecaylabError, match="unknown parameter or buffer 'nowhere'"):
        evaluation_twin(net, {"nowhere": torch.zeros(3)})


def test_tied_weights_stay_tied_in_the_twin_of_an_average():
    net = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    net[1].weight = net[0].weight
    twin = evaluation_twin(net, {"0.weight": torch.ones(4, 3)})
    assert twin[0].weight is twin[1].weight and float(twin[1].weight.detach().sum()) == 12


def test_mistakes():
    net = nn.Linear(3, 2)
    with pytest.raises(DecaylabError, match="give loss_fn= and batches="):
        measure("gradient_noise", net)
    with pytest.raises(DecaylabError, match="unknown parameter or buffer 'weigth'; did you mean 'weight'"):
        measure("norms", net, weights={"weigth": torch.zeros(2, 3)})
    with pytest.raises(DecaylabError, match="give optimizer="):
        measure("effective_lr", net)
    net.requires_grad_(False)
    with pytest.raises(DecaylabError, match="no trainable parameters"):
        measure("norms", net)
