"""Where a store is: a file's path or a PostgreSQL URL, read so that no message ever shows a password."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from decaylab.errors import DecaylabError, shown
from decaylab.files import data_home, home_path

if TYPE_CHECKING:
    from sqlalchemy import URL

SUFFIXES = (".db", ".sqlite", ".sqlite3")
VARIABLE = "DECAYLAB_STORE"
"""Environment variable with the store of every command that is not given one: a URL there is seen by its user alone."""

_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")
# A scheme with a slash behind its colon, or PostgreSQL's name in any spelling with a colon.
_URL_LIKE = re.compile(r"\s*(?:[A-Za-z][\w+.-]*:/|(?:postgres|pgsql|psql)[\w+.-]*:)")
_SECRET_OPTIONS = ("password", "sslpassword", "passfile")
_EXPECTED = f"expected a path ending in {', '.join(SUFFIXES)} or a URL postgresql://user:password@host/database"
_HIDDEN = "(not shown: it may hold a password)"


@dataclass(frozen=True, kw_only=True)
class Address:
    """A store's place.

    Attributes:
        path: The SQLite file; None for PostgreSQL.
        url: The PostgreSQL database; None for SQLite.
        secrets: Passwords in the URL, as they must not be shown.
    """

    path: Path | None = None
    url: URL | None = None
    secrets: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What another process passes to open the same store (with the password, so not for printing)."""
        return str(self.path) if self.url is None else self.url.render_as_string(hide_password=False)

    @property
    def label(self) -> str:
        """The same for people: no password, and no options, of which some are secrets too."""
        if self.url is None:
            return str(self.path)
        return self.url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)

    def censored(self, text: str) -> str:
        """Return what a driver says without the passwords in it."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def default_store() -> str:
    """Return the store of a command that is not given one: of the environment, or ``runs.db`` in the data folder."""
    return os.environ.get(VARIABLE) or str(data_home() / "runs.db")


def exists(store: str | Path | None) -> bool:
    """Whether a store's file is there; of a PostgreSQL database only the server knows."""
    path = read(store).path
    return path is None or path.exists()


def read(store: str | Path | None = None) -> Address:
    """Read where a store is.

    Args:
        store: A path ending in .db, .sqlite or .sqlite3, with any other characters in it; the same behind
            ``sqlite:///``; ``postgresql://user:password@host/database``; or None for `default_store`. A path that looks
            like a URL is meant as a path with ``./`` in front, or as a `pathlib.Path`.

    Raises:
        DecaylabError: It is neither; the message does not show what may be a password.
    """
    if store is None:
        store = default_store()
    if isinstance(store, Path):
        return Address(path=_sqlite_path(store, str(store)))
    if store.startswith("sqlite:///"):
        return Address(path=_sqlite_path(Path(store.removeprefix("sqlite:///")), store))
    if _URL_LIKE.match(store):
        return _postgresql(store.strip())
    return Address(path=_sqlite_path(Path(store), store))


def _sqlite_path(path: Path, text: str) -> Path:
    if path.suffix.lower() not in SUFFIXES or "\0" in text:
        raise DecaylabError(f"cannot open the store {_harmless(text)}: {_EXPECTED}")
    return home_path(str(path)).absolute()


def _postgresql(text: str) -> Address:
    import sqlalchemy  # which the path of a file does without

    scheme, _, rest = text.partition("://")
    if scheme.lower() not in _POSTGRESQL or not rest:
        name = scheme if "://" in text and re.fullmatch(r"[\w+.-]+", scheme) else ""
        what = f"at a {name}:// address " if name else ""
        raise DecaylabError(f"cannot open the store {what}{_HIDDEN}: {_EXPECTED}")
    try:
        url = sqlalchemy.make_url(f"postgresql+psycopg://{rest}")
    except ValueError:
        raise DecaylabError(f"the port in the store's URL {_HIDDEN} is no number: {_EXPECTED}") from None
    except sqlalchemy.exc.ArgumentError:
        raise DecaylabError(f"cannot read the store's URL {_HIDDEN}: {_EXPECTED}") from None
    misplaced = "@" in f"{url.host or ''}{url.database or ''}" or any(mark in (url.username or "") for mark in "/?#")
    if misplaced:
        raise DecaylabError(
            f"the store's URL {_HIDDEN} has one of @ / ? # in its user or password: write %40, %2F, %3F or %23 there"
        )
    if url.port is not None and not 0 < url.port < 2**16:
        raise DecaylabError(f"the port in the store's URL is {shown(url.port)}, outside of 1 to 65535")
    options = [url.query.get(name) for name in _SECRET_OPTIONS]
    secrets = [secret for secret in (url.password, *options) if isinstance(secret, str) and secret]
    return Address(url=url, secrets=tuple(sorted(secrets, key=len, reverse=True)))


def _harmless(text: str) -> str:
    """Quote what was given as a path, unless it may hold a password."""
    return _HIDDEN if "@" in text or "passw" in text.lower() or "pwd" in text.lower() else shown(text)
