"""Do the rule, the roles, the probes and the checkpoint that a run names exist? Asked before it enters the store."""

from __future__ import annotations

from pathlib import Path

from decaylab.errors import DecaylabError
from decaylab.probes.table import rows
from decaylab.train.build import try_out
from decaylab.train.config import FOREIGN, AnyRun


def require_names(config: AnyRun) -> None:
    """Return when everything that a run names is known.

    Raises:
        DecaylabError: An unknown rule, option, role or probe (near matches are shown), a rule that the optimizer does
            not take, or no folder of that name.
    """
    try_out(config)
    rows((*config.probes.names, *config.probes.curvature))
    if config.init_from is not None and config.init_from.run.startswith(FOREIGN):
        folder = Path(config.init_from.run.removeprefix(FOREIGN)).expanduser()
        if not folder.is_dir():
            raise DecaylabError(f"there is no folder {folder} to start from: give hf: and the folder of a checkpoint")
