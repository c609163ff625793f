"""A study outside the package, trained by a function of its own, with the store, the page and the verdicts."""

import dataclasses
import json
import runpy
import shutil
from pathlib import Path

import pytest

from decaylab import references, studies
from decaylab.cli import main
from decaylab.config.own_config import own_dict, own_id
from decaylab.errors import DecaylabError
from decaylab.experiments import Experiment, RunSpec, grid
from decaylab.launch.own_training import adapted
from decaylab.train.outcome import Outcome

OWN = Path(__file__).parents[2] / "examples" / "own"
STUDY = str(OWN / "study.py")


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    store = str(folder / "runs.db")
    arguments = ["reproduce", STUDY, "--budget", "mini", "--store", store, "--out", str(folder / "page")]
    return folder, store, arguments, main(arguments)


def test_it_is_reproduced_with_page_and_verdicts(reproduced, capsys):
    folder, store, arguments, code = reproduced
    assert code == 0
    content = json.loads((folder / "page" / "verdicts.json").read_text())
    (ruling,) = content["rulings"] if isinstance(content, dict) else content
    assert (ruling["experiment"], ruling["verdict"]) == ("own_logistic", "holds")
    page = (folder / "page" / "index.html").read_text()
    assert "Weight decay in logistic regression" in page
    assert f"decaylab reproduce {STUDY}" in page
    assert main(["runs", "--store", store, "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert len(runs) == 24
    assert {run["status"] for run in runs} == {"done"}
    assert {run["kind"] for run in runs} == {"study.py:train"}
    assert runs[0]["config"]["dimensions"] == 30
    assert runs[0]["summary"]["final_norm"] > 0
    assert runs[0]["step"] == 200
    assert main(arguments) == 0  # and nothing is trained twice
    assert "24 ended before" in capsys.readouterr().err


def test_the_other_commands_take_it(reproduced, capsys):
    folder, store, _, _ = reproduced
    assert main(["list", "--from", STUDY, "--store", store, "--json"]) == 0
    listed = {e["id"]: e for e in json.loads(capsys.readouterr().out)["experiments"]}
    assert listed["own_logistic"]["budgets"]["mini"] == {"runs": 24, "finished": 24, "diverged": 0}
    assert listed["own_logistic"]["budgets"]["smoke"]["finished"] == 0
    assert main(["show", STUDY]) == 0
    shown = capsys.readouterr().out
    assert "Weight decay lowers the test loss" in shown
    assert "weight_decay" in shown
    assert main(["show", STUDY, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["config"]["examples"] == 40
    assert main(["report", STUDY, "--store", store, "--out", str(folder / "again")]) == 0
    assert (folder / "again" / "verdicts.csv").read_text() == (folder / "page" / "verdicts.csv").read_text()


def test_ids_come_from_what_differs_and_from_the_name_of_the_function(tmp_path):
    made = runpy.run_path(STUDY)
    config = made["Logistic"]
    assert own_id(config(), "study.py:train") == own_id(config(lr=0.5), "study.py:train")
    assert own_id(config(lr=1), "t") == own_id(config(lr=1.0), "t") != own_id(config(), "t")
    assert own_id(config(), "other.py:train") != own_id(config(), "study.py:train")
    assert own_id(config(), "t", 2) != own_id(config(), "t")
    later = dataclasses.make_dataclass("Logistic", [("lr", float, 0.5), ("more", int, 7)], frozen=True)
    assert own_id(later(), "t") == own_id(config(), "t")  # a setting that came later, with a default
    assert own_id({"lr": 1, "wd": 0.0}, "t") == own_id({"wd": 0, "lr": 1.0}, "t")
    copy = shutil.copy(STUDY, tmp_path / "study.py")
    ids = [[spec.id for spec in studies.get(str(path)).runs("smoke")] for path in (STUDY, copy)]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 9
    for bad in (3, {"a": {1, 2}}, {"a": float("nan")}, config):
        with pytest.raises(DecaylabError):
            own_dict(bad)


def test_mappings_are_configs_too():
    specs = grid({"lr": 0.1, "net": {"width": 4}}, {"net.width": (4, 8), "seed": (0, 1)})
    assert [spec.config["net"]["width"] for spec in specs] == [4, 4, 8, 8]
    study = Experiment(id="m", title="", seeds={"mini": (0, 1)}, plan=lambda b, s: specs, train="mine:train")
    runs = study.runs("mini")
    assert len({run.id for run in runs}) == 4
    assert runs[0].settings == {"lr": 0.1, "net": {"width": 4}, "seed": 0}
    with pytest.raises(ValueError, match="there twice"):
        Experiment(id="m", title="", seeds={"mini": (0,)}, plan=lambda b, s: specs[:1] * 2, train="m:t").runs("mini")


def _called(function, **options):
    records = []
    options = {
        "folder": Path(),
        "device": "cpu",
        "resume": True,
        "resolve": None,
        "heartbeat": lambda *a: True,
    } | options
    return adapted(function)({"x": 1}, records.append, **options), records


def test_what_a_training_function_takes_and_returns():
    @dataclasses.dataclass(frozen=True)
    class Config:
        x: int

    def plain(config, record):
        record({"step": 3, "loss": config["x"]})

    def with_class(config: Config, device, folder):
        return {"x": config.x, "device": device}

    def outcome(config, **options):
        return Outcome(status="diverged", reason="nan", steps=2, summary={"n": float(len(options))})

    with_class.__annotations__["config"] = Config
    found, records = _called(plain)
    assert (found.status, found.steps, records) == ("done", 3, [{"step": 3, "loss": 1}])
    assert _called(with_class)[0].summary == {"x": 1, "device": "cpu"}
    assert _called(outcome)[0].reason == "nan"
    assert _called(outcome)[0].summary == {"n": 6.0}
    for bad, message in ((lambda config, epochs: None, "the argument 'epochs'"), (3, "trains nothing")):
        with pytest.raises(DecaylabError, match=message):
            adapted(bad)
    with pytest.raises(DecaylabError, match="returned float"):
        _called(lambda config: 3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EXPERIMENT = 3", "is no experiment: expected EXPERIMENT = decaylab.experiments.Experiment"),
        ("x = 1", "unknown name in .* 'EXPERIMENT'"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("from decaylab.studies.why_weight_decay.fig1 import EXPERIMENT", "the id 'fig1', which is that of"),
        (
            "from decaylab.experiments import Experiment\n"
            "EXPERIMENT = Experiment(id='a b', title='', seeds={}, plan=lambda b, s: ())",
            "letters, digits",
        ),
    ],
)
def test_files_that_are_no_studies_are_one_line(tmp_path, capsys, text, message):
    import re

    path = tmp_path / "bad_study.py"
    path.write_text(text + "\n")
    assert main(["reproduce", str(path)]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert re.search(message, err), err


def test_a_training_function_that_fails_is_the_runs_failure(tmp_path, capsys):
    path = tmp_path / "failing_study.py"
    path.write_text(
        "from decaylab.experiments import Experiment, grid\n"
        "def train(config):\n    raise RuntimeError('the disk is full of bees')\n"
        "EXPERIMENT = Experiment(id='failing', title='t', seeds={'mini': (0,)}, train=train,\n"
        "    plan=lambda budget, seeds: grid({'lr': 0.1}, {'seed': seeds}))\n"
    )
    arguments = ["reproduce", str(path), "--store", str(tmp_path / "s.db"), "--out", str(tmp_path / "page")]
    assert main(arguments) == 1
    assert "the disk is full of bees" in capsys.readouterr().err


def test_two_studies_of_one_id_and_unknown_names(tmp_path, capsys):
    copy = shutil.copy(STUDY, tmp_path / "study_copy.py")
    assert main(["show", "fig55"]) == 2
    assert "did you mean 'fig5'" in capsys.readouterr().err
    assert main(["report", STUDY, str(copy), "--store", str(tmp_path / "no.db")]) == 2
    assert "two of these experiments have the id 'own_logistic'" in capsys.readouterr().err


def test_an_experiment_of_an_installed_package(tmp_path, monkeypatch, capsys):
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[decaylab.plugins]\nexperiment.theirs = stranger_study\nexperiment.broken = stranger_nowhere\n"
    )
    shutil.copy(STUDY, tmp_path / "stranger_study.py")
    monkeypatch.syspath_prepend(tmp_path)
    references._entry_points.cache_clear()
    try:
        assert studies.get("theirs").id == "own_logistic"
        assert main(["list"]) == 0
        captured = capsys.readouterr()
        assert "own_logistic" in captured.out
        assert "the plugin broken is left out" in captured.err
    finally:
        monkeypatch.undo()
        references._entry_points.cache_clear()


def test_a_spec_of_the_engine_keeps_its_id():
    from decaylab.config.identity import run_id
    from decaylab.config.schema import VisionRun

    assert RunSpec(config=VisionRun(), labels={"seed": 0}).id == run_id(VisionRun())
