"""When is a run lost? A loss that is not a number, or a spike that does not come back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from decaylab.config.schema import Divergence


class DivergenceWatch:
    """Follow the training loss and say when it has diverged.

    The loss is smoothed, s <- 0.9 s + 0.1 loss, and compared with its own best so far. A rise of more than
    ``config.rise`` above the best opens a spike; it closes when the smoothed loss is back within half the rise. A spike
    that stays open for ``config.patience`` steps is a divergence.

    Args:
        config: How much, how long.

    Attributes:
        spikes: Spikes so far.
        lasting: Of the first one that did not come back: what :meth:`see` said. Empty while all did.
    """

    def __init__(self, config: Divergence) -> None:
        self._config = config
        self._smooth: float | None = None
        self._best = math.inf
        self._since: int | None = None
        self.spikes = 0
        self.lasting = ""

    @property
    def opened(self) -> int | None:
        """The step at which the present spike was seen first; None when there is none."""
        return self._since

    @property
    def height(self) -> float:
        """How far the smoothed loss is above its best so far."""
        return 0.0 if self._smooth is None else self._smooth - self._best

    def see(self, step: int, loss: float) -> str | None:
        """Take in the mean training loss since the last call.

        Args:
            step: Steps done.
            loss: The mean training loss.

        Returns:
            Why the run has diverged, with the step; None while it has not.
        """
        if not math.isfinite(loss):
            return f"loss is {loss} at step {step}"
        self._smooth = loss if self._smooth is None else 0.9 * self._smooth + 0.1 * loss
        self._best = min(self._best, self._smooth)
        rise = self._config.rise
        if rise is None:
            return None
        if self._since is None and self._smooth > self._best + rise:
            self._since = step
            self.spikes += 1
        elif self._since is not None and self._smooth < self._best + rise / 2:
            self._since = None
        if self._since is not None and step - self._since >= self._config.patience:
            waited = step - self._since
            reason = (
                f"the smoothed loss rose by more than {rise:g} at step {self._since} and did not come back: "
                f"{self.height:.3g} above its best {waited} steps later"
            )
            self.lasting = self.lasting or reason
            return reason
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered, for a checkpoint."""
        return {
            "smooth": self._smooth,
            "best": self._best,
            "since": self._since,
            "spikes": self.spikes,
            "lasting": self.lasting,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._smooth, self._best, self._since = state["smooth"], float(state["best"]), state["since"]
        self.spikes, self.lasting = int(state["spikes"]), str(state.get("lasting", ""))
