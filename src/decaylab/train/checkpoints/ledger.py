"""What a training loop asks of whoever keeps its metrics before it writes, trusts or removes a checkpoint."""

from __future__ import annotations

from typing import Protocol

from decaylab.train.checkpoints.manifest import Coverage, Manifest


class Ledger(Protocol):
    """Keeper of a run's metrics, which knows whether the run is still this process's to train.

    Every method raises an error of its own when it is not; then nothing may be written any more.
    """

    def commit(self, step: int) -> Coverage:
        """Make all metrics recorded so far safe from the death of the machine, before the checkpoint of ``step``."""

    def coverage(self) -> Coverage:
        """Return which metrics are safe by now, and the number of this attempt at the run."""

    def confirm(self, step: int, digest: str) -> None:
        """Take note of a checkpoint whose files are on disk, right before its folder gets its name."""

    def check(self) -> None:
        """Return if the run is still this process's to train."""

    def objection(self, step: int, manifest: Manifest) -> str:
        """Say why training cannot go on from a checkpoint; empty when it can."""


class NoLedger:
    """For training without a store: nobody else trains the run, and every whole checkpoint is good."""

    def commit(self, step: int) -> Coverage:
        """Vouch for nothing."""
        return Manifest()

    def coverage(self) -> Coverage:
        """Vouch for nothing."""
        return Manifest()

    def confirm(self, step: int, digest: str) -> None:
        """Take no note."""

    def check(self) -> None:
        """Return."""

    def objection(self, step: int, manifest: Manifest) -> str:
        """Have none."""
        return ""
