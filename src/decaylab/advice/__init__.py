"""Which weight decay, learning rate and batch size published fits and timescales recommend for a run.

Plain maths without torch; units are in the names. Public names are loaded on first use.
"""

from decaylab.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
