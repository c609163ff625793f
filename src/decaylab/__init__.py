"""decaylab: what weight decay does to your training, and how much of it to use.

Public names are loaded on first use, so that ``import decaylab`` stays fast and does not import torch.
"""

from decaylab.lazy import lazy_names

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
__all__ = [*__all__, "__version__"]
