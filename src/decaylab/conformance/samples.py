"""The measured shares, each with what it may depend on."""

from __future__ import annotations

from collections.abc import Sequence

from decaylab.conformance.context import moment
from decaylab.conformance.entry import Entry, Trace
from decaylab.conformance.meaning import Moment
from decaylab.conformance.reference import Constants


def samples(traces: Sequence[Trace], entry: Entry, constants: Constants) -> list[tuple[Moment, float]]:
    """Pair every measured share with its moment.

    Left out are cautious steps that touched nothing, and a first step that does nothing at all (ADOPT's only sets its
    memory up).
    """
    if not entry.shares:
        return []
    paired = []
    for item, row in zip(traces, entry.shares, strict=True):
        for index, share in enumerate(row):
            if entry.kind in ("cautious", "masked") and share == 0:
                continue
            if index == 0 and not (item.decayed[0] - item.old[0]).any():
                continue
            at = moment(constants, index, item.lr, item.weight_decay, item.multipliers, item.old[index], item.gradients)
            paired.append((at, share))
    return paired
