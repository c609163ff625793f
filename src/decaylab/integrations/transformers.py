"""Decay watched, or a rule attached, inside the transformers ``Trainer``."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from decaylab.curvature.types import LossFunction
from decaylab.decay import Handle, Rule, handles
from decaylab.decay.step_guard import guard_step
from decaylab.errors import DecaylabError
from decaylab.files import atomic_write_text
from decaylab.integrations.installing import Installation, plain, restore
from decaylab.monitor.log import Log, Sink
from decaylab.params.inner_optimizer import inner_optimizer
from decaylab.probes.context import Probe
from decaylab.probes.registry import DEFAULT_PROBES

try:
    from transformers import TrainerCallback
except ImportError:
    raise DecaylabError("transformers is not installed: pip install 'decaylab[transformers]'") from None

_FILE, _KEY = "decaylab.json", "decaylab"


class TransformersCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Watches a ``Trainer`` and, if asked to, replaces its weight decay by a rule of decaylab.

    The log and a rule's state travel in the Trainer's checkpoints, so a training that is resumed from one goes on
    counting, also with another output folder. After an exception or Ctrl-C, ``train()`` can be called again: what the
    first one installed is taken off.

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
        self._optimizer: Optimizer | None = None
        self._counts_steps = self._step_is_due = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attach the rule and watch; in a resumed training, go on where the checkpoint was written.

        What an interrupted training has left on the optimizer is taken off first.
        """
        optimizer = inner_optimizer(kwargs["optimizer"])
        # The Trainer has loaded the checkpoint already: into a rule that is still there, or, for the rule to come,
        # into the optimizer itself.
        resumed, handle = state.global_step > 0, self.handle
        loaded = resumed and handle is not None and handle.restored and handle in handles(optimizer)
        self._remove_log()
        if not loaded:
            self.remove()
            handle = self._installation.attach(kwargs["model"], optimizer)
        self.handle = handle
        self.log = self._installation.watch(kwargs["model"], optimizer)
        self._guard(optimizer)
        if not resumed:
            return
        if handle is not None and not handle.restored:
            warnings.warn(
                f"the checkpoint at step {state.global_step} holds nothing of {type(handle.rule).__name__}: it starts "
                f"from the current weights and from step 0",
                stacklevel=2,
            )
        self._restore_log(args, state)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note that the next step is the Trainer's."""
        self._counts_steps = self._step_is_due = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the log into the Trainer's state if that is about to be saved."""
        if control.should_save:
            self._note_log(state)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the log into the Trainer's state if that is about to be saved."""
        if control.should_save:
            self._note_log(state)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the log into the Trainer's state: the best model may be saved now."""
        self._note_log(state)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the log into the checkpoint that was just written."""
        folder = _folder(args, state)
        if self.log is not None and state.is_world_process_zero and folder.is_dir():
            atomic_write_text(folder / _FILE, json.dumps(plain(self.log.state_dict())))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the hooks off; the log stays, and an optimizer state that is saved later still has the rule's."""
        self._stop()
        self._installation.close_sinks()

    def remove(self) -> None:
        """Take everything off the optimizer, as after an exception that ended the training; the log stays."""
        self._stop()
        if self.handle is not None:
            self.handle.remove()

    def _stop(self) -> None:
        self._remove_log()
        if self.handle is not None:
            self.handle.stop()

    def _remove_log(self) -> None:
        if self.log is not None:
            self.log.remove()
        if self._optimizer is not None:
            guard_step(self._optimizer).drop(before=self._expect_step, on_error=self._stop)
            self._optimizer = None

    def _guard(self, optimizer: Optimizer) -> None:
        guard = guard_step(optimizer)
        guard.before.append(self._expect_step)
        guard.on_error.append(self._stop)
        self._optimizer, self._counts_steps, self._step_is_due = optimizer, False, False

    def _expect_step(self) -> None:
        """Find a step that is not the Trainer's, who was left by an exception: its hooks must not act in it."""
        if self._counts_steps and not self._step_is_due:
            self._stop()
            what = "watches" if self.handle is None else f"watches, and {type(self.handle.rule).__name__} acts,"
            warnings.warn(
                f"the training ended with an exception and the optimizer is stepped by somebody else: decaylab {what} "
                f"no more",
                stacklevel=3,
            )
        self._step_is_due = False

    def _note_log(self, state: Any) -> None:
        if self.log is not None:
            noted = {"global_step": state.global_step, "log": plain(self.log.state_dict())}
            # A mapping in every version that has it; what has no class of that name the Trainer passes on as it is.
            if isinstance(getattr(state, "stateful_callbacks", None), dict):
                state.stateful_callbacks[_KEY] = noted

    def _restore_log(self, args: Any, state: Any) -> None:
        """Go on with the log of the checkpoint: from the Trainer's own state, wherever that was, or from its folder."""
        assert self.log is not None
        noted, path = (getattr(state, "stateful_callbacks", None) or {}).get(_KEY), _folder(args, state) / _FILE
        if isinstance(noted, dict) and noted.get("global_step") == state.global_step:
            restore(self.log, noted.get("log"), f"the log in the Trainer's state of step {state.global_step}")
        elif path.is_file():
            restore(self.log, _read(path), str(path))


def _folder(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _read(path: Path) -> Any:
    """Return what a file of JSON holds, None where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
