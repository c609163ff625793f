"""Thresholds that decide a diagnosis."""

from __future__ import annotations

import math

# After 1.5 timescales a squared norm is within exp(-3) = 5 % of its start's distance from equilibrium.
SETTLED_TIMESCALES = 1.5

# Idle: so few timescales have passed, and the norms have not moved.
IDLE_TIMESCALES = 0.05

# Too strong: a timescale is under 100 steps (100 are not), so that the weights hold less than the last 100 batches
# taught them. In the long run they then turn by more than sqrt(2 / 100) = 0.14 radians (8 degrees) a step, momentum
# counted out (r = 1).
STRONG_TIMESCALE = 100

STRONG_ROTATION = math.sqrt(2 / STRONG_TIMESCALE)

# Rotation counts as that of the equilibrium within a quarter.
NEAR_PREDICTION = 1.25
