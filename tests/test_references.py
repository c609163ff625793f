import importlib.metadata
import sys

import pytest

from decaylab import references
from decaylab.errors import DecaylabError
from decaylab.references import is_reference, load, plugins


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    (tmp_path / "beside_it.py").write_text("NUMBER = 7\n")
    path = tmp_path / "mine_1.py"
    path.write_text("from beside_it import NUMBER\nclass A:\n    x = NUMBER\nEXPERIMENT = 'study'\n")
    yield path
    for name in ("beside_it", "mine_1"):
        sys.modules.pop(name, None)


def test_the_forms_of_a_reference(mine):
    assert load("mine_1:A").x == load("mine_1:A.x") == load("mine_1.A").x == 7
    assert load("./mine_1.py:A").x == load(f"{mine}:A.x") == 7
    assert load(str(mine), default="EXPERIMENT") == load("mine_1", default="EXPERIMENT") == "study"
    assert load("./mine_1.py:A") is load(f"{mine}:A")  # a file is run once, however it is called


def test_a_file_does_not_hide_a_module_of_its_name(tmp_path):
    import json

    (tmp_path / "json.py").write_text("LOADS = 1\n")
    assert load(f"{tmp_path / 'json.py'}:LOADS") == 1
    assert sys.modules["json"] is json
    sys.path.remove(str(tmp_path))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("mine_1:B", "unknown name in mine_1 'B'; known: A"),
        ("./mine_1.py:B", "unknown name in ./mine_1.py 'B'; known: A"),
        ("./other.py:B", "there is no file ./other.py"),
        ("nonesuch:B", "cannot import 'nonesuch' for 'nonesuch:B'"),
        ("nonesuch", "not of the form package.module:name or path/to/file.py:name"),
        (":B", "not of the form"),
        ("mine_1:", "not of the form"),
        ("./broken.py:B", "broken.py cannot be imported: SyntaxError"),
        ("./fails.py:B", "fails.py cannot be imported: ZeroDivisionError: division by zero; --debug shows where"),
        ("./lacks.py:B", "ray is not installed, which this needs: `pip install 'decaylab.ray.'`"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(mine, monkeypatch, target, message):
    monkeypatch.setitem(sys.modules, "ray", None)
    mine.with_name("broken.py").write_text("def f(:\n")
    mine.with_name("fails.py").write_text("1 / 0\n")
    mine.with_name("lacks.py").write_text("import ray\n")
    with pytest.raises(DecaylabError, match=message):
        load(target)


def test_a_file_that_failed_is_run_again(tmp_path):
    path = tmp_path / "later.py"
    path.write_text("1 / 0\n")
    with pytest.raises(DecaylabError):
        load(f"{path}:X")
    path.write_text("X = 2\n")
    assert load(f"{path}:X") == 2
    sys.path.remove(str(tmp_path))


def test_names_are_not_references():
    assert not is_reference("decoupled")
    assert is_reference("a.b:C")
    assert is_reference("file.py")


def test_plugins_of_installed_packages(tmp_path, monkeypatch):
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[decaylab.plugins]\nrule.halves = stranger.rules:Halves\nprobe.rank = stranger:Rank\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    references._entry_points.cache_clear()
    try:
        assert plugins("rule") == {"halves": "stranger.rules:Halves"}
        assert plugins("probe") == {"rank": "stranger:Rank"}
        assert plugins("experiment") == {}
    finally:
        monkeypatch.undo()
        references._entry_points.cache_clear()
    assert importlib.metadata.entry_points(group="decaylab.plugins") == ()
