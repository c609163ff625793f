"""Settings from files of strangers, whatever is in them: one short line, soon, and no run enters the store."""

import json

import pytest

from decaylab.cli import main

LONG = "z" * 3_000_000
BROKEN = {
    "nested": '{"kind": "language", "model": ' + "[" * 100_000,
    "digits": '{"kind": "language", "steps": ' + "9" * 5000 + "}",
    "not a number": '{"kind": "language", "optimizer": {"lr": NaN}}',
    "half a character": '{"kind": "language", "evaluation": {"text_file": "\\ud800"}}',
    "half a folder": '{"kind": "language", "data": {"corpus": "folder:\\ud800"}}',
}
SETTINGS = {
    "corpus": {"data": {"corpus": LONG}},
    "folder": {"data": {"corpus": f"folder:{LONG}"}},
    "key": {LONG: 1},
    "inner key": {"data": {LONG: 1}},
    "choice": {"optimizer": {"name": LONG}},
    "tokenizer": {"data": {"tokenizer": LONG}},
    "bpe": {"data": {"tokenizer": "bpe:" + "9" * 5000}},
    "bpe of other digits": {"data": {"tokenizer": "bpe:²²²²"}},
    "rule": {"decay": {"rule": LONG, "weight_decay": 0.1}},
    "role": {"decay": {"roles": [LONG], "weight_decay": 0.1}},
    "probe": {"probes": {"names": [LONG]}},
    "run": {"init_from": {"run": LONG}},
    "checkpoint": {"init_from": {"run": f"hf:{LONG}"}},
    "zero in a checkpoint": {"init_from": {"run": "hf:a\0b"}},
    "no home": {"init_from": {"run": "hf:~nobody-of-this-name/b"}},
    "no home of a text": {"evaluation": {"text_file": "~nobody-of-this-name/b"}},
    "text": {"evaluation": {"text_file": LONG}},
    "escape": {"data": {"corpus": "folder:\x1b[31mred"}},
    "list": {"optimizer": {"lr": [1] * 100_000}},
}


@pytest.mark.parametrize("name", [*BROKEN, *SETTINGS])
def test_one_short_line(name, tmp_path, capsys):
    whole = {"kind": "language", "schedule": {"warmup_steps": 1}}
    text = BROKEN.get(name) or json.dumps(whole | SETTINGS[name])
    (tmp_path / "run.json").write_text(text)
    store = tmp_path / "runs.db"
    command = ["train", "language", "--config", str(tmp_path / "run.json"), "--steps", "2", "--store", str(store)]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and len(error) < 700 and "\x1b" not in error and "set_int_max" not in error
    assert not store.exists()
