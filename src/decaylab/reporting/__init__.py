"""Charts and verdicts of experiments as one HTML page, with every chart as SVG and CSV beside it."""

from decaylab.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
