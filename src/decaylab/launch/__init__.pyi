from .backends.local import launch as launch
from .report import LaunchReport as LaunchReport
from .scheduler import Run as Run
