"""Every training command of the authors' README has its run at the paper budget, with exactly its settings.

The commands stand here as data, in this package's words. Their global batch is the micro-batch times the accumulation;
a cosine to ``min_lr`` is one to that share of the peak; ``min_lr`` equal to the learning rate is a constant one. What
the commands leave to a default is tested only where the paper names it.
"""

import itertools
from functools import cache

import pytest

from decaylab import studies
from decaylab.config.identity import run_id, to_dict
from decaylab.experiments.config_tables import flat

# name -> (experiment, settings by dotted path). A path with a star is looked up in the run that a copy starts from.
COMMANDS = {}


def _add(name, experiment, settings):
    assert name not in COMMANDS
    COMMANDS[name] = (experiment, settings)


# --- Fig. 1: twelve commands -----------------------------------------------------------------------------------------
for network, architecture, dataset, rates, decay in (
    ("vgg", "vgg16", "cifar10", (0.1, 0.01), 0.008),
    ("resnet18", "resnet18", "cifar10", (0.08, 0.001), 0.0125),
    ("resnet34", "resnet34", "cifar100", (0.15, 0.001), 0.01),
):
    for lr in rates:
        for wd in (decay, 0.0):
            _add(
                f"{network} lr {lr} wd {wd}",
                "fig1",
                {
                    "model.architecture": architecture,
                    "data.dataset": dataset,
                    "data.augment": False,
                    "batch_size": 128,
                    "epochs": 1000,
                    "optimizer.name": "sgd",
                    "optimizer.momentum": 0.0,
                    "optimizer.lr": lr,
                    "schedule.kind": "two_phase",
                    "schedule.drop_at": [0.5],
                    "schedule.final_lr": 1e-4,
                    "decay.weight_decay": wd,
                    "decay.roles": ["all"],
                },
            )

# --- Fig. 2 and 3: six commands; a copy is fine-tuned for 100 epochs every second epoch ------------------------------
_COPY = {"batch_size": 128, "epochs": 100, "optimizer.momentum": 0.0, "schedule.kind": "constant"}
for lr in (0.001, 0.003, 0.005):
    _add(
        f"sphere lr {lr}",
        "fig2",
        _COPY
        | {"optimizer.lr": 1e-4, "model.scale_invariant": True, "model.architecture": "resnet18"}
        | {"*optimizer.lr": lr, "*decay.rule": "sphere_projection", "*decay.weight_decay": 0.0},
    )
# The README repeats one of these three times; the paper's text and figure have three learning rates.
for lr in (0.1, 0.15, 0.2):
    _add(
        f"resnet lr {lr}",
        "fig3",
        _COPY
        | {"optimizer.lr": 1e-3, "model.scale_invariant": False, "model.architecture": "resnet18"}
        | {"*optimizer.lr": lr, "*decay.weight_decay": 0.015},
    )

# --- Language: what all its commands have in common ------------------------------------------------------------------
GPT = {
    "model.num_layers": 12,
    "model.num_heads": 12,
    "model.width": 768,
    "model.context": 256,
    "model.bias": False,
    "model.tied": True,
    "model.dropout": 0.0,
    "data.corpus": "openwebtext",
    "data.tokenizer": "gpt2",
    "batch_size": 256,
    "steps": 50_000,
    "precision": "bfloat16",
    "optimizer.clip": 1.0,
}
ADAM = {"optimizer.name": "adamw", "optimizer.betas": [0.9, 0.95], "optimizer.lr": 6e-4}
COSINE = {"schedule.kind": "cosine", "schedule.warmup_steps": 400, "schedule.final_ratio": 0.1}
WEIGHTS = {"decay.roles": ["matrix", "embedding", "head"]}
DECOUPLED = {"decay.rule": "decoupled", **WEIGHTS}


def _micro(size):
    return {"accumulation": 256 // size}


for wd in (0.0, 0.1, 0.3):
    settings = GPT | ADAM | COSINE | DECOUPLED | _micro(8) | {"schedule.decay_steps": None}
    _add(f"cosine wd {wd}", "fig5", settings | {"decay.weight_decay": wd})
for wd in (0.0, 0.1, 0.3, 0.6):
    settings = GPT | ADAM | DECOUPLED | _micro(8) | {"schedule.kind": "constant"}
    _add(f"constant wd {wd}", "fig5", settings | {"decay.weight_decay": wd})
# Fine-tuning from step 10,000 keeps the optimizer's state, leaves the decay at its default, 0, and evaluates on 5000
# sequences.
TINY = ADAM | {
    "optimizer.lr": 1e-5,
    "schedule.kind": "constant",
    "steps": 10_000,
    "decay.weight_decay": 0.0,
    "init_from.step": 10_000,
    "init_from.optimizer": True,
    "*decay.weight_decay": 0.0,
    "*optimizer.lr": 6e-4,
    "*steps": 50_000,
    "evaluation.batches": 625,
    "evaluation.batch_size": 8,
}
_add("fine-tuning a cosine run", "fig5", GPT | TINY | _micro(4) | {"*schedule.kind": "cosine"})
_add("fine-tuning a constant run", "fig5", GPT | TINY | _micro(8) | {"*schedule.kind": "constant"})
for precision, wd in (("bfloat16", 0.0), ("bfloat16", 0.1), ("bfloat16", 0.3), ("float32", 0.0)):
    settings = GPT | ADAM | COSINE | DECOUPLED | _micro(16) | {"model.context": 1024, "seed": 0}
    _add(f"long context {precision} wd {wd}", "fig7", settings | {"precision": precision, "decay.weight_decay": wd})
for wd, size in ((0.003, 8), (0.01, 8), (0.03, 8), (0.1, 8), (0.15, 32), (0.2, 32), (0.3, 32)):
    roles = {"decay.roles": ["matrix", "embedding", "head", "norm"]}  # every parameter, as there are no biases
    settings = GPT | ADAM | COSINE | DECOUPLED | roles | _micro(size)
    _add(f"all parameters wd {wd}", "fig14", settings | {"decay.weight_decay": wd})
for c, size in ((1e-6, 8), (3e-6, 8), (5e-6, 32), (7e-6, 32), (1e-5, 8), (1e-4, 8), (1e-3, 8)):
    settings = GPT | ADAM | COSINE | WEIGHTS | _micro(size) | {"decay.rule": "loss-l2"}
    _add(f"L2 in the loss {c}", "fig15", settings | {"decay.weight_decay": c})
for wd in (0.0, 1e-5, 3e-5, 1e-4):
    sgd = {"optimizer.name": "sgd", "optimizer.momentum": 0.9, "optimizer.dampening": 0.0, "optimizer.lr": 0.3}
    settings = GPT | sgd | COSINE | WEIGHTS | _micro(16) | {"decay.rule": "l2"}
    _add(f"momentum wd {wd}", "fig16", settings | {"decay.weight_decay": wd})
for steps in (55_000, 60_000, 65_000):
    settings = GPT | ADAM | COSINE | DECOUPLED | _micro(32) | {"schedule.decay_steps": steps}
    _add(f"slower decay {steps}", "fig19", settings | {"decay.weight_decay": 0.0})


@cache
def _runs(experiment):
    return [spec.config for spec in studies.get(experiment).runs("paper")]


@cache
def _settings(config):
    return flat(to_dict(config))


def _agrees(config, settings, parents):
    own = _settings(config)
    parent = _settings(parents[own["init_from.run"]]) if own.get("init_from.run") in parents else None
    for path, value in settings.items():
        if path.startswith("*"):
            if parent is None or parent[path[1:]] != value:
                return False
        elif path not in own or own[path] != value:
            return False
    # A command without a checkpoint starts from fresh weights.
    return parent is not None or "init_from.run" not in own


def test_the_readme_has_fifty_three_commands():
    """Fifty-two train a figure's network; the other one tries the installation, as the smoke budget does here."""
    assert len(COMMANDS) == 52
    for experiment, _ in COMMANDS.values():
        assert "smoke" in studies.get(experiment).budgets


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_has_exactly_the_settings_of_the_command(name):
    experiment, settings = COMMANDS[name]
    runs = _runs(experiment)
    parents = {run_id(config): config for config in runs if config.init_from is None}
    starred = any(path.startswith("*") for path in settings)
    candidates = [c for c in runs if (c.init_from is not None) == starred]
    matching = [c for c in candidates if _agrees(c, settings, parents)]
    assert matching, f"no run of {experiment} is the command {name!r}"
    if not starred:  # nothing else tells the matching runs apart but the seed, and weight decays of other roles
        assert len({c.seed for c in matching}) == len(matching)


def test_copies_are_taken_every_second_epoch():
    for experiment in ("fig2", "fig3"):
        steps = sorted({c.init_from.step for c in _runs(experiment) if c.init_from is not None})
        assert {later - earlier for earlier, later in itertools.pairwise(steps)} == {2 * 391}


def test_language_snapshots_are_those_of_the_authors():
    assert {c.snapshots_every for c in _runs("fig5") if c.init_from is None} == {5000}
