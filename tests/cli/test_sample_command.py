"""`decaylab sample` as a person calls it: what the model cannot read of a prompt is said."""

import pytest
import torch

from decaylab.cli import main
from decaylab.cli.sample import warn_of_lost
from decaylab.config.schema import LanguageData, LanguageModel, LanguageRun
from decaylab.models import GPT
from decaylab.train.checkpoints import files as checkpoint


@pytest.fixture
def snapshot(tmp_path):
    """An untrained model that reads ASCII."""
    config = LanguageRun(
        model=LanguageModel(num_layers=1, num_heads=1, width=8, context=16), data=LanguageData(tokenizer="ascii")
    )
    torch.manual_seed(0)
    model = GPT(vocab_size=128, context=16, num_layers=1, num_heads=1, width=8)
    checkpoint.save(tmp_path / "snapshot-4", config, checkpoint.model_tensors(model), {"averages": {}})
    return tmp_path / "snapshot-4"


def test_characters_outside_of_the_vocabulary_are_named(snapshot, capsys):
    assert main(["sample", str(snapshot), "--prompt", "né à été", "--tokens", "3"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("n? ? ?t?")
    assert shown.err == "decaylab: the model's tokenizer does not know 'é', 'à': it reads ? there\n"
    assert main(["sample", str(snapshot), "--prompt", "ne a ete?", "--tokens", "3"]) == 0
    assert capsys.readouterr().err == ""


def test_of_many_characters_a_few_are_named(capsys):
    warn_of_lost("абвгдежзийкл")
    assert "'й' and 2 more: it reads ?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prompt", "\udce9"], "--prompt is not text in UTF-8"),
        (["--temperature", "nan"], "--temperature must not be negative"),
        (["--top-k", "0"], "--top-k must be at least 1"),
        (["--seed", str(2**70)], "--seed must be below 2^63"),
        (["--weights", "ema0.9"], "no average 'ema0.9'"),
    ],
)
def test_mistakes_are_one_line(snapshot, flags, said, capsys):
    assert main(["sample", str(snapshot), *flags]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and said in error


def test_what_a_model_says_does_not_reach_the_terminal_raw(monkeypatch, tmp_path, capsys):
    from types import SimpleNamespace

    codec = SimpleNamespace(encode=lambda text: [0], unknown=())
    monkeypatch.setattr("decaylab.train.checkpoints.load_model.load_finished", lambda *_, **__: (None, codec))
    monkeypatch.setattr("decaylab.data.tokenizer.lost_characters", lambda *_: "\x1b\u202e")
    monkeypatch.setattr("decaylab.train.generation.complete", lambda *_, **__: "a\x1b]0;title\x07\x9bb\n\tc\r")
    assert main(["sample", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert shown.out == "a\\x1b]0;title\\x07\\x9bb\n\tc\\r\n"
    assert not {"\x1b", "\u202e"} & set(shown.err)
