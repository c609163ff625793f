"""A run that starts from another's snapshot: with its optimizer's state, and with another decay."""

import warnings
from dataclasses import replace

import pytest
import torch

from decaylab.config.identity import run_id
from decaylab.config.schema import (
    Averages,
    Decay,
    Evaluation,
    InitFrom,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    Probes,
)
from decaylab.errors import DecaylabError
from decaylab.params import roles
from decaylab.schedules import Schedule
from decaylab.train.build import language_model
from decaylab.train.checkpoints import files as checkpoint
from decaylab.train.checkpoints import layout as run_folder
from decaylab.train.fit import fit

# So few tokens hold one sequence only, so every step of every run has the same batch.
PARENT = LanguageRun(
    model=LanguageModel(num_layers=1, num_heads=2, width=16, context=16),
    data=LanguageData(tokenizer="ascii", train_tokens=17),
    optimizer=Optimizer(name="adamw", lr=1e-3, clip=1.0),
    decay=Decay(weight_decay=0.3, roles=("matrix",)),
    schedule=Schedule(kind="constant"),
    averages=Averages(ema=(0.5,)),
    evaluation=Evaluation(every=1, batches=1, batch_size=2),
    probes=Probes(names=(), every=1),
    batch_size=2,
    steps=8,
    snapshots_every=2,
    snapshot_optimizer=True,
)


@pytest.fixture(scope="module", autouse=True)
def _corpus(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("DECAYLAB_HOME", str(tmp_path_factory.mktemp("data")))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _home(_corpus):
    """Instead of the suite's fixture with the same name, which gives every test an empty folder."""


@pytest.fixture(scope="module")
def parent(_corpus, tmp_path_factory):
    """The folder of a finished run, and its losses by step."""
    folder = tmp_path_factory.mktemp("parent")
    return folder, _losses(PARENT, folder=folder)


def _losses(config, **options):
    found = {}
    fit(config, lambda m: found.update({m["step"]: m["train/loss"]} if "train/loss" in m else {}), **options)
    return found


def _child(**changes):
    source = InitFrom(run=run_id(PARENT), step=4, optimizer=True)
    return replace(PARENT, **{"init_from": source, "steps": 4, "snapshots_every": 0, **changes})


def test_with_the_optimizers_state_it_goes_on_as_the_run_did(parent):
    folder, losses = parent
    later = {step - 4: loss for step, loss in losses.items() if step >= 4}
    assert _losses(_child(), resolve=lambda run: folder) == later
    fresh = _losses(_child(init_from=InitFrom(run=run_id(PARENT), step=4)), resolve=lambda run: folder)
    assert fresh[0] == later[0] and fresh[4] != later[4]


def test_the_decay_is_the_new_runs_own_also_where_its_rule_counts_steps_or_learns_the_peak(tmp_path):
    parent = replace(PARENT, decay=Decay(rule="independent", weight_decay=0.01, roles=("matrix",)), steps=4)
    fit(parent, lambda m: None, folder=tmp_path)
    source = InitFrom(run=run_id(parent), step=4, optimizer=True)
    slower = replace(PARENT.optimizer, lr=1e-4)
    ended = {}
    for rule, coefficient in (("independent", 0.01), ("decoupled", 0.01 / slower.lr)):
        decay = Decay(rule=rule, weight_decay=coefficient, roles=("matrix",))
        with warnings.catch_warnings(action="error"):
            ended[rule] = _losses(_child(init_from=source, optimizer=slower, decay=decay), resolve=lambda run: tmp_path)
    assert ended["independent"] == pytest.approx(ended["decoupled"], rel=1e-6)
    faster = _child(init_from=source, optimizer=replace(PARENT.optimizer, lr=1e-2), decay=parent.decay)
    assert len(_losses(faster, resolve=lambda run: tmp_path)) == 5


def test_any_snapshot_can_be_the_start(parent):
    folder, losses = parent
    for step in (0, 2, 6, 8):
        child = _child(init_from=InitFrom(run=run_id(PARENT), step=step), steps=1)
        assert _losses(child, resolve=lambda run: folder)[0] == losses[step]


def test_a_checkpoint_can_be_the_start_too(parent, tmp_path, monkeypatch):
    _, losses = parent
    clock = iter(range(10**6))
    monkeypatch.setattr("decaylab.train.cadence.time.monotonic", lambda: float(next(clock)))  # a beat every step
    beats = []
    plain = replace(PARENT, snapshots_every=0, snapshot_optimizer=False)
    stopped = fit(plain, lambda m: None, folder=tmp_path, heartbeat=lambda s, t: beats.append(s) or len(beats) < 4)
    assert stopped.status == "interrupted" and stopped.steps == 4
    later = {step - 4: loss for step, loss in losses.items() if step >= 4}
    source = InitFrom(run=run_id(plain), step=4, optimizer=True)
    assert _losses(_child(init_from=source), resolve=lambda run: tmp_path) == later


def test_what_has_begun_goes_on_without_its_start(parent, tmp_path, monkeypatch):
    folder, _ = parent
    child = _child()
    whole = _losses(child, resolve=lambda run: folder)
    clock = iter(range(10**6))
    monkeypatch.setattr("decaylab.train.cadence.time.monotonic", lambda: float(next(clock)))
    beats = []
    stop = {"heartbeat": lambda s, t: beats.append(s) or len(beats) < 2}
    first = _losses(child, folder=tmp_path, resolve=lambda run: folder, **stop)
    gone = {"resolve": lambda run: tmp_path / "gone"}
    assert first | _losses(child, folder=tmp_path, **gone) == whole
    for path in tmp_path.glob("checkpoint-*/weights.safetensors"):
        path.write_bytes(b"damaged")
    with pytest.raises(DecaylabError, match="has no snapshot at step 4"):
        _losses(child, folder=tmp_path, **gone)


def test_another_decay_and_learning_rate_act_on_the_old_state(parent, tmp_path):
    folder, _ = parent
    first = checkpoint.load_weights(run_folder.snapshot_folder(folder, 4))
    lr, ends = 1e-4, {}
    for wd in (0.0, 2.0):
        child = _child(
            optimizer=replace(PARENT.optimizer, lr=lr),
            decay=Decay(weight_decay=wd, roles=("matrix",)),
            steps=1,
        )
        fit(child, lambda m: None, folder=tmp_path / str(wd), resolve=lambda run: folder)
        ends[wd] = checkpoint.load_weights(run_folder.snapshot_folder(tmp_path / str(wd), 1))
    role_of = roles(language_model(PARENT.model, 128))
    for name, w in first.items():
        assert (w - ends[0.0][name]).abs().max() < 3 * lr  # Adam's step is about its learning rate, the new one
        shrunk = lr * 2.0 * w if role_of[name] == "matrix" else torch.zeros_like(w)
        torch.testing.assert_close(ends[0.0][name] - ends[2.0][name], shrunk, rtol=1e-3, atol=1e-7)


def test_snapshots_without_the_optimizers_state_say_so(tmp_path):
    plain = replace(PARENT, snapshot_optimizer=False)
    fit(plain, lambda m: None, folder=tmp_path)
    with pytest.raises(DecaylabError, match="snapshot_optimizer"):
        fit(_child(), lambda m: None, resolve=lambda run: tmp_path)
