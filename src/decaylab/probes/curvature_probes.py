"""Probes that measure curvature at a recorded step: adapters to the curvature engine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from decaylab.curvature.eigenvalues import top_eigenvalues
from decaylab.curvature.estimate import Part
from decaylab.curvature.gauss_newton import gauss_newton_trace
from decaylab.curvature.hessian import hessian_trace
from decaylab.curvature.jacobian import jacobian_frobenius
from decaylab.curvature.noise_covariance import covariance_similarity
from decaylab.curvature.per_sample_noise import gradient_noise
from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError
from decaylab.probes.context import Context, Measurement


@dataclass(frozen=True)
class HessianTrace:
    """`hessian_trace` as a probe. Keys: ``hessian/trace``, ``hessian/trace/stderr`` and ``hessian/trace/role``.

    Attributes:
        name: Its row in the table.
        needs: A loss and batches.
        rel_error: See `hessian_trace`.
        max_matvecs: See there.
        seed: See there.
        chunk_size: See there.
    """

    name: str = "hessian_trace"
    needs: frozenset[str] = frozenset({"loss"})
    rel_error: float = 0.02
    max_matvecs: int = 200
    seed: int = 0
    chunk_size: int | None = None

    def measure(self, context: Context) -> Measurement:
        """Return the trace of the context's model on its batches."""
        found = hessian_trace(
            context.model,
            needed_loss(context),
            context.batches,
            self.rel_error,
            max_matvecs=self.max_matvecs,
            seed=self.seed,
            chunk_size=self.chunk_size,
            roles=context.roles,
        )
        return dict(found.records("hessian/trace"))


@dataclass(frozen=True)
class GaussNewtonTrace:
    """`gauss_newton_trace` as a probe. Keys: ``gauss_newton/trace``, ``.../stderr`` and ``.../role``.

    Attributes:
        name: Its row in the table.
        needs: A loss and batches.
        rel_error: See `gauss_newton_trace`.
        seed: See there.
        chunk_size: See there.
    """

    name: str = "gauss_newton_trace"
    needs: frozenset[str] = frozenset({"loss"})
    rel_error: float = 0.02
    seed: int = 0
    chunk_size: int | None = None

    def measure(self, context: Context) -> Measurement:
        """Return the trace of the context's model on its batches."""
        found = gauss_newton_trace(
            context.model,
            needed_loss(context),
            context.batches,
            self.rel_error,
            seed=self.seed,
            chunk_size=self.chunk_size,
            roles=context.roles,
        )
        return dict(found.records("gauss_newton/trace"))


def needed_loss(context: Context) -> LossFunction:
    """The loss of a context, or an error that says how to give it."""
    if context.loss_fn is None or not context.batches:
        raise DecaylabError("curvature needs a loss and data: pass loss_fn=... and batches=...")
    return context.loss_fn


@dataclass(frozen=True)
class TopEigenvalues:
    """`top_eigenvalues` as a probe. Keys: ``hessian/eigenvalue/1``, ``.../2`` and so on, the largest first.

    Attributes:
        name: Its row in the table.
        needs: A loss and batches.
        num_eigenvalues: How many.
        rel_error: See `top_eigenvalues`.
        max_matvecs: See there.
        seed: See there.
        chunk_size: See there.
    """

    name: str = "top_eigenvalues"
    needs: frozenset[str] = frozenset({"loss"})
    num_eigenvalues: int = 1
    rel_error: float = 1e-3
    max_matvecs: int = 100
    seed: int = 0
    chunk_size: int | None = None

    def measure(self, context: Context) -> Measurement:
        """Return the eigenvalues of the context's model on its batches."""
        found = top_eigenvalues(
            context.model,
            needed_loss(context),
            context.batches,
            self.num_eigenvalues,
            self.rel_error,
            max_matvecs=self.max_matvecs,
            seed=self.seed,
            chunk_size=self.chunk_size,
        )
        return {f"hessian/eigenvalue/{i}": value for i, value in enumerate(found.values, start=1)}


@dataclass(frozen=True)
class Jacobian:
    """`jacobian_frobenius` as a probe. Keys: ``jacobian/frobenius``, ``.../stderr`` and ``.../role``.

    Attributes:
        name: Its row in the table.
        needs: Batches; the loss says how the model is called on them.
        rel_error: See `jacobian_frobenius`.
        seed: See there.
        chunk_size: See there.
    """

    name: str = "jacobian"
    needs: frozenset[str] = frozenset({"loss"})
    rel_error: float = 0.02
    seed: int = 0
    chunk_size: int | None = None

    def measure(self, context: Context) -> Measurement:
        """Return the norm for the context's model on its batches."""
        found = jacobian_frobenius(
            context.model,
            context.batches,
            self.rel_error,
            loss_fn=needed_loss(context),
            seed=self.seed,
            chunk_size=self.chunk_size,
            roles=context.roles,
        )
        return dict(found.records("jacobian/frobenius"))


@dataclass(frozen=True)
class Covariance:
    """`covariance_similarity` as a probe.

    Keys: ``covariance/cosine/hessian``, ``.../gauss_newton`` and ``.../residual``, each also with ``/stderr``, and
    ``covariance/split_error``.

    Attributes:
        name: Its row in the table.
        needs: A loss and batches.
        num_vectors: See `covariance_similarity`.
        seed: See there.
        chunk_size: See there.
    """

    name: str = "covariance"
    needs: frozenset[str] = frozenset({"loss"})
    num_vectors: int = 20
    seed: int = 0
    chunk_size: int | None = None

    def measure(self, context: Context) -> Measurement:
        """Return the cosines for the context's model on its batches."""
        found = covariance_similarity(
            context.model,
            needed_loss(context),
            context.batches,
            num_vectors=self.num_vectors,
            seed=self.seed,
            chunk_size=self.chunk_size,
        )
        out: Measurement = {"covariance/split_error": found.split_error}
        for key in ("hessian", "gauss_newton", "residual"):
            part: Part = getattr(found, key)
            out |= {f"covariance/cosine/{key}": part.value, f"covariance/cosine/{key}/stderr": part.stderr}
        return out


@dataclass(frozen=True)
class PerExampleNoise:
    """Noise of the gradient, exactly, from the gradients ``g_i`` of n single examples (the batches given).

    - ``noise/variance``: ``tr S = sum_i |g_i - mean|^2 / (n - 1)``, also by role; the gradient of a batch of B
      independent examples has the variance ``tr S / B``;
    - ``noise/second_moment``: ``E|g|^2 = mean_i |g_i|^2``, also by role;
    - ``noise/loss``: the mean loss L of the same examples;
    - ``noise/second_moment_per_loss``: ``E|g|^2 / L``, which stays within constants where weights and gradients of the
      network are bounded on both sides (D'Angelo et al. 2024, proposition 3);
    - ``noise/signal``: ``|mean_i g_i|^2 - tr S / n``, squared length of the true gradient, unbiased; may be negative;
    - ``noise/scale``: ``tr S`` over the signal, the simple noise scale in examples (McCandlish et al. 2018): the batch
      size at which the gradient is as long as its noise. NaN where the signal is not positive;
    - ``noise/snr``: ``|mean_i g_i|^2 / (tr S / n)``, signal to noise of these n examples' gradient; 1 is pure noise.

    Attributes:
        chunk_size: Examples differentiated together; None chooses it by memory.
    """

    name: str = "gradient_noise"
    needs: frozenset[str] = frozenset({"loss"})
    chunk_size: int | None = None

    def measure(self, context: Context) -> Measurement:
        """Return the noise; see the class for the keys."""
        if context.loss_fn is None:
            return {}
        found = gradient_noise(context.model, context.loss_fn, context.batches, chunk_size=self.chunk_size)
        n, at = found.num_points, {name: i for i, name in enumerate(context.names)}
        order = torch.tensor([at[name] for name in found.names], device=found.loss.device)

        def ordered(vector: Tensor) -> Tensor:
            return torch.zeros(len(at), dtype=vector.dtype, device=vector.device).index_copy(0, order, vector)

        variance, second, mean = (v.sum() for v in (found.variances, found.second_moments, found.mean_squares))
        signal = mean - variance / n
        sums = context.sums(torch.stack([ordered(found.variances), ordered(found.second_moments)], dim=1))
        return {
            **sums.named("noise/variance", sums.values[:, 0]),
            **sums.named("noise/second_moment", sums.values[:, 1]),
            "noise/loss": found.loss,
            "noise/second_moment_per_loss": second / found.loss,
            "noise/signal": signal,
            "noise/scale": torch.where(signal > 0, variance / signal, torch.nan),
            "noise/snr": mean / (variance / n),
        }
