import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from decaylab.cli import main
from decaylab.config.identity import run_id, to_dict
from decaylab.config.schema import (
    Decay,
    Evaluation,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    VisionData,
    VisionModel,
    VisionRun,
)
from decaylab.data.corpus import Corpus
from decaylab.probes import PROBES, measure
from decaylab.store.store import Store
from decaylab.train.build import language_model, stepper
from decaylab.train.checkpoints import files as checkpoint
from decaylab.train.distributed import Processes
from decaylab.train.preflight.inputs import with_content
from decaylab.train.tasks import build_task


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def model():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))\n"
        "def everything():\n"
        "    net = model()\n"
        "    loss = lambda m, b: torch.nn.functional.cross_entropy(m(b[0]), b[1])\n"
        "    batch = (torch.ones(6, 4) * torch.arange(6)[:, None], torch.arange(6) % 2)\n"
        "    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.2)\n"
        "    return {'model': net, 'loss_fn': loss, 'batches': [batch], 'optimizer': optimizer}\n"
        "def wrong():\n"
        "    return {'net': model()}\n"
        "def picky(x):\n"
        "    return x\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "mine"
    sys.modules.pop("mine", None)


def _json(capsys, *arguments):
    assert main(["probe", *map(str, arguments), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    return said["measured"] if arguments else said["probes"]


def test_without_a_model_it_lists_the_probes(capsys):
    assert [row["name"] for row in _json(capsys)] == list(PROBES)
    assert main(["probe"]) == 0
    assert "hessian_trace" in capsys.readouterr().out


def test_any_model(own_module, tmp_path, capsys):
    import mine

    expected = measure("norms", mine.model())
    assert _json(capsys, "--load", "mine:model") == pytest.approx(expected)
    assert main(["probe", "--load", "mine:model"]) == 0
    lines = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert lines == {key: f"{value:.6g}" for key, value in expected.items()}
    found = _json(capsys, "--load", "mine:everything", "--probes", "gradient_noise", "effective_lr")
    assert found["noise/variance"] > 0 and found["effective_lr"] > 0
    other = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).state_dict()
    save_file(other, tmp_path / "w.safetensors")
    torch.save(other, tmp_path / "w.pt")
    norm = torch.cat([t.reshape(-1) for t in other.values()]).norm()
    for name in ("w.safetensors", "w.pt"):
        assert _json(capsys, tmp_path / name, "--load", "mine:model")["weights/norm"] == pytest.approx(float(norm))


def test_mistakes_in_one_line(own_module, tmp_path, capsys):
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    torch.save({"a": print}, tmp_path / "code.pt")
    for arguments, words in [
        (["--load", "mine:nothing"], "unknown name"),
        (["--load", "mine:wrong"], "gave the keys net"),
        (["--load", "mine:picky"], "must be callable without arguments"),
        (["--load", "mine:model", "--probes", "norm"], "did you mean 'norms'"),
        (["--load", "mine:model", "--probes", "effective_lr"], "give optimizer="),
        ([tmp_path / "bad.safetensors", "--load", "mine:model"], "cannot be read as weights"),
        ([tmp_path / "code.pt", "--load", "mine:model"], "refused"),
        ([tmp_path / "none.pt", "--load", "mine:model"], "there is no file"),
        ([tmp_path / "nowhere"], "there is no folder"),
        ([tmp_path], "there are no weights in"),
        ([tmp_path / "bad.safetensors"], "is a file: give a run's id"),
        (["--load", "mine:model", "--points", "0"], "--points must be at least 1"),
        (["--load", "mine:model", "--seed", 2**70], "--seed below 2^63"),
        (["--load", "mine:model", "--device", "abacus"], "auto, cpu, cuda, cuda:N"),
    ]:
        assert main(["probe", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, arguments


def test_a_checkpoint_of_a_run_here(tmp_path, capsys):
    config = VisionRun(
        data=VisionData(dataset="digits", train_size=64),
        model=VisionModel(width=4, blocks=1),
        optimizer=Optimizer(name="sgd", lr=0.1),
        decay=Decay(weight_decay=0.5),
    )
    task = build_task(config, torch.device("cpu"), Processes())
    optimizer = stepper(config, task.model, scaled=False).optimizer
    tensors = checkpoint.model_tensors(task.model)
    averages = {f"ema0.9/{name}": 2 * p.detach() for name, p in task.model.named_parameters()}
    state = {"optimizer": optimizer.state_dict(), "averages": averages}
    checkpoint.save(tmp_path / "snapshot-4", config, tensors, state)
    checkpoint.save(tmp_path / "snapshot-5", config, tensors, {**state, "optimizer": None})
    norm = float(torch.cat([p.detach().reshape(-1) for p in task.model.parameters()]).norm())
    names = ("norms", "gradient_noise", "effective_lr")
    found = _json(capsys, tmp_path / "snapshot-4", "--probes", *names, "--points", "32")
    assert found["weights/norm"] == pytest.approx(norm, rel=1e-6)
    assert found["effective_lr"] == pytest.approx(0.1 / (1 - 0.05) / norm, rel=1e-6)
    assert found["noise/variance"] > 0
    assert _json(capsys, tmp_path / "snapshot-4", "--at", "ema0.9")["weights/norm"] == pytest.approx(2 * norm, rel=1e-6)
    assert main(["probe", str(tmp_path / "snapshot-4"), "--at", "ema0.5"]) == 2
    assert "it has iterate, ema0.9" in capsys.readouterr().err
    assert main(["probe", str(tmp_path / "snapshot-5"), "--probes", "effective_lr"]) == 2
    assert "holds no optimizer state" in capsys.readouterr().err


def test_a_run_is_named_by_the_beginning_of_its_id(tmp_path, capsys):
    config = VisionRun(data=VisionData(train_size=64), model=VisionModel(width=4, blocks=1))
    task = build_task(config, torch.device("cpu"), Processes())
    with Store(tmp_path / "runs.db") as store:
        store.add(run_id(config), to_dict(config), kind="vision")
        folder = store.folder(run_id(config))
    arguments = ["probe", run_id(config)[:6], "--store", str(tmp_path / "runs.db")]
    assert main(arguments) == 2
    assert f"there are no weights in {folder}: a run keeps them with" in capsys.readouterr().err
    for step, factor in ((9, 1), (10, 2)):
        tensors = {name: factor * tensor for name, tensor in checkpoint.model_tensors(task.model).items()}
        checkpoint.save(folder / f"snapshot-{step}", config, tensors, {"averages": {}})
    norm = float(torch.cat([p.detach().reshape(-1) for p in task.model.parameters()]).norm())
    assert _json(capsys, *arguments[1:])["weights/norm"] == pytest.approx(2 * norm, rel=1e-6)  # the latest
    assert main(["sample", *arguments[1:]]) == 2
    assert "is a vision run: name a language run" in capsys.readouterr().err


LANGUAGE = LanguageRun(
    model=LanguageModel(num_layers=1, num_heads=1, width=8, context=8),
    data=LanguageData(tokenizer="ascii"),
    evaluation=Evaluation(every=2, batches=1, batch_size=2),
)


def _snapshot(folder, config, rows=128):
    checkpoint.save(folder, config, checkpoint.model_tensors(language_model(config.model, rows)), {"averages": {}})
    return folder


def _secret(folder):
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"a secret line {number}\n" * 150)
    return f"folder:{folder}"


def test_a_checkpoint_does_not_make_a_probe_read_the_folder_that_it_names(tmp_path, capsys, monkeypatch):
    corpus = _secret(tmp_path / "secret")
    text_file = str(tmp_path / "secret" / "0.txt")
    config = replace(LANGUAGE, data=replace(LANGUAGE.data, corpus=corpus))
    config = replace(config, evaluation=replace(config.evaluation, text_file=text_file))
    folder = _snapshot(tmp_path / "snapshot-1", config)
    opened = []
    original = Corpus.documents
    monkeypatch.setattr(Corpus, "documents", lambda self, side: opened.append(self.name) or original(self, side))
    monkeypatch.setattr("decaylab.train.preflight.held_out_text.read_text", lambda path: opened.append(path))
    assert main(["probe", str(folder), "--probes", "gradient_noise"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--corpus folder:PATH" in error and corpus in error and not opened
    assert _json(capsys, folder)["weights/norm"] > 0 and not opened  # what needs no data needs no folder
    assert _json(capsys, folder, "--probes", "gradient_noise", "--points", "4", "--corpus", corpus)
    assert set(opened) == {corpus}
    for wrong, words in (("stdlib", "expected folder:PATH"), (f"folder:{tmp_path}/no", "is not a folder")):
        assert main(["probe", str(folder), "--probes", "gradient_noise", "--corpus", wrong]) == 2
        assert words in capsys.readouterr().err


def test_a_run_whose_folder_has_moved(tmp_path, capsys):
    corpus = _secret(tmp_path / "texts")
    config = with_content(replace(LANGUAGE, data=replace(LANGUAGE.data, corpus=corpus, tokenizer="bpe:270")))
    folder = _snapshot(tmp_path / "snapshot-1", config, rows=270)
    (tmp_path / "texts").rename(tmp_path / "moved")
    noise = ["--probes", "gradient_noise", "--points", "4"]
    for command in (["probe", str(folder), *noise], ["sample", str(folder), "--tokens", "2"]):
        assert main(command) == 2
        assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "moved" / "0.txt").write_text("other\n")
    assert main(["probe", str(folder), *noise, "--corpus", f"folder:{tmp_path / 'moved'}"]) == 2
    assert "has changed since this run was made" in capsys.readouterr().err
    (tmp_path / "moved" / "0.txt").write_text("a secret line 0\n" * 150)
    found = _json(capsys, folder, *noise, "--corpus", f"folder:{tmp_path / 'moved'}")
    shutil.rmtree(tmp_path / "moved")
    assert _json(capsys, folder, *noise) == found  # encoded once: it is there
    assert main(["sample", str(folder), "--tokens", "2"]) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"model": {"num_layers": 10**7}},
        {"model": {"width": 10**9, "num_heads": 1}},
        {"model": {"context": 10**12}},
        {"model": {"vocab_size": 10**12}},
        {"evaluation": {"batch_size": 10**12}},
        {"model": {"width": "8" * 10**6}},
        {"x" * 10**6: 1},
        {"kind": ["language"]},
        {"data": [[[[]]]]},
    ],
    ids=lambda s: str(s)[:30],
)
def test_settings_of_a_stranger_are_not_believed(settings, tmp_path, capsys):
    folder = _snapshot(tmp_path / "snapshot-1", LANGUAGE)
    content = json.loads((folder / "config.json").read_text())
    for name, value in settings.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(content))
    for command in (["probe", str(folder), "--probes", "gradient_noise"], ["sample", str(folder), "--tokens", "1"]):
        if "evaluation" in settings and command[0] == "sample":
            continue
        if settings == {"model": {"vocab_size": 10**12}} and command[0] == "probe":
            continue  # the rows are those of the weights
        assert main(command) == 2, command
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and len(error) < 600


def test_weights_of_other_programs(own_module, tmp_path, capsys):
    import mine

    state = mine.model().state_dict()
    expected = _json(capsys, "--load", "mine:model")
    for number, content in enumerate(
        [
            {f"_orig_mod.module.{name}": t for name, t in state.items()},
            {"state_dict": {f"model.{name}": t for name, t in state.items()}, "epoch": 1},
            {"model_state_dict": state},
        ]
    ):
        torch.save(content, tmp_path / f"{number}.ckpt")
        assert _json(capsys, tmp_path / f"{number}.ckpt", "--load", "mine:model") == pytest.approx(expected)
