"""The command line as a whole: quick, without torch where none is needed, and one clear line for every mistake."""

import json
import os
import subprocess
import sys

import pytest

import decaylab
from decaylab.cli import COMMANDS, main
from decaylab.config.identity import run_id, to_dict
from decaylab.config.schema import LanguageRun
from decaylab.launch.report import LaunchReport
from decaylab.store.store import Store


def _python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["rules"], ["show", "fig5"], ["runs"]])
def test_no_torch_is_imported(arguments):
    code = f"import sys; from decaylab.cli import main; rc = main({arguments!r}); print(rc, 'torch' in sys.modules)"
    result = _python(code)
    assert result.stdout.splitlines()[-1] == "0 False", result.stderr


def test_importing_the_package_imports_no_torch():
    assert _python("import sys, decaylab; print('torch' in sys.modules)").stdout.strip() == "False"


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name, capsys):
    try:
        code = main([name, "--help"])
    except SystemExit as stop:
        code = stop.code
    assert code in (0, None)
    assert len(capsys.readouterr().out) > 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lisst"], ["unknown command", "'list'"]),
        (["show", "fig55"], ["fig55", "'fig5'"]),
        (["reproduce", "fig55"], ["fig55", "'fig5'"]),
        (["reproduce"], ["fig1", "list"]),
        (["reproduce", "fig1", "--budget", "paper"], ["cifar10", "decaylab data get cifar10"]),
        (["train"], ["decaylab train vision", "decaylab train language"]),
        (["train", "visoin"], ["visoin", "'vision'"]),
        (["train", "vision", "--optimizer.lr", "-1"], ["optimizer.lr", "positive"]),
        (["train", "vision", "--decay.weight-decay", "-1"], ["weight_decay", "negative"]),
        (["train", "vision", "--decay.weight-decay", "20"], ["lr x weight decay"]),
        (["train", "vision", "--data.dataset", "cifar100"], ["decaylab data get cifar100"]),
        (["train", "language", "--data.corpus", "wikipedia"], ["wikipedia"]),
        (["train", "vision", "--config", "nowhere.json"], ["nowhere.json"]),
        (["train", "vision", "--pick", "abc"], ["--config"]),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(arguments, words, capsys):
    code = main(arguments)
    shown = capsys.readouterr()
    assert code == 2
    assert shown.err.startswith("decaylab: ")
    assert len(shown.err.strip().splitlines()) == 1
    assert all(word in shown.err for word in words), shown.err


@pytest.mark.parametrize("command", [["train", "vision"], ["train", "language"], ["reproduce", "fig1"]])
def test_an_unknown_device_is_one_line_and_enters_no_run(command, tmp_path, capsys):
    store = tmp_path / "runs.db"
    assert main([*command, "--device", "foo", "--store", str(store)]) == 2
    assert capsys.readouterr().err == "decaylab: unknown device 'foo'; known: auto, cpu, cuda, cuda:N, mps\n"
    assert not store.exists()


def _command(monkeypatch, function):
    """Put a function in the place of `decaylab rules`."""
    monkeypatch.setattr("decaylab.cli.rules.rules", function)


def test_what_nobody_foresaw_has_no_traceback_unless_asked(monkeypatch, capsys):
    def fail() -> None:
        """Fail."""
        raise ValueError("two\nlines")

    _command(monkeypatch, fail)
    assert main(["rules"]) == 1
    error = capsys.readouterr().err
    assert error == "decaylab: unforeseen ValueError: two lines; --debug shows where\n"
    with pytest.raises(ValueError):
        main(["rules", "--debug"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out", "FILE/page"], "cannot write into the folder "),
        (["--workers", "0"], "--workers must be at least 1, not 0"),
        (["--seeds", "0"], "the number of seeds goes from 1 to 1,000, it cannot be 0"),
        (["--seeds", "1000000000"], "it cannot be 1000000000"),
    ],
)
def test_a_reproduction_that_cannot_end_well_does_not_begin(flags, said, tmp_path, capsys):
    (tmp_path / "FILE").touch()
    flags = [flag.replace("FILE", str(tmp_path / "FILE")) for flag in flags]
    store = tmp_path / "runs.db"
    assert main(["reproduce", "fig1", "--budget", "smoke", "--store", str(store), *flags]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and said in error
    assert not store.exists()


def test_an_interruption_says_that_a_page_is_drawn_still(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("decaylab.cli.reproduce.launch", lambda *_, **__: LaunchReport(interrupted=True))
    monkeypatch.setattr("decaylab.reporting.build", lambda results, out: out / "index.html")
    arguments = ["reproduce", "fig1", "--budget", "smoke", "--store", str(tmp_path / "runs.db")]
    assert main([*arguments, "--out", str(tmp_path)]) == 130
    assert "drawing the page of what has ended (Ctrl-C again" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(tmp_path, capsys):
    store = tmp_path / "runs.db"
    with Store(store):
        (tmp_path / "table.csv").mkdir()
    assert main(["export", "--store", str(store), "--out", str(tmp_path / "table.csv")]) == 2
    assert capsys.readouterr().err == f"decaylab: {tmp_path / 'table.csv'} cannot be used: Is a directory\n"


@pytest.mark.parametrize("arguments", ["--help", "show fig5", "rules", "rules --json", "list", "train vision --help"])
def test_a_reader_that_went_away_is_no_error(arguments):
    command = f"{sys.executable} -m decaylab {arguments} | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_pipe_with_few_characters_gets_what_it_knows():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "decaylab", "show", "fig5"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stderr) == (0, "")


def test_what_show_prints_can_be_trained(tmp_path, capsys):
    assert main(["show", "fig5", "--budget", "smoke", "--json"]) == 0
    file = tmp_path / "fig5.json"
    file.write_text(capsys.readouterr().out)
    content = json.loads(file.read_text())
    runs = [run for run in content["runs"] if run["config"]["init_from"] is None]
    assert main(["train", "language", "--config", str(file)]) == 2
    assert "--pick" in capsys.readouterr().err
    chosen = runs[0]
    store = str(tmp_path / "runs.db")
    assert main(["train", "language", "--config", str(file), "--pick", chosen["id"], "--store", store]) == 0
    assert f"run {chosen['id']}: done" in capsys.readouterr().out
    assert main(["train", "vision", "--config", str(file), "--pick", chosen["id"], "--store", store]) == 2


def test_a_run_of_a_file_is_chosen_by_the_beginning_of_its_id(tmp_path, capsys):
    assert main(["show", "fig1", "--budget", "smoke", "--json"]) == 0
    file = tmp_path / "fig1.json"
    file.write_text(capsys.readouterr().out)
    ids = [run["id"] for run in json.loads(file.read_text())["runs"]]
    # Another budget's data set is missing, so that nothing is trained.
    command = ["train", "vision", "--config", str(file), "--data.dataset", "cifar10"]
    command += ["--model.architecture", "resnet18", "--pick"]
    assert main([*command, ids[0][:8]]) == 2
    assert "decaylab data get cifar10" in capsys.readouterr().err
    assert main([*command, ""]) == 2
    assert f"is the beginning of {len(ids)} runs" in capsys.readouterr().err


def test_a_snapshot_that_is_not_there_enters_no_run(tmp_path, capsys):
    store = tmp_path / "runs.db"
    parent = LanguageRun(steps=1)
    with Store(store) as database:
        database.add(run_id(parent), to_dict(parent), kind="language")
        database.finish(database.lease(run_id(parent), "tester"), status="done")
    assert main(["train", "language", "--init-from", f"{run_id(parent)[:5]}@200", "--store", str(store)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and f"run {run_id(parent)} kept no snapshots" in error
    with Store(store) as database:
        assert len(database.rows()) == 1


@pytest.mark.parametrize(
    "content", ["[]", '{"runs": []}', "[1]", '"x"', "null", '{"config": 3}', '{"runs": [{"config": null}]}']
)
def test_a_file_without_a_run(content, tmp_path, capsys):
    file = tmp_path / "run.json"
    file.write_text(content)
    assert main(["train", "vision", "--config", str(file)]) == 2
    assert "run.json holds no run" in capsys.readouterr().err
    assert main(["train", "vision", "--config", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_unknown_setting_in_a_file(tmp_path, capsys):
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"kind": "vision", "optimizer": {"lrr": 1}}))
    assert main(["train", "vision", "--config", str(file)]) == 2
    assert f"{file}: unknown setting 'optimizer.lrr'; did you mean 'optimizer.lr'" in capsys.readouterr().err
    file.write_text("{")
    assert main(["train", "vision", "--config", str(file)]) == 2
    assert "not JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--decay.rule", "decupled"], "did you mean 'decoupled'"),
        (["--decay.roles", "matrx"], "did you mean 'matrix'"),
        (["--probes.names", "nrms"], "did you mean 'norms'"),
        (["--init-from", "hf:nowhere"], "there is no folder nowhere"),
        (["--optimizer.lr", "inf"], "must be positive and finite"),
    ],
)
def test_a_wrong_name_is_one_line_and_enters_no_run(tmp_path, capsys, flags, said):
    store = tmp_path / "runs.db"
    assert main(["train", "language", *flags, "--store", str(store)]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and said in error
    assert not store.exists()


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_one_of_several_processes_warns_of_a_prompt(rank, lines, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("decaylab.cli.train.train_together", lambda *_, **__: None)
    small = ["--model.num-layers", "1", "--model.width", "12", "--model.context", "8", "--batch-size", "2"]
    flags = ["--data.tokenizer", "ascii", "--evaluation.prompt", "né", "--store", str(tmp_path / "runs.db")]
    assert main(["train", "language", *small, *flags]) == 0
    assert capsys.readouterr().err.count("does not know 'é'") == lines


@pytest.mark.parametrize("name", ["advise", "train", "rules"])
def test_help_of_a_command_is_its_help(name, capsys):
    shown = []
    for arguments in (["help", name], [name, "--help"]):
        try:
            main(arguments)
        except SystemExit as stop:
            assert not stop.code
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and len(shown[0]) > 80


def test_help_of_an_unknown_command_and_the_version(capsys):
    assert main(["help", "advice"]) == 2 and "'advise'" in capsys.readouterr().err
    assert main(["-V"]) == main(["--version"]) == 0
    assert capsys.readouterr().out == f"decaylab {decaylab.__version__}\n" * 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_completes_commands_and_options(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in (*COMMANDS, "weight-decay", "resnet_small"))


def test_bash_completes_with_it(capsys, tmp_path):
    main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    code = (
        "source ./script; f=$(complete -p decaylab | sed 's/.*-F //; s/ .*//');"
        "COMP_WORDS=(decaylab train language --decay.w) COMP_CWORD=3; $f; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["--decay.weight-decay"], done.stderr


def test_an_error_has_nothing_that_a_terminal_obeys(capsys):
    assert main(["show", "fig\x1b[31m1"]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error and "\\x1b[31m" in error


def test_an_error_of_the_system_without_a_name_is_one_line(monkeypatch, capsys):
    def fail() -> None:
        """Fail."""
        raise OSError(28, "No space left on device")

    _command(monkeypatch, fail)
    assert main(["rules"]) == 2
    assert capsys.readouterr().err == "decaylab: the system refuses: No space left on device\n"
