from .metric_writer import LeaseLost as LeaseLost
from .metric_writer import MetricWriter as MetricWriter
from .records import RunRow as RunRow
from .store import Store as Store
