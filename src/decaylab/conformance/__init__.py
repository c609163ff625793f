"""Does an optimizer decay as it says? Identities and golden cases for any optimizer class, whoever wrote it.

Public names are loaded on first use: this package itself imports no torch.
"""

from decaylab.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
