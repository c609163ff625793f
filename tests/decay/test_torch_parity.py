"""Where torch has the rule, the rule is torch's, bit for bit: in each implementation, and by kernel or by own pass."""

import pytest
import torch
from tests.support.rule_cases import gradients, train, weights

from decaylab import decay

IMPLEMENTATIONS = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
LRS = [0.1, 0.05, 0.2, 0.01]
PAIRS = {
    "SGD": (torch.optim.SGD, decay.L2, {}),
    "SGD momentum": (torch.optim.SGD, decay.L2, {"momentum": 0.9, "dampening": 0.1}),
    "SGD nesterov": (torch.optim.SGD, decay.L2, {"momentum": 0.9, "nesterov": True}),
    "Adam": (torch.optim.Adam, decay.L2, {}),
    "Adam amsgrad": (torch.optim.Adam, decay.L2, {"amsgrad": True}),
    "AdamW": (torch.optim.AdamW, decay.Decoupled, {}),
    "AdamW amsgrad": (torch.optim.AdamW, decay.Decoupled, {"amsgrad": True, "maximize": True}),
}


def compare(torch_optimizer, rule, options, native, dtype):
    grads = gradients(4)
    expected = train(torch_optimizer(weights(dtype), lr=0.1, weight_decay=0.1, **options), grads, LRS)
    params = weights(dtype)
    optimizer = torch_optimizer(params, lr=0.1, weight_decay=0.0, **options)
    decay.attach(optimizer, rule(0.1), native=native)
    assert all(map(torch.equal, train(optimizer, grads, LRS), expected))
    assert all(torch.equal(p.grad, g.to(dtype)) for p, g in zip(params, grads[-1], strict=True))
    assert all(group["weight_decay"] == 0 for group in optimizer.param_groups)


@pytest.mark.parametrize("native", [True, False], ids=["native", "own"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", PAIRS)
def test_bit_for_bit(name, implementation, native):
    torch_optimizer, rule, options = PAIRS[name]
    compare(torch_optimizer, rule, options | IMPLEMENTATIONS[implementation], native, torch.float32)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", PAIRS)
def test_bit_for_bit_in_bfloat16(name, implementation):
    # The own pass rounds once more than a fused kernel does, so here only the kernel's way is torch's.
    torch_optimizer, rule, options = PAIRS[name]
    compare(torch_optimizer, rule, options | IMPLEMENTATIONS[implementation], True, torch.bfloat16)


def test_the_own_pass_in_bfloat16_is_torchs_loop():
    compare(torch.optim.AdamW, decay.Decoupled, {"foreach": False}, False, torch.bfloat16)


@pytest.mark.parametrize("native", [True, False], ids=["native", "own"])
@pytest.mark.parametrize("name", ["NAdam", "RAdam", "Muon"])
def test_other_decoupled_optimizers(name, native):
    if not hasattr(torch.optim, name):
        pytest.skip(f"this torch has no {name}")
    options = {} if name == "Muon" else {"decoupled_weight_decay": True}
    shapes = ((3, 8), (4, 2))
    grads = gradients(4, shapes=shapes)
    make = getattr(torch.optim, name)
    expected = train(make(weights(torch.float32, shapes=shapes), lr=0.1, weight_decay=0.1, **options), grads, LRS)
    optimizer = make(weights(torch.float32, shapes=shapes), lr=0.1, weight_decay=0.0, **options)
    decay.attach(optimizer, decay.Decoupled(0.1), native=native)
    assert all(map(torch.equal, train(optimizer, grads, LRS), expected))


@pytest.mark.parametrize("rule", [decay.L2, decay.Decoupled], ids=["l2", "decoupled"])
def test_either_convention_on_adams_kernel(rule):
    # Adam and AdamW are one kernel with a switch; it is back in its place after the step.
    reference = torch.optim.Adam if rule is decay.L2 else torch.optim.AdamW
    other = torch.optim.AdamW if rule is decay.L2 else torch.optim.Adam
    grads = gradients(4)
    expected = train(reference(weights(), lr=0.1, weight_decay=0.1), grads, LRS)
    optimizer = other(weights(), lr=0.1, weight_decay=0.0)
    flag = optimizer.param_groups[0]["decoupled_weight_decay"]
    decay.attach(optimizer, rule(0.1))
    assert all(map(torch.equal, train(optimizer, grads, LRS), expected))
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is flag


def test_a_part_of_a_group_decays_alone():
    # The kernel cannot decay half a group, so the rule does; the other half stays as it is.
    params, twin = weights(torch.float32), weights(torch.float32)
    optimizer = torch.optim.AdamW(params, lr=0.1, weight_decay=0.0, fused=True)
    decay.attach(optimizer, decay.Decoupled(0.1), params=params[:2])
    groups = [{"params": twin[:2], "weight_decay": 0.1}, {"params": twin[2:], "weight_decay": 0.0}]
    grads = gradients(4)
    expected = train(torch.optim.AdamW(groups, lr=0.1, fused=True), grads, LRS)
    assert all(map(torch.equal, train(optimizer, grads, LRS), expected))
