"""Every check of runs before they enter the store, the same for each command that trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from decaylab.config.component_checks import check_optimizer
from decaylab.config.identity import run_id
from decaylab.config.schema import AnyRun
from decaylab.config.validation import check
from decaylab.errors import DecaylabError
from decaylab.launch.devices import require_compiler, require_device
from decaylab.launch.parent_run import has_begun
from decaylab.store.store import Store
from decaylab.train.preflight.datasets import require_data, require_whole


def preflight(configs: Sequence[AnyRun], store: str | None, device: str, *, processes: int = 1) -> frozenset[str]:
    """Return when every run that has not ended can be trained here; torch is imported only where one has not.

    Asked are, of each kind of run once: the device, the settings, the data (is it here, is it whole, does it fit the
    model), the names of components, rules, roles and probes, the optimizer's settings, a compiler where one is needed,
    and memory.

    Args:
        configs: The runs' settings, with the digests of the files that they read.
        store: The store, as `Store` takes it; one that is not there yet knows no run.
        device: What they are to be trained on, as `decaylab.launch.devices.require_device` takes it.
        processes: Processes that train a run together.

    Returns:
        The ids of the runs that have ended: they are not trained again, and nothing is asked of them.

    Raises:
        DecaylabError: A run cannot be trained; the one line says why.
    """
    require_device(device)
    by_id = {run_id(config): config for config in configs}
    ended = _ended(list(by_id), store)
    missing = [config for run, config in by_id.items() if run not in ended]
    for config in missing:
        check(config)
    require_data(missing)
    require_whole(missing)
    if missing:
        _require_trainable(missing, store, device, processes)
    return ended


def _ended(runs: list[str], url: str | None) -> frozenset[str]:
    try:
        with Store(url, read_only=True) as store:
            return frozenset(run for run, state in store.states(runs).items() if state.is_ended)
    except DecaylabError:  # no store yet, or none that can be used: whoever opens it to train is told why
        return frozenset()


def _require_trainable(missing: Sequence[AnyRun], store: str | None, device: str, processes: int) -> None:
    """Ask what needs torch; the same of runs that differ in nothing that matters for it is asked once."""
    from decaylab.train.preflight.components import require_names
    from decaylab.train.preflight.data_fit import require_fit

    seen: set[Any] = set()
    for config in missing:
        named = dataclasses.replace(config, seed=0)
        if named not in seen:
            seen.add(named)
            require_names(named)
            check_optimizer(named)
            if config.compile:
                require_compiler(device)
        parts = (config.model, config.data, config.optimizer.name, config.evaluation, config.schedule, config.init_from)
        sized = (*parts, config.batch_size, config.accumulation, config.precision, config.weights)
        if sized not in seen:
            seen.add(sized)
            begun = config.init_from is not None and has_begun(config, store)  # it needs those weights no more
            require_fit(dataclasses.replace(config, init_from=None) if begun else config, device, processes=processes)
