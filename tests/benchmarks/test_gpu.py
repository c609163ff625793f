"""The GPU kit walks through at smoke size on the CPU, and says what failed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KIT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(out, *arguments):
    command = [sys.executable, str(KIT), "--size", "smoke", "--device", "cpu", "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_checks_and_numbers_end_up_in_both_files(tmp_path):
    done = run(tmp_path, "--only", "rules", "rule-cost")
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("*.json")
    found = json.loads(file.read_text())
    assert found["hardware"]["device"] == "cpu" and found["hardware"]["torch"]
    rows = found["sections"]["rules"]["rows"]
    assert {row["name"] for row in rows if row["ok"]} >= {"cautious: gradient scaler", "cautious: compiled step"}
    agreement = next(row for row in rows if row["name"] == "cautious: float32 is float64 up to rounding")
    assert 0 < agreement["worst"] < 1e-4 and agreement["variants"] == 18
    costs = {row["name"]: row for row in found["sections"]["rule-cost"]["rows"] if row["kind"] == "number"}
    assert costs["decoupled (native=False)"]["value"] > 0
    page = file.with_suffix(".md").read_text()
    assert "| rules | 10 of 10 |" in page and "decoupled (native=False)" in page and "Every check holds." in page


def test_a_run_of_some_sections_keeps_the_others(tmp_path):
    assert run(tmp_path, "--only", "rule-cost").returncode == 0
    assert run(tmp_path, "--only", "watch-cost").returncode == 0
    (file,) = tmp_path.glob("*.json")
    assert set(json.loads(file.read_text())["sections"]) == {"rule-cost", "watch-cost"}


def test_what_takes_too_long_is_left_out_and_said(tmp_path):
    done = run(tmp_path, "--only", "rules", "--budget", "2")
    assert "out of time: left out rules" in done.stdout
    (page,) = tmp_path.glob("*.md")
    assert "Left out for lack of time: rules." in page.read_text()


def test_an_unknown_section_is_told_with_those_there_are(tmp_path):
    done = run(tmp_path, "--only", "fast")
    assert done.returncode == 2 and "no section 'fast'; known: rules, more-rules" in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(KIT.parent))
    from gpu_kit.record import Record

    return Record(tmp_path / "rows.jsonl"), tmp_path / "rows.jsonl"


def test_a_check_that_fails_is_recorded_and_the_next_goes_on(record, monkeypatch):
    from gpu_kit import page

    taken, path = record
    with taken.check("first") as details:
        details["share"] = 0.5
        raise ValueError("wrong by 3")
    with taken.check("second"):
        pass
    taken.number("speed", 12.5, "ms", step=2)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["ok"] for row in rows[:2]] == [False, True]
    assert rows[0]["error"].startswith("ValueError at test_gpu.py") and rows[0]["share"] == 0.5
    results = {"hardware": {"name": "A card"}, "sections": {"s": {"status": "done", "seconds": 1.0, "rows": rows}}}
    assert page.failures(results) == [f"FAILED s: first: {rows[0]['error']}"]
    text = page.whole(results)
    assert "| s | 1 of 2 | 1 | done |" in text and "| s | speed | 12.5 ms | step 2 |" in text
    assert page.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
