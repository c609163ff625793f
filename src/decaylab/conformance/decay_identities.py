"""Identities about the decay itself: its meaning, its schedule, its closed form, its groups, its golden cases."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from decaylab.conformance.context import Context, broken, holds, skipped
from decaylab.conformance.entry import KINDS, NONE
from decaylab.conformance.finding import Finding
from decaylab.conformance.meaning import MEANINGS
from decaylab.conformance.samples import samples
from decaylab.conformance.subject import MULTIPLIERS, SHAPE, difference, draws, put


def meaning(context: Context) -> Finding:
    """The share that a step removes is one of the known functions of lambda, lr and the schedule."""
    entry, name = context.entry, "meaning"
    if entry.kind == "none":
        lost = " (its constructor has no weight_decay and swallows the argument)"
        lost = "" if context.subject.accepts("weight_decay") else lost
        return broken(name, f"lambda has no effect: the weights are the same with and without it{lost}")
    if entry.kind in ("memory", "unknown"):
        return broken(name, f"{KINDS[entry.kind]}: relative distance {entry.error:.2g}", error=entry.error)
    if entry.kind in ("l2", "trust_ratio", "momentum"):
        return holds(name, f"{KINDS[entry.kind]} (relative distance {entry.error:.1g})", error=entry.error)
    best = context.fits[0]
    if best.step is None:
        count = sum(len(row) for row in entry.shares)
        text = f"{MEANINGS[best.key].equation} at {count} steps under {len(entry.shares)} settings"
        return holds(name, f"{text}; largest relative error {best.error:.1g}", error=best.error)
    paired = samples(context.traces, entry, context.constants)
    if context.factor is not None:
        rest = f"{context.factor:.4g} lr λ" if abs(context.factor) > context.tolerance else "nothing"
        return holds(name, f"lr λ on some of {len(paired)} steps, {rest} on the others")
    law, error = context.law, context.law_error
    text = f"no known meaning fits; nearest: {best.text}"
    if error < 1e-6:
        text = f"no known meaning fits: the share is {law} at every step (error {error:.1g} in log)"
    return broken(name, text, nearest_error=best.error)


def schedule(context: Context) -> Finding:
    """When the learning rate changes, the decay changes as the meaning says."""
    name = "schedule"
    if context.meaning in ("l2", "trust_ratio", "momentum"):
        return holds(name, "the decay is part of the update, which lr multiplies")
    if context.meaning not in MEANINGS:
        return skipped(name, "its lambda has no meaning that one formula gives")
    found = MEANINGS[context.meaning]
    shares, item = context.entry.shares[0], context.traces[0]
    seen = ", ".join(f"{share:.4g}" for share in shares)
    text = f"lr {', '.join(f'{item.lr * m:g}' for m in item.multipliers)}: share {seen}"
    if context.meaning == "first_lr":
        return broken(name, f"{found.note}; {text}", first=shares[0], last=shares[-1])
    return holds(name, text)


def sign(context: Context) -> Finding:
    """Decay pulls a weight towards zero."""
    name = "sign"
    if context.entry.kind == "none":
        return skipped(name, "lambda has no effect")
    if context.entry.shares:
        worst = min(min(row) for row in context.entry.shares) + 0.0  # no "-0"
        if worst < 0:
            return broken(name, f"a step enlarges the weight: share {worst:.4g}", share=worst)
        return holds(name, f"every step removes a share of the weight, {worst:.3g} at least", share=worst)
    start = draws(1, seed=11)[0]
    quiet = [torch.zeros(SHAPE, dtype=torch.float64) for _ in range(3)]
    after = context.subject.run(quiet, start=start, lr=0.01, weight_decay=0.1)[-1]
    if not after.isfinite().all():
        return broken(name, "with a zero gradient the weights become not finite")
    before_norm, after_norm = float(start.norm()), float(after.norm())
    text = f"norm {before_norm:.6g} -> {after_norm:.6g} after three steps without gradient"
    return (holds if after_norm < before_norm else broken)(name, text, before=before_norm, after=after_norm)


def zero_gradient(context: Context) -> Finding:
    """Without gradient nothing moves but by the decay: p_T = p_0 Π (1 - share_t), and p_T = p_0 without decay."""
    name = "zero-gradient"
    start, lr, decay = draws(1, seed=12)[0], 0.05, 0.2
    quiet = [torch.zeros(SHAPE, dtype=torch.float64) for _ in MULTIPLIERS]
    still = difference(context.subject.run(quiet, start=start, lr=lr, weight_decay=0.0)[-1], start)
    if not still <= context.closeness:
        what = f"moves by {still:.3g}" if math.isfinite(still) else "becomes not finite"
        return broken(name, f"without gradient and without decay the weight {what}", moved=still)
    if context.meaning == "stable" or not (context.entry.shares or context.meaning == "l2"):
        return skipped(name, "no closed form for its decay; without decay nothing moves")
    if context.entry.kind == "masked" or (context.meaning not in {*MEANINGS, "l2"} and not context.law_error < 1e-6):
        return skipped(name, "its shares follow no formula, so there is no closed form; without decay nothing moves")
    after = context.subject.run(quiet, start=start, lr=lr, weight_decay=decay)
    if context.meaning == "l2":
        by_hand = context.subject.run(quiet, start=start, lr=lr, weight_decay=0.0, l2=decay)[-1]
        off = difference(after[-1], by_hand)
        text = f"the same as the method without decay fed with λ p: max difference {off:.1g}"
        return (holds if off <= context.closeness else broken)(name, text, difference=off)
    source = "the closed form"
    if context.meaning in MEANINGS:
        expected = start.clone()
        for index in range(int(context.idle), len(MULTIPLIERS)):
            at = context.moment(
                index, lr=lr, weight_decay=decay, multipliers=MULTIPLIERS, weight=expected, gradients=quiet
            )
            expected = expected * (1 - (context.share(at) or 0.0))
    else:  # no formula, but what single steps remove must add up over several
        source = "what its single steps remove"
        fixed = [start] * len(quiet)
        single = context.subject.run(quiet, start=start, lr=lr, weight_decay=decay, resets=fixed)
        expected = start * torch.stack([step / start for step in single]).prod(dim=0)
    off = difference(after[-1], expected)
    ratio, target = float((after[-1] / start).mean()), float((expected / start).mean())
    text = f"p_T / p_0 = {ratio:.8g} after {len(quiet)} steps, by {source} {target:.8g}"
    return (holds if off <= context.closeness else broken)(name, text, ratio=ratio, expected=target)


def memory(context: Context) -> Finding:
    """A decoupled decay leaves moments and bias correction alone."""
    name, kind = "memory", context.entry.kind
    if kind == "none":
        return skipped(name, "lambda has no effect")
    if kind == "l2":
        what = "no memory: L2 and decoupled decay are one" if context.entry.also_l2 and context.entry.shares else "L2"
        return holds(name, f"coupled by design ({what}): what is remembered is g + λ p")
    if kind in ("trust_ratio", "momentum"):
        return holds(name, f"coupled by design: {KINDS[kind]}")
    if kind in ("memory", "unknown"):
        distance = f"{context.entry.error:.2g} of the decay's effect"
        return broken(name, f"the decay is mixed into the update or its memory: {distance} is not along the weight")
    return holds(
        name, f"weights set anew at every step: the decay's effect stays along them ({context.entry.error:.1g})"
    )


def group_decay(context: Context) -> Finding:
    """``weight_decay`` of a parameter group overrides the constructor's, also when it is changed between steps."""
    name, subject = "group-decay", context.subject
    if context.entry.kind == "none" or not context.holds_decay:
        return skipped(
            name, "its parameter groups hold no weight_decay" if context.entry.kind != "none" else "no decay"
        )
    lr, decay = 0.05, 0.2
    gradients, start = draws(4, seed=13), draws(2, seed=14)
    ends = []
    for coefficient in (0.0, decay):
        weights = [nn.Parameter(value.clone()) for value in start]
        groups = [{"params": [weights[0]]}, {"params": [weights[1]], "weight_decay": 0.0}]
        optimizer = subject.build(groups, lr, coefficient)
        # some methods average over all parameters: the other one must see what it sees under L2
        by_hand = decay if context.meaning == "l2" and not coefficient else 0.0
        for index, gradient in enumerate(gradients):
            weights[0].grad = gradient + by_hand * weights[0].detach()
            weights[1].grad = gradient.clone()
            subject.step(optimizer, MULTIPLIERS[index])
        ends.append(weights[1].detach())
    off = difference(*ends)
    if not off <= context.closeness:
        return broken(name, f"a group with weight_decay=0 decays all the same: moved by {off:.3g} more", difference=off)
    if not context.entry.shares:
        return holds(name, "a group with weight_decay=0 does not decay")
    late = _share_after_change(context, lr, decay)
    if not abs(late) <= context.tolerance:
        return broken(name, f"weight_decay set to 0 after two steps is not seen: share {late:.4g}", share=late)
    return holds(name, "a group with weight_decay=0 does not decay; a change between steps is seen at once")


def _share_after_change(context: Context, lr: float, decay: float) -> float:
    """The share that a step removes after the group's coefficient was set to 0."""
    gradients, old = draws(3, seed=15), draws(3, seed=16)
    after: list[Tensor] = []
    for coefficient in (NONE, decay):
        weight = nn.Parameter(old[0].clone())
        optimizer = context.subject.build([weight], lr, coefficient)
        for index, gradient in enumerate(gradients):
            put(weight, old[index])
            weight.grad = gradient.clone()
            if index == 2:
                for group in optimizer.param_groups:
                    group["weight_decay"] = NONE
            context.subject.step(optimizer)
        after.append(weight.detach().clone())
    return float((after[0] - after[1]).abs().max())


def group_lr(context: Context) -> Finding:
    """A parameter group with its own ``lr`` decays by its own ``lr``, also in a meaning that has an lr_max."""
    name, subject = "group-lr", context.subject
    if context.entry.kind not in ("before", "after") or context.meaning not in MEANINGS:
        return skipped(name, "its decay has no formula to hold it to" if context.entry.kind != "none" else "no decay")
    own, decay, first = 0.02, 0.2, 0.1
    count = len(MULTIPLIERS)
    gradients, old = draws(count, seed=17), draws(count, seed=18)
    results = []
    for coefficient in (NONE, decay):
        weight, other = nn.Parameter(old[0].clone()), nn.Parameter(old[0].clone())
        optimizer = subject.build([{"params": [other]}, {"params": [weight], "lr": own}], first, coefficient)
        steps = []
        for index, gradient in enumerate(gradients):
            for parameter in (weight, other):
                put(parameter, old[index])
                parameter.grad = gradient.clone()
            subject.step(optimizer, MULTIPLIERS[index])
            steps.append(weight.detach().clone())
        results.append(steps)
    for index, (free, with_decay) in enumerate(zip(*results, strict=True)):
        if index == 0 and context.idle:
            continue
        base = free if context.entry.kind == "after" else old[index]
        measured = -float(((with_decay - free) * base).sum() / base.square().sum())
        at = context.moment(
            index, lr=own, weight_decay=decay, multipliers=MULTIPLIERS, weight=old[index], gradients=gradients
        )
        predicted = context.share(at) or 0.0
        if not abs(measured - predicted) <= context.tolerance * abs(predicted):
            text = (
                f"a group with lr={own} beside the constructor's {first}: at its lr {at.lr:g} the share is "
                f"{measured:.6g}, its own lr gives {predicted:.6g}"
            )
            ratio = measured / predicted if predicted else math.nan
            if abs(ratio - own / first) <= 1e-6:
                text += " (it divides by the constructor's lr, not the group's)"
            return broken(name, text, measured=measured, predicted=predicted)
    return holds(name, f"a group with lr={own} beside the constructor's {first} decays by its own")


def zero_decay(context: Context) -> Finding:
    """``weight_decay=0`` is the limit of a small weight_decay, so that a sweep down to 0 compares one method."""
    name = "zero-decay"
    gradients, start = draws(4, seed=19), draws(1, seed=20)[0]
    zero = context.subject.run(gradients, start=start, lr=0.05, weight_decay=0.0)
    tiny = context.subject.run(gradients, start=start, lr=0.05, weight_decay=NONE)
    off = max(difference(left, right) for left, right in zip(zero, tiny, strict=True))
    if off <= context.closeness:
        return holds(name, "0 does what next to 0 does", difference=off)
    text = f"four steps with weight_decay=0 are {off:.3g} from four steps with {NONE:g}: at 0 it is another method"
    return broken(name, text, difference=off)
