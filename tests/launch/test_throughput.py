"""Rates and estimates against a clock of the tests' own."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from decaylab.launch.progress import Lines, Screen, summary
from decaylab.launch.scheduler import Run
from decaylab.launch.throughput import Meter, clock
from decaylab.store.records import State

WAITING = State("waiting", False, 0, 0, "", "")
DONE = State("done", False, 100, 100, "", "")


def _running(step, worker="w"):
    return State("running", True, step, 100, worker, "")


def test_rates_and_the_estimate_follow_what_was_measured():
    meter = Meter([Run(id="a", cost=10), Run(id="b", cost=10), Run(id="c", cost=20)], 0.0)
    view = meter.see({"a": WAITING, "b": WAITING, "c": WAITING}, 1.0, 2)
    assert (view.total, view.ended, view.running, view.eta) == (3, 0, (), None)
    view = meter.see({"a": _running(0), "b": WAITING, "c": _running(0)}, 2.0, 2)
    assert [pace.rate for pace in view.running] == [None, None] and view.eta is None
    view = meter.see({"a": _running(50), "b": WAITING, "c": _running(25)}, 7.0, 2)
    assert [pace.rate for pace in view.running] == [10.0, 5.0]
    # Two workers did 5 + 5 units of cost in 6 + 6 seconds; a ends in 5 s, b takes 12 s after it, c ends in 15 s.
    assert view.eta == pytest.approx(17)
    view = meter.see({"a": DONE, "b": State("failed", False, 0, 0, "", "x"), "c": _running(75)}, 17.0, 2)
    assert (view.ended, view.failed) == (1, 1) and view.eta == pytest.approx(5.0)


def test_the_share_of_the_peak_is_that_of_the_machine_which_trains_now():
    asked = []
    peaks = {"a": 2000.0, "b": 0.0}
    runs = [Run(id="a", tokens=64, flops=100.0), Run(id="b", flops=100.0), Run(id="c", tokens=64)]
    meter = Meter(runs, 0.0, lambda run: asked.append(run) or peaks[run])
    meter.see({name: _running(0) for name in "abc"}, 0.0, 3)
    assert asked == []  # nobody trains yet, so nobody has measured
    view = meter.see({name: _running(10) for name in "abc"}, 2.0, 3)
    assert [(pace.rate, pace.share) for pace in view.running] == [(5.0, 0.25), (5.0, 0.0), (5.0, 0.0)]
    lines = []
    Lines(lines.append).show(replace(view, seconds=60.0))
    assert "(5 steps/s, 320 tokens/s, 25% of peak)" in lines[0]
    peaks["a"] = 1000.0  # another machine takes it over
    for step, now in ((10, 3.0), (20, 5.0)):
        view = meter.see({"a": _running(step, "other"), "b": DONE, "c": DONE}, now, 3)
    assert view.running[0].share == 0.5
    assert asked == ["a", "b", "a"]


def test_a_resumed_run_counts_only_what_is_new():
    meter = Meter([Run(id="a"), Run(id="b")], 0.0)
    meter.see({"a": _running(80, "old"), "b": WAITING}, 0.0, 1)
    meter.see({"a": _running(80), "b": WAITING}, 1.0, 1)
    view = meter.see({"a": _running(90), "b": WAITING}, 2.0, 1)
    assert view.running[0].rate == 10.0
    assert view.eta == pytest.approx(1 + 20)  # 0.1 units in 2 seconds of work


@pytest.mark.parametrize(
    "seconds, text", [(7.6, "8s"), (185, "3m05s"), (7620, "2h07m"), (273600, "3d04h"), (59.9, "1m00s")]
)
def test_durations(seconds, text):
    assert clock(seconds) == text


def _views():
    meter = Meter([Run(id="abc", label="fig [1]"), Run(id="b", kind="language")], 0.0)
    for second in range(100):
        yield meter.see({"abc": _running(second), "b": WAITING}, float(second), 1)
    yield meter.see({"abc": DONE, "b": State("failed", False, 0, 0, "", "x")}, 100.0, 1)


def test_plain_lines_come_at_intervals():
    lines = []
    shown = Lines(lines.append)
    for view in _views():
        shown.show(view)
    assert 5 < len(lines) < 12
    assert lines[0] == "0/2 runs ended, 5s, ETA 3m15s; fig [1] 5/100 (1 steps/s)"
    assert summary(view) == "1/2 runs ended, 1 failed, 1m40s"


def test_the_screen_shows_every_running_run():
    out = io.StringIO()
    shown = Screen(Console(file=out, force_terminal=True, width=120))
    for view in _views():
        shown.show(view)
    shown.say("failed: [b]")
    shown.close()
    assert "fig [1]" in out.getvalue() and "42/100 (1 steps/s)" in out.getvalue() and "failed: [b]" in out.getvalue()
