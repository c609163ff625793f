"""Runs trained side by side have the bits that they have alone, whatever they are beside and however those end."""

from dataclasses import replace

import pytest
import torch

from decaylab import models
from decaylab.config.schema import (
    Averages,
    Decay,
    Evaluation,
    Optimizer,
    Probes,
    VisionData,
    VisionModel,
    VisionRun,
)
from decaylab.errors import DecaylabError
from decaylab.schedules import Schedule
from decaylab.train.batched import driver as side_by_side
from decaylab.train.batched.grouping import company
from decaylab.train.checkpoints import files as checkpoint
from decaylab.train.checkpoints import layout as run_folder
from decaylab.train.fit import Job, fit, fit_side_by_side

# 100 images in batches of 32: the last batch of an epoch is smaller.
BASE = VisionRun(
    model=VisionModel(width=8, blocks=1),
    data=VisionData(train_size=100),
    optimizer=Optimizer(lr=0.1),
    decay=Decay(rule="l2", weight_decay=0.01),
    schedule=Schedule(kind="two_phase", drop_at=(0.5,), final_lr=0.01),
    evaluation=Evaluation(every=1, batch_size=500),
    probes=Probes(every=3),
    batch_size=32,
    epochs=3,
)
RUNS = [
    BASE,
    replace(BASE, seed=1, optimizer=Optimizer(lr=0.3, momentum=0.9), averages=Averages(ema=(0.9,), uniform=True)),
    replace(
        BASE, seed=2, decay=Decay(rule="decoupled", weight_decay=0.1), data=VisionData(train_size=100, augment=True)
    ),
    replace(BASE, seed=3, epochs=2, data=VisionData(train_size=100, label_noise=0.2, seed=4)),
    replace(BASE, seed=4, optimizer=Optimizer(name="adamw", lr=1e-2, clip=1.0), schedule=Schedule(kind="cosine")),
]


def _alone(config, **options):
    records = []
    outcome = fit(config, lambda m: records.append(dict(m)), **options)
    return records, outcome


def _together(configs, **options):
    records = [[] for _ in configs]
    jobs = [
        Job(config=config, record=lambda m, seen=seen: seen.append(dict(m)), **options)
        for config, seen in zip(configs, records, strict=True)
    ]
    ended = dict(fit_side_by_side(jobs))
    return [(records[number], ended[number]) for number in range(len(jobs))]


def _results(run):
    records, outcome = run
    timeless = {k: v for k, v in outcome.summary.items() if "second" not in k}
    return records, outcome.status, outcome.steps, timeless


@pytest.mark.parametrize(
    "change", [{}, {"scale_invariant": True}, {"architecture": "vgg_small"}], ids=["resnet", "sphere", "vgg"]
)
def test_side_by_side_is_bit_for_bit_alone(change):
    configs = [replace(run, model=replace(run.model, **change)) for run in RUNS]
    assert len({company(config, "cpu") for config in configs}) == 1
    for config, together in zip(configs, _together(configs), strict=True):
        assert _results(together) == _results(_alone(config))


def test_a_run_alone_learns_what_the_plain_network_learns():
    """The lanes are only another way to compute the same gradients: the first steps agree with torch's own."""
    from decaylab.train.distributed import Processes
    from decaylab.train.trainer import Training

    torch.manual_seed(BASE.seed)
    plain = []
    Training(BASE, lambda m: plain.append(dict(m)), None, Processes(), None).run(lambda s, t: s < 10**9, False, 1e9)
    lanes, _ = _alone(BASE)
    assert [r.keys() for r in plain] == [r.keys() for r in lanes]
    early = [r for r in plain if r["step"] <= 4], [r for r in lanes if r["step"] <= 4]
    for one, other in zip(*early, strict=True):
        assert other == pytest.approx(one, rel=2e-4)


def test_statistics_and_counts_of_norms_stay_each_networks_own(tmp_path):
    configs = [replace(run, snapshots_at=(2,)) for run in RUNS[:3]]
    folders = [tmp_path / str(number) for number in range(3)]
    jobs = [Job(config=c, record=lambda m: None, folder=f) for c, f in zip(configs, folders, strict=True)]
    assert {outcome.status for _, outcome in fit_side_by_side(jobs)} == {"done"}
    found = [checkpoint.load_weights(run_folder.snapshot_folder(folder, 8)) for folder in folders]
    counts = [int(tensor) for tensors in found for name, tensor in tensors.items() if "num_batches" in name]
    assert counts and set(counts) == {8}
    means = [tensors["norm_out.running_mean"] for tensors in found]
    assert not torch.equal(means[0], means[1])


def test_a_run_that_fails_or_diverges_leaves_the_others_as_they_were(tmp_path):
    lost = replace(BASE, seed=7, optimizer=Optimizer(lr=1e30), decay=Decay(rule="l2", weight_decay=0.0))
    missing = replace(BASE, seed=8, data=VisionData(dataset="cifar10", train_size=100))
    beats = []

    def give_up(step, total):
        beats.append(step)
        raise DecaylabError("taken over")

    records = [[] for _ in range(4)]
    jobs = [
        Job(config=lost, record=records[0].append),
        Job(config=missing, record=records[1].append),
        Job(config=RUNS[1], record=records[2].append, heartbeat=give_up),
        Job(config=BASE, record=lambda m: records[3].append(dict(m))),
    ]
    clock = iter(range(10**6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("decaylab.train.trainer.time.monotonic", lambda: float(next(clock)))
        ended = dict(fit_side_by_side(jobs))
    assert ended[0].status == "diverged"
    assert isinstance(ended[1], DecaylabError) and "cifar10" in str(ended[1])
    assert str(ended[2]) == "taken over" and beats == [1]
    assert _results((records[3], ended[3])) == _results(_alone(BASE))


def test_runs_stopped_at_different_places_go_on_bit_for_bit(tmp_path):
    clock = iter(range(10**6))
    for number, config in enumerate(RUNS[:3]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("decaylab.train.trainer.time.monotonic", lambda: float(next(clock)))
            stop = lambda step, total, last=2 + number: step < last  # noqa: E731
            _, outcome = _alone(config, folder=tmp_path / str(number), heartbeat=stop)
        assert (outcome.status, outcome.steps) == ("interrupted", 2 + number)
    jobs = [Job(config=c, record=lambda m: None, folder=tmp_path / str(n)) for n, c in enumerate(RUNS[:3])]
    ended = dict(fit_side_by_side(jobs))
    for number, config in enumerate(RUNS[:3]):
        _, whole = _alone(config)
        for key in ("train/loss", "test/loss", "train/batch_loss"):
            assert ended[number].summary[key] == whole.summary[key]


def test_a_machine_that_computes_neighbours_differently_trains_each_alone(monkeypatch):
    widths = []
    original = side_by_side.Lanes

    def lanes(models):
        widths.append(len(models))
        return original(models)

    monkeypatch.setattr(side_by_side, "Lanes", lanes)
    monkeypatch.setattr(side_by_side, "_same_as_alone", lambda models, batches: False)
    for config, together in zip(RUNS[:2], _together(RUNS[:2]), strict=True):
        assert _results(together) == _results(_alone(config))
    assert set(widths) == {1}


def _networks(make, count):
    torch.manual_seed(0)
    models = [make().to(memory_format=torch.channels_last) for _ in range(count)]
    return models, [(torch.randn(32, 1, 8, 8), torch.randint(10, (32,))) for _ in models]


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.preact_resnet("small", in_channels=1, width=8),
        lambda: models.preact_resnet("small", in_channels=1, width=8, scale_invariant=True, activation="gelu"),
        lambda: models.vgg_small(in_channels=1, width=8),
    ],
    ids=["resnet", "sphere", "vgg"],
)
@pytest.mark.parametrize("count", [3, 8])
def test_the_networks_of_the_figures_are_side_by_side_what_they_are_alone(make, count):
    """Otherwise they are trained one by one, and slowly: a library that sums in another order shows here."""
    assert side_by_side._same_as_alone(*_networks(make, count))


def test_the_check_of_the_machine_sees_one_bit():
    class Off(side_by_side.Lanes):
        def backward(self, losses):
            super().backward(losses)
            if len(self.members) == 3:
                self.members[1].head.bias.grad[3] *= 1 + 2**-23

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side, "Lanes", Off)
        make = lambda: models.preact_resnet("small", in_channels=1, width=8)  # noqa: E731
        assert not side_by_side._same_as_alone(*_networks(make, 3))


@pytest.mark.parametrize(
    "change",
    [
        {"model": VisionModel(width=12)},
        {"model": VisionModel(architecture="resnet18", width=8)},
        {"precision": "bfloat16"},
        {"weights": "bfloat16"},
        {"compile": True},
        {"accumulation": 2},
        {"batch_size": 2048},
        {"probes": Probes(names=("microbatch_noise",))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_runs_train_by_themselves(change):
    assert company(BASE, "cpu") is not None
    assert company(BASE, "cuda") is None
    assert company(replace(BASE, **change), "cpu") is None


def test_only_what_the_lanes_share_separates_companies():
    same = [replace(BASE, seed=9, epochs=50, optimizer=Optimizer(lr=1.0), snapshots_every=1)]
    other = [
        replace(BASE, batch_size=16),
        replace(BASE, data=VisionData(train_size=200)),
        replace(BASE, data=VisionData(train_size=100, parity=True)),
        replace(BASE, model=replace(BASE.model, activation="gelu")),
    ]
    assert {company(c, "cpu") for c in same} == {company(BASE, "cpu")}
    assert company(BASE, "cpu") not in {company(c, "cpu") for c in other}
