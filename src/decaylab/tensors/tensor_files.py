"""Tensors by name from files of others: safetensors and torch archives, of which nothing is executed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from decaylab.errors import DecaylabError, shown


def load_archive(path: Path, *, device: torch.device | str = "cpu") -> Any:
    """Read what ``torch.save`` wrote, as long as it is made of tensors, numbers, strings and containers of them.

    Args:
        path: The file.
        device: Where the tensors go.

    Raises:
        DecaylabError: The file is missing, damaged, packed (torch never does that: a small file could fill the
            memory), or holds more than tensors, which could be a program.
    """
    _require_unpacked(path)
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise DecaylabError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise DecaylabError(f"{path} is a folder: expected a file of torch.save") from None
    except pickle.UnpicklingError as error:
        # torch's own words advise to load it with execution allowed: never to be passed on.
        raise DecaylabError(f"{path} is refused: {_refusal(str(error))}") from None
    except Exception as error:  # torch raises many kinds for a damaged archive; all mean the same to the reader
        raise DecaylabError(f"{path} is damaged ({type(error).__name__}): it cannot be read as weights") from None


def _refusal(words: str) -> str:
    """Name what is in a file beside tensors, where torch says it."""
    marker = "Unsupported global: GLOBAL "
    if marker in words:
        name = words.partition(marker)[2].split(" ")[0].rstrip(".")
        return f"it holds more than tensors ({shown(name, quoted=False)}), and nothing is executed here"
    return "it is damaged, or holds more than tensors, numbers, strings and containers of them"


def _require_unpacked(path: Path) -> None:
    try:
        if not zipfile.is_zipfile(path):
            return  # the older format, which is not packed either
        with zipfile.ZipFile(path) as archive:
            packed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
            size = sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # torch says what is wrong with it
    if packed or size > path.stat().st_size:
        raise DecaylabError(f"{path} is damaged: its content is packed, which torch.save never does")


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors by name: ``.safetensors``, or a torch archive of nothing else.

    Raises:
        DecaylabError: See `load_archive`; or it holds something else.
    """
    if path.suffix == ".safetensors":
        try:
            return require_honest(load_file(path), path)
        except FileNotFoundError:
            raise DecaylabError(f"there is no file {path}") from None
        except OSError as error:
            raise DecaylabError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from None
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            words = shown(" ".join(str(error).split()), quoted=False)
            raise DecaylabError(f"{path} is damaged ({words}): it cannot be read as weights") from None
    found = load_archive(path)
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items()
    ):
        raise DecaylabError(f"{path} does not hold tensors by name: expected a model's state dict")
    return require_honest(dict(found), path)


def require_honest(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return tensors that have as many values as the file has room for.

    A view of one stored value can claim any shape, and fills the memory as soon as it is copied.

    Raises:
        DecaylabError: One of them claims more, or is sparse or quantized.
    """
    room = path.stat().st_size
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise DecaylabError(f"{path}: {shown(name)} is not a dense tensor: save plain weights")
        if tensor.numel() * tensor.element_size() > room:
            raise DecaylabError(f"{path} is damaged: {shown(name)} claims more values than the file holds")
    return dict(tensors)
