"""The studies of our own: walked through the command line, read at every budget, and judged on made-up runs."""

import csv
import json
import math
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tests.support.synthetic import Row

from decaylab import studies
from decaylab.cli import main
from decaylab.config.identity import run_id
from decaylab.config.schema import LanguageRun
from decaylab.experiments.evidence import Verdict
from decaylab.experiments.results import Results

NAMES = ("norm_matched", "intrinsic_time", "lr_lambda", "timescale", "onset", "elr_collapse", "late_decay")


def _steps(config):
    return config.steps if isinstance(config, LanguageRun) else config.epochs * 8


def _results(name, budget="mini", value=lambda labels, key: 2.0, seeds=None, noise=1e-3):
    """Every key of every run has a record at 21 points of the run, each seed with an offset of its own."""
    specs = studies.get(name).runs(budget, seeds)
    rows = {spec.id: Row(step=_steps(spec.config), total_steps=_steps(spec.config)) for spec in specs}

    def fetch(keys):
        found = []
        for spec in specs:
            for key in (key for key in keys if key != "epoch"):
                rng = np.random.default_rng(zlib.crc32(f"{spec.id}{key}".encode()))
                for fraction in np.linspace(0, 1, 21):
                    own = value({**spec.labels, "fraction": fraction}, key) + noise * rng.standard_normal()
                    found.append((spec.id, fraction * _steps(spec.config), key, own + 0.01 * spec.labels["seed"]))
        return pd.DataFrame(found, columns=["run", "step", "key", "value"])

    return Results(specs, rows, fetch, budget=budget)


def _verdicts(name, value, **options):
    results = _results(name, value=value, **options)
    return {claim.id: claim.evaluate(results).verdict for claim in studies.get(name).claims}


def test_through_the_command_line(tmp_path, capsys):
    """Smoke budget of all of them: every run is trained, every chart has points, and each is on the list."""
    command = ["reproduce", *NAMES, "--budget", "smoke", "--workers", "1", "--store", str(tmp_path / "runs.db")]
    assert main([*command, "--out", str(tmp_path / "page")]) == 0, capsys.readouterr().err
    for name in NAMES:
        for chart in studies.get(name).charts:
            with (tmp_path / "page" / "charts" / f"{name}-{chart.id}.csv").open() as file:
                assert list(csv.DictReader(file)), (name, chart.id)
    verdicts = json.loads((tmp_path / "page" / "verdicts.json").read_text())
    assert {v["experiment"] for v in verdicts} == set(NAMES)
    capsys.readouterr()
    assert main(["list", "--json", "--store", str(tmp_path / "runs.db")]) == 0
    listed = {e["id"]: e["budgets"]["smoke"] for e in json.loads(capsys.readouterr().out)["experiments"]}
    for name in NAMES:
        assert listed[name]["runs"] == listed[name]["finished"] > 0


@pytest.mark.parametrize("budget", ["mini", "paper"])
@pytest.mark.parametrize("name", NAMES)
def test_every_claim_and_chart_reads_its_runs(name, budget):
    experiment, results = studies.get(name), _results(name, budget)
    for claim in experiment.claims:
        found = claim.evaluate(results)
        assert (found.verdict is Verdict.NOT_TESTABLE) == (budget not in claim.budgets), (claim.id, found.reason)
    for chart in experiment.charts:
        table = chart.data(results)
        named = (chart.x, chart.y, chart.color, chart.dash, chart.panel, chart.over)
        assert {n for n in named if n} <= set(table.columns) and len(table)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_fresh_and_budgets_are_three(name):
    experiment = studies.get(name)
    assert experiment.budgets == ("smoke", "mini", "paper") and experiment.paper == "own"
    assert min(seed for seeds in experiment.seeds.values() for seed in seeds) >= 300
    old = {run.id for other in studies.all_ids() if other not in NAMES for run in _runs(other)}
    assert not old & {run.id for run in _runs(name)}


def _runs(name):
    found = studies.get(name)
    return found.runs("mini") if "mini" in found.budgets else ()


@pytest.mark.parametrize("name", ["norm_matched", "elr_collapse"])
@pytest.mark.parametrize("budget", ["smoke", "mini", "paper"])
def test_a_norm_twin_differs_in_nothing_but_its_norms(name, budget):
    specs = studies.get(name).runs(budget)
    by_id = {spec.id: spec for spec in specs}
    twins = [spec for spec in specs if spec.config.decay.follows_norms]
    assert twins
    for twin in twins:
        leader = by_id[twin.config.decay.norms_from]
        assert leader.config.record_norms and leader.labels["seed"] == twin.labels["seed"]
        assert leader.config.decay.weight_decay > 0 == twin.config.decay.weight_decay
        assert replace(twin.config, decay=leader.config.decay, record_norms=True) == leader.config


def test_equal_time_is_equal_and_the_data_change_with_the_seed():
    for budget in ("mini", "paper"):
        times, phases = {}, {}
        for spec in studies.get("intrinsic_time").runs(budget):
            run = spec.config
            assert run.data.seed is None and run.decay.weight_decay > 0
            first = round(run.schedule.drop_at[0] * run.epochs)
            key = (spec.labels["network"], "time" if spec.labels["count"].startswith("equal lambda") else "epochs")
            times.setdefault(key, set()).add(round(first * run.optimizer.lr, 2))
            phases.setdefault(spec.labels["network"], set()).add((run.epochs - first, run.schedule.final_lr))
        for network, second in phases.items():
            assert len(second) == 1  # the same second phase for all
            assert times[network, "time"] <= times[network, "epochs"] and len(times[network, "time"]) == 1
    shared = [s.config for s in studies.get("intrinsic_time").runs("mini") if s.labels["network"] == "ResNet"]
    largest = max(shared, key=lambda c: c.optimizer.lr)
    steps = 8 * round(largest.schedule.drop_at[0] * largest.epochs)
    assert steps * largest.optimizer.lr * largest.decay.weight_decay >= 5  # timescales at the large rate


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_norm_matched_tells_norms_from_regularisation(share):
    gain = {"scale-free": -0.05, "plain": 0.03}

    def value(labels, key):
        part = {"none": 0.0, "decay 0.3": 1.0, "norms of decay 0.3": share, "slower cosine": 0.4}[labels["arm"]]
        return 2 + part * gain[labels["study"]]

    found = _verdicts("norm_matched", value)
    expected = Verdict.HOLDS if share == 1.0 else Verdict.FAILS
    for claim in ("norms-alone-help-as-much", "nothing-but-norms", "norms-alone-harm-as-much"):
        assert found[claim] is expected
    assert found["decay-helps-where-matrices-are-scale-free"] is Verdict.HOLDS
    assert found["decay-harms-the-plain-network"] is Verdict.HOLDS
    assert found["not-a-slower-cosine"] is Verdict.HOLDS


@pytest.mark.parametrize("gap", [0.0, 0.04])
def test_intrinsic_time_tells_time_from_noise(gap):
    def value(labels, key):
        small = labels["rate"] != "large"
        late = 0.05 if small and labels["count"] == "equal epochs" else 0.0
        return 0.1 + late + (gap if small else 0.0)

    found = _verdicts("intrinsic_time", value)
    left = {claim: found[claim] for claim in ("nothing-left-at-equal-time", "middle-too")}
    assert set(left.values()) == {Verdict.FAILS if gap else Verdict.HOLDS}
    assert found["something-left-without-norms"] is (Verdict.HOLDS if gap else Verdict.UNDECIDED)
    assert found["large-is-better-at-equal-epochs"] is Verdict.HOLDS


@pytest.mark.parametrize("power", [0.0, -1.0])
def test_lr_lambda_tells_a_constant_product_from_a_constant_decay(power):
    def value(labels, key):
        lr, wd = labels["lr"], labels["wd"]
        off = math.log10(max(wd, 3e-3) / (0.15 * (lr / 1.2e-2) ** power))
        sign = -1 if labels["study"] == "plain" and not wd else 1
        return 2 + 0.1 * off**2 + 0.1 * math.log10(lr / 1.2e-2) ** 2 - (0.9 if sign < 0 else 0.0)

    found = _verdicts("lr_lambda", value)
    assert found["best-decay-moves-against-the-rate"] is (Verdict.HOLDS if power else Verdict.FAILS)
    assert found["best-against-best"] is Verdict.HOLDS and found["not-in-the-plain-network"] is Verdict.HOLDS


@pytest.mark.parametrize("power", [-1.0, -0.5])
def test_timescale_tells_the_laws_apart(power):
    def value(labels, key):
        return 2 + 0.1 * math.log10(labels["wd"] / (0.1 * (labels["length"] / 4000) ** power)) ** 2

    found = _verdicts("timescale", value)
    assert found["constant-share"] is (Verdict.HOLDS if power == -1 else Verdict.FAILS)
    assert found["power-lines"] is (Verdict.FAILS if power == -1 else Verdict.HOLDS)
    assert found["batch-does-not-matter"] is Verdict.HOLDS


@pytest.mark.parametrize("sign", [1, -1])
def test_onset_reads_the_growth_of_the_effect(sign):
    def value(labels, key):
        if not labels["wd"]:
            return 2.0
        if labels["study"] == "plain":
            return 2 + 0.02 * sign
        return 2 - sign * 0.01 * math.log2(labels["width"] / 8) * math.log2(labels["steps"] / 500)

    expected = Verdict.HOLDS if sign > 0 else Verdict.FAILS
    assert set(_verdicts("onset", value).values()) == {expected}


@pytest.mark.parametrize("apart", [0.0, 0.02])
def test_elr_collapse_reads_curves_and_ends(apart):
    def value(labels, key):
        return 2 - 0.1 * labels["wd"] + (apart if labels["arm"] == "norms alone" and labels["lr"] == "high" else 0.0)

    found = _verdicts("elr_collapse", value)
    assert {found["curves-collapse"], found["ends-collapse"]} == {Verdict.FAILS if apart else Verdict.HOLDS}
    assert found["there-is-something-to-collapse"] is Verdict.HOLDS


@pytest.mark.parametrize("helps", [True, False])
def test_late_decay_reads_the_rise(helps):
    def value(labels, key):
        late = labels["fraction"] > 0.8
        if key.startswith("gradients") and late:
            return 6.0 if labels["rule"] == "AdamW" else 3.0
        if key == "train/loss" and labels["rule"] == "AdamC":
            return 2 - 0.02 if helps else 2 + 0.02
        return 2.0

    found = _verdicts("late_decay", value)
    for claim in ("ratio-rises", "corrected-is-flatter", "decay-to-zero-is-flatter", "clipping-is-not-it"):
        assert found[claim] is Verdict.HOLDS, claim
    expected = Verdict.HOLDS if helps else Verdict.FAILS
    assert found["flattening-helps"] is found["flattening-does-not-harm"] is expected


def test_ids_are_those_of_the_settings():
    for name in NAMES:
        for spec in studies.get(name).runs("smoke"):
            assert spec.id == run_id(spec.config)
