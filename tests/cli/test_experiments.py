"""`decaylab list`, `show` and `report` as a person calls them."""

import json
import subprocess
import sys

import pytest

from decaylab import studies
from decaylab.cli import main
from decaylab.config.identity import from_dict, run_id, to_dict
from decaylab.store.store import Store


@pytest.fixture(scope="module")
def small_store(tmp_path_factory):
    """A store in which every smoke run of fig1 has ended, with a record at its beginning and its end."""
    path = tmp_path_factory.mktemp("store") / "runs.db"
    with Store(path) as store:
        for spec in studies.get("fig1").runs("smoke"):
            store.add(spec.id, to_dict(spec.config), kind="vision")
            lease = store.lease(spec.id, "tester", environment={"python": "3.11.0"})
            with store.writer(lease) as writer:
                for step in (0, 16):
                    writer.record({"step": step, "epoch": step / 8, "test/error": 0.5 - step / 100, "train/loss": 2.0})
            store.heartbeat(lease, step=16, total_steps=16)
            store.finish(lease, status="done")
    return path


def test_list_without_a_store(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n {name} " in shown for name in studies.all_ids())


def test_list_counts_finished_runs(small_store, capsys):
    assert main(["list", "--json", "--store", str(small_store)]) == 0
    listed = {e["id"]: e for e in json.loads(capsys.readouterr().out)["experiments"]}
    runs = len(studies.get("fig1").runs("smoke"))
    assert listed["fig1"]["budgets"]["smoke"] == {"runs": runs, "finished": runs, "diverged": 0}
    assert listed["fig1"]["budgets"]["paper"]["finished"] == 0
    assert listed["fig1"]["paper"] == "Fig. 1"


def test_list_of_a_store_that_is_not_there(tmp_path, capsys):
    assert main(["list", "--store", str(tmp_path / "no.db")]) == 2
    assert "no store" in capsys.readouterr().err


def test_list_and_help_load_neither_torch_nor_pandas(small_store):
    code = (
        "import sys; from decaylab.cli import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'pandas', 'scipy', 'altair'} & set(sys.modules)), file=sys.stderr)"
    )
    for arguments in (["list", "--store", str(small_store)], ["--help"], ["show", "fig1"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert done.stderr.strip().splitlines()[-1] == "[]", arguments


def test_show_has_every_setting_of_every_run(capsys):
    assert main(["show", "fig1", "--budget", "paper", "--json", "--seeds", "2"]) == 0
    shown = json.loads(capsys.readouterr().out)
    planned = studies.get("fig1").runs("paper", 2)
    assert [run["id"] for run in shown["runs"]] == [spec.id for spec in planned]
    assert run_id(from_dict(shown["runs"][0]["config"])) == planned[0].id
    assert shown["runs"][0]["config"]["model"]["architecture"] == "vgg16"
    assert {c["id"] for c in shown["claims"]} == {c.id for c in studies.get("fig1").claims}
    assert all(c["rule"] for c in shown["claims"])


@pytest.mark.parametrize("name", studies.all_ids())
def test_show_is_readable(name, capsys):
    assert main(["show", name]) == 0
    shown = capsys.readouterr().out
    assert studies.get(name).title in shown and "recipe" in shown


def test_unknown_names_are_one_clear_line(capsys):
    assert main(["show", "fig10000"]) == 2
    assert "unknown experiment 'fig10000'; did you mean" in capsys.readouterr().err
    assert main(["report", "figg1"]) == 2
    assert "'fig1'" in capsys.readouterr().err


def test_report_redraws_from_the_store_alone(small_store, tmp_path, capsys):
    assert main(["report", "--store", str(small_store), "--out", str(tmp_path / "page")]) == 0
    page = tmp_path / "page" / "index.html"
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text()
    assert 'id="fig1"' in text and 'id="fig5"' not in text  # only what has runs
    assert "smoke budget" in text


def test_report_without_runs(small_store, tmp_path, capsys):
    assert main(["report", "fig5", "--store", str(small_store), "--out", str(tmp_path)]) == 2
    assert "`decaylab reproduce fig5`" in capsys.readouterr().err
    arguments = ["report", "fig1", "--budget", "paper", "--store", str(small_store), "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "`decaylab reproduce fig1 --budget paper`" in capsys.readouterr().err
    assert main(["report", "--store", str(tmp_path / "no.db")]) == 2
    assert "no store" in capsys.readouterr().err


def test_a_report_for_a_paper_and_one_that_replaces_it(small_store, tmp_path, capsys):
    arguments = ["report", "--budget", "smoke", "--store", str(small_store), "--out", str(tmp_path)]
    assert main([*arguments, "fig1", "--format", "svg", "pdf", "--no-title"]) == 0
    assert "replaced" not in capsys.readouterr().err
    charts = sorted((tmp_path / "charts").iterdir())
    assert {path.suffix for path in charts} == {".svg", ".pdf", ".csv"}
    assert all(path.read_bytes().startswith(b"%PDF") for path in charts if path.suffix == ".pdf")
    title = studies.get("fig1").charts[0].title
    assert not any(title in path.read_text() for path in charts if path.suffix == ".svg")
    assert (
        main(["report", "prop3", "fig1", "--budget", "smoke", "--store", str(small_store), "--out", str(tmp_path)]) == 2
    )
    assert main([*arguments, "fig1"]) == 0  # the same set again: nothing to say
    assert "replaced" not in capsys.readouterr().err
    assert any(title in path.read_text() for path in (tmp_path / "charts").glob("*.svg"))
    illustration = next(name for name in studies.all_ids() if not studies.get(name).runs("mini"))
    other = ["report", illustration, "--budget", "mini", "--store", str(small_store), "--out", str(tmp_path)]
    assert main(other) == 0
    assert f"{tmp_path} holds the page of fig1 (smoke), drawn" in capsys.readouterr().err
    assert not any(path.name.startswith("fig1-") for path in (tmp_path / "charts").iterdir())
