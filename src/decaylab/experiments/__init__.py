"""The engine of experiments: declarations, results, checks, evidence, statistics."""

from decaylab.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
