"""Weight-decay rules for any torch optimizer: `attach` installs one, `build` makes one by its name."""

from decaylab.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
