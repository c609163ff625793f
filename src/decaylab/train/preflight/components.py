"""Do the rule, the roles, the probes and the checkpoint that a run names exist? Asked before it enters the store."""

from __future__ import annotations

from pathlib import Path

from decaylab.config.schema import FOREIGN, AnyRun, LanguageRun
from decaylab.errors import DecaylabError
from decaylab.probes.registry import rows
from decaylab.train.build import try_out


def require_names(config: AnyRun) -> None:
    """Return when everything that a run names is known.

    Raises:
        DecaylabError: An unknown rule, option, role or probe (near matches are shown), a rule that the optimizer does
            not take, or no folder of that name.
    """
    try_out(config)
    for probe in rows(config.probes.curvature):
        if "optimizer" in probe.needs:
            raise DecaylabError(
                f"the probe {probe.name!r} reads a training step: it belongs into probes.names, not into "
                "probes.curvature"
            )
    for probe in rows(config.probes.names):
        if "loss" in probe.needs:
            raise DecaylabError(
                f"the probe {probe.name!r} runs the model: it belongs into probes.curvature, not into probes.names"
            )
    if config.init_from is not None and config.init_from.run.startswith(FOREIGN):
        folder = Path(config.init_from.run.removeprefix(FOREIGN)).expanduser()
        if not folder.is_dir():
            raise DecaylabError(f"there is no folder {folder} to start from: give hf: and the folder of a checkpoint")
        if not isinstance(config, LanguageRun):
            raise DecaylabError(f"{config.init_from.run} is a language model: only a language run can start from it")
        if config.init_from.optimizer:
            raise DecaylabError(f"{config.init_from.run} holds no optimizer state: leave init_from.optimizer off")
