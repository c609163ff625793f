"""tau-normalisation: golden values, its end points, and the weights that it must survive."""

import pytest
import torch

from decaylab import decay
from decaylab.errors import DecaylabError


def test_golden_values():
    weight = torch.tensor([[3.0, 4.0], [0.6, 0.8], [0.0, 2.0]], dtype=torch.float64)
    expected = [0.140954273171, 0.187939030894, 0.6, 0.8, 0.0, 0.535886731268]
    assert decay.tau_normalize(weight, 1.9).flatten().tolist() == pytest.approx(expected, abs=1e-12)
    assert weight[0, 0] == 3.0


def test_end_points_and_shapes():
    weight = torch.randn(4, 3, 2, 2, dtype=torch.bfloat16)
    assert torch.equal(decay.tau_normalize(weight, 0.0), weight)
    unit = decay.tau_normalize(weight.float(), 1.0)
    torch.testing.assert_close(unit.flatten(1).norm(dim=1), torch.ones(4))
    assert torch.equal(decay.tau_normalize(torch.zeros(2, 3)), torch.zeros(2, 3))
    assert not decay.tau_normalize(torch.ones(2, 2, requires_grad=True)).requires_grad


def test_mistakes_are_named():
    with pytest.raises(DecaylabError, match="tau must be at least 0"):
        decay.tau_normalize(torch.ones(2, 2), -1.0)
    with pytest.raises(DecaylabError, match="a row for every class"):
        decay.tau_normalize(torch.ones(2))
