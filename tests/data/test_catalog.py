"""The catalogue and its command: what is here, what is not, and the way to get it."""

import json
import subprocess
import sys

import pytest

from decaylab import data
from decaylab.cli import main
from decaylab.data import catalog
from decaylab.errors import DecaylabError


def test_embedded_data_is_always_there():
    for name in ("digits", "stdlib"):
        data.available(name)
        assert catalog.get(name) == f"{name} is embedded: nothing to get"


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "openwebtext", "gpt2"])
def test_missing_data_names_its_command(name):
    with pytest.raises(DecaylabError, match=f"`decaylab data get {name}`"):
        data.available(name)


def test_unknown_names(tmp_path):
    with pytest.raises(DecaylabError, match="did you mean 'cifar100'"):
        data.available("cifar-100")
    with pytest.raises(DecaylabError, match="is not a folder"):
        data.available(f"folder:{tmp_path / 'nothing'}")
    (tmp_path / "a.txt").write_text("text")
    data.available(f"folder:{tmp_path}")


def test_the_list(capsys):
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:6]] == list(catalog.CATALOG)
    assert "embedded" in lines[0] and "to get, 162 MB" in lines[1]
    assert main(["data", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["datasets"]
    assert {row["name"]: row["available"] for row in rows} == {
        name: name in ("digits", "stdlib") for name in catalog.CATALOG
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get"], "name what to get"),
        (["get", "cifar"], "did you mean 'cifar10'"),
        (["list", "cifar10"], "did you mean `decaylab data get cifar10`"),
    ],
)
def test_mistakes_exit_with_2(arguments, message, capsys):
    assert main(["data", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("decaylab: ") and message in captured.err and captured.err.count("\n") == 1


def test_get_prints_where_it_is(capsys):
    assert main(["data", "get", "digits", "stdlib"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{n} is embedded: nothing to get" for n in ("digits", "stdlib")]


def test_asking_what_is_available_does_not_import_torch():
    code = "import sys; from decaylab import data; data.available('digits'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
