"""Rules that are made for one family of optimizers: which ones they take, and whose second moments they read."""

import copy

import pytest
import torch
from tests.support.rule_cases import gradients, optimizer, train, weights

from decaylab import decay
from decaylab.errors import DecaylabError
from decaylab.train.signsgd import SignSGD


def step(opt, params, value=0.0):
    for p in params:
        p.grad = torch.full_like(p, value)
    opt.step()


def test_optimizers_without_the_needed_settings_are_refused():
    with pytest.raises(DecaylabError, match=r"Scheduled is defined for Adam's family and for SGD, not for Adagrad"):
        decay.attach(torch.optim.Adagrad(weights(), lr=0.1), decay.Scheduled(0.1))
    with pytest.raises(DecaylabError, match=r"Rotational knows AdamW, SGD with momentum and Lion, not Adagrad"):
        decay.attach(torch.optim.Adagrad(weights(), lr=0.1), decay.Rotational(0.1))


@pytest.mark.parametrize("rule", [decay.Scheduled, decay.Rotational])
def test_a_momentum_or_betas_that_mean_something_else_are_refused(rule):
    others = [torch.optim.Adamax(weights(), lr=0.1), torch.optim.RMSprop(weights(), lr=0.1, momentum=0.9)]
    others.append(SignSGD(weights(), lr=0.1, momentum=0.9))
    if hasattr(torch.optim, "Muon"):
        others.append(torch.optim.Muon(weights(shapes=[(3, 4)]), lr=0.1, weight_decay=0.0))
    for opt in others:
        with pytest.raises(DecaylabError, match=rf"not .*{type(opt).__name__}"):
            decay.attach(opt, rule(0.1))


def test_a_subclass_of_adam_under_another_name_is_taken():
    class Mine(torch.optim.AdamW):
        pass

    decay.attach(Mine(weights(), lr=0.1, weight_decay=0.0), decay.Scheduled(0.1))


def test_second_moments_under_another_name_are_refused():
    class OtherAdam(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.1, "betas": (0.9, 0.999), "weight_decay": 0.0})

        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["exp_avg"] = p.grad.clone()

    params = weights()
    opt = OtherAdam(params)
    decay.attach(opt, decay.Scheduled(0.1))
    step(opt, params)
    with pytest.raises(DecaylabError, match="does not keep: use Decoupled"):
        step(opt, params)


def test_adams_with_amsgrad_where_a_parameter_joins_late():
    params, grads, lam = weights(), gradients(4), 0.01
    opt = torch.optim.AdamW(params, lr=0.1, weight_decay=0.0, amsgrad=True)
    decay.attach(opt, decay.Scheduled(lam))
    for t, g in enumerate(grads):
        g = [torch.zeros_like(x) if t == 2 else x for x in g]
        for i, (p, x) in enumerate(zip(params, g, strict=True)):
            p.grad = None if i == 1 and t < 2 else x
        before = [p.detach().clone() for p in params]
        twin = copy.deepcopy(params)
        for p, q in zip(twin, params, strict=True):
            p.grad = q.grad
        plain = torch.optim.AdamW(twin, lr=0.1, weight_decay=0.0, amsgrad=True)
        state = {k: v for k, v in opt.state_dict().items() if k == "state"}
        plain.load_state_dict(copy.deepcopy(plain.state_dict() | state))
        opt.step()
        plain.step()
        moved = [p for p in twin if p.grad is not None]
        largest = [plain.state[p]["max_exp_avg_sq"] / (1 - 0.999 ** float(plain.state[p]["step"])) for p in moved]
        mean = sum(v.sum() for v in largest) / sum(v.numel() for v in largest)
        for old, p, q in zip(before, params, twin, strict=True):
            share = 0.0 if p.grad is None else 0.1 * lam / mean.sqrt()
            torch.testing.assert_close(p.detach(), q.detach() - share * old, rtol=0, atol=1e-12)


def test_adams_with_amsgrad_takes_the_running_maximum():
    params, grads, lam = weights(), gradients(3), 0.01
    grads[1] = [0.1 * g for g in grads[1]]  # so that the maximum is not the moment
    opt = torch.optim.AdamW(params, lr=0.1, weight_decay=0.0, amsgrad=True)
    decay.attach(opt, decay.Scheduled(lam))
    plain_params = weights()
    plain = torch.optim.AdamW(plain_params, lr=0.1, weight_decay=0.0, amsgrad=True)
    for t, g in enumerate(grads, start=1):
        before = [p.detach().clone() for p in params]
        with torch.no_grad():
            for p, q in zip(plain_params, params, strict=True):
                p.copy_(q)
        train(opt, [g])
        train(plain, [g])
        largest = [plain.state[p]["max_exp_avg_sq"] / (1 - 0.999**t) for p in plain_params]
        mean = sum(v.sum() for v in largest) / sum(v.numel() for v in largest)
        for old, p, q in zip(before, params, plain_params, strict=True):
            expected = q.detach() - 0.1 * lam / mean.sqrt() * old
            torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-12)


def test_all_gradients_zero_do_not_divide_by_zero():
    params = weights()
    opt = optimizer("adam", params)
    decay.attach(opt, decay.Scheduled(0.1))
    start = [p.detach().clone() for p in params]
    step(opt, params)
    assert all(torch.equal(p.detach(), s) for p, s in zip(params, start, strict=True))
