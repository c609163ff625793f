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
