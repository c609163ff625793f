from .context import Context as Context
from .context import Probe as Probe
from .measurement import measure as measure
from .registry import DEFAULT_PROBES as DEFAULT_PROBES
from .registry import PROBES as PROBES
from .registry import ProbeRow as ProbeRow
from .runner import ProbeRunner as ProbeRunner
