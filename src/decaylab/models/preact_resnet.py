"""How is a pre-activation ResNet built, with or without scale invariance: the network of Figures 1 to 3.

Shapes: images (N, C, H, W) in, logits (N, classes) out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from decaylab.errors import DecaylabError
from decaylab.models.initialisation import he_

# depth -> blocks per stage; every stage after the first halves the image and doubles the channels.
_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
Activation = Callable[[Tensor], Tensor]
Norm = Callable[[int], nn.BatchNorm2d]
_ACTIVATIONS: dict[str, Activation] = {"relu": F.relu, "gelu": F.gelu}


class PreActResNet(nn.Module):
    """Pre-activation ResNet (He et al. 2016, identity mappings) for small images.

    Each block computes, with a the activation and BN batch normalisation,

        z = a(BN(h));   h <- shortcut + conv3x3(a(BN(conv3x3(z))))

    where the shortcut is h itself, or a 1x1 convolution of z where the shape changes. After the last stage: BN,
    activation, mean over positions, linear head.

    With ``scale_invariant=True`` the logits do not change when all trainable parameters are multiplied by one c > 0
    (Li et al. 2020, as appendix A of the paper describes): the head is fixed at its initial value, no normalisation has
    learnable parameters, and the input of each 1x1 shortcut is normalised too. The residual stream is then homogeneous
    of degree one in the parameters, and everything that reads it normalises first. Convolutions have no biases, because
    the normalisations would remove them. ``norm_eps`` is close to zero in that case: 1e-5 is a few per cent of the
    variances that occur on the unit sphere, and would break the invariance. The invariance is one of training mode
    (batch statistics); in evaluation mode the running statistics belong to the scale they were collected at.

    Args:
        stages: Number of blocks in each stage.
        num_classes: Number of logits.
        in_channels: Colours of the images.
        width: Channels of the first stage.
        scale_invariant: See above.
        activation: ``"relu"`` or ``"gelu"``.
        input_norm: Normalise the images' channels by the batch before the first convolution.
        norm_eps: Added to the variance in every BN; None: 1e-5, or 1e-12 with ``scale_invariant``.

    Raises:
        DecaylabError: For an unknown activation.
    """

    def __init__(
        self,
        stages: tuple[int, ...],
        *,
        num_classes: int,
        in_channels: int,
        width: int,
        scale_invariant: bool = False,
        activation: Literal["relu", "gelu"] = "relu",
        input_norm: bool = True,
        norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise DecaylabError(f"activation must be one of {', '.join(_ACTIVATIONS)}, not {activation!r}")
        if norm_eps is None:
            norm_eps = 1e-12 if scale_invariant else 1e-5
        norm = partial(nn.BatchNorm2d, eps=norm_eps, affine=not scale_invariant)
        self.activation = _ACTIVATIONS[activation]
        self.scale_invariant = scale_invariant
        self.norm_in = norm(in_channels) if input_norm else nn.Identity()
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        channels = width
        for stage, num_blocks in enumerate(stages):
            for index in range(num_blocks):
                out, stride = width * 2**stage, 2 if stage and not index else 1
                blocks.append(_Block(channels, out, stride, norm, self.activation, scale_invariant))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.norm_out = norm(channels)
        self.head = nn.Linear(channels, num_classes)
        he_(self)
        if scale_invariant:
            self.head.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W)."""
        h = self.blocks(self.conv_in(self.norm_in(x)))
        logits: Tensor = self.head(self.activation(self.norm_out(h)).mean((2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(
        self, channels: int, out: int, stride: int, norm: Norm, activation: Activation, scale_invariant: bool
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm1 = norm(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.norm2 = norm(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels != out:
            projection = nn.Conv2d(channels, out, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(norm(channels), projection) if scale_invariant else projection

    def forward(self, h: Tensor) -> Tensor:
        z = self.activation(self.norm1(h))
        branch: Tensor = self.conv2(self.activation(self.norm2(self.conv1(z))))
        return branch + (h if self.shortcut is None else self.shortcut(z))


def preact_resnet(
    depth: int | Literal["small"] = 18,
    num_classes: int = 10,
    in_channels: int = 3,
    width: int = 64,
    scale_invariant: bool = False,
    activation: Literal["relu", "gelu"] = "relu",
    blocks: int = 2,
    input_norm: bool | None = None,
    norm_eps: float | None = None,
) -> PreActResNet:
    """Build a pre-activation ResNet by its depth.

    Args:
        depth: 18 or 34 (four stages; 11.17M and 21.28M parameters at width 64 with ten classes), or ``"small"``: three
            stages of ``blocks`` blocks for small images (44,130 parameters at width 8 with one input channel).
        num_classes: Number of logits.
        in_channels: Colours of the images.
        width: Channels of the first stage.
        scale_invariant: Make the logits invariant to the scale of the trainable parameters, see `PreActResNet`.
        activation: ``"relu"`` or ``"gelu"``.
        blocks: Blocks per stage of the small network; 18 and 34 have their own numbers.
        input_norm: Normalise the images by the batch first; None: yes for 18 and 34, as the paper's code does, and no
            for the small one.
        norm_eps: See `PreActResNet`.

    Raises:
        DecaylabError: For an unknown depth.
    """
    if depth != "small" and depth not in _STAGES:
        raise DecaylabError(f"depth must be 18, 34 or 'small', not {depth!r}")
    return PreActResNet(
        (blocks,) * 3 if depth == "small" else _STAGES[depth],
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
        scale_invariant=scale_invariant,
        activation=activation,
        input_norm=depth != "small" if input_norm is None else input_norm,
        norm_eps=norm_eps,
    )
