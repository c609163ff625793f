"""How is a VGG for small images built, with or without batch normalisation: the first network of Figure 1.

Shapes: images (N, C, S, S) in, logits (N, classes) out.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from decaylab.errors import DecaylabError
from decaylab.models.initialisation import he_

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


class VGG(nn.Module):
    """A VGG (Simonyan and Zisserman 2015) whose poolings bring the image down to one position.

    Stages of 3x3 convolutions with an activation, each stage ended by a 2x2 max-pooling, then a classifier of linear
    maps with activations in between. All maps have biases. He initialisation.

    Args:
        stages: For each stage, the output channels of its convolutions; the images are 2**len(stages) wide.
        num_hidden: Number of hidden linear maps before the head, each as wide as the last stage.
        num_classes: Number of logits.
        in_channels: Colours of the images.
        batch_norm: Normalise the output of every convolution.
        activation: ``"relu"`` or ``"gelu"``.

    Raises:
        DecaylabError: For an unknown activation.
    """

    def __init__(
        self,
        stages: tuple[tuple[int, ...], ...],
        *,
        num_hidden: int,
        num_classes: int,
        in_channels: int,
        batch_norm: bool,
        activation: Literal["relu", "gelu"] = "relu",
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise DecaylabError(f"activation must be one of {', '.join(_ACTIVATIONS)}, not {activation!r}")
        act = _ACTIVATIONS[activation]
        self.image_size = 2 ** len(stages)
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in stages:
            for out in stage:
                layers.append(nn.Conv2d(channels, out, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(out))
                layers.append(act())
                channels = out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        hidden: list[nn.Module] = []
        for _ in range(num_hidden):
            hidden += [nn.Linear(channels, channels), act()]
        self.classifier = nn.Sequential(*hidden, nn.Linear(channels, num_classes))
        he_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, S, S).

        Raises:
            DecaylabError: When the images do not have the size that this network pools down to one position.
        """
        if x.shape[-2:] != (self.image_size, self.image_size):
            height, width = x.shape[-2:]
            size = self.image_size
            raise DecaylabError(
                f"this VGG takes images of {size} x {size} pixels, not {height} x {width}: "
                "vgg16 is for 32 x 32 (CIFAR), vgg_small for 8 x 8 (digits)"
            )
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def vgg16(
    num_classes: int = 10,
    in_channels: int = 3,
    batch_norm: bool = False,
    width: int = 64,
    activation: Literal["relu", "gelu"] = "relu",
) -> VGG:
    """Build VGG-16 (configuration D) for 32x32 images.

    Thirteen convolutions of ``width`` times 1, 2, 4, 8, 8 channels and a classifier of three linear maps of width 8
    ``width``, as in the paper's code; 15.25M parameters at width 64 with ten classes.
    """
    w = width
    stages = ((w,) * 2, (2 * w,) * 2, (4 * w,) * 3, (8 * w,) * 3, (8 * w,) * 3)
    return VGG(
        stages,
        num_hidden=2,
        num_classes=num_classes,
        in_channels=in_channels,
        batch_norm=batch_norm,
        activation=activation,
    )


def vgg_small(
    num_classes: int = 10,
    in_channels: int = 1,
    batch_norm: bool = False,
    width: int = 8,
    activation: Literal["relu", "gelu"] = "relu",
) -> VGG:
    """Build the small relative of VGG-16 for 8x8 images.

    Six convolutions of ``width`` times 1, 2, 4 channels and a classifier of two linear maps; 19,426 parameters at
    width 8 with one input channel and ten classes.
    """
    w = width
    stages = ((w,) * 2, (2 * w,) * 2, (4 * w,) * 2)
    return VGG(
        stages,
        num_hidden=1,
        num_classes=num_classes,
        in_channels=in_channels,
        batch_norm=batch_norm,
        activation=activation,
    )
