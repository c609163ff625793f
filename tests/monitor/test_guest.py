"""Watching is a guest in somebody's training: nothing of it stops a step, enters a graph or grows without bound."""

import json
import math
import warnings
from collections import Counter

import pytest
import torch
from torch import nn

from decaylab import attach, decay, watch
from decaylab.errors import DecaylabError
from decaylab.integrations.trackers import TensorBoardSink
from decaylab.monitor.records import Records


def _net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def _train(net, optimizer, steps=12):
    for step in range(steps):
        data = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
        net(data).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


class _Down:
    def __init__(self):
        self.written = 0

    def write(self, record):
        self.written += 1
        raise OSError("tracker not reachable")

    def close(self):
        raise OSError("still not")


class _Breaks:
    name = "breaks"
    needs = frozenset({"previous"})

    def measure(self, context):
        raise ZeroDivisionError("one in a million")


def test_a_failing_sink_or_probe_warns_once_and_the_log_goes_on():
    plain, net, sink = _net(), _net(), _Down()
    _train(plain, torch.optim.AdamW(plain.parameters(), lr=0.01))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    log = watch(net, optimizer, every=2, probes=["norms", _Breaks()], sinks=[sink])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        _train(net, optimizer)
        log.remove()
    assert Counter(str(w.message).split(" (")[0] for w in seen) == {
        "decaylab: the probe 'breaks' failed": 1,
        "decaylab: _Down failed": 1,
    }
    assert log.step == 12 and len(log.records) == 6 and sink.written == 6
    assert all("weights/norm" in record for record in log.records)
    text = log.summary()
    assert "one in a million" in text and "tracker not reachable" in text
    for a, b in zip(plain.parameters(), net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_nothing_of_the_runner_itself_stops_a_step(monkeypatch):
    net = _net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    log = watch(net, optimizer, every=2)
    monkeypatch.setattr("decaylab.probes.runner.read_rates", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="reading the step failed"):
        _train(net, optimizer)
    assert log.step == 12


class _Bare(torch.optim.Optimizer):
    """Groups without betas, momentum or weight_decay, and a learning rate of its own."""

    def __init__(self, params, **group):
        super().__init__(params, group)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(0.01 * (p.grad.to_dense() if p.grad.is_sparse else p.grad))


@pytest.mark.parametrize(
    "group",
    [
        {},
        {"lr": None},
        {"lr": torch.tensor(0.01)},
        {"lr": torch.tensor([0.01])},
        {"lr": 0.01, "weight_decay": None},
        {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9,)},
        {"lr": 0.01, "weight_decay": torch.tensor(0.1), "betas": None},
        {"lr": 0.01, "weight_decay": 0.1, "momentum": None},
    ],
    ids=str,
)
def test_groups_of_any_shape_are_watched(group):
    net = _net()
    optimizer = _Bare(net.parameters(), **group)
    log = watch(net, optimizer, every=2)
    _train(net, optimizer, 5)
    assert len(log.records) == 3 and log.records[-1]["weights/norm"] > 0 and log.summary()


def test_transformers_adafactor_without_a_learning_rate():
    optimization = pytest.importorskip("transformers.optimization")
    net = _net()
    optimizer = optimization.Adafactor(net.parameters(), weight_decay=0.1)
    log = watch(net, optimizer, every=2)
    _train(net, optimizer, 5)
    assert log.diagnosis().verdict == "unknown rate" and "Adafactor" in log.summary()


def test_sparse_gradients():
    torch.manual_seed(0)
    net = nn.EmbeddingBag(10, 4, sparse=True, mode="sum")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    attach(optimizer, decay.Decoupled(0.1))
    log = watch(net, optimizer, every=1)
    for _ in range(3):
        net(torch.tensor([[1, 2, 2]])).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert log.records[-1]["timescale/passed"] == pytest.approx(0.03)


def test_a_shard_without_entries_has_norm_zero():
    """What a process holds of a parameter under fully sharded data parallelism of the first kind."""
    net = _net()
    net[0].bias = nn.Parameter(torch.zeros(0))
    net.forward = lambda data: nn.functional.linear(nn.functional.linear(data, net[0].weight), net[2].weight)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
    log = watch(net, optimizer, every=1)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert log.records[0]["weights/norm/bias"] == pytest.approx(float(net[2].bias.detach().norm()), rel=1e-6)


class _Calls(torch.optim.AdamW):
    """A class whose step calls that of its base: torch's hooks run twice."""

    def step(self, closure=None):
        return super().step(closure)


def test_a_step_within_a_step_counts_once_and_decays_once():
    other = _net()
    torch.optim.AdamW(other.parameters(), lr=0.01)  # from here on the base class's step has hooks too
    net, plain = _net(), _net()
    optimizer = _Calls(net.parameters(), lr=0.01, weight_decay=0.0)
    expected = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.0)
    for each in (optimizer, expected):
        attach(each, decay.Decoupled(1.0))
    log = watch(net, optimizer, every=1)
    _train(net, optimizer, 5)
    _train(plain, expected, 5)
    assert log.step == 5 and log.records[-1]["timescale/passed"] == pytest.approx(0.05)
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_step_that_was_left_by_an_exception_is_not_counted_and_the_next_is():
    class Fails(_Calls):
        fails = False

        def step(self, closure=None):
            if self.fails:
                raise RuntimeError("out of memory")
            return super().step(closure)

    net = _net()
    optimizer = Fails(net.parameters(), lr=0.01, weight_decay=0.1)
    log = watch(net, optimizer, every=1)
    _train(net, optimizer, 2)
    optimizer.fails = True
    with pytest.raises(RuntimeError, match="out of memory"):
        _train(net, optimizer, 1)
    optimizer.fails = False
    _train(net, optimizer, 2)
    assert log.step == 4 and log.records[-1]["timescale/passed"] == pytest.approx(0.004)


def _graphs(watched):
    """Graphs that a compiled step is made of, over many steps."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, weight_decay=0.1)
    log = watch(net, optimizer, every=3) if watched else None

    @torch.compile(backend=backend)
    def step():
        optimizer.step()

    for index in range(12):
        net(torch.randn(4, 6, generator=torch.Generator().manual_seed(index))).square().mean().backward()
        step()
        optimizer.zero_grad()
    torch._dynamo.reset()
    return len(graphs), log


def test_a_compiled_step_has_no_graph_of_ours():
    plain, _ = _graphs(watched=False)
    found, log = _graphs(watched=True)
    assert found <= plain + 1 and len(log.records) == 4
    assert log.records[-1]["timescale/passed"] == pytest.approx(0.01)


def test_records_are_columns_that_are_thinned_where_they_become_many():
    records = Records(limit=100)
    for step in range(1000):
        values = {"step": step, "a": step / 7, **({"b": math.inf} if step % 3 == 0 else {})}
        records.append(values)
    assert len(records) <= 100
    steps = [record["step"] for record in records]
    assert steps[0] == 0 and steps[-1] == 999 and steps == sorted(steps)
    assert steps[-40:] == list(range(960, 1000))  # the present stays as it was recorded
    assert records[-1] == {"step": 999, "a": 999 / 7, "b": math.inf} and isinstance(records[-1]["step"], int)
    again = Records(limit=100)
    again.load_state_dict(json.loads(json.dumps(records.state_dict())))
    assert again == records and again[:3] == records[:3] and again == list(records)
    old = Records()
    old.load_state_dict([{"step": 0, "a": 1.0}])  # the state of a log before there were columns
    assert list(old) == [{"step": 0, "a": 1.0}]


def test_a_log_of_every_step_stays_small():
    net = _net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
    log = watch(net, optimizer, every=1, most_records=50)
    _train(net, optimizer, 200)
    assert len(log.records) <= 50 and log.step == 200
    keys = len(log.records[-1])
    assert len(json.dumps(log.state_dict())) < 50 * keys * 25
    with pytest.raises(DecaylabError, match="most_records must be a whole number of at least 2"):
        watch(net, optimizer, most_records=1)
    with pytest.raises(DecaylabError, match="total_steps must be a whole number of at least 2"):
        watch(net, optimizer, total_steps=0.5)


def test_tensorboard_gets_no_infinities():
    written = []
    sink = TensorBoardSink.__new__(TensorBoardSink)
    sink._prefix = ""
    sink._writer = type("Writer", (), {"add_scalar": lambda self, key, value, step: written.append((key, value))})()
    sink.write({"step": 1, "timescale/steps": math.inf, "weights/norm": 2.0, "x": math.nan})
    assert written == [("weights/norm", 2.0)]


def test_the_chart_draws_measured_lines_solid_and_opens_without_a_network(tmp_path):
    net = _net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
    log = watch(net, optimizer, every=2)
    _train(net, optimizer)
    chart = log.plot()
    panel = next(p for p in chart.to_dict()["vconcat"] if p["encoding"]["y"]["title"] == "radians per step")
    scale = panel["encoding"]["strokeDash"]["scale"]
    assert dict(zip(scale["domain"], scale["range"], strict=True)) == {"measured": [1, 0], "in equilibrium": [5, 3]}
    chart.save(tmp_path / "log.html")
    page = (tmp_path / "log.html").read_text()
    assert "cdn.jsdelivr.net/npm/vega" not in page and len(page) > 200_000
    chart.save(str(tmp_path / "small.html"), inline=False)
    assert "cdn.jsdelivr.net" in (tmp_path / "small.html").read_text()
    chart.save(tmp_path / "log.svg")
