"""Damage of any kind in a checkpoint is found when it is read."""

import json
import random

import pytest
import torch

from decaylab.config.schema import LanguageRun
from decaylab.errors import DecaylabError
from decaylab.train.checkpoints import files, layout, manifest
from decaylab.train.checkpoints.manifest import Manifest

LOAD = {"weights.safetensors": files.load_weights, "state.pt": files.load_state, "config.json": files.load_config}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "checkpoint-7"
    files.save(
        path,
        LanguageRun(),
        {"w": torch.arange(600.0)},
        {"m": torch.arange(600.0)},
        coverage=Manifest(attempt=3, last_step=6, points=14),
    )
    return path


def test_it_says_which_metrics_it_relies_on(folder):
    read = manifest.read(folder)
    assert (read.attempt, read.last_step, read.points) == (3, 6, 14)
    assert set(read.files) == set(LOAD) and len(read.digest) == 64
    assert manifest.attempt_of(folder) == 3 and manifest.attempt_of(folder.with_name("none")) == 0


@pytest.mark.parametrize("name", LOAD)
def test_every_flipped_bit_is_found(folder, name):
    path = folder / name
    whole = path.read_bytes()
    LOAD[name](folder)
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[random.randrange(len(whole))] ^= 1 << random.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(DecaylabError, match=r"is damaged \(not the bytes that were written\); expected"):
            LOAD[name](folder)
    path.write_bytes(whole[:-1])
    with pytest.raises(DecaylabError, match="is damaged"):
        LOAD[name](folder)
    path.unlink()
    with pytest.raises(DecaylabError, match="there is no checkpoint at"):
        LOAD[name](folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"attempt": 1}', "[" * 5000, '{"attempt": "x", "last_step": 1, "points": 1, "sha256": {}}']
)
def test_a_damaged_manifest_is_named(folder, text):
    (folder / manifest.NAME).write_text(text)
    with pytest.raises(DecaylabError, match=r"manifest.json is damaged; expected the digests of a checkpoint"):
        files.load_weights(folder)


def test_a_checkpoint_of_an_older_version_opens_and_shows_its_damage(folder):
    (folder / manifest.NAME).unlink()
    assert manifest.read(folder).digest is None
    tensors = files.load_weights(folder)
    files.require_plausible(folder, tensors)
    with pytest.raises(DecaylabError, match="'w' is not finite"):
        files.require_plausible(folder, {"w": torch.tensor([1.0, torch.nan])})
    damaged = bytearray((folder / "state.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 64
    (folder / "state.pt").write_bytes(damaged)
    with pytest.raises(DecaylabError, match=r"state.pt is damaged \(in .*data"):
        files.require_plausible(folder, tensors)


def test_what_a_later_attempt_wrote_is_neither_replaced_nor_removed(folder):
    def save(attempt, step=7, confirm=None):
        path = folder.with_name(f"checkpoint-{step}")
        files.save(path, LanguageRun(), {}, {}, coverage=Manifest(attempt=attempt), confirm=confirm)

    with pytest.raises(DecaylabError, match="was written by a later attempt at the run, and is left as it is"):
        save(2)
    assert manifest.attempt_of(folder) == 3 and [p.name for p in folder.parent.iterdir()] == [folder.name]
    save(2, 9)
    save(2, 5)
    layout.prune(folder.parent, keep=1, done=5, attempt=2)
    assert [step for step, _ in layout.checkpoints(folder.parent)] == [7, 5], "9 is ahead of where attempt 2 is"
    save(4)
    assert manifest.attempt_of(folder) == 4
    layout.prune(folder.parent, keep=0)
    assert list(folder.parent.iterdir()) == []


def test_a_checkpoint_that_is_refused_at_the_last_moment_leaves_nothing(tmp_path):
    digests = []

    def refuse(digest):
        digests.append(digest)
        raise DecaylabError("taken over")

    with pytest.raises(DecaylabError, match="taken over"):
        files.save(tmp_path / "checkpoint-1", LanguageRun(), {}, {}, confirm=refuse)
    assert list(tmp_path.iterdir()) == [] and len(digests[0]) == 64


def test_everything_is_on_the_disk_before_the_folder_has_its_name(tmp_path, monkeypatch):
    """The order of writes that a power cut cannot turn into a checkpoint without its content."""
    order = []
    real, rename = manifest.os.fsync, type(tmp_path).rename
    monkeypatch.setattr(manifest.os, "fsync", lambda descriptor: order.append("sync") or real(descriptor))
    monkeypatch.setattr(type(tmp_path), "rename", lambda path, name: order.append("rename") or rename(path, name))
    files.save(tmp_path / "checkpoint-1", LanguageRun(), {}, {}, confirm=lambda digest: order.append("confirm"))
    # Three files, the manifest, the folder; the store; the name; the folder that holds the name.
    assert order == ["sync"] * 5 + ["confirm", "rename", "sync"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.torch, "save", full)
    with pytest.raises(files.DiskFull, match=r"checkpoint-1 cannot be written: its disk is full; free some space"):
        files.save(tmp_path / "checkpoint-1", LanguageRun(), {}, {})
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_is_plain_json(folder):
    content = json.loads((folder / manifest.NAME).read_text())
    assert content["format"] == manifest.FORMAT and set(content["sha256"]) == set(LOAD)
