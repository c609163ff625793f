"""Digests of files: the definition, what is remembered, and every way in which a file becomes another one."""

import hashlib
import os
import time

import pytest

from decaylab.data import digests
from decaylab.data.digests import file_digest, file_digests
from decaylab.errors import DecaylabError
from decaylab.files import cache_home


@pytest.fixture
def settled(monkeypatch):
    """Let files count as old enough to be remembered at once."""
    monkeypatch.setattr(digests, "_SETTLED_NS", -(10**12))


def _reads(monkeypatch):
    read = []
    original = digests._read
    monkeypatch.setattr(digests, "_read", lambda path, stamp: read.append(path.name) or original(path, stamp))
    return read


def test_the_definition_and_the_memory(tmp_path, settled, monkeypatch):
    read = _reads(monkeypatch)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    wanted = [hashlib.sha256(name.encode() * 1000).hexdigest() for name in ("b", "a")]
    assert file_digests(tmp_path, ["b", "a"]) == wanted
    assert file_digests(tmp_path, ["b", "a"]) == wanted and read == ["b", "a"]
    (cache,) = (cache_home() / "digests").iterdir()
    for damage in ("{", "[]", '{"a": 1}', "[" * 10**5, '{"a": ["x", 1, 1, 1, 1, "y"]}'):
        cache.write_text(damage)
        assert file_digests(tmp_path, ["b", "a"]) == wanted


def test_a_change_of_the_same_size_at_the_same_time_is_seen(tmp_path, settled):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    times = path.stat()
    first = file_digest(path)
    time.sleep(0.02)  # a tick of the clock of the file system
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file_digest(path) == hashlib.sha256(b"two").hexdigest() != first
    other = tmp_path / "other"
    other.write_bytes(b"six")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)
    assert file_digest(path) == hashlib.sha256(b"six").hexdigest()


def test_a_young_file_is_read_each_time(tmp_path, monkeypatch):
    read = _reads(monkeypatch)
    (tmp_path / "a").write_bytes(b"1")
    file_digest(tmp_path / "a")
    file_digest(tmp_path / "a")
    assert read == ["a", "a"]
    digests.remember(tmp_path / "a", "as it was written")
    assert file_digest(tmp_path / "a") == "as it was written" and read == ["a", "a"]


def test_what_cannot_be_read_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").symlink_to("nowhere")
    for name, words in (
        ("pipe", "a regular file"),
        ("folder", "a regular file"),
        ("broken", "cannot be read: No such"),
    ):
        with pytest.raises(DecaylabError, match=words):
            file_digest(tmp_path / name)


def test_a_home_that_cannot_be_written_costs_time_only(tmp_path, settled, monkeypatch):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "home").write_text("a file where a folder is needed")
    monkeypatch.setenv("DECAYLAB_HOME", str(tmp_path / "home"))
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"1").hexdigest()
