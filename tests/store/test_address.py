"""Where a store is: every path that a file system allows, and no password in any message."""

import json
import sqlite3

import pytest

from decaylab.cli import main
from decaylab.errors import DecaylabError
from decaylab.store import address
from decaylab.store.store import Store

PATHS = [
    *(
        "a?b.db",
        "a#b.db",
        "a%20b.db",
        "a&mode=memory.db",
        " a b .db",
        "ü 漢.db",
        "a:b.db",
        "a;b.db",
        "a\\b.db",
        "a\nb.db",
    ),
    *(
        "'a'.db",
        '"a".db',
        "[a].db",
        "~a.db",
        "~nobody-of-that-name.db",
        "file:a.db",
        ":memory:.db",
        "\udcff.db",
        "a@b.db",
    ),
    *("a.DB", "a.sqlite3", "-a.db", "a+b.db", "$HOME.db", "*.db", "http:a.db"),
]


@pytest.mark.parametrize("name", PATHS)
def test_every_path_opens_that_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store(name) as store:  # relative
        store.add("aa", {}, kind="vision")
    assert (tmp_path / name).exists()
    with Store(f"sqlite:///{tmp_path}/{name}", read_only=True) as store:
        assert [row.id for row in store.rows()] == ["aa"]
    with Store(tmp_path / name) as store:
        store.add("bb", {}, kind="vision")
        assert str(store.folder("bb").parent) == str((tmp_path / name).with_suffix(""))
    assert main(["runs", "--store", str(tmp_path / name), "--json"]) == 0
    expected = {name, f"{name}-wal", f"{name}-shm"}
    assert {path.name for path in tmp_path.iterdir()} <= expected


def test_a_path_may_look_like_an_address_behind_a_dot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert address.read("./postgresql:a.db").path == tmp_path / "postgresql:a.db"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert address.read("~/a.db").path == tmp_path / "home" / "a.db"


SECRET = "geheim77"
URLS = [
    *("postgresql://user:{}@host:1/db", "postgres://user:{}@host:1/db", "POSTGRESQL://user:{}@host:1/db", " postgresql://user:{}@host:1/db"),
    *("postgresql:/user:{}@host/db", "postgresql:user:{}@host/db", "postgresql//user:{}@host/db", "postgresl://user:{}@host/db"),
    *("mysql://user:{}@host/db", "postgresql://user:{}@host:port/db", "postgresql://user:{}@host:99999/db"),
    *("postgresql://user:{}@x@host/db", "postgresql://user:x@{}@host/db", "user:{}@host/db", "//user:{}@host/db"),
    *("postgresql://127.0.0.1:1/db?user=u&password={}", "host=localhost password={} dbname=x", "postgresql+asyncpg://user:{}@h/db"),
    *("postgresql+psycopg2://user:{}@h/db", "http://user:{}@host/db", "postgresql;//user:{}@host/db", "jdbc:postgresql://user:{}@host/db"),
    *("postgresql:///user:{}@host/db", "postgresql://user:{}", "sqlite://user:{}@host/db", "postgresql ://user:{}@host/db"),
    *("postgresql://user:{}@[::1/db", "postgres:\\\\user:{}@host/db", "postgresql://{}@host/db?password={}"),
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("where", ["argument", "environment", "positional"])
def test_no_message_shows_a_password(url, where, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("decaylab.store.database._postgresql_engine", _unreachable)
    text = url.replace("{}", SECRET)
    monkeypatch.setenv("DECAYLAB_STORE", text if where == "environment" else "")
    arguments = {"argument": ["--store", text], "environment": [], "positional": [text]}[where]
    assert main(["export", "--out", "x.csv", *arguments]) == 2
    said = "".join(capsys.readouterr())
    assert said.count("\n") == 1 and said.startswith("decaylab: ")
    if where != "positional" or "@" in url:
        assert SECRET not in said, said


def _unreachable(url):
    raise DecaylabError(f"no connection to {url!r}")


def test_what_a_driver_says_has_no_password_either():
    found = address.read(f"postgresql://user:{SECRET}@host/db")
    assert found.censored(f"cannot log in with {SECRET}") == "cannot log in with ***"
    assert found.label == "postgresql://user:***@host/db" and SECRET in found.text


def test_the_environment_names_the_store_of_every_command(tmp_path, monkeypatch, capsys):
    path = tmp_path / "mine.db"
    with Store(path) as store:
        store.add("aa", {"seed": 1}, kind="vision")
    monkeypatch.setenv("DECAYLAB_STORE", str(path))
    assert main(["runs", "--json"]) == 0
    assert [row["id"] for row in json.loads(capsys.readouterr().out)["runs"]] == ["aa"]
    assert main(["list", "--json"]) == 0
    assert main(["export", "--out", str(tmp_path / "x.csv")]) == 0
    assert main(["report", "--out", str(tmp_path / "page")]) == 2
    assert f"{path} has no run" in capsys.readouterr().err
    for command in ("sample", "probe"):
        assert main([command, "bb"]) == 2
        assert "unknown run or folder 'bb'; known: aa" in capsys.readouterr().err
    with Store() as store:
        assert store.url == str(path)
    monkeypatch.setenv("DECAYLAB_STORE", str(tmp_path / "none.db"))
    assert main(["runs"]) == 0 and f"no runs yet in {tmp_path / 'none.db'}" in capsys.readouterr().out
    assert not (tmp_path / "none.db").exists()


def test_reading_changes_nothing(tmp_path):
    path = tmp_path / "a.db"
    sqlite3.connect(path).execute("CREATE TABLE other (x)").connection.close()
    before = path.read_bytes()
    with pytest.raises(DecaylabError, match="not a decaylab store"):
        Store(path, read_only=True)
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(DecaylabError, match="there is no store in"):
        Store(empty, read_only=True)
    assert path.read_bytes() == before and not empty.stat().st_size
