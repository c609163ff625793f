"""The networks of the experiments, built from plain keyword arguments."""

from decaylab.models.gpt2 import GPT
from decaylab.models.preact_resnet import PreActResNet, preact_resnet
from decaylab.models.vgg import VGG, vgg16, vgg_small

__all__ = ["GPT", "VGG", "PreActResNet", "preact_resnet", "vgg16", "vgg_small"]
