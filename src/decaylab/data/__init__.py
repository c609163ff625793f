"""The data of the experiments: images as tensors, text as a stream of tokens, and what comes at which step."""

from decaylab.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
