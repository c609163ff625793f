"""From a folder of texts and three lambdas to an answer, through the command line."""

import json
import random

import pytest

from decaylab.cli import main
from decaylab.store.store import Store

TINY = [
    *("--data.tokenizer", "ascii", "--model.num-layers", "1", "--model.num-heads", "1", "--model.width", "8"),
    *("--model.context", "8", "--batch-size", "8", "--steps", "30", "--schedule.warmup-steps", "2"),
    *("--evaluation.every", "15", "--evaluation.batches", "2", "--evaluation.batch-size", "8"),
    *("--optimizer.lr", "1e-2", "--device", "cpu"),
]
WORDS = ("the", "a", "quick", "brown", "fox", "dog", "jumps", "over")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    words = random.Random(0)
    (folder / "texts").mkdir()
    for number in range(60):
        text = " ".join(words.choice(WORDS) for _ in range(300))
        (folder / "texts" / f"{number}.txt").write_text(text)
    arguments = ["sweep", "language", "--data.corpus", f"folder:{folder / 'texts'}", *TINY]
    arguments += ["--vary", "decay.weight_decay=0,20", "--seeds", "3", "--store", str(folder / "s.db")]
    arguments += ["--out", str(folder / "page")]
    assert main(arguments) == 0
    return folder, arguments


def test_the_page_has_the_answer(swept):
    folder, _ = swept
    page = (folder / "page" / "index.html").read_text()
    assert "20 is worse than decay.weight_decay 0, by" in page and "decaylab sweep language" in page
    assert {path.name for path in (folder / "page" / "charts").iterdir()} == {
        "sweep-final.svg", "sweep-final.csv", "sweep-curve.svg", "sweep-curve.csv", "sweep-differences.csv"
    }  # fmt: skip
    assert "budget" not in page.partition("</h2>")[0].partition("sweep · own")[2]


def test_a_second_time_nothing_is_trained_and_the_numbers_are_the_stores(swept, capsys, monkeypatch):
    folder, arguments = swept
    monkeypatch.setattr("decaylab.launch.preflight.require_device", lambda _: None)
    assert main([*arguments, "--json"]) == 0
    shown = capsys.readouterr()
    said = json.loads(shown.out)
    assert "6 ended before" in shown.err and said["schema"] == "decaylab.sweep/1"
    with Store(folder / "s.db", read_only=True) as store:
        last = store.last()
        rows = {row.id: row for row in store.rows()}
    losses = {}
    for run, row in rows.items():
        losses[row.config["decay"]["weight_decay"], str(row.config["seed"])] = last[run]["val/loss"]
    base, other = said["rows"]
    assert (base["standing"], other["standing"]) == ("baseline", "worse")
    for seed, value in other["difference"]["by_seed"].items():
        assert value == pytest.approx(losses[20.0, seed] - losses[0.0, seed])


def test_compare_says_the_same_of_runs_that_exist(swept, capsys):
    folder, _ = swept
    with Store(folder / "s.db", read_only=True) as store:
        rows = sorted(store.rows(), key=lambda row: row.config["decay"]["weight_decay"])
    ids = [row.id[:10] for row in rows]
    assert main(["compare", *ids, "--store", str(folder / "s.db")]) == 0
    shown = capsys.readouterr().out
    assert "20 is worse than decay.weight_decay 0, by" in shown and "minus 0" in shown
    assert main(["compare", *ids, "--store", str(folder / "s.db"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][1]["standing"] == "worse"
    assert main(["compare", *ids[:2], "--store", str(folder / "s.db")]) == 2
    assert "differ in nothing but the seed" in capsys.readouterr().err
    assert main(["compare", ids[0], "--store", str(folder / "s.db")]) == 2
    assert "name two runs or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "what is varied"),
        (["--vary", "decay.weight_decay=0,1", "--seeds", "0"], "--seeds must be at least 1"),
        (["--vary", "decay.weight_decay=0,1", "--baseline", "5"], "--baseline 5 is not among the combinations: 0, 1"),
        (["--vary", "decay.weight_decay=0,1", "--margin", "-1"], "--margin must be above 0"),
        (["--vary", "decay.weight_decay=0,1", "--workers", "0"], "--workers must be at least 1"),
        (["--vary", "decay.rule=decoupled,nosuch"], "unknown decay rule 'nosuch'"),
        (["--vary", "decay.weight_decay=0,1", "--metric", "val/los"], "was not recorded"),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(flags, said, swept, tmp_path, capsys):
    folder, _ = swept
    trained = "--metric" in flags
    store = folder / "metric.db" if trained else tmp_path / "new.db"
    arguments = ["sweep", "language", *TINY, "--steps", "4", "--seeds", "1", *flags, "--store", str(store)]
    assert main([*arguments, "--out", str(tmp_path / "page")]) == 2
    error = capsys.readouterr().err
    assert said in error and (trained or error.count("\n") == 1)
    assert trained or not store.exists()


def test_bare_and_unknown(capsys):
    assert main(["sweep"]) == 2 and "decaylab sweep language --vary" in capsys.readouterr().err
    assert main(["sweep", "sound"]) == 2 and "unknown kind of run" in capsys.readouterr().err


def test_a_sweep_from_another_runs_weights(swept, tmp_path):
    """Fine-tuning: every run starts from the same snapshot of a run in the store."""
    folder, _ = swept
    store, page = str(folder / "from.db"), str(tmp_path / "page")
    assert main(["train", "language", *TINY, "--steps", "4", "--snapshots-every", "4", "--store", store]) == 0
    with Store(store, read_only=True) as opened:
        first = opened.rows()[0].id
    arguments = ["sweep", "language", *TINY, "--steps", "4", "--init-from", f"{first[:8]}@4", "--store", store]
    assert main([*arguments, "--vary", "decay.weight_decay=0,1", "--seeds", "1", "--out", page]) == 0
    with Store(store, read_only=True) as opened:
        rows = opened.rows()
    assert [row.status for row in rows] == ["done"] * 3
    assert [row.config["init_from"]["run"] for row in rows[1:]] == [first] * 2
    assert main(["sweep", "language", *TINY, "--init-from", "abc@4", "--vary", "lr=1e-3,1e-2", "--store", store]) == 2
