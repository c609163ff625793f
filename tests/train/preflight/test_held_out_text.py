"""The text that a run is measured on at its end: named in the id, told apart by its hash, missed before training."""

import hashlib
import json
from dataclasses import replace

import pytest
from tests.train.test_fit import LANGUAGE, _corpus, _home, _train  # noqa: F401  (fixtures of that file)

from decaylab.cli import main
from decaylab.config.identity import run_id, to_dict
from decaylab.errors import DecaylabError
from decaylab.train.preflight.datasets import require_data
from decaylab.train.preflight.held_out_text import changed

TEXT = "for name in names:\n    print(name)\n"


def _config(path):
    return replace(LANGUAGE, steps=4, evaluation=replace(LANGUAGE.evaluation, text_file=str(path)))


def test_the_summary_has_the_hash_of_the_text(tmp_path):
    path = tmp_path / "test.txt"
    path.write_text(TEXT)
    outcome = _train(_config(path))[1]
    assert outcome.summary["text"] == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert "text" not in _train(replace(LANGUAGE, steps=4))[1].summary
    assert changed(_config(path), outcome.summary) is None
    path.write_text(TEXT + "\n")
    assert "has changed" in changed(_config(path), outcome.summary)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot be read"), (b"\xff\xfe", "not UTF-8"), (b"x", "test.txt has 1 tokens")]
)
def test_a_text_that_cannot_be_measured_stops_a_run_before_its_first_step(tmp_path, content, words):
    path = tmp_path / "test.txt"
    if content is not None:
        path.write_bytes(content)
    if content != b"x":  # what a token is, only the loaded data tells
        with pytest.raises(DecaylabError, match=words):
            require_data([_config(path)])
    records = []
    with pytest.raises(DecaylabError, match=words):
        _train(_config(path), heartbeat=lambda step, total: records.append(step) or True)
    assert records == []


def test_a_finished_run_says_that_its_text_has_changed(tmp_path, capsys):
    path, file = tmp_path / "test.txt", tmp_path / "run.json"
    path.write_text(TEXT)
    file.write_text(json.dumps(to_dict(_config(path))))
    command = ["train", "language", "--config", str(file), "--store", str(tmp_path / "runs.db"), "--device", "cpu"]
    assert main(command) == 0
    first = capsys.readouterr()
    assert "has changed" not in first.err
    path.write_text("import this\n" * 5)
    assert main(command) == 0
    second = capsys.readouterr()
    assert "has changed since this run was measured" in second.err
    assert second.out == first.out  # not trained again
    other = path.with_name("other.txt")
    path.rename(other)
    assert run_id(_config(other)) != run_id(_config(path))
