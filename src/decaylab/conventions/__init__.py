"""What a lambda means: how much a weight shrinks, in every convention in use, and what follows from it.

Plain maths without torch. Public names are loaded on first use.
"""

from decaylab.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
