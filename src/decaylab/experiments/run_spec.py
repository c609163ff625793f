"""A declared run: a config, its labels and its id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from decaylab.config.identity import run_id
from decaylab.config.schema import AnyRun

if TYPE_CHECKING:
    pass

Label = str | float | int


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run and what it stands for in an experiment.

    Attributes:
        config: All its settings.
        labels: Its place in the experiment, for charts and claims; always with a ``seed``. Two experiments may label
            the same run differently: they share it, because its id comes from the config alone.
    """

    config: AnyRun
    labels: Mapping[str, Label]

    @cached_property
    def id(self) -> str:
        """The run's id, a hash of its config."""
        return run_id(self.config)
