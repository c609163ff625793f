"""Values that a training script reports of itself, as JSON lines in a file that the environment names."""

from __future__ import annotations

import json
import math
import os

VARIABLE = "DECAYLAB_REPORT"


def report(*, step: int | None = None, **values: float) -> None:
    """Report values of a training run to whoever watches over it; does nothing where nobody does.

    Call it in a script that `decaylab tune` runs, as often as wanted; the last value of the tuned metric counts. A
    learning rate among the values (``lr``) lets tune check that the schedule ends with the run.

    Args:
        step: Step of the run.
        values: Numbers by name, such as ``loss=2.31, lr=3e-5``; what can be turned into a float counts (a tensor of
            one element too).

    Raises:
        TypeError: A value is no number.

    >>> report(step=100, loss=2.5)  # no variable DECAYLAB_REPORT: nothing happens
    """
    path = os.environ.get(VARIABLE)
    line = {"step": step} if step is not None else {}
    numbers = {name: float(value) for name, value in values.items()}
    if not path:
        return
    text = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
    # One write of one line, so that a killed script leaves whole lines.
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line | text) + "\n")
