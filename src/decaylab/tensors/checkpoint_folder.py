"""Files of a checkpoint in the format of the transformers library. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from decaylab.errors import DecaylabError, shown
from decaylab.serialization import read_object

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_MOST_PARTS = 10_000


def weight_files(folder: Path) -> list[str]:
    """Return the names of the files of weights in a folder: one, or the parts that its index names.

    Raises:
        DecaylabError: There are none, or the index is damaged.
    """
    for name in WEIGHTS:
        if (folder / name).exists():
            return [name]
        index = folder / f"{name}.index.json"
        if index.exists():
            return _parts(index)
    raise DecaylabError(f"{folder} has neither {WEIGHTS[0]} nor {WEIGHTS[1]}; expected a checkpoint of transformers")


def _parts(index: Path) -> list[str]:
    places = read_object(index, "the names of a checkpoint's files").get("weight_map")
    parts = list(places.values()) if isinstance(places, dict) else []
    if not parts or not all(isinstance(part, str) for part in parts):
        raise DecaylabError(f"{index} is damaged; expected the names of a checkpoint's files")
    names = sorted(set(parts))
    for name in names:
        if Path(name).name != name or "\0" in name or len(name) > 255 or len(names) > _MOST_PARTS:
            raise DecaylabError(f"{index} is damaged: {shown(name)} is not a file beside it")
    return names
