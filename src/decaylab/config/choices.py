"""Choices of a component, as the help of the command line shows them: the names of its rows, or one's own."""

from __future__ import annotations

import sys
from typing import Any, Literal

from decaylab.components.architectures import ARCHITECTURES, LANGUAGE_ARCHITECTURES
from decaylab.components.datasets import IMAGE_DATA
from decaylab.components.optimizers import OPTIMIZERS

Kind = Literal["optimizer", "architecture", "language architecture", "dataset"]
TABLES: dict[str, dict[str, Any]] = {
    "optimizer": OPTIMIZERS,
    "architecture": ARCHITECTURES,
    "language architecture": LANGUAGE_ARCHITECTURES,
    "dataset": IMAGE_DATA,
}


def choice(kind: Kind) -> Any:
    """Return what a field's annotation says of the names that it takes.

    Where the command line has loaded tyro it is tyro's own description; a worker, which has no command line, does not
    load it for that.
    """
    if "tyro" not in sys.modules:
        return kind
    from tyro.constructors import PrimitiveConstructorSpec

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{'|'.join(TABLES[kind])}|MODULE:NAME",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
    )
