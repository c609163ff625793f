"""Monitoring of any PyTorch training: a log of what decay does, its diagnosis and its chart.

Public names are loaded on first use: this package itself imports no torch.
"""

from decaylab.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
