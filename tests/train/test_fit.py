"""The loop's promises: the same bits every time, through checkpoints, interruptions, probes and evaluations."""

import math
import shutil
from dataclasses import replace

import pytest
import torch

from decaylab.config.identity import run_id
from decaylab.config.schema import (
    Averages,
    Decay,
    Divergence,
    Evaluation,
    InitFrom,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    Probes,
    VisionData,
    VisionModel,
    VisionRun,
)
from decaylab.errors import DecaylabError
from decaylab.schedules import Schedule
from decaylab.train.checkpoints import layout as run_folder
from decaylab.train.fit import fit
from decaylab.train.tasks import VisionTask

VISION = VisionRun(
    model=VisionModel(width=4, blocks=1),
    data=VisionData(train_size=96, label_noise=0.1, augment=True),
    optimizer=Optimizer(lr=0.1, momentum=0.5),
    decay=Decay(rule="l2", weight_decay=0.01),
    schedule=Schedule(kind="two_phase", drop_at=(0.5,), final_lr=0.01),
    averages=Averages(ema=(0.9,), uniform=True),
    evaluation=Evaluation(every=2, batch_size=500),
    probes=Probes(every=2),
    batch_size=32,
    epochs=4,
    accumulation=2,
)
LANGUAGE = LanguageRun(
    model=LanguageModel(num_layers=1, num_heads=2, width=16, context=16, dropout=0.1),
    data=LanguageData(tokenizer="ascii"),
    optimizer=Optimizer(name="adamw", lr=1e-2, clip=1.0),
    decay=Decay(weight_decay=0.3, roles=("matrix",)),
    schedule=Schedule(kind="cosine", warmup_steps=2),
    averages=Averages(ema=(0.9,)),
    evaluation=Evaluation(every=5, batches=2, batch_size=4),
    probes=Probes(every=3),
    batch_size=4,
    steps=12,
)
RUNS = {"vision": VISION, "language": LANGUAGE}


@pytest.fixture(scope="module", autouse=True)
def _corpus(tmp_path_factory):
    """One data folder for this file: the corpus is prepared once."""
    patch = pytest.MonkeyPatch()
    patch.setenv("DECAYLAB_HOME", str(tmp_path_factory.mktemp("data")))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _home(_corpus):
    """Instead of the suite's fixture with the same name, which gives every test an empty folder."""


def _train(config, **options):
    records = []
    outcome = fit(config, lambda m: records.append(dict(m)), **options)
    return records, outcome


def _curves(records):
    """The last value written of every (step, key): what the store holds after a resume."""
    curves = {}
    for record in records:
        if "resume" in record:
            curves = {k: v for k, v in curves.items() if k[0] <= record["resume"]}
            continue
        if "checkpoint" in record:
            continue
        curves |= {(record["step"], key): value for key, value in record.items() if key != "step"}
    return curves


@pytest.mark.parametrize("kind", RUNS)
def test_same_settings_same_bits_and_the_callers_random_state_is_left_alone(kind):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, outcome = _train(RUNS[kind])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(77)
    second, _ = _train(RUNS[kind])
    assert first == second
    assert outcome.status == "done"
    other, _ = _train(replace(RUNS[kind], seed=1))
    assert _curves(other) != _curves(first)


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("stop_after", [1, 5])
def test_interrupted_and_resumed_is_bit_for_bit_the_same(kind, stop_after, tmp_path, monkeypatch):
    whole, _ = _train(RUNS[kind])
    clock = iter(range(10**6))
    monkeypatch.setattr("decaylab.train.trainer.time.monotonic", lambda: float(next(clock)))  # a beat every step
    beats = []

    def stop(step, total):
        beats.append(step)
        return len(beats) < stop_after

    first, outcome = _train(RUNS[kind], folder=tmp_path, heartbeat=stop)
    assert outcome.status == "interrupted"
    assert run_folder.checkpoints(tmp_path)[0][0] == outcome.steps == stop_after
    second, outcome = _train(RUNS[kind], folder=tmp_path, checkpoint_seconds=1.0)
    assert second[0] == {"resume": stop_after}
    assert outcome.status == "done"
    assert _curves(first + second) == _curves(whole)


def test_checkpoints_and_probes_change_nothing(tmp_path, monkeypatch):
    plain = replace(VISION, probes=Probes(names=(), every=2))
    clock = iter(range(10**6))
    monkeypatch.setattr("decaylab.train.trainer.time.monotonic", lambda: float(next(clock)))
    with_all, _ = _train(VISION, folder=tmp_path, checkpoint_seconds=1.0)
    without, _ = _train(plain)
    with_all, without = _curves(with_all), _curves(without)
    assert without.items() <= with_all.items()
    assert any("weights/norm" in key for _, key in with_all)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, monkeypatch):
    whole, _ = _train(LANGUAGE)
    clock = iter(range(10**6))
    monkeypatch.setattr("decaylab.train.trainer.time.monotonic", lambda: float(next(clock)))
    beats = []
    first, _ = _train(
        LANGUAGE, folder=tmp_path, checkpoint_seconds=1.0, heartbeat=lambda s, t: beats.append(s) or len(beats) < 6
    )
    (newest, path), (older, _) = run_folder.checkpoints(tmp_path)
    (path / "weights.safetensors").write_bytes(b"not a tensor")
    second, outcome = _train(LANGUAGE, folder=tmp_path)
    assert second[0] == {"resume": older}
    assert outcome.summary["damaged"] == f"{path.name} could not be read: it went on from step {older}"
    assert older < newest
    assert _curves(first + second) == _curves(whole)


def test_a_checkpoint_of_other_settings_is_not_used(tmp_path):
    _train(LANGUAGE, folder=tmp_path)
    shutil.rmtree(tmp_path)
    other = replace(LANGUAGE, seed=9)
    beats = []
    folder = tmp_path / "x"
    with pytest.MonkeyPatch.context() as patch:
        clock = iter(range(10**6))
        patch.setattr("decaylab.train.trainer.time.monotonic", lambda: float(next(clock)))
        _train(other, folder=folder, heartbeat=lambda s, t: beats.append(s) or len(beats) < 3)
    records, _ = _train(LANGUAGE, folder=folder)
    assert not any("resume" in r for r in records)


def test_starting_from_a_snapshot(tmp_path):
    parent = replace(VISION, snapshots_every=2, accumulation=1)
    folders = {run_id(parent): tmp_path / "parent"}
    records, _ = _train(parent, folder=folders[run_id(parent)])
    step = 6  # two epochs of three steps
    child = replace(
        parent, init_from=InitFrom(run=run_id(parent), step=step), epochs=1, snapshots_every=0, averages=Averages()
    )
    begun, _ = _train(child, resolve=folders.__getitem__)
    there = {k: v for r in records if r.get("step") == step for k, v in r.items() if k.startswith("test/")}
    here = {k: v for r in begun if r.get("step") == 0 for k, v in r.items() if k.startswith("test/")}
    assert there == here
    averaged = replace(child, init_from=InitFrom(run=run_id(parent), step=step, weights="ema0.9"))
    begun, _ = _train(averaged, resolve=folders.__getitem__)
    there = next(r["ema0.9/test/loss"] for r in records if r.get("step") == step and "ema0.9/test/loss" in r)
    assert next(r["test/loss"] for r in begun if r.get("step") == 0) == pytest.approx(there, rel=1e-6)


def test_snapshots_at_chosen_epochs(tmp_path):
    _train(replace(VISION, snapshots_at=(1, 3)), folder=tmp_path)
    assert [run_folder.snapshot_folder(tmp_path, step).is_dir() for step in (0, 3, 6, 9)] == [False, True, False, True]


def test_a_missing_snapshot_says_what_to_do(tmp_path):
    child = replace(VISION, init_from=InitFrom(run="abc", step=5))
    with pytest.raises(DecaylabError, match="train that run first"):
        _train(child, resolve=lambda identity: tmp_path)
    with pytest.raises(DecaylabError, match="store"):
        _train(child)


def test_divergence_ends_a_run_with_a_reason():
    wild = replace(LANGUAGE, optimizer=Optimizer(name="sgd", lr=1e30), decay=Decay(), steps=50)
    _, outcome = _train(wild)
    assert outcome.status == "diverged"
    assert "step" in outcome.reason
    assert outcome.steps < 50
    assert not math.isfinite(outcome.summary["train/batch_loss"])
    kept = replace(LANGUAGE, divergence=Divergence(rise=1e-9, patience=1, stop=False))
    assert _train(kept)[1].status == "done"


def test_the_penalty_in_the_loss_is_the_l2_rule_without_clipping():
    base = replace(LANGUAGE, optimizer=Optimizer(name="sgd", lr=0.1), model=replace(LANGUAGE.model, dropout=0.0))
    rule, _ = _train(replace(base, decay=Decay(rule="l2", weight_decay=0.2, roles=("matrix",))))
    half, _ = _train(replace(base, decay=Decay(rule="loss-l2-half", weight_decay=0.2, roles=("matrix",))))
    whole, _ = _train(replace(base, decay=Decay(rule="loss-l2", weight_decay=0.1, roles=("matrix",))))
    pick = lambda records: {k: v for k, v in _curves(records).items() if "loss" in k[1]}  # noqa: E731
    assert pick(rule) == pytest.approx(pick(half), rel=1e-5)
    assert pick(half) == pytest.approx(pick(whole), rel=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_trains(precision):
    records, outcome = _train(replace(LANGUAGE, precision=precision))
    assert outcome.status == "done"
    assert outcome.summary["train/loss"] < records[0]["train/loss"]


def test_accumulation_gives_the_same_step():
    base = replace(LANGUAGE, model=replace(LANGUAGE.model, dropout=0.0))
    one = _curves(_train(base)[0])
    four = _curves(_train(replace(base, accumulation=4))[0])
    for key, value in one.items():
        if key[1].endswith("loss"):
            assert four[key] == pytest.approx(value, rel=1e-4), key


def test_accumulation_gives_the_same_step_where_the_last_batch_falls_into_unequal_parts():
    base = replace(
        VISION,
        model=VisionModel(architecture="vgg_small", width=4),  # no statistics of a batch
        data=replace(VISION.data, train_size=39, augment=False),
        accumulation=1,
    )
    one, four = (_curves(_train(replace(base, accumulation=parts))[0]) for parts in (1, 4))
    assert one.keys() == four.keys()
    for key, value in one.items():
        if key[1].endswith("loss"):
            assert four[key] == pytest.approx(value, rel=1e-5), key


def test_a_run_whose_last_step_loses_the_weights_has_diverged():
    steep = replace(VISION, optimizer=Optimizer(lr=1e30), decay=Decay(), schedule=Schedule(), averages=Averages())
    _, outcome = _train(replace(steep, epochs=1, batch_size=96, accumulation=1))
    assert outcome.status == "diverged" and outcome.steps == 1
    assert outcome.reason == "loss is nan at step 1"


def test_recalibration_takes_every_image_alike():
    config = replace(VISION, data=VisionData(train_size=100), evaluation=Evaluation(batch_size=64))
    task = VisionTask(config, torch.device("cpu"))
    first = next(m for m in task.model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = []
    hook = first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().double()))
    task.recalibrate(task.model)
    hook.remove()
    assert [len(x) for x in seen] == [64, 36]
    torch.testing.assert_close(first.running_mean.double(), torch.cat(seen).mean((0, 2, 3)), rtol=1e-5, atol=1e-7)
    spread = sum(len(x) / 100 * x.var((0, 2, 3)) for x in seen)
    torch.testing.assert_close(first.running_var.double(), spread, rtol=1e-5, atol=1e-7)
    assert first.momentum == 0.1
