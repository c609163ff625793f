"""How did a run end, and how fast was it?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from decaylab.config.cost import flops_per_step
from decaylab.config.schema import AnyRun, LanguageRun


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: ``done``, ``diverged`` (a result too) or ``interrupted`` (goes on from its checkpoint).
        reason: Why, where it is not ``done``.
        steps: Steps done.
        summary: Last metrics; seconds and speed, for language with ``share_of_peak``: the operations of its matrix
            products (backward counted twice, causal attention by half) over what the machine was measured to do;
            ``spikes`` and what was said of one that lasted; the prompt's ``completion``; ``data``, a hash of the
            training data, because the embedded corpus is another one with another Python; ``text``, one of the text.
    """

    status: Literal["done", "diverged", "interrupted"]
    reason: str = ""
    steps: int = 0
    summary: Mapping[str, float | str] = field(default_factory=dict)


def speeds(config: AnyRun, steps: int, seconds: float, examples_per_step: int, peak: float) -> dict[str, float]:
    """Return what a summary tells of a run's speed.

    Args:
        config: The run's settings.
        steps: Steps done.
        seconds: Time they took.
        examples_per_step: Images, or tokens for language.
        peak: Operations a second that the machine was measured to do; 0 if it was not.
    """
    speed = steps / seconds if seconds else 0.0
    found = {"seconds": seconds, "steps_per_second": speed, "examples_per_second": speed * examples_per_step}
    if isinstance(config, LanguageRun):
        found["tokens_per_second"] = found["examples_per_second"]
    if peak:
        found["share_of_peak"] = speed * flops_per_step(config) / peak
    return found
