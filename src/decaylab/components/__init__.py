"""Optimizers, architectures and data sets: one row for each, read by settings, checks, costs, builders and the CLI.

Rows are data and nothing here imports torch. What a row builds is named as ``module:NAME`` and imported when it is
built. Public names are loaded on first use.
"""

from decaylab.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
