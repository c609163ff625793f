from . import sampling as sampling
from .augmentation import augment as augment
from .catalog import available as available
from .labelled_images import VisionSet as VisionSet
from .labelled_images import vision as vision
from .stream import TokenStream as TokenStream
from .text_streams import text as text
