from .answer import Answer as Answer
from .metric import Metric as Metric
from .plan import Plan as Plan
from .progress_file import report as report
from .search import tune as tune
