"""``decaylab runs`` and ``decaylab export`` on a small store."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

from decaylab.cli import main
from decaylab.config.identity import run_id, to_dict
from decaylab.config.schema import LanguageRun, VisionRun
from decaylab.store.store import Store


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "some.db"
    with Store(path) as store:
        for run, status in (("aa11", "done"), ("ab22", "diverged"), ("cc33", "failed"), ("dd44", None)):
            store.add(run, {"seed": int(run[2])}, kind="vision")
            lease = store.lease(run, "w", seconds=0)
            if run in ("aa11", "ab22"):
                with store.writer(lease) as writer:
                    writer.record({"step": 10, "test/error": 0.5, "train/loss": 2.0})
                    writer.record({"step": 20, "test/error": 0.25 if run == "aa11" else math.nan})
            if status is not None:
                store.finish(lease, status=status, reason="[why]" if status == "failed" else "", step=20)
    return str(path)


def test_runs_lists_every_run(store, capsys):
    assert main(["runs", "--store", store]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "kind", "status", "step", "seed", "test/error", "ended", "why"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["aa11", "vision", "done"],
        ["ab22", "vision", "diverged"],
        ["cc33", "vision", "failed"],
        ["dd44", "vision", "abandoned"],
    ]
    assert "0.25" in lines[1] and "nan" in lines[2] and "[why]" in lines[3]
    assert main(["runs", "--store", store, "--status", "failed", "--metrics", "train/loss"]) == 2
    assert "unknown metric 'train/loss'" in capsys.readouterr().err
    assert main(["runs", "--store", store, "--status", "interrupted"]) == 0
    assert capsys.readouterr().out.startswith("no runs with status interrupted in ")


def test_runs_as_json_is_strict_json(store, capsys):
    assert main(["runs", "--store", store, "--json"]) == 0
    said = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert said["schema"] == "decaylab.runs/1"
    rows = said["runs"]
    assert [row["status"] for row in rows] == ["done", "diverged", "failed", "abandoned"]
    assert rows[0]["last"] == {"test/error": 0.25, "train/loss": 2.0} and rows[1]["last"]["test/error"] is None
    assert rows[0]["config"] == {"seed": 1} and rows[0]["ended"].endswith("+00:00") and rows[3]["ended"] is None


def test_runs_without_a_store_says_so(capsys, tmp_path):
    assert main(["runs"]) == 0 and "no runs yet" in capsys.readouterr().out
    assert main(["runs", "--json"]) == 0 and json.loads(capsys.readouterr().out)["runs"] == []
    assert main(["runs", "--store", str(tmp_path / "typo.db")]) == 2
    assert "there is no store at" in capsys.readouterr().err
    assert not (tmp_path / "typo.db").exists()


def test_export_long_and_wide(store, tmp_path, capsys):
    out = tmp_path / "sub" / "all.csv"
    assert main(["export", "--store", store, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 6 rows, 2 runs\n"
    table = pd.read_csv(out)
    assert list(table.columns) == ["run", "step", "key", "value"] and len(table) == 6
    out = tmp_path / "wide.parquet"
    assert main(["export", "--store", store, "--out", str(out), "--wide", "--runs", "ab", "aa11"]) == 0
    table = pd.read_parquet(out)
    assert list(table.columns) == ["run", "step", "test/error", "train/loss"]
    assert table["run"].tolist() == ["ab22"] * 2 + ["aa11"] * 2 and table["step"].tolist() == [10, 20, 10, 20]
    assert table["train/loss"].isna().tolist() == [False, True] * 2


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--out", "x.txt"], "ends in .csv or .parquet"),
        (["--out", "x.csv", "--runs", "a"], "'a' is the beginning of 2 runs: aa11, ab22"),
        (["--out", "x.csv", "--runs", "aa12"], "unknown run 'aa12'; did you mean 'aa11'"),
        (["--out", "x.csv", "--keys", "test/eror"], "did you mean 'test/error'"),
    ],
)
def test_mistakes_are_named_and_write_nothing(store, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--store", store, *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))


def test_neither_command_imports_torch(store, tmp_path):
    code = f"""
import sys
from dataclasses import replace
from decaylab.cli import main
assert main(["runs", "--store", {store!r}]) == 0
assert main(["export", "--store", {store!r}, "--out", {str(tmp_path / "x.csv")!r}]) == 0
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_in_a_pipe_no_title_is_cut(store):
    command = [sys.executable, "-m", "decaylab", "runs", "--store", str(store)]
    shown = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "40"}).stdout
    assert shown.splitlines()[0].split() == ["run", "kind", "status", "step", "seed", "test/error", "ended", "why"]


@pytest.fixture
def varied(tmp_path):
    """Two language runs of unlike decay and two vision runs of unlike seeds, with their whole configs."""
    path = tmp_path / "varied.db"
    decays = [replace(LanguageRun().decay, weight_decay=wd) for wd in (0.0, 0.1)]
    runs = [LanguageRun(decay=decay) for decay in decays] + [VisionRun(seed=seed) for seed in (0, 7)]
    with Store(path) as store:
        for config in runs:
            store.add(run_id(config), to_dict(config), kind=to_dict(config)["kind"])
            with store.writer(run_id(config)) as writer:
                writer.record({"step": 1, "train/loss": 1.0})
    return str(path), [run_id(config) for config in runs]


def test_runs_are_told_apart_by_the_settings_that_differ(varied, capsys):
    path, _ = varied
    assert main(["runs", "--store", path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:6] == ["run", "kind", "status", "step", "weight_decay", "seed"]
    assert [line.split()[4] for line in lines[1:3]] == ["0", "0.1"] and lines[4].split()[5] == "7"
    assert main(["runs", "--store", path, "--settings", "seed"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[4] == "seed"
    assert main(["runs", "--store", path, "--settings", "sed"]) == 2
    assert "did you mean 'seed'" in capsys.readouterr().err


def test_export_with_the_settings(varied, tmp_path):
    path, ids = varied
    out = tmp_path / "x.csv"
    assert main(["export", "--store", path, "--out", str(out), "--config", "--wide"]) == 0
    table = pd.read_csv(out).set_index("run")
    assert table.loc[ids[1], "decay.weight_decay"] == 0.1 and table.loc[ids[3], "seed"] == 7
    assert "model.width" not in table.columns  # the default in all
    assert main(["export", "--store", path, "--out", str(out), "--config", "--runs", ids[1]]) == 0
    assert list(pd.read_csv(out).columns) == ["run", "step", "key", "value", "decay.weight_decay"]


def test_what_runs_say_of_themselves_does_not_reach_the_terminal_raw(tmp_path, capsys):
    path = tmp_path / "x.db"
    with Store(path) as store:
        store.add("aa", {"data": {"corpus": "\x1b[2J"}}, kind="vision")
        store.add("bb", {"data": {"corpus": "=cmd|' /C calc'!A0"}}, kind="vision")
        for run in ("aa", "bb"):
            lease = store.lease(run, "w")
            with store.writer(lease) as writer:
                writer.record({"step": 1, "train/loss": 1.0})
            store.finish(lease, status="failed", reason="\x1b[31mred\x07\nand more")
    assert main(["runs", "--store", str(path), "--metrics", "train/loss"]) == 0
    shown = capsys.readouterr().out
    assert not {"\x1b", "\x07"} & set(shown) and "\\x1b[31mred" in shown and len(shown.splitlines()) == 3
    out = tmp_path / "x.csv"
    assert main(["export", "--store", str(path), "--out", str(out), "--config"]) == 0
    text = out.read_text()
    assert "\x1b" not in text and "'=cmd" in text
