"""Losses that are no mean over points are refused, wherever in the data it shows."""

import pytest
import torch
from tests.support.exact_curvature import gpt, mlp
from torch import nn
from torch.nn import functional as F

from decaylab.curvature import hessian_trace, jacobian_frobenius
from decaylab.curvature.prepare import objective
from decaylab.curvature.sample_points import unlike_points
from decaylab.errors import DecaylabError


def _sorted(sizes):
    torch.manual_seed(0)
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return torch.randn(len(y), 4), y


WEIGHTS = torch.tensor([1.0, 5.0, 20.0])


@pytest.mark.parametrize("sizes", [(4, 4, 4), (300, 1, 1), (1, 300, 1), (0, 200, 1), (2, 0, 1)])
@pytest.mark.parametrize("size", [1, 12, 500])
def test_class_weights_of_points_sorted_by_class(sizes, size):
    x, y = _sorted(sizes)
    net, _, _ = mlp()
    batches = list(zip(x.split(size), y.split(size), strict=True))
    with pytest.raises(DecaylabError, match="class weights"):
        hessian_trace(net, nn.CrossEntropyLoss(weight=WEIGHTS), batches)
    hessian_trace(net, nn.CrossEntropyLoss(weight=torch.ones(3)), batches)


def test_class_weights_where_all_losses_are_alike():
    x, y = _sorted((4, 4, 4))
    net, _, _ = mlp()
    nn.init.zeros_(net[-1].weight)
    nn.init.zeros_(net[-1].bias)
    with pytest.raises(DecaylabError, match="class weights"):
        objective(net, nn.CrossEntropyLoss(weight=WEIGHTS), [(x, y)])


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(reduction="sum"), nn.CrossEntropyLoss(weight=WEIGHTS)])
def test_an_interpolating_net(loss):
    _, y = _sorted((4, 4, 4))
    net = nn.Linear(3, 3, bias=False)
    net.weight.data = 16 * torch.eye(3)
    x = F.one_hot(y, 3).float()
    assert F.cross_entropy(net(x), y) < 1e-6
    with pytest.raises(DecaylabError, match="average over points"):
        objective(net, loss, [(x, y)])
    objective(net, nn.CrossEntropyLoss(), [(x, y)])


def test_one_ignored_target_and_weights_of_examples():
    x, y = _sorted((200, 150, 150))
    net, _, _ = mlp()
    ignored = y.clone()
    ignored[123] = -100
    with pytest.raises(DecaylabError, match="ignored targets"):
        objective(net, F.cross_entropy, [(x, ignored)])
    weights = torch.ones(500)

    def weighted(model, batch):
        return (batch[2] * F.cross_entropy(model(batch[0]), batch[1], reduction="none")).sum() / batch[2].sum()

    objective(net, weighted, [(x, y, weights)])
    weights[321] = 3.0
    with pytest.raises(DecaylabError, match="average over points"):
        objective(net, weighted, [(x, y, weights)])


def test_padded_sequences():
    net, x, y = gpt()

    def loss(model, batch):
        return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    x, y = x.repeat(20, 1), y.repeat(20, 1)
    objective(net, loss, [(x, y)])
    y[57, 2:] = -100
    with pytest.raises(DecaylabError, match="ignored targets"):
        objective(net, loss, [(x, y)])


def test_a_loss_that_runs_the_model_twice_is_checked_on_spread_points_too():
    x, y = _sorted((10, 1, 1))
    net, _, _ = mlp()

    def loss(weight):
        return lambda model, batch: F.cross_entropy(model(batch[0]) + model(-batch[0]), batch[1], weight=weight)

    objective(net, loss(None), [(x, y)])
    with pytest.raises(DecaylabError, match="class weights"):
        objective(net, loss(WEIGHTS), [(x, y)])


def test_means_of_every_kind_pass():
    x, y = _sorted((5, 5, 5))
    net, _, _ = mlp()
    for loss in (
        F.cross_entropy,
        nn.CrossEntropyLoss(label_smoothing=0.1),
        lambda model, batch: F.mse_loss(model(batch[0]), F.one_hot(batch[1], 3).float()),
        lambda model, batch: F.binary_cross_entropy(model(batch[0]).sigmoid(), F.one_hot(batch[1], 3).float()),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]) + model[0].weight.square().sum(),
    ):
        objective(net, loss, [(x, y)])
    bounded = nn.Sequential(net, nn.Sigmoid())  # outputs outside of 0 and 1 would be an error
    objective(
        bounded,
        lambda model, batch: F.binary_cross_entropy(model(batch[0])[:, 0], x[:, 0].new_zeros(len(batch[0]))),
        [(x, y)],
    )
    assert jacobian_frobenius(net, [x], 0.1).value > 0


def test_points_are_unlike():
    y = torch.zeros(1000, dtype=torch.long)
    y[700] = 7
    groups = unlike_points([torch.randn(1000, 3), y])
    chosen = torch.cat(groups)
    assert {0, 700, 999} <= set(chosen.tolist()) and len(chosen) < 20
    assert all(len(group.unique()) == 3 for group in groups)
    for column in (y.bool(), y.to(torch.uint16), y.bfloat16(), (y > 0)[:, None].expand(-1, 4)):
        assert 700 in torch.cat(unlike_points([column])).tolist()
    unlike_points([torch.zeros(5, 3, dtype=torch.complex64), torch.zeros(5, 3, dtype=torch.uint16), torch.zeros(5, 0)])
    for count in (1, 2, 3, 4, 7):
        groups = unlike_points([torch.zeros(count, 3), torch.arange(count)])
        assert set(torch.cat(groups).tolist()) == set(range(count))


def test_a_loss_may_overwrite_the_outputs():
    net, _, _ = mlp()
    batches = [_sorted((2, 2, 2))]
    objective(net, lambda model, batch: F.cross_entropy(model(batch[0]).mul_(2.0), batch[1]), batches)
    with pytest.raises(DecaylabError, match="class weights"):
        objective(net, lambda model, b: F.cross_entropy(model(b[0]).mul_(2.0), b[1], weight=WEIGHTS), batches)
