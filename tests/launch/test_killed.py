"""A process is killed while it trains, evaluates or writes: the run has the bits of one that was never killed."""

import json
import signal
import subprocess
import sys

import pytest

from decaylab.config.identity import run_id, to_dict
from decaylab.config.schema import (
    Averages,
    Decay,
    Divergence,
    Evaluation,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    Probes,
)
from decaylab.schedules import Schedule
from decaylab.store.store import Store
from decaylab.train.fit import fit

CONFIG = LanguageRun(
    model=LanguageModel(num_layers=1, num_heads=1, width=8, context=8, dropout=0.1),
    data=LanguageData(tokenizer="ascii"),
    optimizer=Optimizer(name="adamw", lr=1e-2, clip=1.0),
    decay=Decay(weight_decay=0.1, roles=("matrix",)),
    schedule=Schedule(kind="cosine", warmup_steps=20),
    averages=Averages(ema=(0.9,), uniform=True),
    evaluation=Evaluation(every=30, batches=2, batch_size=4),
    probes=Probes(every=7),
    divergence=Divergence(rise=0.01, patience=10**6),
    batch_size=4,
    accumulation=2,
    steps=200,
)
# Each case trains as a worker does, with a checkpoint after every step, and kills itself instead of a certain call. It
# is a copy of a process that has imported everything; the training begins in the copy.
SCRIPT = """
import json, os, random, signal, sys, time
from pathlib import Path

import torch
import torch._dynamo

from decaylab.launch.scheduler import Queue, Run
from decaylab.store.store import Store
from decaylab.launch.worker import Worker, train
from decaylab.config.identity import from_dict
from decaylab.train.tasks import LanguageTask

folder = Path(sys.argv[1])
run = Run.of(from_dict(json.loads((folder / "run.json").read_text())))
torch.set_num_threads(1)
os.fsync = lambda descriptor: None  # the machine lives on

def live(where, left):
    def deadly(function, counts=lambda *arguments: True):
        def wrapped(*arguments, **options):
            nonlocal left
            left -= counts(*arguments)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)
        return wrapped

    match where:
        case "write":  # the weights are written, the rest of the checkpoint is not
            torch.save = deadly(torch.save)
        case "rename":  # the checkpoint is written, and has not its name yet
            Path.rename = deadly(Path.rename, lambda path, name: "checkpoint" in path.name)
        case "end":  # the run is done, and the store does not know it yet
            Store.finish = deadly(Store.finish)
        case "evaluation":
            LanguageTask.loss = deadly(LanguageTask.loss, lambda task, model, batch: not model.training)

    def target(config, record, **options):
        def heard(mapping):
            if not (folder / "began").exists():
                (folder / "began").write_text(str(mapping.get("resume", 0)))
            record(mapping)
        return train(config, heard, checkpoint_seconds=0.0, **options)

    with Store(folder / "runs.db") as store:
        store.add(run.id, run.config, kind=run.kind)
        Worker(store, Queue(store, [run]), name=str(os.getpid()), target=target, lease_seconds=0.5).work()

for where, left in json.loads(sys.argv[2]):
    (folder / "began").unlink(missing_ok=True)
    child = os.fork()
    if not child:
        live(where, left)
        os._exit(0)
    if where == "whenever":
        while not (folder / "began").exists():
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 0.3))
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    half = len(list((folder / "runs" / run.id).glob(".checkpoint-*")))
    print(json.dumps([where, code, int((folder / "began").read_text()), half]), flush=True)
"""


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setenv("DECAYLAB_HOME", str(tmp_path / "home"))
    expected = {}
    fit(CONFIG, lambda m: expected.update({(m["step"], key): v for key, v in m.items() if key != "step"}))
    (tmp_path / "run.json").write_text(json.dumps(to_dict(CONFIG)))
    (tmp_path / "script.py").write_text(SCRIPT)
    cases = [("write", 20), ("evaluation", 6), ("rename", 10), ("whenever", 0), ("end", 1), ("nowhere", 0)]
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), json.dumps(cases)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    lives = [json.loads(line) for line in process.stdout.splitlines()]
    assert [(where, code) for where, code, *_ in lives] == [
        (where, 0 if where == "nowhere" else -signal.SIGKILL) for where, _ in cases
    ], process.stderr
    assert lives[0][3] == 1, "what was half written is still there"
    began = [step for _, _, step, _ in lives]
    assert began == sorted(began) and began[1] > 0
    assert began[-1] == CONFIG.steps - 1, "the last checkpoint serves until the store knows the end"
    with Store(tmp_path / "runs.db") as store:
        row = store.get(run_id(CONFIG))
        curve = {(step, key): value for _, step, key, value in store.table([row.id]).itertuples(index=False)}
    assert (row.status, row.step) == ("done", CONFIG.steps)
    assert {key: (v, curve.get(key)) for key, v in expected.items() if curve.get(key) != v} == {}
    assert curve.keys() == expected.keys()
    assert [path.name for path in (tmp_path / "runs" / row.id).iterdir()] == [f"snapshot-{CONFIG.steps}"]
