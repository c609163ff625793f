"""Large tensors in blocks: what every rule does to them, bits where the arithmetic allows, and memory that is kept."""

import pytest
import torch
from tests.support.rule_cases import CASES, LAMBDA, gradients, learning_rates, optimizer, oracle, train, weights
from torch.utils._python_dispatch import TorchDispatchMode

from decaylab import decay
from decaylab.tensors import blocks, foreach

PAIRS = [(case, kind) for case in CASES for kind in case.optimizers]


@pytest.fixture
def small_pieces(monkeypatch):
    """Every tensor of the battery is large."""
    monkeypatch.setattr(foreach, "_PIECE_CPU", 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@pytest.mark.parametrize(("case", "kind"), PAIRS, ids=[f"{case.name}-{kind}" for case, kind in PAIRS])
def test_every_rule_agrees_with_the_oracle_in_blocks(case, kind, small_pieces):
    start, grads, lrs = weights(), gradients(5), learning_rates(5)
    expected = oracle(case.name, kind, start, grads, lrs, 0.1, LAMBDA)
    opt = optimizer(kind, start)
    decay.attach(opt, case.rule(), native=False)
    for got, want in zip(train(opt, grads, lrs), expected, strict=True):
        torch.testing.assert_close(got, torch.from_numpy(want), rtol=0, atol=2e-12)


@pytest.mark.parametrize("name", ["l2", "l2_to_anchor", "cautious"])
def test_elementwise_rules_have_the_bits_of_foreach(name, monkeypatch):
    case = next(case for case in CASES if case.name == name)
    found = []
    for size in (1 << 20, 4):
        monkeypatch.setattr(foreach, "_PIECE_CPU", size)
        opt = optimizer("adam", weights(torch.float32))
        decay.attach(opt, case.rule(), native=False)
        grads = gradients(5)
        grads[2] = [torch.zeros_like(g) for g in grads[2]]
        found.append(train(opt, grads, learning_rates(5)))
    assert all(map(torch.equal, *found))


def test_a_small_update_keeps_its_sign_in_blocks(small_pieces):
    # The product of weight and update would round to zero here, and zero decays.
    weight = torch.nn.Parameter(torch.full((8,), 1e-30))
    opt = torch.optim.SGD([weight], lr=1e-20)
    decay.attach(opt, decay.build("cautious", 1e19))  # lr times lambda is 0.1
    weight.grad = torch.tensor([-1e-15, 1e-15] * 4)  # away from zero, and towards it
    opt.step()
    moved = 1e-30 + torch.tensor([1e-35, -1e-35] * 4)
    torch.testing.assert_close(weight.detach(), moved - torch.tensor([0.0, 1e-31] * 4), rtol=1e-6, atol=0)


def test_gradients_are_given_back_and_memory_is_used_again():
    start = [torch.nn.Parameter(torch.randn(6, 5)), torch.nn.Parameter(torch.randn(4))]
    opt = torch.optim.SGD(start, lr=0.1)
    handle = decay.attach(opt, decay.build("l2_to_anchor", 0.1))
    seen = []
    opt.register_step_pre_hook(lambda *_: seen.append([p.grad.data_ptr() for p in start]))
    for _ in range(3):
        grads = [torch.randn_like(p) for p in start]
        for p, g in zip(start, grads, strict=True):
            p.grad = g
        opt.step()
        assert all(p.grad is g for p, g in zip(start, grads, strict=True))
    assert seen[0] == seen[1] == seen[2]
    assert not any("kept" in str(key) for key in opt.state_dict()["state"][0])
    handle.remove()


def test_scratch_holds_a_block_of_any_size():
    first = blocks.scratch(torch.empty(3, 5))
    assert first.shape == (3, 5) and blocks.scratch(torch.empty(3, 5)).data_ptr() == first.data_ptr()
    assert blocks.scratch(torch.empty(3, 5), slot=1).data_ptr() != first.data_ptr()
    large = torch.empty(foreach.piece_size(first) + 7)
    assert blocks.scratch(large).shape == large.shape
    assert blocks.scratch(torch.empty(2, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [3, 1 << 20])
def test_products_of_offsets(dtype, size, monkeypatch):
    monkeypatch.setattr(foreach, "_PIECE_CPU", size)
    torch.manual_seed(0)
    shapes = [(7, 5), (1,), (30,), (2, 3, 4)]
    w, o, g = ([torch.randn(shape).to(dtype) for shape in shapes] for _ in range(3))
    w[3], o[3], g[3] = (t.transpose(0, 2) for t in (w[3], o[3], g[3]))
    inner, squares = blocks.offset_products(w, w, o, g)
    for i, (a, b, c) in enumerate(zip(w, o, g, strict=True)):
        away = (a - b).double()
        assert squares[i].item() == pytest.approx(away.square().sum().item(), rel=1e-6)
        assert inner[i].item() == pytest.approx((away * c.double()).sum().item(), rel=1e-5, abs=1e-5)
    assert torch.equal(blocks.offset_products(w, w, o)[1], squares)


class Calls(TorchDispatchMode):
    """Names of what reaches the dispatcher."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_products_of_small_tensors_bring_no_index_to_the_device():
    # In a CUDA graph nothing can be brought there from the CPU.
    w, o, g = ([torch.randn(3, 2), torch.randn(4)] for _ in range(3))
    with Calls() as calls:
        blocks.offset_products(w, w, o, g)
    assert not {"aten::index_put_", "aten::lift_fresh", "aten::_to_copy"} & set(calls.names)
