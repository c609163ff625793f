"""Which probes there are: one row a probe, readable without loading torch.

The same table feeds the choices of configurations and of the command line, the documentation and the tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from decaylab.errors import DecaylabError, unknown
from decaylab.references import is_reference, load, plugins

NEEDS = frozenset(("gradients", "previous", "optimizer", "loss", "microbatches"))


@dataclass(frozen=True)
class ProbeRow:
    """One row of the table.

    Attributes:
        name: What users write.
        path: ``"module:Class"`` of the frozen dataclass that measures.
        needs: What the probe reads besides the weights: ``"gradients"`` (those of the last step), ``"previous"`` (a
            copy of the weights from before the step), ``"optimizer"`` (its groups and state), ``"loss"`` (a loss
            function and batches), ``"microbatches"`` (the gradient of every backward pass, seen through hooks).
        help: One line: what it measures.
        cost: One line: what a record costs.
    """

    name: str
    path: str
    needs: frozenset[str]
    help: str
    cost: str


def _row(name: str, path: str, needs: str, help: str, cost: str) -> ProbeRow:
    return ProbeRow(name, f"decaylab.probes.{path}", frozenset(needs.split()), help, cost)


_ROWS = (
    _row("norms", "norms:Norms", "gradients previous",
         "norm and largest entry of weights, gradients and updates, by role and in total",
         "a copy of the weights on the recorded step, three passes over them"),
    _row("effective_lr", "effective_lr:EffectiveLearningRate", "optimizer",
         "lr / ((1 - lr wd) norm), lr / norm, lr / norm^2, by role and in total",
         "one pass over the weights"),
    _row("adam_rate", "effective_lr:AdamRate", "optimizer",
         "Adam's learning rate of single coordinates, with bias correction",
         "one pass over the second moments, a sort of at most 100,000 numbers"),
    _row("rotation", "rotation:Rotation", "previous optimizer",
         "relative and angular size of an update, against the equilibrium of decay and updates",
         "shares the copy and the passes of norms"),
    _row("decay_share", "rotation:DecayShare", "gradients previous optimizer",
         "share of an update that is decay",
         "shares the copy and the passes of norms"),
    _row("decayed", "decayed:Decayed", "previous optimizer",
         "norm, effective learning rate and rotation of the parameters that decay, without the others of their role",
         "shares the copy and the passes of norms"),
    _row("timescale", "timescale:Timescale", "optimizer",
         "steps that the weights remember, and how many such timescales have passed",
         "nothing that grows with the model"),
    _row("gradient_noise", "curvature_probes:PerExampleNoise", "loss",
         "variance of single examples' gradients, noise scale, signal-to-noise, E|g|^2 over the loss, exactly",
         "a vectorised backward pass over the batches, two to five times a training pass"),
    _row("microbatch_noise", "microbatch_noise:MicrobatchNoise", "gradients microbatches",
         "gradient variance, noise scale and signal-to-noise from the micro-batches of a step",
         "two passes over the gradients for each micro-batch of the recorded step"),
    _row("hessian_trace", "curvature_probes:HessianTrace", "loss",
         "trace of the Hessian with its standard error, by role and in total",
         "exact for ReLU networks: as many backward passes as classes; else until accurate enough"),
    _row("gauss_newton_trace", "curvature_probes:GaussNewtonTrace", "loss",
         "trace of the Gauss-Newton matrix with its standard error, by role and in total",
         "at most as many backward passes as classes"),
    _row("top_eigenvalues", "curvature_probes:TopEigenvalues", "loss",
         "largest eigenvalue of the Hessian, by Lanczos",
         "ten to a hundred products with the Hessian, each three gradients"),
    _row("jacobian", "curvature_probes:Jacobian", "loss",
         "Frobenius norm of the outputs' Jacobian with its standard error, by role and in total",
         "at most as many backward passes as classes"),
    _row("covariance", "curvature_probes:Covariance", "loss",
         "cosines of products with the gradient noise covariance and with the Hessian and its two parts",
         "twenty products with each of four matrices, together some 240 gradients"),
)  # fmt: skip

PROBES: dict[str, ProbeRow] = {row.name: row for row in _ROWS}
if len(PROBES) != len(_ROWS):
    raise ValueError("two probes have the same name")

# What `watch` measures unless told otherwise: everything that needs neither a loss function nor a second pass.
DEFAULT_PROBES = ("norms", "effective_lr", "rotation", "decay_share", "decayed", "timescale")


def rows(names: Iterable[str]) -> list[ProbeRow]:
    """Look up several probes.

    Args:
        names: Names from the table, those of installed plugins (entry point ``probe.NAME``), or references such as
            ``package.module:Class`` to probes of the user's; a repeated name counts once.

    Returns:
        Their rows, in the order given.

    Raises:
        DecaylabError: A name is not in the table (near matches are shown).
    """
    found = []
    for name in dict.fromkeys(names):
        offered = {} if name in PROBES or is_reference(name) else plugins("probe")
        if name in PROBES:
            found.append(PROBES[name])
        elif name in offered or is_reference(name):
            found.append(_adopted(name, offered.get(name, name)))
        else:
            raise unknown("probe", name, [*PROBES, *offered, "package.module:Class"])
    return found


def _adopted(name: str, path: str) -> ProbeRow:
    """Return the row of a probe of the user's."""
    found = load(path)
    if not (isinstance(found, type) and callable(getattr(found, "measure", None))):
        raise DecaylabError(f"{name} is no probe: expected a class with name, needs and measure(context)")
    needs = frozenset(found().needs)
    if strange := needs - NEEDS:
        raise unknown(f"need of the probe {name}", sorted(strange)[0], NEEDS)
    return ProbeRow(name, path, needs, (found.__doc__ or "").strip().partition("\n")[0], "")
