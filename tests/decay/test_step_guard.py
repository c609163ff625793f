"""A step that fails puts back what was lent for it, whoever has wrapped the step."""

import importlib

import pytest
import torch
from tests.support.rule_cases import weights

from decaylab import decay


def _fail_in_kernel(monkeypatch, seen):
    def kernel(*args, weight_decay, **kwargs):
        seen.append(weight_decay)
        raise RuntimeError("out of memory")

    module = importlib.import_module("torch.optim.adam")
    for name in ("_fused_adam", "_single_tensor_adam", "_multi_tensor_adam"):
        monkeypatch.setattr(module, name, kernel)


@pytest.mark.parametrize("order", ["plain", "scheduler first", "scheduler later", "both"])
def test_an_exception_in_a_kernel_leaves_nothing_lent(monkeypatch, order):
    params, seen = weights(torch.float32), []
    opt = torch.optim.AdamW(params, lr=0.1, weight_decay=0.0)
    if order in ("scheduler first", "both"):
        torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 1.0)
    handle = decay.attach(opt, decay.Decoupled(0.25))
    if order in ("scheduler later", "both"):
        torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 1.0)
    for p in params:
        p.grad = torch.ones_like(p)
    _fail_in_kernel(monkeypatch, seen)
    with pytest.raises(RuntimeError, match="out of memory"):
        opt.step()
    assert seen == [0.25]  # it was lent
    assert opt.param_groups[0]["weight_decay"] == 0 and handle.steps == 0


def test_an_exception_leaves_the_users_gradients(monkeypatch):
    params = weights(torch.float32)
    opt = torch.optim.AdamW(params, lr=0.1, weight_decay=0.0)
    decay.attach(opt, decay.L2(0.25), native=False)
    grads = [torch.ones_like(p) for p in params]
    for p, g in zip(params, grads, strict=True):
        p.grad = g
    _fail_in_kernel(monkeypatch, [])
    with pytest.raises(RuntimeError):
        opt.step()
    assert all(p.grad is g for p, g in zip(params, grads, strict=True))


def test_the_step_is_the_classes_own_again_when_the_last_rule_goes():
    params = weights(torch.float32)
    opt = torch.optim.SGD(params, lr=0.1)
    one = decay.attach(opt, decay.L2(0.1), params=params[:1])
    two = decay.attach(opt, decay.L2(0.1), params=params[1:])
    one.remove()
    assert "step" in vars(opt)
    two.remove()
    assert "step" not in vars(opt) and not [name for name in vars(opt) if "decaylab" in name]


def test_a_scheduler_that_wrapped_the_step_stays_when_the_rule_goes():
    opt = torch.optim.SGD(weights(torch.float32), lr=0.1)
    handle = decay.attach(opt, decay.L2(0.1))
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 1)
    wrapped = opt.step
    handle.remove()
    assert opt.step is wrapped
    opt.step()
    scheduler.step()
    assert opt._opt_called and opt.param_groups[0]["lr"] == pytest.approx(0.01)
