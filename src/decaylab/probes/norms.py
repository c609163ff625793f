"""How large are the weights, the gradients and the updates?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from decaylab.probes.context import Context, Measurement


@dataclass(frozen=True)
class Norms:
    """Euclidean norms and largest absolute entries of weights, gradients and updates.

    Per role and in total ``|w| = sqrt(sum w_i^2)`` over all entries of the role's parameters, and ``max |w_i|``. The
    update is the change of the weights in the recorded step, decay included; the gradient is the one that the
    optimizer applied (accumulated over micro-batches, unscaled, clipped).

    Keys: ``weights/norm``, ``gradients/norm``, ``update/norm``, each also ``.../role``; ``weights/max``,
    ``gradients/max``, ``update/max``. Weights and updates are in units of the weights, gradients in loss per weight.
    Keys of gradients and updates are missing when a model is measured by itself.
    """

    name: str = "norms"
    needs: frozenset[str] = frozenset({"gradients", "previous"})

    def measure(self, context: Context) -> Measurement:
        """Return the norms; see the class for the keys."""
        out: Measurement = {}
        out |= _of("weights", context, context.parameters, context.weight_norms)
        if context.gradients and context.gradient_norms is not None:
            out |= _of("gradients", context, context.gradients, context.gradient_norms)
        if context.updates is not None and context.update_norms is not None:
            out |= _of("update", context, context.updates, context.update_norms)
        return out


def _of(what: str, context: Context, tensors: Mapping[str, Tensor], norms: Tensor) -> dict[str, Tensor]:
    largest = context.over_names(tensors, float("inf"))
    sums = context.sums(norms.square()[:, None])
    return sums.named(f"{what}/norm", sums.values[:, 0].sqrt()) | {f"{what}/max": largest.max()}
