"""The text that a run is measured on at its end: part of the id by its hash, missed before training."""

import hashlib
import json
from dataclasses import replace

import pytest
from tests.train.test_fit import LANGUAGE, _corpus, _home, _train  # noqa: F401  (fixtures of that file)

from decaylab.cli import main
from decaylab.config.identity import to_dict
from decaylab.errors import DecaylabError
from decaylab.train.preflight.datasets import require_data

TEXT = "for name in names:\n    print(name)\n"


def _config(path):
    return replace(LANGUAGE, steps=4, evaluation=replace(LANGUAGE.evaluation, text_file=str(path)))


def test_the_summary_has_the_hash_of_the_text(tmp_path):
    path = tmp_path / "test.txt"
    path.write_text(TEXT)
    outcome = _train(_config(path))[1]
    assert outcome.summary["text"] == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert "text" not in _train(replace(LANGUAGE, steps=4))[1].summary


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


def test_a_changed_text_is_another_run(tmp_path, capsys, in_process):
    path, file = tmp_path / "test.txt", tmp_path / "run.json"
    path.write_text(TEXT)
    file.write_text(json.dumps(to_dict(_config(path))))
    command = ["train", "language", "--config", str(file), "--store", str(tmp_path / "runs.db"), "--device", "cpu"]
    assert main(command) == 0
    first = capsys.readouterr()
    path.write_text("import this\n" * 5)
    assert main(command) == 0
    second = capsys.readouterr()
    assert second.out.splitlines()[0] != first.out.splitlines()[0]
    path.write_text(TEXT)
    assert main(command) == 0
    assert capsys.readouterr().out == first.out  # not trained again
