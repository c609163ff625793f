"""Which rows of a weight with sparse gradients decay: all of them, or those that the gradient touched."""

import pytest
import torch
from torch import nn

from decaylab import decay
from decaylab.errors import DecaylabError

SHRINKING = {
    "decoupled": decay.Decoupled(0.5),
    "constant": decay.Constant(0.05),
    "independent": decay.Independent(0.05),
    "quadratic": decay.QuadraticLR(5.0),
}


def _table(sparse):
    torch.manual_seed(0)
    return nn.Embedding(6, 3, sparse=sparse)


def _step(table, optimizer, tokens=(1, 4, 4), scale=0.0):
    optimizer.zero_grad()
    (scale * table(torch.tensor(tokens)).sum()).backward()
    optimizer.step()


def _optimizer(table, sparse):
    return torch.optim.SparseAdam(table.parameters(), lr=0.1) if sparse else torch.optim.SGD(table.parameters(), lr=0.1)


@pytest.mark.parametrize("sparse", [True, False], ids=["SparseAdam", "SGD"])
@pytest.mark.parametrize("rule", SHRINKING.values(), ids=SHRINKING)
def test_all_rows_by_default_and_touched_ones_on_request(rule, sparse):
    for rows, hit in (("all", range(6)), ("touched", (1, 4))):
        table = _table(sparse=True)
        decay.attach(_kept := _optimizer(table, sparse), rule, rows=rows)
        start = table.weight.detach().clone()
        _step(table, _kept)
        expected = start.clone()
        expected[list(hit)] *= 0.95
        torch.testing.assert_close(table.weight.detach(), expected)


@pytest.mark.parametrize("rows", ["all", "touched"])
def test_l2_with_sparse_gradients(rows):
    """The penalty's gradient is dense where all rows decay, and sparse where the touched ones do."""
    table = _table(sparse=True)
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
    decay.attach(optimizer, decay.L2(0.5), rows=rows)
    start = table.weight.detach().clone()
    _step(table, optimizer, scale=2.0)
    gradient = torch.zeros_like(start)
    gradient[1], gradient[4] = 2.0, 4.0
    decayed = start if rows == "all" else start * (gradient != 0)
    torch.testing.assert_close(table.weight.detach(), start - 0.1 * (gradient + 0.5 * decayed))
    assert table.weight.grad.is_sparse  # the user's own is back


def test_touched_rows_of_dense_gradients_are_those_that_are_not_zero():
    table = _table(sparse=False)
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
    decay.attach(optimizer, decay.L2(0.5), rows="touched")
    start = table.weight.detach().clone()
    _step(table, optimizer, scale=2.0)
    gradient = table.weight.grad
    assert gradient[0].abs().sum() == 0
    torch.testing.assert_close(table.weight.detach(), start - 0.1 * (gradient + 0.5 * start * (gradient != 0)))


def test_cautious_decay_of_touched_rows():
    table = _table(sparse=True)
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
    decay.attach(optimizer, decay.Cautious(0.5), rows="touched")
    start = table.weight.detach().clone()
    _step(table, optimizer, scale=2.0)
    moved = start.clone()
    moved[1] -= 0.2
    moved[4] -= 0.4
    agrees = (start - moved) * start >= 0
    expected = moved - 0.1 * 0.5 * start * agrees
    for row in (0, 2, 3, 5):
        expected[row] = start[row]
    torch.testing.assert_close(table.weight.detach(), expected)


def test_what_cannot_be_is_refused_when_the_rule_is_attached():
    with pytest.raises(
        DecaylabError, match="makes gradients dense, which SparseAdam does not take: give rows='touched'"
    ):
        decay.attach(_optimizer(_table(True), True), decay.L2(0.1))
    with pytest.raises(DecaylabError, match="FixedNorm looks at whole tensors"):
        decay.attach(_optimizer(_table(True), True), decay.FixedNorm(), rows="touched")
    with pytest.raises(DecaylabError, match="Scheduled is defined for Adam's family and for SGD, not for SparseAdam"):
        decay.attach(_optimizer(_table(True), True), decay.Scheduled(0.1))
    with pytest.raises(DecaylabError, match="unknown rows 'toched'; did you mean 'touched'"):
        decay.attach(_optimizer(_table(True), True), decay.Decoupled(0.1), rows="toched")


RULES = [
    decay.build(name, 0.05 if entry.scheduled else None)
    for name, entry in decay.TABLE.items()
    if entry.use == "attach" and name != "follow_norms"  # made for one model: see test_norm_following.py
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("kind", ["SparseAdam", "SGD", "Adagrad"])
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's own
def test_no_rule_raises_in_a_step_with_sparse_gradients(rule, kind):
    table = _table(sparse=True)
    optimizer = getattr(torch.optim, kind)(table.parameters(), lr=0.1)
    try:
        decay.attach(optimizer, rule)
    except DecaylabError:
        return
    for _ in range(2):
        _step(table, optimizer, scale=1.0)
    assert table.weight.isfinite().all()
