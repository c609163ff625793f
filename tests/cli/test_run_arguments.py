"""Settings of a run from presets, files and flags, and what is said of those that do not fit."""

import json

import pytest

from decaylab.cli import main
from decaylab.cli.run_arguments import LanguageArguments, VisionArguments, read_run
from decaylab.config.identity import run_id
from decaylab.config.presets import PRESETS
from decaylab.config.schema import LanguageRun
from decaylab.config.validation import check
from decaylab.errors import DecaylabError
from decaylab.store.store import Store
from decaylab.train.preflight.memory import least_memory


def _language(*arguments):
    return read_run(LanguageArguments, "language", arguments, prog="decaylab train language", description="").run


def test_a_published_name_of_a_rule_is_the_same_run():
    named = _language("--decay.rule", "AdamC", "--decay.weight-decay", "0.1")
    assert named.decay.rule == "corrected"
    assert run_id(named) == run_id(_language("--decay.rule", "corrected", "--decay.weight-decay", "0.1"))
    assert _language("--decay.rule", "l2-to-anchor").decay.rule == "l2-to-anchor"  # ids stay as they are


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_where_flags_begin(name):
    preset = PRESETS[name].run
    check(preset)
    assert _language("--preset", name) == preset
    assert _language(f"--preset={name}", "--steps", "7", "--model.width", "64").steps == 7
    weights = int(preset.model.num_layers * 12 * preset.model.width**2)
    assert least_memory(preset, 50304)  # it can be counted
    assert (
        {"small": 0.7e6, "medium": 10e6, "gpt2": 84e6}[name]
        < weights
        < {"small": 0.9e6, "medium": 11e6, "gpt2": 86e6}[name]
    )


def test_the_small_one_fits_a_laptop_and_the_largest_is_the_default():
    assert sum(least_memory(PRESETS["small"].run, 256).values()) < 1e9
    assert PRESETS["gpt2"].run == LanguageRun()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "smal"], "did you mean 'small'"),
        (["--preset"], "--preset needs a value"),
        (["--preset", "small", "--config", "x.json"], "give one of them"),
        (["--init-from", "\x1b[31m"], "expected RUN@STEP"),
    ],
)
def test_what_does_not_fit_is_said(arguments, said):
    with pytest.raises(DecaylabError, match=said):
        _language(*arguments)
    with pytest.raises(DecaylabError, match="for language runs"):
        read_run(VisionArguments, "vision", ["--preset", "small"], prog="decaylab train vision", description="")


_LONG = b"x" * 3_000_000
_BROKEN = {
    "deep list": b"[" * 200_000,
    "deep object": b'{"a":' * 100_000,
    "no text": b"\xff\xfe",
    "cut off": b"{",
    "long number": b'{"kind": "vision", "seed": ' + b"9" * 5000 + b"}",
    "empty": b"[]",
    "number": b"3",
    "long value": b'{"kind": "vision", "optimizer": {"lr": "' + _LONG + b'"}}',
    "long key": b'{"kind": "vision", "' + _LONG + b'": 1}',
    "long kind": b'{"kind": "' + _LONG + b'"}',
}


@pytest.mark.parametrize("content", _BROKEN.values(), ids=_BROKEN)
def test_a_broken_config_is_one_short_line(content, tmp_path, capsys):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    assert main(["train", "vision", "--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("decaylab: ") and said.count("\n") == 1 and len(said) < 700
    assert "unforeseen" not in said and str(path) in said


def test_memory_is_refused_with_the_flags_that_change_it(monkeypatch, capsys):
    monkeypatch.setattr("decaylab.train.preflight.memory._memory", lambda _: ("this machine", 1e9))
    assert main(["train", "language", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "--model.context" in said and "--batch-size" in said and "--preset small" in said


def test_every_role_is_checked(capsys):
    assert main(["train", "vision", "--decay.roles", "all", "matrx"]) == 2
    assert "unknown role 'matrx'; did you mean 'matrix'" in capsys.readouterr().err


def test_a_folder_as_a_corpus_is_told_its_form(tmp_path, capsys):
    assert main(["train", "language", "--data.corpus", str(tmp_path), "--preset", "small"]) == 2
    assert f"a folder of texts is given as folder:{tmp_path}" in capsys.readouterr().err


def test_a_finished_run_is_known_without_torch(tmp_path):
    import subprocess
    import sys

    from decaylab.config.identity import to_dict
    from decaylab.config.schema import VisionRun

    path, run = tmp_path / "a.db", run_id(VisionRun())
    with Store(path) as store:
        store.add(run, to_dict(VisionRun()), kind="vision")
        lease = store.lease(run, "w")
        store.finish(lease, status="done", step=20, summary={"test/error": 0.5})
    code = f"""
import sys
from decaylab.cli import main
print(main(["train", "vision", "--store", {str(path)!r}]), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == f"run {run}: done, 20 steps" and done.stdout.splitlines()[-1] == "0 False"
    assert "ended before" in done.stderr


def test_what_a_run_says_of_itself_does_not_reach_the_terminal_raw(tmp_path, capsys):
    from decaylab.config.identity import to_dict
    from decaylab.config.schema import VisionRun

    path, run = tmp_path / "a.db", run_id(VisionRun())
    hostile = "\x1b[31mred\x07"
    with Store(path) as store:
        store.add(run, to_dict(VisionRun()), kind="vision")
        lease = store.lease(run, "w")
        summary = {"completion": f"one\n{hostile}", "spike": hostile, "damaged": hostile, f"{hostile}/loss": 1.0}
        store.finish(lease, status="done", step=20, summary=json.loads(json.dumps(summary)))
    assert main(["train", "vision", "--store", str(path)]) == 0
    said = "".join(capsys.readouterr())
    assert not {"\x1b", "\x07"} & set(said) and said.count("\\x1b[31mred") == 4
