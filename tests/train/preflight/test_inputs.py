"""What a run reads is part of what it is: ids follow the content of files, not where they lie."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from decaylab.cli import main
from decaylab.config.identity import from_dict, run_id, to_dict
from decaylab.config.schema import Evaluation, InitFrom, LanguageData, LanguageModel, LanguageRun, VisionData, VisionRun
from decaylab.data.text_streams import text
from decaylab.errors import DecaylabError
from decaylab.launch.scheduler import Run
from decaylab.models import GPT
from decaylab.models.transformers_format import write
from decaylab.schedules import Schedule
from decaylab.store.store import Store
from decaylab.train.fit import fit
from decaylab.train.preflight.inputs import changed_data, with_content

MODEL = LanguageModel(num_layers=1, num_heads=1, width=8, context=8)
BASE = LanguageRun(
    model=MODEL,
    data=LanguageData(),
    evaluation=Evaluation(every=2, batches=1, batch_size=2),
    schedule=Schedule(warmup_steps=2),
    batch_size=4,
    steps=4,
)


def _texts(folder, seed=0):
    folder.mkdir(exist_ok=True)
    letters = np.random.default_rng(seed).integers(97, 123, (20, 3000), dtype=np.uint8)
    letters[:, 59::60] = ord("\n")
    for number, row in enumerate(letters):
        (folder / f"{number}.txt").write_bytes(bytes(row))
    return f"folder:{folder}"


def _hf(folder, seed=0):
    torch.manual_seed(seed)
    write(GPT(vocab_size=128, context=8, num_layers=1, num_heads=1, width=8), folder)
    return f"hf:{folder}"


def _corpus(folder, seed=0, **more):
    return replace(BASE, data=LanguageData(corpus=_texts(folder, seed), tokenizer="ascii", **more))


def _measured(path, seed=0):
    path.write_text(f"a text to be measured {seed}\n" * 9)
    return replace(BASE, evaluation=replace(BASE.evaluation, text_file=str(path)))


def _started(folder, seed=0):
    return replace(BASE, init_from=InitFrom(run=_hf(folder, seed)))


@pytest.mark.parametrize("make", [_corpus, _measured, _started])
def test_the_content_is_part_of_the_id_and_the_path_is_not(make, tmp_path):
    ids = [run_id(with_content(make(tmp_path / "here", seed))) for seed in (0, 1, 0)]
    assert ids[0] == ids[2] != ids[1]
    assert run_id(with_content(make(tmp_path / "there"))) == ids[0]
    assert len({*ids, run_id(BASE)}) == 3
    config = with_content(make(tmp_path / "here"))
    assert Run.of(config).id == Run.of(make(tmp_path / "here")).id == run_id(config)
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config == with_content(config)


@pytest.mark.parametrize("make", [_corpus, _measured, _started])
def test_settings_with_a_digest_refuse_other_content(make, tmp_path):
    config = with_content(make(tmp_path / "x"))
    make(tmp_path / "x", seed=1)
    with pytest.raises(DecaylabError, match=r"has changed since these settings .* None for a new run") as e:
        with_content(config)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("make", [_corpus, _measured, _started])
def test_content_that_changes_between_launch_and_worker_is_noticed_or_not_used(make, tmp_path):
    config = with_content(make(tmp_path / "x"))
    losses = []

    def train():
        records = []
        fit(config, records.append, folder=tmp_path / "run", device="cpu")
        losses.append([r["val/loss"] for r in records if "val/loss" in r])

    if make is _corpus:
        train()  # encodes the text
        make(tmp_path / "x", seed=1)
        train()
        for file in (tmp_path / "x").iterdir():
            file.unlink()
        (tmp_path / "x").rmdir()
        train()
        assert losses[0] == losses[1] == losses[2]
        return
    make(tmp_path / "x", seed=1)
    with pytest.raises(DecaylabError, match="has changed since"):
        train()


def test_ids_of_what_the_package_and_the_catalogue_have_stay(tmp_path):
    assert with_content(BASE) is BASE
    assert run_id(LanguageRun(steps=7)) == "0c74387dd31d7755"
    assert with_content(VisionRun()) == VisionRun() and run_id(VisionRun()) == "dc69054e32c780d9"
    child = replace(BASE, init_from=InitFrom(run="0123456789abcdef", step=3))
    assert with_content(child) is child


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data": LanguageData(sha256="0" * 64)}, "data.sha256 is the digest of a file that the run reads"),
        ({"data": LanguageData(corpus="folder:x", sha256="F" * 64)}, "data.sha256 must be a SHA-256"),
        ({"evaluation": Evaluation(text_sha256="0" * 64)}, "evaluation.text_sha256 is the digest"),
        ({"init_from": InitFrom(run="0" * 16, sha256="0" * 64)}, "init_from.sha256 is the digest"),
    ],
)
def test_digests_that_are_none(settings, words):
    with pytest.raises(DecaylabError, match=words):
        from_dict(to_dict(replace(BASE, **settings)))


def test_what_is_missing_is_one_line(tmp_path):
    for config, words in (
        (replace(BASE, data=LanguageData(corpus=f"folder:{tmp_path}/no")), "no is not a folder"),
        (
            replace(BASE, evaluation=Evaluation(text_file=f"{tmp_path}/no.txt")),
            r"test text .*no.txt cannot be read",
        ),
        (replace(BASE, init_from=InitFrom(run=f"hf:{tmp_path}/no")), "there is no folder"),
        (replace(BASE, init_from=InitFrom(run=f"hf:{tmp_path}")), r"config\.json is missing"),
    ):
        with pytest.raises(DecaylabError, match=words):
            with_content(config)


def _command(tmp_path, config):
    (tmp_path / "run.json").write_text(json.dumps(to_dict(config)))
    return ["train", "language", "--config", str(tmp_path / "run.json"), "--store", str(tmp_path / "s.db")]


def _lines(capsys, code, arguments):
    assert main([*arguments, "--device", "cpu"]) == code
    return capsys.readouterr()


def test_the_same_command_after_the_text_changed(tmp_path, capsys, in_process):
    config = _corpus(tmp_path / "t")
    first = _lines(capsys, 0, _command(tmp_path, config))
    assert _lines(capsys, 0, _command(tmp_path, config)).out == first.out  # not trained again
    _texts(tmp_path / "t", seed=1)
    second = _lines(capsys, 0, _command(tmp_path, config))
    assert second.out.split()[1] != first.out.split()[1]
    kept = with_content(config)  # of the second text
    (tmp_path / "t").rename(tmp_path / "u")
    gone = _lines(capsys, 2, _command(tmp_path, config))
    assert gone.err.count("\n") == 1 and "is not a folder" in gone.err
    again = _lines(capsys, 0, _command(tmp_path, kept))
    assert again.out == second.out and "is gone since these settings were written" in again.err
    moved = replace(config, data=replace(config.data, corpus=f"folder:{tmp_path / 'u'}"))
    assert _lines(capsys, 0, _command(tmp_path, moved)).out == second.out
    assert main(["runs", "--store", str(tmp_path / "s.db")]) == 0
    assert main(["sample", second.out.split()[1].strip(":"), "--store", str(tmp_path / "s.db"), "--tokens", "3"]) == 0


def test_a_run_that_has_not_ended_takes_the_new_path(tmp_path):
    config = with_content(_corpus(tmp_path / "t"))
    moved = replace(config, data=replace(config.data, corpus="folder:/elsewhere"))
    with Store(tmp_path / "s.db") as store:
        name = run_id(config)
        store.add(name, to_dict(config), kind="language")
        store.add(name, to_dict(moved), kind="language")
        assert store.get(name).config["data"]["corpus"] == "folder:/elsewhere"
        lease = store.lease(name, "tester")
        assert lease and store.finish(lease, status="done", step=4)
        store.add(name, to_dict(config), kind="language")
        assert store.get(name).config["data"]["corpus"] == "folder:/elsewhere"  # as it was trained


def test_a_checkpoint_of_other_data_is_not_continued(tmp_path, monkeypatch):
    config = with_content(_corpus(tmp_path / "t"))
    fit(config, lambda record: None, folder=tmp_path / "run", device="cpu", checkpoint_seconds=0.0)
    assert list((tmp_path / "run").glob("checkpoint-*"))
    other = text(_texts(tmp_path / "other", seed=1), "ascii")
    monkeypatch.setattr("decaylab.data.text", lambda *args, **more: other)
    with pytest.raises(DecaylabError, match=r"the data of this run has changed since its checkpoint \(sha256"):
        fit(config, lambda record: None, folder=tmp_path / "run", device="cpu", resume=True)


def test_finished_runs_say_that_their_catalogue_data_has_changed():
    config = replace(BASE, data=LanguageData(tokenizer="ascii"))
    (line,) = changed_data([(config, {"data": "0" * 16})])
    assert line.startswith(
        "stdlib has changed on this machine since this run was trained on it (sha256 0000000000000000"
    )
    (line,) = changed_data([(replace(config, seed=seed), {"data": "0" * 16}) for seed in range(3)])
    assert "since 3 of the runs were trained on it" in line
    now = text("stdlib", "ascii").manifest["train"]["sha256"][:16]
    cifar = VisionRun(data=VisionData(dataset="cifar10"))  # not on this machine
    same = [(config, {"data": now}), (config, {}), (VisionRun(), {"files": "0" * 16}), (cifar, {"files": "0" * 16})]
    assert changed_data(same) == []
