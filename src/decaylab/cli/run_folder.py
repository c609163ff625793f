"""Which folder does a command read that takes a run's id, the first characters of one, or a folder?"""

from __future__ import annotations

from pathlib import Path

from decaylab.errors import DecaylabError
from decaylab.store.run_ids import whole_id
from decaylab.store.store import Store


def run_folder(name: str, store: str | None, *, kind: str | None = None) -> Path:
    """Return the folder that is named, or that of the run that is named.

    Args:
        name: A folder, a run's id, or the first characters of it.
        store: Where the run is, as `decaylab.store.store.Store` takes it.
        kind: ``vision`` or ``language``, where the command is for one of them.

    Raises:
        DecaylabError: There is no such folder or run, or the run is of the other kind.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise DecaylabError(f"{name} is a file: give a run's id, or the folder of a run or of a snapshot")
    try:
        opened = Store(store, read_only=True)
    except DecaylabError as error:
        raise DecaylabError(f"there is no folder {name}, and no run of that id is found: {error}") from error
    with opened:
        rows = {row.id: row for row in opened.rows()}
        row = rows[whole_id(name, rows, kind="run or folder")]
        if kind is not None and row.kind != kind:
            raise DecaylabError(f"run {row.id} is a {row.kind} run: name a {kind} run")
        return opened.folder(row.id)
