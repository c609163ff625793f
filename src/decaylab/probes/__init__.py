"""Probes: what weight decay does to a training run, measured without touching it.

Public names are loaded on first use: this package itself imports no torch.
"""

from decaylab.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
