"""A declared run: a config, its labels and its id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from decaylab.config.identity import run_id, to_dict
from decaylab.config.own_config import own_dict, own_id
from decaylab.references import file_reference
from decaylab.train.outcome import Outcome as Outcome

Label = str | float | int


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run and what it stands for in an experiment.

    Attributes:
        config: All its settings: a `decaylab.config.schema.VisionRun` or ``LanguageRun``; where the experiment has a
            training function of its own, any frozen dataclass or mapping.
        labels: Its place in the experiment, for charts and claims; always with a ``seed``. Two experiments may label
            the same run differently: they share it, because its id comes from the config alone.
        trainer: Reference to the function that trains it; empty for decaylab's own loop. Filled in by the experiment.
        version: That of the experiment, where it has a training function of its own.
    """

    config: Any
    labels: Mapping[str, Label]
    trainer: str = ""
    version: int = 1

    @cached_property
    def id(self) -> str:
        """The run's id, a hash of its config."""
        if self.trainer:
            return own_id(self.config, file_reference(self.trainer), self.version)
        return run_id(self.config)

    @property
    def settings(self) -> dict[str, Any]:
        """The config as JSON values."""
        return own_dict(self.config) if self.trainer else to_dict(self.config)
