"""Several processes give what one gives, and resumed ones their own bits: replicated and sharded."""

import json
import os
import warnings
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.support.processes import start
from torch.distributed import TCPStore
from torch.distributed.fsdp import FSDPModule

from decaylab.config.schema import (
    Averages,
    Decay,
    Evaluation,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    Probes,
    VisionRun,
)
from decaylab.errors import DecaylabError
from decaylab.schedules import Schedule
from decaylab.train import distributed
from decaylab.train import fit as loop
from decaylab.train.cadence import Agenda, Order
from decaylab.train.checkpoints import files as checkpoint
from decaylab.train.checkpoints import layout as run_folder
from decaylab.train.distributed import Processes, joined
from decaylab.train.trainer import Training

BASE = LanguageRun(
    model=LanguageModel(num_layers=2, num_heads=2, width=16, context=16),
    data=LanguageData(tokenizer="ascii"),
    optimizer=Optimizer(name="adamw", lr=1e-2, clip=0.5),
    decay=Decay(weight_decay=0.3, roles=("matrix",)),
    schedule=Schedule(kind="cosine", warmup_steps=2),
    averages=Averages(ema=(0.9,), uniform=True),
    evaluation=Evaluation(every=4, batches=3, batch_size=4, prompt="def ", prompt_tokens=5, text_file=__file__),
    probes=Probes(every=4),
    batch_size=8,
    accumulation=4,
    steps=8,
)
RUNS = {
    "adamw": BASE,
    "sign": replace(
        BASE,
        optimizer=Optimizer(name="signsgd", lr=1e-3, momentum=0.9),
        decay=Decay(rule="loss-l2", weight_decay=0.01, roles=("embedding",)),
    ),
}


def fit(config, *, stop_after=None, **options):
    """Train, and return the curves, the summary and the weights; the same on every process."""
    records = []
    processes = options.pop("processes", Processes())
    heard = []
    torch.manual_seed(config.seed)
    training = Training(
        config, lambda m: records.append(dict(m)), options.pop("folder", None), processes, lambda name: Path(name)
    )
    beat = lambda step, total: heard.append(step) or len(heard) < (stop_after or 10**9)  # noqa: E731
    outcome = training.run(beat, True, 1e9)
    weights = checkpoint.model_tensors(training.model)
    curve = {f"{r['step']} {k}": v for r in records if "step" in r for k, v in r.items() if k != "step"}
    return curve, dict(outcome.summary), torch.cat([w.flatten().double() for w in weights.values()]).tolist()


@contextmanager
def together(rank, port, size):
    """Join the processes of a test: their two ways of sharing the work."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "RANK": str(rank)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    with joined("cpu") as replicated:
        yield replicated, replace(replicated, parallel="fsdp")


def spawn(target, folder, size):
    """Run ``target(rank, port, folder)`` in so many processes; return what each wrote, by rank."""
    # As torchrun does, this process holds the table of addresses: its port is taken as soon as it is known.
    table = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    start(target, (table.port, folder), size)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]


def worker(rank, port, folder):
    found = {}
    with together(rank, port, 2) as (replicated, sharded):
        for name, config in RUNS.items():
            for processes in (replicated, sharded):
                found[f"{name} {processes.parallel}"] = fit(config, processes=processes)
        # One half replicated, the other half sharded; a beat, and so the stop, at the first talk.
        with pytest.MonkeyPatch.context() as patch:
            clock = iter(range(10**6))
            patch.setattr("decaylab.train.cadence.time.monotonic", lambda: float(next(clock)))
            half = fit(BASE, processes=replicated, folder=folder / "both", stop_after=3)
        rest = fit(BASE, processes=sharded, folder=folder / "both")
        found["resumed"] = ({**half[0], **rest[0]}, rest[1], rest[2])
    (folder / f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("DECAYLAB_HOME", str(tmp_path / "home"))
    alone = {name: fit(config) for name, config in RUNS.items()}  # which prepares the corpus, too
    first, second = spawn(worker, tmp_path, 2)
    assert first.keys() == {"adamw ddp", "adamw fsdp", "sign ddp", "sign fsdp", "resumed"}
    for name, (curve, summary, weights) in first.items():
        expected = alone["sign" if name.startswith("sign") else "adamw"]
        assert curve.keys() == expected[0].keys()
        # The gap is a small difference of two losses; the sign of a gradient near zero is a matter of rounding.
        close = {"rel": 1e-5, "abs": 1e-5} if name != "sign" else {"rel": 1e-3, "abs": 1e-3}
        assert curve == pytest.approx(expected[0], **close), name
        assert summary["completion"] == expected[1]["completion"]
        assert weights == second[name][2], name
        assert weights == pytest.approx(expected[2], abs=1e-5 if not name.startswith("sign") else 5e-3), name
    assert run_folder.snapshot_folder(tmp_path / "both", BASE.steps).is_dir()


# With three processes the order of additions counts. An evaluation, records and dropout on both sides of the break.
TRIO = replace(
    BASE,
    model=replace(BASE.model, dropout=0.1),
    evaluation=Evaluation(every=3, batches=2, batch_size=4),
    probes=Probes(every=5),
    batch_size=12,
    steps=9,
)


def trio_worker(rank, port, folder):
    found = {}
    with together(rank, port, 3) as both, pytest.MonkeyPatch.context() as patch:
        if rank:
            patch.setattr(checkpoint, "save", lambda *_: pytest.fail("only the leader writes"))
        exchanges = []
        add, ask = distributed._mean_in_rank_order, FSDPModule.set_requires_gradient_sync
        patch.setattr(distributed, "_mean_in_rank_order", lambda *a: exchanges.append(True) or add(*a))
        patch.setattr(FSDPModule, "set_requires_gradient_sync", lambda m, on: exchanges.append(on) or ask(m, on))
        for processes in both:
            exchanges.clear()
            whole, heard, records = {}, [], []
            loop.fit(TRIO, partial(curve, whole), processes=processes)
            found[f"{processes.parallel} exchanges"] = list(exchanges)
            beat = lambda step, total, heard=heard: heard.append(step) or len(heard) < 6  # noqa: E731
            with pytest.MonkeyPatch.context() as clock:
                ticks = iter(range(10**6))
                clock.setattr("decaylab.train.cadence.time.monotonic", lambda ticks=ticks: float(next(ticks)))
                first = loop.fit(
                    TRIO, records.append, processes=processes, folder=folder / processes.parallel, heartbeat=beat
                )
            second = loop.fit(TRIO, records.append, processes=processes, folder=folder / processes.parallel)
            parts = {}
            for record in records:
                curve(parts, record)
            found[processes.parallel] = [whole, parts, [first.status, second.status], len(records)]
    (folder / f"{rank}.json").write_text(json.dumps(found))


def curve(found, record):
    """Take in one record: the last value of a key at a step counts."""
    found |= {f"{record['step']} {key}": v for key, v in record.items() if "step" in record and key != "step"}


@pytest.mark.slow
def test_as_many_processes_resume_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setenv("DECAYLAB_HOME", str(tmp_path / "home"))
    fit(replace(TRIO, steps=2))  # prepares the corpus
    leader, *others = spawn(trio_worker, tmp_path, 3)
    for parallel in ("ddp", "fsdp"):
        whole, parts, statuses, _ = leader[parallel]
        assert statuses == ["interrupted", "done"]
        assert {key: (v, parts[key]) for key, v in whole.items() if parts[key] != v} == {}
        assert whole.keys() == parts.keys() and any("gradients/norm" in key for key in whole)
        assert [other[parallel][3] for other in others] == [0, 0]  # nor do the others record
    # Gradients are exchanged in the last of a step's two micro-steps only; so small a model has one bucket of them.
    assert leader["ddp exchanges"] == TRIO.steps * [True]
    assert leader["fsdp exchanges"] == TRIO.steps * [False, True]


def test_shares_of_a_batch():
    processes = [Processes(rank, 3) for rank in range(3)]
    assert [p.rows(12) for p in processes] == [(0, 4), (4, 8), (8, 12)]
    assert [Processes(0, size).num_parts(12, 6) for size in (1, 2, 3, 4, 12)] == [6, 3, 2, 3, 1]
    shares = [list(p.share("abcd")) for p in processes]
    assert {len(share) for share in shares} == {2}
    assert sorted(item for share in shares for item, weight in share if weight) == list("abcd")


@pytest.mark.parametrize(
    ("config", "parallel", "word"),
    [
        (VisionRun(), "ddp", "vision"),
        (replace(BASE, batch_size=9, accumulation=1), "ddp", "multiple"),
        (replace(BASE, weights="bfloat16"), "fsdp", "float32"),
        (replace(BASE, probes=Probes(curvature=("hessian_trace",))), "fsdp", "ddp"),
    ],
)
def test_what_two_processes_cannot_train_is_refused(config, parallel, word):
    Processes().check(config)
    with pytest.raises(DecaylabError, match=word):
        Processes(0, 2, parallel).check(config)


def test_the_leader_decides_and_talks_about_once_a_second(monkeypatch):
    told = []

    class Leader(Processes):
        def agree(self, *numbers):
            told.append(numbers)
            return numbers

    now = [0.0]
    monkeypatch.setattr("decaylab.train.cadence.time.monotonic", lambda: now[0])
    agenda = Agenda(Leader(0, 2), lambda step, total: step < 30, 2.0, 0)
    orders = []
    for done in range(1, 51):
        now[0] += 0.125
        orders.append(agenda.after(done, 100))
    # After the first step, eight steps are a second: beats at 9, 17, 25, 33, a checkpoint after two seconds.
    assert [numbers[1] for numbers in told[:3]] == [8, 8, 8]
    assert [done for done, order in enumerate(orders, 1) if order is Order.SAVE] == [17]
    assert orders.index(Order.STOP) == 32
