"""Launching: what is missing from a store, trained by leased workers.

Public names are loaded on first use: this package itself imports no torch.
"""

from decaylab.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
