"""``decaylab data``: which data sets are on this machine, and how the others come here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro

from decaylab.cli.json_output import print_json
from decaylab.data.catalog import CATALOG, get, is_available
from decaylab.errors import DecaylabError


def data(
    action: tyro.conf.Positional[Literal["list", "get"]],
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    source: Path | None = None,
    tokenizer: str = "gpt2",
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """List the data sets, or get one.

    Args:
        action: ``list`` shows every data set and whether it is on this machine; ``get`` puts data sets there.
        names: What to get, for example ``cifar10``.
        source: Take the files from here and download nothing: an official archive, or a folder with the files.
        tokenizer: How OpenWebText is encoded: gpt2, bytes or ascii.
        as_json: Print the list as JSON.
    """
    if action == "list":
        if names:
            raise DecaylabError(f"`decaylab data list` takes no names; did you mean `decaylab data get {names[0]}`?")
        _list(as_json)
        return
    if not names:
        raise DecaylabError("name what to get, for example `decaylab data get cifar10`; `decaylab data list` names all")
    for name in names:
        print(get(name, source=source, tokenizer=tokenizer, progress=print))


def _list(as_json: bool) -> None:
    rows = [asdict(entry) | {"available": is_available(entry.name)} for entry in CATALOG.values()]
    if as_json:
        print_json("data", {"datasets": rows})
        return
    width = max(len(name) for name in CATALOG)
    for row in rows:
        here = "embedded" if row["embedded"] else "here" if row["available"] else f"to get, {row['download']}"
        print(f"{row['name']:<{width}}  {row['kind']:<9}  {here:<22}  {row['what']}")
    if not all(row["available"] for row in rows):
        print("\ndecaylab data get NAME gets one; with --source it takes files that you have already.")
