from .diagnosis import diagnose as diagnose
from .diagnosis_result import Diagnosis as Diagnosis
from .log import Log as Log
from .log import Sink as Sink
from .log import watch as watch
