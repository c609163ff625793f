"""One launch for many tensors: when it is used, what its tables say, and (where Triton is) what its kernels compute."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from decaylab.tensors import multi_tensor

INTERPRETED = """
import torch
from tests.support.rule_cases import CASES, LAMBDA, gradients, learning_rates, optimizer, oracle, train, weights
from decaylab import decay
from decaylab.tensors import multi_tensor

multi_tensor._on_gpu = lambda tensor: True
multi_tensor._WORTH_IT, multi_tensor._BLOCK = 0, 16
torch.cuda.is_current_stream_capturing = lambda: False
assert multi_tensor._works(torch.device("cpu"))
launched = set()
for name in ("_launch", "_by_row"):
    def counted(kernel, *args, original=getattr(multi_tensor, name), **options):
        launched.add(kernel.fn.__name__)
        return original(kernel, *args, **options)
    setattr(multi_tensor, name, counted)
for case in CASES:
    for kind in case.optimizers:
        for lr in (0.1, torch.tensor(0.1)):
            start, grads, lrs = weights(torch.float32), gradients(4), learning_rates(4)
            expected = oracle(case.name, kind, start, grads, lrs, 0.1, LAMBDA)
            opt = optimizer(kind, start, lr.clone() if isinstance(lr, torch.Tensor) else lr)
            decay.attach(opt, case.rule(), native=False)
            for got, want in zip(train(opt, grads, lrs), expected, strict=True):
                torch.testing.assert_close(got.double(), torch.from_numpy(want), rtol=3e-6, atol=3e-6)
assert launched == {"scale", "sums", "cautious", "combine", "pull", "add_scaled", "rotate", "cap_rows"}, launched
print("all agree")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_every_rule_agrees_with_the_oracle_by_interpreted_kernels():
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], capture_output=True, text=True, env=env)
    assert done.stdout == "all agree\n", done.stdout + done.stderr


@pytest.fixture
def as_if_on_a_gpu(monkeypatch):
    monkeypatch.setattr(multi_tensor, "_on_gpu", lambda tensor: True)
    monkeypatch.setattr(multi_tensor, "_works", lambda device: True)
    monkeypatch.setattr(multi_tensor, "_WORTH_IT", 10)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


def test_tensors_of_a_cpu_are_left_to_others():
    assert not multi_tensor.usable([torch.zeros(1 << 21)])


def test_what_kernels_can_take(as_if_on_a_gpu):
    plain = [torch.zeros(4, 6), torch.zeros(5)]
    assert multi_tensor.usable(plain) and multi_tensor.usable(plain, plain)
    assert not multi_tensor.usable([torch.zeros(9)])
    assert not multi_tensor.usable([torch.zeros(40, dtype=torch.bfloat16)])
    assert not multi_tensor.usable(plain, [torch.zeros(6, 4).T, torch.zeros(5)])


def test_a_graph_is_captured_only_with_tables_that_are_there(as_if_on_a_gpu, monkeypatch):
    known, new = [torch.zeros(20)], [torch.zeros(20)]
    multi_tensor._table("address", known)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert multi_tensor.usable(known) and not multi_tensor.usable(new)


def test_it_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("DECAYLAB_TRITON", "0")
    multi_tensor._works.cache_clear()
    assert not multi_tensor._works(torch.device("cpu"))
    multi_tensor._works.cache_clear()


def test_tables_name_every_block_and_every_row_once(monkeypatch):
    monkeypatch.setattr(multi_tensor, "_BLOCK", 4)
    tensors = [torch.zeros(3, 3), torch.zeros(2), torch.zeros(2, 2, 2)]
    assert multi_tensor._made("block", tensors).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [2, 0], [2, 1]]
    assert multi_tensor._made("size", tensors).tolist() == [9, 2, 8]
    assert multi_tensor._made("row length", tensors).tolist() == [3, 1, 4]
    assert multi_tensor._made("row", tensors, 4).tolist() == [[0, 0], [0, 1], [0, 2], [2, 0], [2, 1]]
    assert multi_tensor._made("row", tensors, 1).tolist() == [[1, 0], [1, 1]]
    assert [multi_tensor._padded(n) for n in (1, 2, 3, 768, 1024)] == [1, 2, 4, 1024, 1024]
    assert multi_tensor._made("address", tensors).tolist() == [t.data_ptr() for t in tensors]


def test_tables_are_kept_and_the_oldest_forgotten():
    first = torch.zeros(3)
    table = multi_tensor._table("size", [first])
    assert multi_tensor._table("size", [torch.ones(3)]) is table  # the same shapes
    for n in range(multi_tensor._MOST_TABLES):
        multi_tensor._table("size", [torch.zeros(n + 10)])
    assert len(multi_tensor._tables) == multi_tensor._MOST_TABLES
    assert multi_tensor._table("size", [first]) is not table
