from .leases import Lease as Lease
from .leases import LeaseLost as LeaseLost
from .metric_writer import MetricWriter as MetricWriter
from .records import RunRow as RunRow
from .store import Store as Store
