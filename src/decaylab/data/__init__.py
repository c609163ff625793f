"""The data of the experiments: images as tensors, text as a stream of tokens, and what comes at which step."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decaylab.data import sampling
    from decaylab.data.augmentation import augment
    from decaylab.data.catalog import available
    from decaylab.data.labelled_images import VisionSet, vision
    from decaylab.data.stream import TokenStream
    from decaylab.data.text_streams import text

_LAZY = {
    "TokenStream": "decaylab.data.stream",
    "VisionSet": "decaylab.data.labelled_images",
    "available": "decaylab.data.catalog",
    "augment": "decaylab.data.augmentation",
    "text": "decaylab.data.text_streams",
    "vision": "decaylab.data.labelled_images",
}
__all__ = ["TokenStream", "VisionSet", "augment", "available", "sampling", "text", "vision"]


def __getattr__(name: str) -> Any:
    if name == "sampling":
        return importlib.import_module("decaylab.data.sampling")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'decaylab.data' has no attribute {name!r}")
