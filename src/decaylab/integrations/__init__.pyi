from .lightning import LightningCallback as LightningCallback
from .trackers import MlflowSink as MlflowSink
from .trackers import TensorBoardSink as TensorBoardSink
from .trackers import WandbSink as WandbSink
from .trackers import open_sink as open_sink
from .transformers import TransformersCallback as TransformersCallback
