"""How noisy is the gradient, told from the micro-batches that it is accumulated from, without a pass of its own?"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from decaylab.probes.context import Context, Measurement
from decaylab.probes.microbatch_hooks import Microbatches


@dataclass(frozen=True)
class MicrobatchNoise:
    """Gradient noise from the k micro-batches of a recorded step, without a pass of its own.

    Let ``h_i = k g_i`` be the gradient that micro-batch i alone would have given and ``G = mean_i h_i`` the one that is
    applied. Unbiased estimates (McCandlish et al. 2018, appendix A.1):

    - ``noise/microbatch/variance``: ``tr S = sum_i |h_i - G|^2 / (k - 1)``, the variance of one micro-batch's gradient;
    - ``noise/microbatch/signal``: ``|G|^2 - tr S / k``, squared length of the true gradient; it may come out negative;
    - ``noise/microbatch/scale``: ``tr S`` over the signal, the simple noise scale in micro-batches: multiply by the
      examples in one. NaN where the signal is not positive: average both parts over records before dividing;
    - ``noise/microbatch/snr``: ``|G|^2 / (tr S / k)``, signal to noise of the applied gradient: 1 is pure noise.

    Units are those of the gradient that the optimizer applies (after unscaling and clipping), so they compare with
    ``gradients/norm``. Needs at least two micro-batches a step, whose losses are all scaled alike. With data
    parallelism these are the micro-batches of this process; with sharded parameters nothing is seen.
    """

    name: str = "microbatch_noise"
    needs: frozenset[str] = frozenset({"gradients", "microbatches"})

    def measure(self, context: Context) -> Measurement:
        """Return the estimates; nothing with fewer than two micro-batches."""
        seen: Microbatches | None = context.microbatches
        if seen is None or seen.count < 2 or context.gradient_norms is None:
            return {}
        k = seen.count
        accumulated, applied = seen.total_squares.sum(), context.gradient_norms.square().sum()
        variance = (k * k * seen.squares.sum() - k * accumulated) / (k - 1)
        variance = variance * applied / accumulated  # in units of the applied gradient
        signal = applied - variance / k
        return {
            "noise/microbatch/variance": variance,
            "noise/microbatch/signal": signal,
            "noise/microbatch/scale": torch.where(signal > 0, variance / signal, torch.nan),
            "noise/microbatch/snr": applied / (variance / k),
        }
