"""Factors of the loss's Hessian with respect to the outputs."""

import itertools

import pytest
import torch
from tests.support.exact_curvature import gpt, mlp, token_loss
from torch import nn
from torch.nn import functional as F

from decaylab.curvature import output_factors as output_rows
from decaylab.curvature.importance_sampling import SAMPLE_SIZE, systematic
from decaylab.curvature.model_copy import plain_kernels
from decaylab.curvature.output_factors import all_rows, kind_of_loss, random_rows
from decaylab.curvature.prepare import objective


def _objective(loss, build=mlp):
    net, x, y = build()
    return objective(net.double(), lambda model, batch: loss(model(batch[0]), batch[1]), [(x, y)])


def test_kinds_of_loss():
    kinds = {
        "softmax": F.cross_entropy,
        "general": lambda z, y: F.binary_cross_entropy_with_logits(z, F.one_hot(y, 3).double()),
        "none": lambda z, y: F.cross_entropy(z, y) + 0 * z.sum() + penalty.square(),
    }
    penalty = torch.ones((), dtype=torch.float64, requires_grad=True)
    for kind, loss in kinds.items():
        assert kind_of_loss(_objective(loss)) == kind
    assert kind_of_loss(_objective(nn.CrossEntropyLoss(label_smoothing=0.2))) == "softmax"
    for kind, loss in (("softmax", token_loss), ("none", lambda z, y: z.square().mean())):
        made = _objective(loss, gpt)
        with plain_kernels(made.device):
            assert kind_of_loss(made) == kind


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_rows_of_softmax(scale):
    z = scale * torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = z.softmax(-1)
    rows = all_rows("softmax", None, z, None)
    assert rows.vectors.shape == (5, 3, 4)
    expected = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    found = rows.vectors.mT @ rows.vectors
    # also relative to tiny entries: a model that is sure of its answer has rows of the right small size
    off = ~torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(found[:, off], -(p.unsqueeze(2) * p.unsqueeze(1))[:, off], rtol=1e-9, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)


def test_general_rows_reproduce_the_hessian():
    def loss(z, y):
        return (z[..., 0] * z[..., 1] - z[..., 2].cos()).mean()

    made = _objective(loss)
    batch = made.take(slice(0, 4))
    z = torch.randn(4, 3, dtype=torch.float64)
    rows = all_rows("general", made, z, batch)
    found = (rows.vectors.mT * rows.signs.unsqueeze(1)) @ rows.vectors
    for n in range(4):
        torch.testing.assert_close(found[n], torch.func.hessian(lambda row: loss(row, None))(z[n]))


def test_random_rows_have_the_right_second_moment(monkeypatch):
    z = torch.randn(1, 2, 3, dtype=torch.float64)
    for kind in ("softmax", "identity"):
        moment = torch.zeros(6, 6, dtype=torch.float64)
        for signs in itertools.product((0, 1), repeat=6):  # every outcome once
            monkeypatch.setattr(
                output_rows.torch, "randint", lambda *args, signs=signs, **kwargs: torch.tensor(signs).view(1, 2, 3)
            )
            row = random_rows(kind, z, None).flatten()
            moment += torch.outer(row, row) / 2**6
        if kind == "identity":
            expected = torch.eye(6, dtype=torch.float64)
        else:
            p = z.softmax(-1)[0]
            expected = torch.block_diag(*(torch.diag(q) - torch.outer(q, q) for q in p)) / 2  # mean over positions
        torch.testing.assert_close(moment, expected)


def test_systematic_samples_are_unbiased():
    sizes = torch.tensor([0.0, 1, 5, 30, 0.01, 0, 4], dtype=torch.float64)
    values = torch.tensor([9.0, 2, -3, 7, 5, 9, 1], dtype=torch.float64) * (sizes > 0)
    index, weights = systematic(sizes, 40000, torch.Generator().manual_seed(0))
    assert index.shape == weights.shape == (40000, SAMPLE_SIZE)
    totals = (values[index] * weights).sum(1)
    assert abs(totals.mean() - values.sum()) < 4 * totals.std() / 200
    counts = (index == 3).sum(1)  # expected 16 * 30 / 40.01 = 11.997
    assert counts.min() >= 11 and counts.max() <= 13
    # sizes that say everything leave nothing to chance
    index, weights = systematic(sizes, 5, torch.Generator().manual_seed(0))
    torch.testing.assert_close((sizes[index] * weights).sum(1), sizes.sum().expand(5))
