"""Architectures: one row for each, with the settings it reads, the images it takes, its builder and its cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from decaylab.components.lookup import Builder, built, find, first_line, fitting, index
from decaylab.errors import DecaylabError

Kind = Literal["vision", "language"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What there is to know of an architecture.

    Attributes:
        name: Its name in configurations.
        kind: ``vision``: images (N, C, S, S) in, logits (N, classes) out; ``language``: tokens (N, T) in, logits
            (N, T, vocabulary) out.
        help: What it is, one line.
        build: Makes it: a class or function that takes the settings, the facts and the fixed arguments by name.
        settings: Which settings of the model it reads.
        facts: What it takes of the data: ``num_classes``, ``in_channels`` and ``image_size``, or ``vocab_size``.
        fixed: Further arguments, and their values.
        image_size: The only width and height of images that it takes, where there is one.
        instead: What takes images of another size, for the message.
        macs: Multiply-adds of one example, forward, from the model's settings and the image's size (for language: from
            the settings and the vocabulary, of one sequence). None where nobody knows.
        batched: Whether several small networks of it can be trained as one, see `decaylab.train.batched`.
        any_settings: Whether ``build`` is given whichever settings and facts its signature has, and ``options``.
    """

    name: str
    kind: Kind = "vision"
    help: str
    build: Builder
    settings: tuple[str, ...] = ()
    facts: tuple[str, ...] = ("num_classes", "in_channels")
    fixed: Mapping[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    instead: str = ""
    macs: Callable[[Any, int], float] | None = None
    batched: bool = False
    any_settings: bool = False

    def make(self, settings: Any, **facts: Any) -> Any:
        """Make the network with fresh random weights; this imports torch.

        Args:
            settings: The model's settings.
            facts: What the data decides, see ``facts``.
        """
        function = built(self.build)
        if self.any_settings:
            own = {item.name: getattr(settings, item.name) for item in dataclasses.fields(settings)}
            return fitting(function, self.name, own | facts, settings.options)
        given = {name: getattr(settings, name) for name in self.settings}
        return function(**given, **self.fixed, **{name: facts[name] for name in self.facts})

    def reads(self, setting: str) -> bool:
        """Whether it reads a setting of the model."""
        return self.any_settings or setting in self.settings


def _convolutions(millions_at_32: float, *, by_blocks: bool = False) -> Callable[[Any, int], float]:
    """Return the multiply-adds of a network of convolutions, which scale with width^2 and with the image's area.

    Args:
        millions_at_32: Of an image of 32 x 32 pixels at width 64, in millions.
        by_blocks: Whether they also scale with the residual blocks a stage, two being the number they are given for.
    """

    def macs(settings: Any, image_size: int) -> float:
        blocks = settings.blocks / 2 if by_blocks else 1.0
        width: int = settings.width
        return millions_at_32 * 1e6 * (width / 64) ** 2 * (image_size / 32) ** 2 * blocks

    return macs


def _transformer(settings: Any, vocabulary: int) -> float:
    """Return the multiply-adds of one sequence: each weight once a token, and each pair of tokens once a layer."""
    weights = 12 * settings.num_layers * settings.width**2 + vocabulary * settings.width
    return float(settings.context * (weights + settings.num_layers * settings.width * settings.context))


_VGG = ("width", "activation")
_RESNET = ("width", "activation", "scale_invariant")
_GPT = (
    *("num_layers", "num_heads", "width", "context", "bias", "tied", "init_std", "activation"),
    *("branch_norm", "qk_norm", "dropout", "attention"),
)

ARCHITECTURES: dict[str, Architecture] = index(
    (
        Architecture(
            name="vgg16",
            help="VGG with 13 convolutions, for images of 32 x 32 pixels",
            build="decaylab.models.vgg:vgg16",
            fixed={"batch_norm": False},
            settings=_VGG,
            image_size=32,
            instead="vgg_small",
            macs=_convolutions(313),
        ),
        Architecture(
            name="vgg16_bn",
            help="the same with batch normalisation",
            build="decaylab.models.vgg:vgg16",
            fixed={"batch_norm": True},
            settings=_VGG,
            image_size=32,
            instead="vgg_small",
            macs=_convolutions(313),
        ),
        Architecture(
            name="vgg_small",
            help="the same family for images of 8 x 8 pixels",
            build="decaylab.models.vgg:vgg_small",
            settings=_VGG,
            image_size=8,
            instead="vgg16",
            macs=_convolutions(40),
            batched=True,
        ),
        Architecture(
            name="resnet18",
            help="pre-activation residual network of 18 layers",
            build="decaylab.models.preact_resnet:preact_resnet",
            fixed={"depth": 18},
            settings=_RESNET,
            macs=_convolutions(557),
        ),
        Architecture(
            name="resnet34",
            help="pre-activation residual network of 34 layers",
            build="decaylab.models.preact_resnet:preact_resnet",
            fixed={"depth": 34},
            settings=_RESNET,
            macs=_convolutions(1160),
        ),
        Architecture(
            name="resnet_small",
            help="the same family with few stages, for images of 8 x 8 pixels",
            build="decaylab.models.preact_resnet:preact_resnet",
            fixed={"depth": "small"},
            settings=(*_RESNET, "blocks"),
            macs=_convolutions(96, by_blocks=True),
            batched=True,
        ),
    )
)

LANGUAGE_ARCHITECTURES: dict[str, Architecture] = index(
    (
        Architecture(
            name="gpt2",
            kind="language",
            help="GPT-2 style transformer",
            build="decaylab.models.gpt2:GPT",
            settings=_GPT,
            facts=("vocab_size",),
            macs=_transformer,
        ),
    )
)


def architecture(name: str, kind: Kind = "vision") -> Architecture:
    """Return the row of an architecture.

    Args:
        name: A name in `ARCHITECTURES` or `LANGUAGE_ARCHITECTURES`, that of a plugin (entry point
            ``architecture.NAME``), or a reference: a row, or a class or function that returns a module. It is called
            with those of its arguments that are settings of the model or facts of the data (``num_classes``,
            ``in_channels``, ``image_size``; ``vocab_size``), and with the model's ``options``.
        kind: For which kind of run.

    Raises:
        DecaylabError: There is none of that name, or it is of the other kind.
    """
    row = find("architecture", name, ARCHITECTURES if kind == "vision" else LANGUAGE_ARCHITECTURES, _adopter(kind))
    if row.kind != kind:
        raise DecaylabError(f"{name} is an architecture for {row.kind} runs, not for {kind} runs")
    return row


def _adopter(kind: Kind) -> Callable[[str, Any], Architecture]:
    def adopt(name: str, found: Any) -> Architecture:
        if isinstance(found, Architecture):
            return dataclasses.replace(found, name=name)
        if not callable(found):
            raise DecaylabError(f"{name} is no architecture: expected a class or function that returns a torch module")
        return Architecture(name=name, kind=kind, help=first_line(found), build=found, any_settings=True)

    return adopt
