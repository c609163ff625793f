"""Optimizers that are broken on purpose, one identity each: the check names that identity, and no other."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from decaylab.conformance import IDENTITIES, check
from decaylab.errors import DecaylabError


class _Honest(Optimizer):
    """AdamW in the open, with one method a mistake."""

    def __init__(self, params, lr, weight_decay, **more):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": (0.9, 0.999), "eps": 1e-8, **more})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                gradient = self.gradient(group, weight)
                if gradient is None:
                    continue
                state = self.state[weight]
                if not state:
                    state.update(step=0, exp_avg=torch.zeros_like(weight), exp_avg_sq=torch.zeros_like(weight))
                state["step"] += 1
                self.decay(group, weight, state)
                self.update(group, weight, gradient, state)

    def gradient(self, group, weight):
        return weight.grad

    def decay(self, group, weight, state):
        weight.mul_(1 - group["lr"] * group["weight_decay"])

    def update(self, group, weight, gradient, state):
        (beta1, beta2), step = group["betas"], state["step"]
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        size = (state["exp_avg_sq"] / (1 - beta2**step)).sqrt_().add_(group["eps"])
        weight.sub_(group["lr"] * (state["exp_avg"] / (1 - beta1**step)) / size)


class DecayInMomentOnly(_Honest):
    def decay(self, group, weight, state):
        state["exp_avg"].add_(weight, alpha=group["weight_decay"])


class DecayInMomentToo(_Honest):
    def decay(self, group, weight, state):
        super().decay(group, weight, state)
        state["exp_avg"].add_(weight, alpha=0.1 * group["weight_decay"])


class IgnoresSchedule(_Honest):
    def decay(self, group, weight, state):
        weight.mul_(1 - group["initial_lr"] * group["weight_decay"])


class CachesCoefficient(_Honest):
    def __init__(self, params, lr, weight_decay):
        super().__init__(params, lr, weight_decay)
        self.coefficient = weight_decay

    def decay(self, group, weight, state):
        weight.mul_(1 - group["lr"] * self.coefficient)


class CachesGroupCoefficient(_Honest):
    def decay(self, group, weight, state):
        state.setdefault("coefficient", group["weight_decay"])
        weight.mul_(1 - group["lr"] * state["coefficient"])


class CachesLr(_Honest):
    def __init__(self, params, lr, weight_decay):
        super().__init__(params, lr, weight_decay)
        self.max_lr = float(lr)

    def decay(self, group, weight, state):
        weight.mul_(1 - group["weight_decay"] * group["lr"] ** 2 / self.max_lr)


class AliasesLr(_Honest):
    def decay(self, group, weight, state):
        group.setdefault("max_lr", group["lr"] if isinstance(group["lr"], torch.Tensor) else group["initial_lr"])
        weight.mul_(1 - group["weight_decay"] * group["lr"] ** 2 / group["max_lr"])


class MovesWithoutGradient(_Honest):
    def gradient(self, group, weight):
        return torch.zeros_like(weight) if weight.grad is None else weight.grad


class DecaysWithoutGradient(_Honest):
    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None and weight in self.state:
                    self.decay(group, weight, {})


class WritesIntoGradient(_Honest):
    def gradient(self, group, weight):
        return None if weight.grad is None else weight.grad.mul_(1.0 + 1e-9)


class ReplacesGradient(_Honest):
    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad = None if weight.grad is None else weight.grad.clone()


class LosesState(_Honest):
    def state_dict(self):
        held = super().state_dict()
        lost = {key: {**state, "exp_avg": 0 * state["exp_avg"]} for key, state in held["state"].items()}
        return {**held, "state": lost}


class CountsOutsideState(_Honest):
    count = 0

    def step(self, closure=None):
        self.count += 1
        super().step()

    def update(self, group, weight, gradient, state):
        super().update(group, weight, gradient, {**state, "step": self.count})


class RefusesState(_Honest):
    def load_state_dict(self, state_dict):
        raise RuntimeError("no such thing")


class DividesMomentInPlace(_Honest):
    def update(self, group, weight, gradient, state):
        (beta1, beta2), step = group["betas"], state["step"]
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        size = state["exp_avg_sq"].div_(1 - beta2**step).sqrt().add_(group["eps"])
        weight.sub_(group["lr"] * (state["exp_avg"] / (1 - beta1**step)) / size)


class Grows(_Honest):
    def decay(self, group, weight, state):
        weight.mul_(1 + group["lr"] * group["weight_decay"])


class DecayDoesNotAddUp(_Honest):
    """A moving average of an anchor that never decays: each step shrinks, the sum does not."""

    def decay(self, group, weight, state):
        super().decay(group, weight, state)
        state.setdefault("anchor", weight / (1 - group["lr"] * group["weight_decay"]))
        weight.lerp_(state["anchor"], 0.1)


class NoEffect(_Honest):
    def decay(self, group, weight, state):
        pass


class MovesAtRest(_Honest):
    def update(self, group, weight, gradient, state):
        super().update(group, weight, gradient, state)
        weight.add_(1e-6)


class AnotherMethodAtZero(_Honest):
    def update(self, group, weight, gradient, state):
        super().update(group, weight, gradient * (2.0 if group["weight_decay"] == 0 else 1.0) + 1.0, state)


class ForgetsBiasCorrectionWithDecay(_Honest):
    def update(self, group, weight, gradient, state):
        skip = 5 if group["weight_decay"] > 0 else 0
        super().update(group, weight, gradient, {**state, "step": state["step"] + skip})


class PromotesWeights(_Honest):
    def update(self, group, weight, gradient, state):
        super().update(group, weight, gradient, state)
        if weight.dtype == torch.bfloat16:
            weight.data = weight.data.float()


class DecayTurnsWithMaximize(_Honest):
    def __init__(self, params, lr, weight_decay, maximize=False):
        super().__init__(params, lr, weight_decay, maximize=maximize)

    def decay(self, group, weight, state):
        weight.mul_(1 - group["lr"] * group["weight_decay"] * (-1 if group["maximize"] else 1))

    def gradient(self, group, weight):
        return -weight.grad if group["maximize"] and weight.grad is not None else weight.grad


class ForeachForgetsDecay(_Honest):
    def __init__(self, params, lr, weight_decay, foreach=False):
        super().__init__(params, lr, weight_decay, foreach=foreach)

    def decay(self, group, weight, state):
        weight.mul_(1 - group["lr"] * group["weight_decay"] * (0 if group["foreach"] else 1))


class RandomUpdate(_Honest):
    calls = 0

    def update(self, group, weight, gradient, state):
        RandomUpdate.calls += 1
        super().update(group, weight, gradient + RandomUpdate.calls, state)


BROKEN = {
    DecayInMomentOnly: {"meaning", "memory", "sign"},
    DecayInMomentToo: {"meaning", "memory", "sign"},
    IgnoresSchedule: {"schedule"},
    CachesCoefficient: {"group-decay", "resume-elsewhere"},
    CachesGroupCoefficient: {"group-decay"},
    CachesLr: {"group-lr", "resume-elsewhere"},
    AliasesLr: {"tensor-lr"},
    DecaysWithoutGradient: {"no-gradient"},
    MovesWithoutGradient: {"no-gradient"},
    WritesIntoGradient: {"gradient-kept"},
    ReplacesGradient: {"gradient-kept"},
    LosesState: {"resume"},
    CountsOutsideState: {"resume"},
    RefusesState: {"resume"},
    DividesMomentInPlace: {"second-moment"},
    Grows: {"sign"},
    DecayDoesNotAddUp: {"meaning", "zero-gradient"},
    NoEffect: {"meaning"},
    MovesAtRest: {"zero-gradient"},
    AnotherMethodAtZero: {"zero-decay", "zero-gradient"},
    ForgetsBiasCorrectionWithDecay: {"zero-decay"},
    PromotesWeights: {"number-types"},
    DecayTurnsWithMaximize: {"maximize"},
    ForeachForgetsDecay: {"foreach"},
    RandomUpdate: {"deterministic"},
}


def test_honest_optimizer_conforms():
    report = check(_Honest, "torch")
    assert report.conforms and report["golden"].status == "holds", report


@pytest.mark.parametrize("optimizer", BROKEN, ids=lambda optimizer: optimizer.__name__)
def test_broken_optimizer_is_named(optimizer):
    report = check(optimizer)
    assert {finding.identity for finding in report.broken} == BROKEN[optimizer], report
    assert not report.conforms


def test_every_identity_is_broken_by_one():
    assert set(IDENTITIES) - {"golden"} <= set().union(*BROKEN.values())


def test_golden_case_is_missed_when_decay_waits_for_the_second_step():
    class Late(SGD):
        """Shrinks by lr λ, but in a natural run from the third step on only: single steps cannot show it."""

        def step(self, closure=None):
            weight = self.param_groups[0]["params"][0]
            held = self.state[weight].setdefault("held", weight.detach().clone())
            shift = 1e-3 * float((weight.detach() - held).abs().max() < 1.0) * self.param_groups[0]["weight_decay"]
            super().step()
            with torch.no_grad():
                weight.add_(shift * float(weight.shape == (2, 2)))

    report = check(Late)
    assert report["golden"].status == "broken" and "off by" in report["golden"].text


def test_single_precision_inside_is_said():
    class Single(AdamW):
        def step(self, closure=None):
            super().step()
            with torch.no_grad():
                for weight in self.param_groups[0]["params"]:
                    weight.copy_(weight.float())

    report = check(Single)
    assert report.meaning == "torch" and "single precision" in report.convention


def test_caller_is_left_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    check(torch.optim.SGD)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (torch.optim.LBFGS, "cannot build .*LBFGS.*weight_decay"),
        (lambda params, lr, weight_decay: nn.Linear(2, 2), "gave Linear, which is not an optimizer"),
        (lambda params, lr, weight_decay: Optimizer(params, {"rate": lr}), "keeps no lr"),
        (lambda params, lr, weight_decay: Optimizer(params, {"lr": lr}), "cannot step: NotImplementedError"),
    ],
)
def test_what_cannot_be_run_is_the_callers_error(factory, message):
    with pytest.raises(DecaylabError, match=message):
        check(factory)
