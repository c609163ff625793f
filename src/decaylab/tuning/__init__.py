"""Tuning: the weight decay of one's own training, from complete short runs of it, with an interval.

Public names are loaded on first use: this package itself imports neither torch nor optuna.
"""

from decaylab.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
