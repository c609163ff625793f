"""What comes at a step is a function of seed and step alone, uniform, and the same on every path."""

import numpy as np
import pytest
import torch

from decaylab.data import sampling
from decaylab.data.sampling import Sequences
from decaylab.errors import DecaylabError

TOKENS = (np.arange(5000) * 13 % 65536).astype(np.uint16)  # also ids above 32,767


@pytest.fixture(params=["memory", "file"])
def tokens(request, tmp_path):
    if request.param == "memory":
        return TOKENS
    TOKENS.tofile(tmp_path / "t.bin")
    return np.memmap(tmp_path / "t.bin", dtype="<u2", mode="c")


@pytest.mark.parametrize("resident", [True, False])
def test_windows_are_cut_from_the_stream(tokens, resident):
    sequences = Sequences(tokens, 7, resident=resident)
    position = {int(t): i for i, t in enumerate(TOKENS)}
    for x, y in (sequences.batch(40, seed=3), sequences.step(40, 11, seed=3)):
        assert x.dtype is torch.int64 and x.shape == y.shape == (40, 7)
        for row, after in zip(x.tolist(), y.tolist(), strict=True):
            start = position[row[0]]
            assert row == TOKENS[start : start + 7].tolist()
            assert after == TOKENS[start + 1 : start + 8].tolist()


def test_any_order_of_steps_gives_the_same_batches(monkeypatch):
    monkeypatch.setattr(sampling, "_TOKENS_PER_GATHER", 400)
    reader, other = Sequences(TOKENS, 9, resident=False), Sequences(TOKENS, 9)
    forward = [reader.step(6, s, seed=5)[0].clone() for s in range(600)]
    for step in (599, 0, 300, 299, 256, 255, 3, 511, 512):
        assert torch.equal(other.step(6, step, seed=5)[0], forward[step])
        assert torch.equal(reader.step(6, step, seed=5)[0], forward[step])
    assert len({tuple(x.flatten().tolist()) for x in forward}) == 600


def test_how_many_are_gathered_at_once_does_not_matter(monkeypatch):
    batches = []
    for size in (1, 500, 2**18):
        monkeypatch.setattr(sampling, "_TOKENS_PER_GATHER", size)
        sequences = Sequences(TOKENS, 9)
        batches.append(torch.stack([sequences.step(6, s, seed=1)[1] for s in range(70)]))
    assert torch.equal(batches[0], batches[1]) and torch.equal(batches[0], batches[2])


def test_processes_share_a_batch():
    whole, part = Sequences(TOKENS, 9), Sequences(TOKENS, 9)
    for step in (0, 1, 300):
        x, y = whole.step(8, step, seed=2)
        parts = [part.step(8, step, seed=2, rows=(first, first + 2)) for first in (0, 2, 4, 6)]
        assert torch.equal(torch.cat([p[0] for p in parts]), x)
        assert torch.equal(torch.cat([p[1] for p in parts]), y)


def test_seeds_differ_and_repeat():
    sequences = Sequences(TOKENS, 9)
    first, again, other = (sequences.batch(8, seed=s)[0] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(sequences.step(8, 0, seed=1)[0], sequences.step(8, 0, seed=2)[0])
    large = [sequences.batch(8, seed=s)[0] for s in (-1, -2, 2**63 + 5, 2**63 + 6)]  # any integer is a seed
    assert len({tuple(x.flatten().tolist()) for x in large}) == 4


def test_positions_are_uniform():
    tokens = np.arange(20, dtype=np.uint16)
    sequences = Sequences(tokens, 4)
    starts = torch.cat([sequences.step(500, s, seed=0)[0][:, 0] for s in range(4)])
    counts = torch.bincount(starts, minlength=16).double()
    assert len(counts) == 16  # the last start leaves room for the token that follows
    assert ((counts - 125) ** 2 / 125).sum() < 37.7  # 99.9 %, 15 degrees of freedom


def test_limit_and_too_short_streams():
    x, y = Sequences(TOKENS, 9, limit=10).batch(5, seed=0)
    assert (x == torch.from_numpy(TOKENS[:9].astype(np.int64))).all() and (y[:, -1] == int(TOKENS[9])).all()
    with pytest.raises(DecaylabError, match="9 tokens are too few for sequences of 9"):
        Sequences(TOKENS, 9, limit=9)


def test_the_meaning_of_a_seed_never_changes():
    # Stored numbers: a change here changes the data of every stored run.
    sequences = Sequences(np.arange(1000, dtype=np.uint16), 4)
    assert sequences.step(5, 0, seed=0)[0][:, 0].tolist() == [522, 533, 177, 896, 543]
    assert sequences.step(5, 256, seed=7)[0][:, 0].tolist() == [815, 113, 473, 583, 970]
    assert sequences.batch(5, seed=7)[0][:, 0].tolist() == [456, 83, 304, 86, 114]
    assert sampling.epoch_order(8, seed=0, epoch=3).tolist() == [2, 7, 6, 0, 5, 1, 4, 3]


def test_epoch_orders():
    orders = [sampling.epoch_order(100, seed=s, epoch=e) for s in range(3) for e in range(3)]
    for order in orders:
        assert order.dtype is torch.int64 and sorted(order.tolist()) == list(range(100))
    assert len({tuple(o.tolist()) for o in orders}) == 9
    assert torch.equal(orders[0], sampling.epoch_order(100, seed=0, epoch=0))
    firsts = torch.tensor([sampling.epoch_order(5, seed=0, epoch=e)[0] for e in range(1000)])
    assert ((torch.bincount(firsts) - 200.0) ** 2 / 200).sum() < 18.5  # 99.9 %, 4 degrees of freedom


def test_balanced_subset():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 0, 1, 0])
    assert sampling.balanced_subset(labels, 3).tolist() == [0, 3, 5]
    assert sampling.balanced_subset(labels, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert sampling.balanced_subset(labels, 9).tolist() == list(range(9))
    assert sampling.balanced_subset(labels, 100).tolist() == list(range(9))
