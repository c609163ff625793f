"""What one identity answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Status = Literal["holds", "broken", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The answer of one identity about one optimizer.

    Attributes:
        identity: Name of the identity.
        status: ``holds``, ``broken``, or ``skipped`` where the identity does not apply or could not be tried.
        text: What was seen, in one line with its numbers.
        numbers: The same numbers by name, for machines.
    """

    identity: str
    status: Status
    text: str
    numbers: dict[str, float] = field(default_factory=dict)
