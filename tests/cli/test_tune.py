"""``decaylab tune`` on real commands, through the launcher."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from decaylab.cli import main

SCRIPT = Path(__file__).parents[1] / "support" / "quadratic.py"
COMMAND = ["--", sys.executable, str(SCRIPT), "--lr", "{lr}", "--wd", "{weight_decay}", "--steps", "{steps}"]
COMMAND += ["--seed", "{seed}"]
STEPS = re.compile(r'"steps": ?500\b')


def _arguments(tmp_path, *more):
    return ["tune", "--steps", "32k", "--lr", "1e-3", "--store", str(tmp_path / "s.db"), "--device", "cpu", *more]


def test_a_script_is_tuned_to_a_page(tmp_path, capsys):
    page = tmp_path / "page"
    code = main([*_arguments(tmp_path, "--json", "--budget", "3", "--workers", "2", "--out", str(page)), *COMMAND])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    answer = json.loads(shown.out)
    assert answer["verdict"] == "found" and answer["weight_decay"]["low"] < 3 / 32 < answer["weight_decay"]["high"]
    assert not any("whole schedule" in text for text in answer["assumed"])  # the script tells its learning rate
    assert "T/32" in shown.err and "weight decay of the full run about" in shown.err
    text = (page / "index.html").read_text()
    assert (
        answer["sentence"].split(";")[0] in text and text.count("<svg") == 2 and "http://" not in text.split("<svg")[0]
    )
    # the same command again trains nothing, and says the same
    began = time.monotonic()
    assert main([*_arguments(tmp_path, "--json", "--budget", "3"), *COMMAND]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["weight_decay"] == answer["weight_decay"] and time.monotonic() - began < 60


def test_the_study_opens_in_optuna(tmp_path, capsys):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    assert main([*_arguments(tmp_path, "--budget", "1.6", "--workers", "2"), *COMMAND]) == 0
    study = optuna.load_study(
        study_name="tune", storage=JournalStorage(JournalFileBackend(str(tmp_path / "s-tune.journal")))
    )
    assert len(study.trials) > 20 and {"steps", "seed", "run", "status"} <= set(study.trials[0].user_attrs)
    assert "timescales of decay in the run" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command, said",
    [
        ([], "give the training command behind --"),
        (["--", "python", "t.py"], "the command has no {weight_decay} and no {steps}"),
        (["--", "python", "t.py", "{weight_deca}", "{steps}"], "did you mean 'weight_decay'"),
        (["--", "python", "t.py", "--wd={weight_decay}", "{steps}", "--seed={sed}"], "did you mean 'seed'"),
        (["--", "no-such-program", "{weight_decay}", "{steps}"], "cannot start 'no-such-program'"),
        (["--", sys.executable, "-c", "print({weight_decay}, {steps})"], "no metric 'loss'"),
        (["--", sys.executable, "-c", "import sys; sys.exit('bad wolf {weight_decay} {steps}')"], "bad wolf"),
    ],
)
def test_commands_that_cannot_be_tuned_are_one_line(command, said, tmp_path, capsys):
    assert main([*_arguments(tmp_path), *command]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("decaylab: ") and said in error


def test_a_dry_run_tells_the_cost(tmp_path, capsys):
    assert main([*_arguments(tmp_path, "--dry-run"), *COMMAND]) == 0
    assert "full runs" in capsys.readouterr().out and not (tmp_path / "s.db").exists()


def test_a_trial_that_takes_too_long_names_its_log(tmp_path, capsys):
    slow = ["--", sys.executable, "-c", "import time; print({weight_decay}, {steps}); time.sleep(60)"]
    assert main([*_arguments(tmp_path, "--timeout", "0.3"), *slow]) == 2
    error = capsys.readouterr().err
    assert "longer than the time limit of 0.3 s; its log is" in error
    assert Path(error.rpartition("its log is ")[2].split(";")[0].strip()).exists()


def test_a_killed_search_goes_on(tmp_path, capsys):
    slow = tmp_path / "slow.py"
    slow.write_text(f"import time; time.sleep(0.05)\n{SCRIPT.read_text()}")
    command = [str(slow) if word == str(SCRIPT) else word for word in COMMAND]
    words = [sys.executable, "-m", "decaylab", *_arguments(tmp_path, "--budget", "1.6"), *command]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    journal = tmp_path / "s-tune.journal"
    while not journal.exists() or not STEPS.search(journal.read_text()):
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = len(STEPS.findall(journal.read_text()))
    assert main([*_arguments(tmp_path, "--budget", "1.6"), *command]) == 0
    assert before > 0 and "use weight decay" in capsys.readouterr().out


def test_two_searches_of_one_study_are_told_apart(tmp_path, capsys):
    from decaylab.tuning.record import open_record

    with open_record(tmp_path / "s-tune.journal", "tune"):
        assert main([*_arguments(tmp_path), *COMMAND]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "another process tunes the study 'tune'" in error and "give another --name" in error
    with open_record(tmp_path / "s-tune.journal", "tune"):  # and is free again
        pass


def _script(tmp_path, *lines):
    """A script that does something else before its formula."""
    path = tmp_path / "script.py"
    path.write_text("\n".join(["import sys", *lines, SCRIPT.read_text()]))
    return [str(path) if word == str(SCRIPT) else word for word in COMMAND]


def test_losses_that_are_no_number_are_a_bound(tmp_path, capsys):
    words = _script(
        tmp_path,
        "wd, steps = (float(sys.argv[sys.argv.index(name) + 1]) for name in ('--wd', '--steps'))",
        "if 1e-3 * wd * steps > 8:",
        "    print('{\"loss\": NaN}')",
        "    sys.exit()",
    )
    assert main([*_arguments(tmp_path, "--json", "--budget", "3", "--workers", "2"), *words]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == "found" and answer["weight_decay"]["low"] < 3 / 32 < answer["weight_decay"]["high"]
    lost = [t for t in answer["trials"] if t["status"] == "diverged"]
    assert lost and all(t["value"] is None and 1e-3 * t["weight_decay"] * t["steps"] > 8 for t in lost)


def test_a_crash_in_a_trial_keeps_the_others_and_goes_on(tmp_path, capsys):
    counts = tmp_path / "counts"
    counts.mkdir()
    words = _script(
        tmp_path,
        "import pathlib, time",
        f"counts = pathlib.Path({str(counts)!r})",
        "(counts / f'{time.time_ns()}').touch()",
        "if not (counts / 'mended').exists() and '--wd' in sys.argv and len(list(counts.iterdir())) > 7:",
        "    sys.exit('CUDA error: an illegal memory access')",
    )
    assert main([*_arguments(tmp_path, "--budget", "1.6", "--workers", "1"), *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("decaylab: trial wd ") and "CUDA error: an illegal memory access" in error
    assert Path(error.rpartition("its log is ")[2].split(";")[0].strip()).exists() and "goes on from there" in error
    before = len(list(counts.iterdir()))
    (counts / "mended").touch()
    assert main([*_arguments(tmp_path, "--json", "--budget", "1.6", "--workers", "2"), *words]) == 0
    answer = json.loads(capsys.readouterr().out)
    again = len(list(counts.iterdir())) - before - 1
    assert again == len(answer["trials"]) + 3 - 7  # three of the contract are no part of the answer; 7 had ended


@pytest.mark.parametrize(
    "formula, said",
    [
        ("1 + {weight_decay} + 1 / {steps} + 0 * {seed}", "the script ignores {seed}"),
        ("1 + {weight_decay} + {seed} + 0 * {steps}", "the script ignores {steps}"),
        ("1 + {weight_decay} + 1 / {steps}", "the command has no {seed}, and the same settings twice"),
    ],
)
def test_scripts_that_ignore_a_placeholder(formula, said, tmp_path, capsys):
    command = ["--", sys.executable, "-c", f"print('{{\"loss\":', {formula}, '}}')"]
    assert main([*_arguments(tmp_path), *command]) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_full_disk_loses_nothing(tmp_path, capsys):
    words = _arguments(tmp_path, "--budget", "1.6", "--workers", "1")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000));"
        "from decaylab.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    full = subprocess.run([sys.executable, "-c", code, *words, *COMMAND], capture_output=True, text=True)
    error = full.stderr.strip().splitlines()[-1]
    assert full.returncode == 2 and error.startswith("decaylab: ") and "Traceback" not in full.stderr, full.stderr
    assert main([*words, *COMMAND]) == 0
    assert "use weight decay" in capsys.readouterr().out
