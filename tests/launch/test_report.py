"""The lines that close a launch."""

from decaylab.launch.report import LaunchReport, closing_lines
from decaylab.store.store import Store


def test_checkpoints_that_were_passed_over_are_said(tmp_path):
    with Store(tmp_path / "runs.db") as store:
        for run, summary in (("a", {}), ("b", {"damaged": "checkpoint-9 could not be read: it went on from step 4"})):
            store.add(run, {}, kind="vision")
            store.finish(store.lease(run, "w"), status="done", summary=summary)
        lines = list(closing_lines(LaunchReport(done=("a", "b")), {"a": "first", "b": "second"}, store))
    assert lines == ["2 runs: 2 done; 0s", "second (b): checkpoint-9 could not be read: it went on from step 4"]
