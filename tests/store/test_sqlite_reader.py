"""Stores on a disk that cannot be written to."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from decaylab.cli import main
from decaylab.store.store import Store


@pytest.fixture
def locked():
    """A folder that nobody else can write into, with a closed store and a copy of one at work."""
    folder = Path(tempfile.mkdtemp())
    with Store(folder / "closed.db") as store:
        store.add("aa", {"seed": 1}, kind="vision")
    with Store(folder / "source.db") as store:
        store.add("bb", {"seed": 1}, kind="vision")
        for ending in ("", "-wal"):
            shutil.copy(folder / f"source.db{ending}", folder / f"copied.db{ending}")
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@contextmanager
def _as_somebody():
    """Root may write everywhere: be another user."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize(("name", "run"), [("closed", "aa"), ("copied", "bb")])
def test_a_store_that_cannot_be_written_to_is_read(locked, name, run, capsys, tmp_path):
    before = sorted(path.name for path in locked.iterdir())
    with Store(tmp_path / "a.db") as store:
        store.add("aa", {"seed": 1}, kind="vision")
    for command in ("runs", "list"):  # somebody else may not be able to import what these need
        main([command, "--store", str(tmp_path / "a.db")])
    capsys.readouterr()
    with _as_somebody():
        with pytest.raises(PermissionError):
            (locked / "new").touch()
        with Store(locked / f"{name}.db", read_only=True) as store:
            assert [row.id for row in store.rows()] == [run] and store.counts() == {"waiting": 1}
        codes = [main([command, "--store", str(locked / f"{name}.db")]) for command in ("runs", "list")]
    assert codes == [0, 0] and run in capsys.readouterr().out
    assert sorted(path.name for path in locked.iterdir()) == before


def test_a_reader_sees_what_a_writer_commits_meanwhile(tmp_path):
    with Store(tmp_path / "a.db") as writer, Store(tmp_path / "a.db", read_only=True) as reader:
        writer.add("aa", {}, kind="vision")
        assert [row.id for row in reader.rows()] == ["aa"]
        with pytest.raises(Exception, match="cannot be used"):
            reader.add("bb", {}, kind="vision")
