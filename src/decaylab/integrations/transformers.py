"""How is decay watched, or a rule attached, inside the transformers ``Trainer``?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from decaylab.curvature.types import LossFunction
from decaylab.decay import Handle, Rule
from decaylab.errors import DecaylabError
from decaylab.files import atomic_write_text
from decaylab.integrations.installing import Installation
from decaylab.monitor.log import Log, Sink
from decaylab.params.inner_optimizer import inner_optimizer
from decaylab.probes.context import Probe
from decaylab.probes.registry import DEFAULT_PROBES

try:
    from transformers import TrainerCallback
except ImportError:
    raise DecaylabError("transformers is not installed: pip install 'decaylab[transformers]'") from None

_FILE = "decaylab.json"


class TransformersCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Watches a ``Trainer`` and, if asked to, replaces its weight decay by a rule of decaylab.

    The log and a rule's state travel in the Trainer's checkpoints, so a resumed training goes on counting.

    Attributes:
        log: The log, from the beginning of training on.
        handle: The rule's handle, or None.

    Example:
        ::

            from decaylab import decay
            from decaylab.integrations import TransformersCallback

            watcher = TransformersCallback(every=50, rule=decay.Decoupled(0.1))
            Trainer(model, TrainingArguments("out", weight_decay=0.0), ..., callbacks=[watcher]).train()
            print(watcher.log.summary())
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
        """Say what to install; it is installed when training begins.

        Args:
            every: Optimizer steps between two records.
            probes: What to record.
            rule: A decay rule, for a Trainer with ``weight_decay=0.0``; None leaves decay to the Trainer.
            decay: Roles that the rule acts on.
            exclude: Roles, parameter names or patterns that it never acts on.
            roles: Overrides of parameter roles.
            loss_fn: ``loss_fn(model, batch)`` for probes that run the model.
            batches: Their batches.
            sinks: Where records go besides the log.
        """
        self._installation = Installation(
            rule=rule, decay=tuple(decay), exclude=tuple(exclude), every=every, probes=tuple(probes), loss_fn=loss_fn,
            batches=batches, roles=roles, sinks=sinks,
        )  # fmt: skip
        self.log: Log | None = None
        self.handle: Handle | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attach the rule and watch; in a resumed training, go on where the checkpoint was written."""
        optimizer = inner_optimizer(kwargs["optimizer"])
        self.handle, self.log = self._installation.install(kwargs["model"], optimizer)
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.global_step and (folder / _FILE).is_file():
            self.log.load_state_dict(json.loads((folder / _FILE).read_text()))
            if self.handle is not None and (folder / "optimizer.pt").is_file():
                # The Trainer loaded this before the rule was there to take its part of it.
                saved = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
                optimizer.load_state_dict(saved)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the log into the checkpoint that was just written."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self.log is not None and state.is_world_process_zero and folder.is_dir():
            atomic_write_text(folder / _FILE, json.dumps(self.log.state_dict()))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the hooks off; the log stays."""
        if self.log is not None:
            self.log.remove()
        if self.handle is not None:
            self.handle.remove()
