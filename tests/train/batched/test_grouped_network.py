"""Networks in lanes compute what each computes by itself, and own views of the wide network's tensors."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from decaylab.errors import DecaylabError
from decaylab.models import preact_resnet, vgg_small
from decaylab.train.batched.grouped_network import Lanes

NETWORKS = {
    "resnet": lambda: preact_resnet("small", in_channels=1, width=8, blocks=1),
    "sphere": lambda: preact_resnet("small", in_channels=3, width=4, blocks=1, scale_invariant=True),
    "vgg": lambda: vgg_small(in_channels=1, width=4),
    "vgg_bn": lambda: vgg_small(in_channels=1, width=4, batch_norm=True),
}


def _images(network, count, size=6):
    channels = next(p for p in network.parameters() if p.ndim == 4).shape[1]
    return [torch.randn(size, channels, 8, 8, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_gradients_and_statistics_are_those_of_each_network_by_itself(name, count):
    torch.manual_seed(0)
    members = [NETWORKS[name]().double().train() for _ in range(count)]
    oracles = copy.deepcopy(members)
    images = _images(members[0], count)
    labels = [torch.randint(10, (6,)) for _ in members]
    lanes = Lanes(members)
    for _ in range(2):  # gradients are written, not added
        logits = lanes.logits(images)
        losses = torch.stack([F.cross_entropy(row, labels[i % count]) for i, row in enumerate(logits)])
        lanes.backward(losses)
    for i, (member, oracle) in enumerate(zip(members, oracles, strict=True)):
        for _ in range(2):
            expected = oracle(images[i])
        F.cross_entropy(expected, labels[i]).backward()
        torch.testing.assert_close(logits[i], expected)
        for (key, p), q in zip(member.named_parameters(), oracle.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, msg=lambda text, key=key: f"{key}: {text}")
        for (key, b), c in zip(member.named_buffers(), oracle.buffers(), strict=True):
            torch.testing.assert_close(b, c, msg=lambda text, key=key: f"{key}: {text}")


def test_a_step_of_one_network_moves_what_the_lanes_compute_with():
    torch.manual_seed(0)
    members = [NETWORKS["resnet"]() for _ in range(2)]
    images = [torch.randn(4, 1, 8, 8) for _ in members]
    lanes = Lanes(members)
    before = lanes.logits(images).detach()
    with torch.no_grad():
        members[1].head.bias.add_(1.0)
    after = lanes.logits(images).detach()
    assert torch.equal(after[0], before[0])
    torch.testing.assert_close(after[1], before[1] + 1.0)


def test_members_leave_the_lanes_with_their_weights():
    torch.manual_seed(0)
    members = [NETWORKS["resnet"]() for _ in range(3)]
    kept = copy.deepcopy(members[2].state_dict())
    Lanes(members)
    Lanes(members[2:])  # the others have ended
    for key, tensor in members[2].state_dict().items():
        assert torch.equal(tensor, kept[key]), key
    x = torch.randn(4, 1, 8, 8)
    assert torch.isfinite(members[0].eval()(x)).all()


def test_other_layers_are_refused_by_name():
    with pytest.raises(DecaylabError, match="LayerNorm"):
        Lanes([nn.Sequential(nn.LayerNorm(4))] * 2)
