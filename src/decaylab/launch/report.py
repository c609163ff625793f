"""What became of the runs of one launch, as data and as the lines that a person reads at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from decaylab.errors import printable
from decaylab.launch.throughput import clock
from decaylab.store.store import Store


@dataclass(frozen=True, kw_only=True)
class LaunchReport:
    """How a launch ended.

    Attributes:
        done: Ids of the runs that finished during it.
        diverged: Ids of those that ended because they diverged, which is a result.
        failed: Reasons by id of those that could not be trained.
        skipped: Ids of those that had ended before.
        seconds: How long it took.
        interrupted: Whether it was stopped before all had ended.
    """

    done: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    seconds: float = 0.0
    interrupted: bool = False

    def __or__(self, other: LaunchReport) -> LaunchReport:
        """Return what became of the runs of two launches together, one after the other."""
        return LaunchReport(
            done=self.done + other.done,
            diverged=self.diverged + other.diverged,
            failed={**self.failed, **other.failed},
            skipped=self.skipped + other.skipped,
            seconds=self.seconds + other.seconds,
            interrupted=self.interrupted or other.interrupted,
        )


def closing_lines(report: LaunchReport, names: Mapping[str, str], store: Store) -> Iterator[str]:
    """Yield the lines that close a launch.

    Args:
        report: What became of the runs.
        names: What the display calls each run of the launch, by id.
        store: Tells where the traces of failed runs lie.
    """
    counts = {"done": report.done, "diverged": report.diverged, "failed": report.failed, "ended before": report.skipped}
    parts = [f"{len(ids)} {word}" for word, ids in counts.items() if ids] or ["none ended"]
    yield f"{len(names)} runs: {', '.join(parts)}; {clock(report.seconds)}"
    for run_id, reason in report.failed.items():
        trace = store.folder(run_id) / "error.txt"
        line = f"failed: {names[run_id]} ({run_id}): {reason}" + (f"; see {trace}" if trace.exists() else "")
        yield printable(" ".join(line.split()))
    for row in store.rows([*report.done, *report.diverged]):
        if "damaged" in row.summary:
            yield printable(f"{names[row.id]} ({row.id}): {row.summary['damaged']}")
    if report.interrupted:
        yield "stopped before all runs had ended; the same command goes on from their checkpoints"
