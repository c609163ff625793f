"""Decay watched, or a rule attached, inside a Lightning ``Trainer``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from decaylab.curvature.types import LossFunction
from decaylab.decay import Handle, Rule
from decaylab.errors import DecaylabError
from decaylab.integrations.installing import Installation, plain, restore
from decaylab.monitor.log import Log, Sink
from decaylab.params.inner_optimizer import inner_optimizer
from decaylab.probes.context import Probe
from decaylab.probes.registry import DEFAULT_PROBES

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback  # type: ignore[import-not-found,no-redef,assignment,unused-ignore]
    except ImportError:
        raise DecaylabError("lightning is not installed: pip install 'decaylab[lightning]'") from None


class LightningCallback(Callback):  # type: ignore[misc,unused-ignore]
    """Watches every optimizer of a Lightning module and, if asked to, attaches a rule of decaylab to each.

    The logs travel in the Trainer's checkpoints; a rule's state travels in the optimizer's, also in a checkpoint that
    is saved after the fit. Parameters that join an optimizer later (``BaseFinetuning``) decay by their roles too. Where
    there are several optimizers, sinks get the keys of each behind its name: ``muon/``, ``adamw/``.

    Attributes:
        logs: One log an optimizer, from the beginning of the fit on.
        handles: The rules' handles.

    Example:
        ::

            from decaylab.integrations import LightningCallback

            watcher = LightningCallback(every=50)
            Trainer(callbacks=[watcher]).fit(module, loader)
            print(watcher.logs[0].summary())
    """

    def __init__(
        self,
        *,
        every: int = 50,
        probes: Iterable[str | Probe] = DEFAULT_PROBES,
        rule: Rule | None = None,
        decay: Sequence[str] = ("matrix", "embedding"),
        exclude: Sequence[str] = (),
        roles: Mapping[str, Any] | None = None,
        loss_fn: LossFunction | None = None,
        batches: Sequence[Any] | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        """Say what to install; it is installed when the fit starts.

        Args:
            every: Optimizer steps between two records.
            probes: What to record.
            rule: A decay rule, for optimizers with ``weight_decay=0``; None leaves decay to the optimizers.
            decay: Roles that the rule acts on.
            exclude: Roles, parameter names or patterns that it never acts on.
            roles: Overrides of parameter roles.
            loss_fn: ``loss_fn(model, batch)`` for probes that run the model.
            batches: Their batches.
            sinks: Where records go besides the logs.
        """
        super().__init__()
        self._installation = Installation(
            rule=rule, decay=tuple(decay), exclude=tuple(exclude), every=every, probes=tuple(probes), loss_fn=loss_fn,
            batches=batches, roles=roles, sinks=sinks,
        )  # fmt: skip
        self.logs: list[Log] = []
        self.handles: list[Handle] = []
        self._saved: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach the rule to every optimizer and watch it. Checkpoints of optimizers are loaded after this."""
        self.remove()
        self.logs, self.handles = [], []
        for optimizer, prefix in zip(trainer.optimizers, _prefixes(trainer.optimizers), strict=True):
            handle = self._installation.attach(pl_module, optimizer, beside_others=len(trainer.optimizers) > 1)
            self.handles += [handle] if handle is not None else []
            self.logs.append(self._installation.watch(pl_module, optimizer, prefix))
        if self._installation.rule is not None and trainer.optimizers and not self.handles:
            raise DecaylabError(
                f"no optimizer holds a parameter whose role decays ({', '.join(self._installation.decay)})"
            )
        for number, (log, saved) in enumerate(zip(self.logs, self._saved, strict=False)):
            restore(log, saved, f"the log of optimizer {number} in the checkpoint")
        self._saved = []

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the hooks off; the logs stay, and a checkpoint that is saved later still has the rules' state."""
        self._stop()
        self._installation.close_sinks()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Take the hooks off, as at the end of the fit."""
        self.on_fit_end(trainer, pl_module)

    def remove(self) -> None:
        """Take everything off the optimizers; the logs stay."""
        self._stop()
        for handle in self.handles:
            handle.remove()

    def _stop(self) -> None:
        for log in self.logs:
            log.remove()
        for handle in self.handles:
            handle.stop()

    def state_dict(self) -> dict[str, Any]:
        """What goes into the Trainer's checkpoint."""
        return {"logs": [plain(log.state_dict()) for log in self.logs]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what was in the checkpoint until there are optimizers."""
        logs = state_dict.get("logs")
        self._saved = list(logs) if isinstance(logs, (list, tuple)) else []


def _prefixes(optimizers: Sequence[Any]) -> list[str]:
    """A prefix for the keys of each optimizer, by its class; none where there is one optimizer."""
    if len(optimizers) < 2:
        return [""] * len(optimizers)
    names = [type(inner_optimizer(optimizer)).__name__.lower() for optimizer in optimizers]
    return [
        f"{name}-{names[:place].count(name)}/" if names.count(name) > 1 else f"{name}/"
        for place, name in enumerate(names)
    ]
