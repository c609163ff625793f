"""A run that its data or the machine's memory cannot hold is missed before it enters the store."""

import math
import subprocess
from dataclasses import replace

import psutil
import pytest

from decaylab.cli import main
from decaylab.config.schema import (
    Evaluation,
    InitFrom,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    VisionData,
    VisionModel,
    VisionRun,
)
from decaylab.data import text
from decaylab.errors import DecaylabError
from decaylab.files import data_home
from decaylab.models import GPT, transformers_format
from decaylab.train.build import vision_model
from decaylab.train.preflight import memory
from decaylab.train.preflight.data_fit import lost_in_texts, require_fit
from decaylab.train.preflight.datasets import require_whole
from decaylab.train.preflight.memory import least_memory, require_memory

SMALL = LanguageModel(num_layers=1, num_heads=1, width=8, context=16)


@pytest.fixture
def run(tmp_path):
    """A run on some hundred tokens of text."""
    folder = tmp_path / "text"
    for side, number in (("train", 40), ("val", 10)):
        (folder / side).mkdir(parents=True)
        (folder / side / "a.txt").write_text("0123456789" * number)
    return LanguageRun(
        model=SMALL, data=LanguageData(corpus=f"folder:{folder}", tokenizer="ascii"), batch_size=4, steps=400
    )


def test_what_fits_is_let_through(run, tmp_path):
    require_fit(run, "cpu")
    require_fit(replace(run, model=replace(SMALL, context=100)), "cpu")
    require_fit(VisionRun(), "cpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": replace(SMALL, context=101)}, "context 101 .* validation text has 101 tokens, .* longest .* is 100"),
        ({"model": replace(SMALL, vocab_size=100)}, "vocab_size 100 is below the tokenizer's 128"),
        ({"steps": 399}, r"warm-up \(400 steps\) is longer than the run \(399 steps\)"),
        ({"evaluation": Evaluation(batches=10**9)}, "at least .* data of evaluations"),
    ],
)
def test_what_does_not_is_one_line(run, change, said):
    with pytest.raises(DecaylabError, match=said) as caught:
        require_fit(replace(run, **change), "cpu")
    assert "\n" not in str(caught.value)


def test_fewer_training_tokens_count(run):
    limited = replace(run, data=replace(run.data, train_tokens=16))
    with pytest.raises(DecaylabError, match="the training text has 16 tokens"):
        require_fit(limited, "cpu")


def test_a_damaged_stream_is_named(run):
    require_fit(run, "cpu")
    path = text(run.data.corpus, "ascii").folder / "val.bin"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DecaylabError, match=r"val.bin is damaged: expected 202 bytes"):
        require_fit(run, "cpu")


def test_a_checkpoint_of_another_model_is_missed(run, tmp_path):
    model = GPT(vocab_size=128, context=16, num_layers=1, num_heads=1, width=8)
    transformers_format.write(model, tmp_path / "there")
    start = replace(run, init_from=InitFrom(run=f"hf:{tmp_path / 'there'}"))
    start = replace(start, model=replace(SMALL, bias=False))
    require_fit(start, "cpu")
    with pytest.raises(DecaylabError, match=r"has width 8, this run's model 16: set model.width to 8"):
        require_fit(replace(start, model=replace(start.model, width=16)), "cpu")
    path = tmp_path / "there" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DecaylabError, match=r"model.safetensors is damaged"):
        require_fit(start, "cpu")


def test_fetched_images_are_read_before_anything_is_trained(tmp_path, capsys):
    folder = data_home() / "vision" / "cifar10"
    folder.mkdir(parents=True)
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        (folder / name).write_bytes(bytes(3073 * 10))
    (folder / "data_batch_3.bin").write_bytes(bytes(3073 * 10 - 50))
    with pytest.raises(DecaylabError, match=r"data_batch_3.bin is damaged: expected whole records"):
        require_whole([VisionRun(), VisionRun(data=VisionData(dataset="cifar10"))])
    store = tmp_path / "runs.db"
    for command in (["reproduce", "fig2", "--budget", "paper"], ["train", "vision", "--data.dataset", "cifar10"]):
        assert main([*command, "--store", str(store)]) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1 and "data_batch_3.bin is damaged" in error
    assert not store.exists()


def test_the_bound_is_below_what_a_step_takes():
    """Weights, gradients and moments of a real model, counted by hand."""
    config = LanguageRun(
        model=replace(SMALL, width=32, vocab_size=100), batch_size=2, optimizer=Optimizer(name="adamw")
    )
    model = GPT(vocab_size=100, context=16, num_layers=1, num_heads=1, width=32)
    weights = next(iter(least_memory(config, 0).values()))
    assert 0.9 < weights / sum(16 * p.numel() for p in model.parameters()) <= 1
    vision = VisionRun(model=VisionModel(width=4), optimizer=Optimizer(momentum=0.9))
    weights = next(iter(least_memory(vision, 0).values()))
    assert weights == sum(12 * p.numel() for p in vision_model(vision.model, 10, 1, 8).parameters())


@pytest.mark.parametrize(
    ("change", "largest"),
    [
        ({"model": replace(SMALL, context=2**20)}, "attention mask"),
        ({"batch_size": 2**30}, "logits"),
        ({"model": replace(SMALL, width=2**16)}, "weights"),
    ],
)
def test_what_is_too_large_says_what_for(monkeypatch, run, change, largest):
    monkeypatch.setattr(memory, "_memory", lambda device: ("this machine", 2**33))
    require_memory(run, 128, "cpu")
    with pytest.raises(DecaylabError, match=f"this machine has 8.59 GB; most of it is for .*{largest}"):
        require_memory(replace(run, **change), 128, "cpu")


def test_processes_share_the_batch(run):
    one, four = (sum(least_memory(replace(run, batch_size=2**20), 128, processes=n).values()) for n in (1, 4))
    assert 3.9 < one / four < 4


def test_the_memory_of_a_machine_has_the_limit_of_its_control_group(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "memory.max")
    swap = psutil.swap_memory().total
    assert memory._memory("cpu")[1] == psutil.virtual_memory().total + swap
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory._memory("cpu") == ("this machine", 1000 + swap)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._memory("cpu")[1] > 2**20


def test_the_memory_of_a_gpu_is_asked_for_in_another_process(monkeypatch):
    asked = []

    def answer(command, **_):
        asked.append(command[-1])
        return subprocess.CompletedProcess(command, 0, stdout=said)

    monkeypatch.setattr(memory.subprocess, "run", answer)
    monkeypatch.setattr(memory.torch.cuda, "device_count", lambda: 2)
    said = "80000\n"
    assert memory._memory("auto") == ("GPU 0", 80000)
    assert memory._memory("cuda:1") == ("GPU 1", 80000)
    said = ""
    assert memory._memory("cuda") == ("GPU 0", math.inf)
    assert "get_device_properties(1)" in asked[1]


def test_characters_that_a_tokenizer_does_not_know(run, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("öde\n", encoding="utf-8")
    asked = replace(run, evaluation=Evaluation(prompt="né en été\n"))
    assert lost_in_texts(asked) == "é"
    assert lost_in_texts(replace(run, evaluation=Evaluation(prompt="né", text_file=str(path)))) == "éö"
    assert lost_in_texts(replace(asked, data=replace(run.data, tokenizer="bytes"))) == ""
    assert lost_in_texts(run) == lost_in_texts(VisionRun()) == ""
