"""HyperSparse: its closed form against autograd and against NumPy, and which weights it drives to zero."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decaylab import decay
from decaylab.errors import DecaylabError


def layers(seed, shapes=((4, 3), (2, 3, 2))):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.floats(0.0, 0.95), st.integers(0, 999))
def test_closed_form_is_autograd(sparsity, seed):
    weights = layers(seed)
    penalty = decay.HyperSparse(sparsity)
    value = penalty(weights)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    got = torch.cat([w.grad.flatten() for w in weights])
    torch.testing.assert_close(penalty.gradient(weights), got, rtol=1e-12, atol=1e-12)

    w = np.concatenate([x.detach().numpy().ravel() for x in weights])
    a = np.abs(w)
    s = math.atanh(1 / math.sqrt(3)) / np.sort(a)[math.floor(sparsity * a.size)]
    expected = np.sign(w) * s / np.cosh(s * a) ** 2 * a.sum() / np.tanh(s * a).sum()
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-10, atol=1e-14)


def test_small_weights_feel_it_most():
    weights = layers(3, ((200,),))
    gradient = decay.HyperSparse(0.9).gradient(weights).abs()
    order = weights[0].detach().abs().argsort()
    assert gradient[order[:20]].min() > gradient[order[-10:]].max()


def test_it_prunes():
    weight = layers(5, ((100,),))[0]
    penalty, opt = decay.HyperSparse(0.8), torch.optim.SGD([weight], lr=1e-3)
    target = weight.detach().clone()
    for _ in range(2000):
        opt.zero_grad()
        (((weight - target) ** 2).sum() + penalty([weight])).backward()
        opt.step()
    kept = weight.detach().abs().sort().values
    first = target.abs().sort().values
    assert kept[:50].sum() < 0.5 * first[:50].sum()
    assert kept[-10:].sum() > 0.9 * first[-10:].sum()


def test_weights_that_are_zero_and_mistakes():
    weights = [torch.zeros(10, requires_grad=True), torch.ones(2, requires_grad=True)]
    penalty = decay.HyperSparse(0.5)
    penalty(weights).backward()
    assert all(w.grad.isfinite().all() for w in weights)
    assert penalty.gradient(weights).isfinite().all()
    with pytest.raises(DecaylabError, match="sparsity must be at least 0 and below 1"):
        decay.HyperSparse(1.0)
    with pytest.raises(DecaylabError, match="got no weights"):
        penalty([])
