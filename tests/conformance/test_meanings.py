"""Every meaning of lambda is found in an optimizer that was written to mean it, whatever it does with gradients."""

import math

import pytest
import torch
from torch.optim import Optimizer

from decaylab import decay
from decaylab.conformance import MEANINGS, check
from decaylab.errors import DecaylabError


class _Shrinking(Optimizer):
    """Lion-like updates, and a share of the weight by a formula of (lr, λ, first lr, largest lr, step, gradient)."""

    def __init__(self, params, lr, weight_decay, *, share, place="before", momentum=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._share, self._place = share, place

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["first"] = group.get("first", group["initial_lr"])
            group["seen"] = max(group.get("seen", 0.0), float(group["lr"]))
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                square = weight.grad.square().mean()
                state["count"] = state.get("count", 0) + 1
                state["second"] = 0.999 * state.get("second", 0.0) + 0.001 * square
                settled = state["second"] / (1 - 0.999 ** state["count"])
                share = self._share(group["lr"], group["weight_decay"], group["first"], group["seen"], weight, settled)
                update = group["lr"] * weight.grad.sign()
                if self._place == "before":
                    weight.mul_(1 - share).sub_(update)
                elif self._place == "after":
                    weight.sub_(update).mul_(1 - share)
                elif self._place == "cautious":
                    weight.sub_(share * weight * (update * weight >= 0)).sub_(update)
                else:
                    weight.sub_(share * weight * (weight > 0)).sub_(update)


SHARES = {
    "torch": lambda lr, wd, first, seen, p, v: lr * wd,
    "independent": lambda lr, wd, first, seen, p, v: wd * lr / first,
    "independent_seen": lambda lr, wd, first, seen, p, v: wd * lr / seen,
    "constant": lambda lr, wd, first, seen, p, v: wd,
    "palm": lambda lr, wd, first, seen, p, v: lr * lr * wd,
    "adamc": lambda lr, wd, first, seen, p, v: wd * lr * lr / first,
    "adamc_seen": lambda lr, wd, first, seen, p, v: wd * lr * lr / seen,
    "proximal": lambda lr, wd, first, seen, p, v: 1 - 1 / (1 + lr * wd),
    "exponential": lambda lr, wd, first, seen, p, v: 1 - math.exp(-lr * wd),
    "stable": lambda lr, wd, first, seen, p, v: lr * wd / (v.sqrt() + 1e-8) if v else 0.0,
    "sgds": lambda lr, wd, first, seen, p, v: lr * wd / (1 - 0.75),
    "rms": lambda lr, wd, first, seen, p, v: lr * wd * p.square().mean().sqrt(),
    "double": lambda lr, wd, first, seen, p, v: 2 * lr * wd,
    "first_lr": lambda lr, wd, first, seen, p, v: first * wd,
    "growth": lambda lr, wd, first, seen, p, v: -lr * wd,
}


def test_every_meaning_has_a_case():
    assert SHARES.keys() == MEANINGS.keys()


@pytest.mark.parametrize("meaning", SHARES)
def test_meaning_is_found(meaning):
    momentum = 0.75 if meaning == "sgds" else 0.0

    def factory(params, lr, weight_decay):
        return _Shrinking(params, lr, weight_decay, share=SHARES[meaning], momentum=momentum)

    report = check(factory)
    assert (report.meaning, report.entry) == (meaning, "before"), report
    expected = {"first_lr": {"schedule"}, "growth": {"sign"}}.get(meaning, set())
    assert {finding.identity for finding in report.broken} == expected, report


@pytest.mark.parametrize("place", ["after", "cautious", "masked"])
def test_place_is_found(place):
    def factory(params, lr, weight_decay):
        return _Shrinking(params, lr, weight_decay, share=SHARES["torch"], place=place)

    report = check(factory)
    assert (report.entry, report.meaning) == (place, "torch"), report
    assert report.conforms, report


def test_power_law_is_told_where_no_meaning_fits():
    def factory(params, lr, weight_decay):
        return _Shrinking(params, lr, weight_decay, share=lambda lr, wd, *_: 0.3 * lr**1.5 * wd)

    finding = check(factory)["meaning"]
    assert finding.status == "broken" and "0.3 λ lr^1.5" in finding.text


RULES = {
    "l2": lambda wd: decay.L2(wd),
    "torch": lambda wd: decay.Decoupled(wd),
    "independent": lambda wd: decay.Independent(wd),
    "constant": lambda wd: decay.Constant(wd),
    "palm": lambda wd: decay.QuadraticLR(wd),
    "adamc": lambda wd: decay.Corrected(wd),
}


@pytest.mark.parametrize("meaning", RULES)
def test_our_own_rules(meaning):
    def factory(params, lr, weight_decay):
        optimizer = torch.optim.Adam(params, lr=lr)
        decay.attach(optimizer, RULES[meaning](weight_decay))
        return optimizer

    report = check(factory, convention=meaning)
    assert report.conforms, report
    assert report["golden"].status == "holds" and report["group-lr"].status != "broken"


def test_our_cautious_rule():
    def factory(params, lr, weight_decay):
        optimizer = torch.optim.Adam(params, lr=lr)
        decay.attach(optimizer, decay.Cautious(weight_decay))
        return optimizer

    report = check(factory)
    assert (report.entry, report.meaning, report.conforms) == ("cautious", "torch", True), report
    assert "published vector 'AdamW, cautious decay'" in report["golden"].text


def test_asked_for_another_convention():
    report = check(torch.optim.AdamW, "l2")
    assert [finding.identity for finding in report.broken] == ["convention"]
    assert "asked for l2, found torch" in report["convention"].text
    with pytest.raises(DecaylabError, match="did you mean 'constant'"):
        check(torch.optim.AdamW, "constnat")
