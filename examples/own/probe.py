"""A probe of your own: the stable rank of every matrix, ||W||_F^2 / ||W||_2^2, as a mean over the network.

decaylab train vision --epochs 1 --probes.names examples/own/probe.py:StableRank --probes.every 10
decaylab probe RUN --probes examples/own/probe.py:StableRank
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from decaylab.probes import Context


@dataclass(frozen=True)
class StableRank:
    """Mean stable rank of the matrices; kernels of convolutions count as matrices of one row a filter."""

    name: ClassVar[str] = "stable_rank"
    needs: ClassVar[frozenset[str]] = frozenset()

    def measure(self, context: Context) -> dict[str, torch.Tensor | float]:
        """Read the weights after the step."""
        matrices = [w.flatten(1) for name, w in context.parameters.items() if context.roles[name] == "matrix"]
        ranks = [(w.norm() / torch.linalg.matrix_norm(w, 2)).square() for w in matrices]
        return {"weights/stable_rank": torch.stack(ranks).mean()} if ranks else {}
