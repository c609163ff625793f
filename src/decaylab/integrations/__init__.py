"""decaylab inside other people's tools: the transformers Trainer, Lightning, and experiment trackers.

Public names are loaded on first use: this package itself imports neither torch nor any of those tools.
"""

from decaylab.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
