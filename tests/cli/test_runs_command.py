"""``decaylab runs`` and ``decaylab export`` on a small store."""

import json
import math
import os
import subprocess
import sys

import pandas as pd
import pytest

from decaylab.cli import main
from decaylab.store.store import Store


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "some.db"
    with Store(path) as store:
        for run, status in (("aa11", "done"), ("ab22", "diverged"), ("cc33", "failed"), ("dd44", None)):
            store.add(run, {"seed": 1}, kind="vision")
            store.lease(run, "w", seconds=0)
            if status is not None:
                store.finish(run, "w", status=status, reason="[why]" if status == "failed" else "", step=20)
        for run in ("aa11", "ab22"):
            with store.writer(run) as writer:
                writer.record({"step": 10, "test/error": 0.5, "train/loss": 2.0})
                writer.record({"step": 20, "test/error": 0.25 if run == "aa11" else math.nan})
    return str(path)


def test_runs_lists_every_run(store, capsys):
    assert main(["runs", "--store", store]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "kind", "status", "step", "test/error", "ended", "why"]
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
    rows = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert [row["status"] for row in rows] == ["done", "diverged", "failed", "abandoned"]
    assert rows[0]["last"] == {"test/error": 0.25, "train/loss": 2.0} and rows[1]["last"]["test/error"] is None
    assert rows[0]["config"] == {"seed": 1} and rows[0]["ended"].endswith("+00:00") and rows[3]["ended"] is None


def test_runs_without_a_store_says_so(capsys, tmp_path):
    assert main(["runs"]) == 0 and "no runs yet" in capsys.readouterr().out
    assert main(["runs", "--json"]) == 0 and json.loads(capsys.readouterr().out) == []
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
from decaylab.cli import main
assert main(["runs", "--store", {store!r}]) == 0
assert main(["export", "--store", {store!r}, "--out", {str(tmp_path / "x.csv")!r}]) == 0
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_in_a_pipe_no_title_is_cut(store):
    command = [sys.executable, "-m", "decaylab", "runs", "--store", str(store)]
    shown = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "40"}).stdout
    assert shown.splitlines()[0].split() == ["run", "kind", "status", "step", "test/error", "ended", "why"]
