"""A process of a run dies: torchrun starts all anew, and the run goes on from its checkpoint."""

import json
import subprocess
import sys

import pytest

from decaylab.config.identity import run_id, to_dict
from decaylab.config.schema import Evaluation, LanguageData, LanguageModel, LanguageRun, Optimizer, Probes
from decaylab.launch.backends import torchrun
from decaylab.schedules import Schedule
from decaylab.store.leases import LONGEST_NAME
from decaylab.store.store import Store
from decaylab.train.fit import fit

CONFIG = LanguageRun(
    model=LanguageModel(num_layers=1, num_heads=1, width=8, context=8, dropout=0.0),
    data=LanguageData(tokenizer="ascii"),
    optimizer=Optimizer(name="adamw", lr=1e-3, clip=1.0),
    schedule=Schedule(kind="constant"),
    evaluation=Evaluation(every=50, batches=1, batch_size=4),
    probes=Probes(names=(), every=10),
    batch_size=4,
    steps=300,
)
SCRIPT = """
import os, signal, sys, threading, time
from pathlib import Path
from decaylab.launch.scheduler import Run
from decaylab.launch.backends.torchrun import train_together
from decaylab.config.identity import from_dict, run_id
import json

folder = Path(sys.argv[1])
content = json.loads((folder / "run.json").read_text())
run = Run(id=run_id(from_dict(content)), config=content, kind="language")

def die():
    while not list((folder / "runs" / run.id).glob("checkpoint-*")):
        time.sleep(0.005)
    (folder / "died").write_text(os.environ["TORCHELASTIC_RESTART_COUNT"])
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    threading.Thread(target=die, daemon=True).start()
row = train_together(str(folder / "runs.db"), run, device="cpu", checkpoint_seconds=0.1)
sys.exit(row is not None and row.status != "done")
"""


@pytest.mark.slow
def test_a_killed_process_ends_in_a_restart_from_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("DECAYLAB_HOME", str(tmp_path / "home"))
    expected = []
    fit(CONFIG, lambda m: expected.append(dict(m)))
    (tmp_path / "run.json").write_text(json.dumps(to_dict(CONFIG)))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    # More restarts than deaths: right after a death the processes do not always find each other at once.
    command += ["--monitor-interval=0.1", str(script), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "died").read_text() == "0"
    with Store(tmp_path / "runs.db") as store:
        row = store.get(run_id(CONFIG))
        curve = {(step, key): value for _, step, key, value in store.table([row.id]).itertuples(index=False)}
    whole = {(r["step"], k): v for r in expected for k, v in r.items() if k != "step"}
    assert curve == pytest.approx(whole, rel=1e-4, abs=1e-4)
    assert row.status == "done" and row.step == CONFIG.steps


def test_the_processes_of_one_torchrun_have_one_name_and_no_others(monkeypatch):
    name = torchrun.group_name()
    assert torchrun.group_name() == name and len(name) <= LONGEST_NAME
    monkeypatch.setattr(torchrun.socket, "gethostname", lambda: "h" * 300)
    other = torchrun.group_name()
    assert other != name and len(other) <= LONGEST_NAME
    monkeypatch.setattr(torchrun.os, "readlink", lambda path: "pid:[1]")  # a container of the same host
    assert torchrun.group_name() not in (name, other)
