"""Identities about what every torch optimizer promises: gradients, missing gradients, state, number types, options."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from decaylab.conformance.context import Context, broken, holds, skipped
from decaylab.conformance.finding import Finding
from decaylab.conformance.subject import MULTIPLIERS, difference, draws
from decaylab.errors import DecaylabError

_LR, _DECAY = 0.05, 0.2
# Another order of the same sums, or a float32 scalar in the state, is no defect.
_ROUNDING = 1e-7


def no_gradient(context: Context) -> Finding:
    """A parameter whose gradient is None is left alone: not updated, not decayed."""
    name, subject = "no-gradient", context.subject
    start = draws(2, seed=21)
    weights = [nn.Parameter(value.clone()) for value in start]
    optimizer = subject.build(weights, _LR, _DECAY)
    for gradient in draws(3, seed=22):
        weights[0].grad = gradient.clone()
        subject.step(optimizer)
    never = difference(weights[1].detach(), start[1])
    if never:
        return broken(name, f"a parameter that never had a gradient moved by {never:.3g}", moved=never)
    weights[1].grad = draws(1, seed=23)[0]
    try:
        subject.step(optimizer)
    except DecaylabError as error:
        return broken(name, f"a parameter whose first gradient comes at a later step stops it: {error}")
    held = weights[1].detach().clone()
    weights[1].grad = None
    weights[0].grad = draws(1, seed=24)[0]
    subject.step(optimizer)
    later = difference(weights[1].detach(), held)
    if later:
        return broken(
            name, f"a parameter that had a gradient before, and has none now, moved by {later:.3g}", moved=later
        )
    return holds(name, "never moved, with and without steps before")


def gradient_kept(context: Context) -> Finding:
    """A step reads the gradient and leaves it as it was."""
    name = "gradient-kept"
    weight = nn.Parameter(draws(1, seed=25)[0])
    optimizer = context.subject.build([weight], _LR, _DECAY)
    for gradient in draws(3, seed=26):
        weight.grad = gradient.clone()
        held = weight.grad
        context.subject.step(optimizer)
        if weight.grad is not held:
            return broken(name, "the gradient was replaced by another object")
        off = difference(held, gradient)
        if off:
            return broken(name, f"the step changed the gradient by {off:.3g}", difference=off)
    return holds(name, "bit for bit as before the step")


def resume(context: Context) -> Finding:
    """After ``load_state_dict`` a new optimizer goes on as the old one would have."""
    name = "resume"
    off, note = _resumed(context, _LR, _DECAY)
    if off <= _ROUNDING:
        how = "bit-equal" if off == 0 else f"equal but for rounding ({off:.1g}{note})"
        return holds(name, f"state_dict of step 3 in a new optimizer: the next four steps are {how}", difference=off)
    return broken(name, f"after load_state_dict the next four steps are off by {off:.3g}{note}", difference=off)


def resume_elsewhere(context: Context) -> Finding:
    """The same into an optimizer that was built with another lr and lambda: the state holds all that matters."""
    name = "resume-elsewhere"
    if not context.holds_decay:
        return skipped(name, "its parameter groups hold no weight_decay")
    if resume(context).status == "broken":
        return skipped(name, "resume is broken already")
    off, note = _resumed(context, _LR * 3, _DECAY / 2)
    if off <= _ROUNDING:
        return holds(name, "nothing that matters is outside the state_dict")
    return broken(
        name,
        f"loaded into an optimizer that was made with another lr and weight_decay: off by {off:.3g}{note}; "
        "something of the constructor's is not in the state_dict",
        difference=off,
    )


def _resumed(context: Context, lr: float, decay: float) -> tuple[float, str]:
    """How far the resumed run ends from the uninterrupted one, and what there is to say of the loaded state."""
    subject = context.subject
    gradients, start = draws(7, seed=27), draws(1, seed=28)[0]
    schedule = (*MULTIPLIERS, 0.2)
    weight = nn.Parameter(start.clone())
    optimizer = subject.build([weight], _LR, _DECAY)
    for index in range(3):
        weight.grad = gradients[index].clone()
        subject.step(optimizer, schedule[index])
    other = nn.Parameter(weight.detach().clone())
    restored = subject.build([other], lr, decay)
    try:
        restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    except Exception as error:
        return float("inf"), f": load_state_dict fails with {type(error).__name__}: {error}"
    note = ""
    for key, value in optimizer.state.get(weight, {}).items():
        loaded = restored.state.get(other, {}).get(key)
        if isinstance(value, Tensor) and isinstance(loaded, Tensor) and value.dtype != loaded.dtype:
            note = f"; state {key!r} was {value.dtype} and came back as {loaded.dtype}"
    worst = 0.0
    for index in range(3, 7):
        for parameter, holder in ((weight, optimizer), (other, restored)):
            parameter.grad = gradients[index].clone()
            subject.step(holder, schedule[index])
        worst = max(worst, difference(weight.detach(), other.detach()))
    return worst, note


def second_moment(context: Context) -> Finding:
    """A running average of squared gradients is never larger than the largest squared norm of a gradient.

    The norm, because a method may rotate gradients before it squares them (SOAP) or keep a layer's norm (NovoGrad).
    """
    name = "second-moment"
    gradient, weight = torch.ones(6, 4, dtype=torch.float64), nn.Parameter(draws(1, seed=29)[0])
    optimizer = context.subject.build([weight], 1e-3, 0.0)
    largest: dict[str, float] = {}
    for _ in range(30):
        weight.grad = gradient.clone()
        context.subject.step(optimizer)
        for key, value in optimizer.state.get(weight, {}).items():
            if isinstance(value, Tensor) and value.is_floating_point() and value.numel() and "avg_sq" in key:
                largest[key] = max(largest.get(key, 0.0), float(value.max()))
    if not largest:
        return skipped(name, "keeps no average of squared gradients under its usual name")
    key, worst = max(largest.items(), key=lambda pair: pair[1])
    text = f"{key} reaches {worst:.4g} in 30 steps under a gradient of ones with squared norm {gradient.numel()}"
    if not worst <= 1.001 * gradient.numel():
        return broken(name, f"{text}: it is no average of squares", largest=worst)
    return holds(name, text, largest=worst)


def number_types(context: Context) -> Finding:
    """float32 and bfloat16 weights keep their type, stay finite, and decay by about the same share."""
    name, text = "number-types", []
    # one large step, because bfloat16 rounds a share below 2^-9 away
    lr, decay = 0.2, 0.5
    start, gradient = torch.full((6, 4), 2.0, dtype=torch.float64), torch.full((6, 4), 0.125, dtype=torch.float64)
    exact = [
        context.subject.run([gradient], start=start, lr=lr, weight_decay=coefficient, multipliers=(1.0,))[0]
        for coefficient in (0.0, decay)
    ]
    expected = float(((exact[0] - exact[1]) / start).mean())
    for dtype, coarse in ((torch.float32, 0.02), (torch.bfloat16, 0.5)):
        short = str(dtype).removeprefix("torch.")
        after = []
        for coefficient in (0.0, decay):
            weight = nn.Parameter(start.to(dtype))
            weight.grad = gradient.to(dtype)
            try:
                optimizer = context.subject.build([weight], lr, coefficient)
                context.subject.step(optimizer)
            except DecaylabError as error:
                return broken(name, f"{short} weights: {error}")
            if weight.dtype != dtype or not weight.isfinite().all():
                return broken(name, f"{short} weights became {weight.dtype} or not finite")
            after.append(weight.detach().double())
        measured = float(((after[0] - after[1]) / start).mean())
        if abs(measured - expected) > coarse * max(abs(expected), 0.02):
            return broken(
                name, f"{short}: share {measured:.4g}, in float64 {expected:.4g}", measured=measured, expected=expected
            )
        text.append(f"{short} share {measured:.4g}")
    return holds(name, f"{', '.join(text)}; float64 {expected:.4g}")


def tensor_lr(context: Context) -> Finding:
    """A learning rate given as a tensor, which a scheduler fills in place, does what the number does."""
    name = "tensor-lr"
    gradients, old = draws(len(MULTIPLIERS), seed=31), draws(len(MULTIPLIERS), seed=32)
    number = context.subject.run(gradients, start=old[0], lr=_LR, weight_decay=_DECAY, resets=old)
    try:
        tensor = context.subject.run(
            gradients, start=old[0], lr=torch.tensor(_LR, dtype=torch.float64), weight_decay=_DECAY, resets=old
        )
    except DecaylabError as error:
        return skipped(name, f"not supported: {error}"[:120])
    for index, (left, right, before) in enumerate(zip(number, tensor, old, strict=True)):
        # lr as a tensor may multiply in the lower precision of the update: Muon's is bfloat16
        off, size = difference(left, right), difference(left, before)
        if not off <= 0.01 * size:
            text = f"step {index + 1} of size {size:.3g} is off by {off:.3g} from the step with the same lr as a number"
            return broken(name, text, difference=off, size=size)
    return holds(name, "the same steps as with a number")


def maximize(context: Context) -> Finding:
    """``maximize=True`` on g is the method on -g: the decay's sign does not turn."""
    name = "maximize"
    if not context.subject.accepts("maximize"):
        return skipped(name, "has no such option")
    gradients, start = draws(4, seed=33), draws(1, seed=34)[0]
    turned = [-gradient for gradient in gradients]
    plain = context.subject.run(turned, start=start, lr=_LR, weight_decay=_DECAY)
    up = context.subject.run(gradients, start=start, lr=_LR, weight_decay=_DECAY, options={"maximize": True})
    off = max(difference(left, right) for left, right in zip(plain, up, strict=True))
    text = f"off by {off:.1g} from minimizing with -g"
    return (holds if off <= _ROUNDING else broken)(name, text, difference=off)


def foreach(context: Context) -> Finding:
    """``foreach=True`` does what ``foreach=False`` does."""
    name = "foreach"
    if not context.subject.accepts("foreach"):
        return skipped(name, "has no such option")
    gradients, start = draws(4, seed=35), draws(1, seed=36)[0]
    runs: list[list[Tensor]] = []
    for value in (False, True):
        options: dict[str, Any] = {"foreach": value}
        try:
            runs.append(context.subject.run(gradients, start=start, lr=_LR, weight_decay=_DECAY, options=options))
        except DecaylabError as error:
            return skipped(name, f"not supported: {error}"[:120])
    off = max(difference(left, right) for left, right in zip(*runs, strict=True))
    text = f"foreach=True and False are {off:.1g} apart after four steps"
    return (holds if off <= _ROUNDING else broken)(name, text, difference=off)
