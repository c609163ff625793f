"""Norms of a training's tensors after each step, by name, and the file that holds them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from decaylab.errors import DecaylabError, shown, unknown
from decaylab.files import atomic_path

_KEY = "norms"


@dataclass(frozen=True, eq=False)
class NormTrajectory:
    """Frobenius norms of some tensors along a training.

    Attributes:
        norms: Of shape (steps, tensors): row t - 1 is after step t. Finite and not negative.
        names: Of the tensors, in the order of the columns.
        shapes: Of the tensors.
    """

    norms: Tensor
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        columns = len(self.names)
        if self.norms.dim() != 2 or self.norms.shape[1] != columns or len(self.shapes) != columns:
            raise DecaylabError(
                f"a trajectory of {columns} tensors needs norms of shape (steps, {columns}), got "
                f"{tuple(self.norms.shape)}"
            )
        if len(set(self.names)) != columns:
            raise DecaylabError("a name stands twice in a trajectory of norms")
        if not bool((self.norms.isfinite() & (self.norms >= 0)).all()):
            raise DecaylabError("a trajectory of norms must be finite and not negative: did that training diverge?")

    @property
    def steps(self) -> int:
        """Steps that were recorded."""
        return len(self.norms)

    def select(self, names: Sequence[str]) -> NormTrajectory:
        """Return the trajectory of some of the tensors, in the order of their names here.

        Raises:
            DecaylabError: A tensor was not recorded; near matches are shown.
        """
        place = {name: column for column, name in enumerate(self.names)}
        for name in names:
            if name not in place:
                raise unknown("tensor with recorded norms", name, self.names)
        columns = [place[name] for name in names]
        return NormTrajectory(self.norms[:, columns], tuple(names), tuple(self.shapes[c] for c in columns))

    def save(self, path: Path | str) -> None:
        """Write a safetensors file, in one step: a reader sees the old file or the whole new one."""
        about = {"names": json.dumps(self.names), "shapes": json.dumps(self.shapes)}
        with atomic_path(Path(path)) as temporary:
            save_file({_KEY: self.norms.detach().cpu().contiguous()}, temporary, metadata=about)

    @classmethod
    def load(cls, path: Path | str) -> NormTrajectory:
        """Read what `save` wrote.

        Raises:
            DecaylabError: There is no such file, or it is damaged or holds something else.
        """
        if not Path(path).is_file():
            raise DecaylabError(f"there is no file {path} with the norms of a training")
        try:
            with safe_open(str(path), framework="pt") as file:
                about = file.metadata() or {}
                norms = file.get_tensor(_KEY)
            names = tuple(str(name) for name in json.loads(about["names"]))
            shapes = tuple(tuple(int(size) for size in shape) for shape in json.loads(about["shapes"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DecaylabError(
                f"{path} does not hold the norms of a training ({shown(type(error).__name__, quoted=False)}): record "
                "them anew"
            ) from None
        if not norms.is_floating_point():
            raise DecaylabError(f"{path} does not hold the norms of a training: record them anew")
        return cls(norms.to(torch.float64 if norms.dtype == torch.float64 else torch.float32), names, shapes)
