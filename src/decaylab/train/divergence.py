"""When is a run lost? A loss that is not a number, or a spike that does not come back."""

from __future__ import annotations

import math

from decaylab.train.config import Divergence


class DivergenceWatch:
    """Follow the training loss and say when it has diverged.

    The loss is smoothed, s <- 0.9 s + 0.1 loss, and compared with its own best so far. A rise of more than
    ``config.rise`` above the best opens a spike; it closes when the smoothed loss is back within half the rise. A spike
    that stays open for ``config.patience`` steps is a divergence.

    Args:
        config: How much, how long.
    """

    def __init__(self, config: Divergence) -> None:
        self._config = config
        self._smooth: float | None = None
        self._best = math.inf
        self._since: int | None = None
        self.spikes = 0

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
            return f"loss rose by {self._smooth - self._best:.3g} at step {self._since} and did not come back"
        return None

    def state_dict(self) -> dict[str, float | int | None]:
        """Return what is remembered, for a checkpoint."""
        return {"smooth": self._smooth, "best": self._best, "since": self._since, "spikes": self.spikes}

    def load_state_dict(self, state: dict[str, float | int | None]) -> None:
        """Take back what :meth:`state_dict` gave."""
        since, best, spikes = state["since"], state["best"], state["spikes"]
        self._smooth = state["smooth"]
        self._best = math.inf if best is None else float(best)
        self._since = None if since is None else int(since)
        self.spikes = int(spikes or 0)
