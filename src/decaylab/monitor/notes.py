"""Sentences of a summary about what the records do not show: measured shares, losses, parameters that came or went."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from decaylab.monitor.account import Account
from decaylab.monitor.formatting import number, percent

if TYPE_CHECKING:  # torch comes with it
    from decaylab.probes.decay_account import DecaySource


def names_of(account: Account, target: str) -> str:
    """Names of what acts towards a target, joined by "and"."""
    return " and ".join(dict.fromkeys(source.label for source in account.acting if source.target == target))


def notes(account: Account) -> list[str]:
    """Put what an account holds beside the records into sentences."""
    found = [note for source in account.sources for note in _of_source(source, account)]
    for change in account.changes:
        if change.added:
            found.append(f"From step {change.step:,} on {_listed(change.added)} {_are(change.added)} watched too.")
        gone = tuple(name for name in change.removed if name not in change.added)
        if gone:
            found.append(
                f"From step {change.step:,} on {_listed(gone)} {_are(gone)} no longer trained by this optimizer."
            )
        if replaced := tuple(name for name in change.removed if name in change.added):
            found.append(f"Of these, {_listed(replaced)} took the place of other tensors.")
    for name, error in account.failures.items():
        found.append(f"{name[0].upper()}{name[1:]} failed ({error}).")
    return found


def _of_source(source: DecaySource, account: Account) -> Iterator[str]:
    if source.knowledge == "none":
        yield f"{source.label} has no effect: measured on a copy, the weights are the same with and without it."
        return
    if not source.parameters:
        yield f"{source.label} acts on no parameter that is watched."
        return
    if not source.moved and not account.acting:
        return  # no weight has moved at all, which the verdict says
    if not source.moved:
        yield f"{source.label} reaches no weight: none of its {source.parameters} parameters has been moved by a step."
        return
    others = [other for other in account.acting if other is not source]
    if source.target == "norm" and any(other.target != "norm" for other in others):
        yield f"{source.label} holds, bounds or steers the norm of {_count(source)}."
    elif source.target == "anchor" and any(other.target != "anchor" for other in others):
        yield f"{source.label} pulls {_count(source)} back to an anchor, not to zero."
    elif source.knowledge == "measured" and source.target == "zero" and not math.isfinite(source.stated):
        yield f"The decay by {source.label} is measured from the weights, on the recorded steps."
    elif source.knowledge == "unknown" and others:
        yield f"What {source.label} takes a step is unknown ({source.reason}), and is not counted."
    if math.isnan(source.stated):
        return
    if source.dtype:
        kept = source.found / source.stated if source.stated else 0.0
        yield (
            f"Of the decay by {source.label}, {percent(source.stated, sign=False)} a step, only"
            f" {percent(max(kept, 0.0), sign=False)} reaches the {source.dtype} weights: the rest is below the spacing"
            " of stored numbers. Keep the weights that the optimizer steps in float32, or round stochastically."
        )
    else:
        yield (
            f"{source.label} states that a step takes {number(source.stated)} of the weight, and the weights lose"
            f" {number(source.found)}: what is measured counts."
        )


def _count(source: DecaySource) -> str:
    return f"{source.parameters} parameter{'' if source.parameters == 1 else 's'}"


def _listed(names: tuple[str, ...]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{rest}"


def _are(names: tuple[str, ...]) -> str:
    return "is" if len(names) == 1 else "are"
