"""Where do the first weights come from, if they are not random: another run's snapshot, or a published checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from decaylab.config.schema import FOREIGN, AnyRun, InitFrom, LanguageModel, LanguageRun
from decaylab.decay.optimizer_state import load_without_rules
from decaylab.errors import DecaylabError
from decaylab.models import transformers_format
from decaylab.train.checkpoints import files as checkpoint
from decaylab.train.checkpoints import layout as run_folder
from decaylab.train.distributed import load_whole_state
from decaylab.train.preflight.inputs import checkpoint_digest

Resolve = Callable[[str], Path]
_NORM_EPS = 1e-5


class Origin:
    """What a run starts from, if its settings name something: its first weights, and its optimizer's first state.

    By the time a run goes on from a checkpoint of its own, its origin may be gone.

    Args:
        config: The run's settings.
        resolve: Gives the folder of another run.
        begun: Whether the run has a checkpoint to go on from; if not, what is missing or damaged is an error at once.
    """

    def __init__(self, config: AnyRun, resolve: Resolve | None, *, begun: bool) -> None:
        self._config, self._resolve, self._begun = config, resolve, begun
        self._missing: DecaylabError | None = None

    @property
    def has_optimizer(self) -> bool:
        """Whether the optimizer's state comes from there too."""
        return self._config.init_from is not None and self._config.init_from.optimizer

    def give_weights(self, model: nn.Module, recalibrate: Callable[[nn.Module], None]) -> None:
        """Copy the first weights into a model, with fresh statistics of its norms where they are an average.

        Raises:
            DecaylabError: The origin is missing or damaged, or of a model with other settings.
        """
        source = self._config.init_from
        if source is not None:
            with self._excused():
                load_first_weights(self._config, model, self._resolve)
                if source.weights != "iterate":
                    recalibrate(model)

    def give_optimizer(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        """Give an optimizer the origin's state, but not its settings, nor what its decay rule kept: those are its own.

        Raises:
            DecaylabError: The origin is missing or damaged, or holds no such state.
        """
        source = self._config.init_from
        assert source is not None
        groups = [dict(group) for group in optimizer.param_groups]
        with self._excused():
            load_without_rules(
                first_optimizer_state(source, self._resolve, device), partial(load_whole_state, optimizer)
            )
        for group, own in zip(optimizer.param_groups, groups, strict=True):
            group.update({key: v for key, v in own.items() if key != "params"})

    def require(self) -> None:
        """Return if there was nothing to start from, or it was there.

        Raises:
            DecaylabError: It was not, and the run's checkpoints have turned out to be of no use.
        """
        if self._missing is not None:
            raise self._missing

    @contextmanager
    def _excused(self) -> Iterator[None]:
        try:
            yield
        except DecaylabError as error:
            if not self._begun:
                raise
            self._missing = error


def load_first_weights(config: AnyRun, model: nn.Module, resolve: Resolve | None) -> None:
    """Copy the weights that ``config.init_from`` names into a model.

    Args:
        config: The run's settings.
        model: Its model, with whole weights.
        resolve: Gives the folder of another run.

    Raises:
        DecaylabError: The snapshot or checkpoint is missing, damaged, or of a model with other settings.
    """
    source = config.init_from
    assert source is not None
    if source.run.startswith(FOREIGN):
        if not isinstance(config, LanguageRun):
            raise DecaylabError(f"{source.run} is a language model: only a language run can start from it")
        folder = Path(source.run.removeprefix(FOREIGN)).expanduser()
        checkpoint_digest(folder, source.sha256)
        vocabulary: Any = model.vocab_size
        checkpoint.load_model_tensors(model, foreign_weights(folder, config.model, int(vocabulary)), str(folder))
        return
    origin = _origin(source, resolve)
    checkpoint.load_model_tensors(model, averaged_weights(origin, source.weights), str(origin))


def averaged_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Read the weights of a snapshot, or one of the averages in it; buffers are those of the weights.

    Args:
        folder: The snapshot.
        name: ``iterate`` or the name of an average.

    Raises:
        DecaylabError: It is damaged, or holds no such average.
    """
    tensors = checkpoint.load_weights(folder)
    if name == "iterate":
        return tensors
    averages = checkpoint.load_state(folder)["averages"]
    chosen = {k.removeprefix(f"{name}/"): v for k, v in averages.items() if k.startswith(f"{name}/")}
    if not chosen:
        known = sorted({key.split("/")[0] for key in averages if "/" in key})
        raise DecaylabError(f"{folder} holds no average {name!r}; it has {', '.join(['iterate', *known])}")
    return tensors | chosen


def first_optimizer_state(source: InitFrom, resolve: Resolve | None, device: torch.device) -> dict[str, Any]:
    """Return the optimizer's state of the snapshot that a run starts from.

    Raises:
        DecaylabError: The snapshot is missing or holds none.
    """
    if source.run.startswith(FOREIGN):
        raise DecaylabError(f"{source.run} holds no optimizer state: leave init_from.optimizer off")
    state: dict[str, Any] | None = checkpoint.load_state(_origin(source, resolve), device)["optimizer"]
    if state is None:
        raise DecaylabError("that run's snapshots hold no optimizer state; train it with snapshot_optimizer")
    return state


def _origin(source: InitFrom, resolve: Resolve | None) -> Path:
    if resolve is None:
        raise DecaylabError(f"this run starts from run {source.run}: train it in the store that holds that run")
    found = run_folder.weights_at(resolve(source.run), source.step, optimizer=source.optimizer)
    if found is None:
        raise DecaylabError(
            f"run {source.run} has no snapshot at step {source.step}: train that run first, with snapshots_every"
        )
    return found


def foreign_weights(folder: Path, model: LanguageModel, vocab_size: int) -> dict[str, Tensor]:
    """Read a checkpoint in transformers' format for a model with the given settings.

    A larger vocabulary, such as 50,304 for GPT-2's 50,257, gets the mean row for each id that no text has: zeros would
    be a far more likely token than most, since GPT-2's logits are well below zero.

    Args:
        folder: With ``config.json`` and ``model.safetensors``.
        model: The settings of the model that starts from it.
        vocab_size: Its vocabulary.

    Raises:
        DecaylabError: A file is missing or damaged, or the checkpoint is of a model with other settings.
    """
    theirs, tensors = transformers_format.read(folder, bias=model.bias)
    own: dict[str, Any] = {name: getattr(model, name) for name in model.__dataclass_fields__}
    own |= {"norm_eps": _NORM_EPS, "vocab_size": vocab_size}
    for name in ("num_layers", "num_heads", "width", "context", "bias", "tied", "activation", "norm_eps"):
        if own[name] != theirs[name]:
            hint = "" if name == "norm_eps" else f": set model.{name.replace('_', '-')} to {theirs[name]}"
            raise DecaylabError(f"{folder} has {name} {theirs[name]}, this run's model {own[name]}{hint}")
    if own["branch_norm"] or own["qk_norm"]:
        raise DecaylabError(f"{folder} is a plain GPT-2: leave model.branch-norm and model.qk-norm off")
    missing = vocab_size - int(theirs["vocab_size"])
    if missing < 0:
        raise DecaylabError(f"{folder} has {theirs['vocab_size']} tokens, more than this run's {vocab_size}")
    for name in ("transformer.wte.weight", "lm_head.weight"):
        if name in tensors and missing:
            rows = tensors[name]
            tensors[name] = torch.cat([rows, rows.mean(0, keepdim=True).expand(missing, -1)])
    return tensors
