"""Data sets: one row for each, with its size, how it is read, and how it comes onto a machine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from decaylab.components.lookup import Builder, Options, built, find, first_line, fitting, index, parameters
from decaylab.errors import DecaylabError


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """What there is to know of a set of images with labels.

    Attributes:
        name: Its name in configurations.
        help: What it is, one line.
        read: Reads it: called with the data set's name and, by name, ``train_size``, ``seed``, ``root`` and
            ``options``; returns `decaylab.data.images.Images`.
        splits: Whether reading draws ``train_size`` training images by the seed; otherwise it reads all of them.
        channels: Colours of an image; None for sizes that are known when it is read.
        image_size: Width and height of an image.
        train_size: Training images, all of them.
        embedded: Whether it is on every machine that has the package.
        download: What fetching it moves over the network.
        find: Raises a `DecaylabError` where its files are not on this machine; called with its name and the folder to
            look in, or None.
        fetch: Puts its files onto this machine and returns their folder; called with its name, with files that are
            there already, or None, and with whether to show ``progress``.
        digest: Returns a digest of its files, for data sets that are fetched; called with its name.
        takes_options: Whether it has settings beyond the data's, given as ``options``.
    """

    name: str
    help: str
    read: Builder
    splits: bool = False
    channels: int | None = None
    image_size: int | None = None
    train_size: int | None = None
    embedded: bool = False
    download: str = ""
    find: Builder | None = None
    fetch: Builder | None = None
    digest: Builder | None = None
    takes_options: bool = False

    def load(self, train_size: int | None, seed: int, root: Any = None, options: Options = ()) -> Any:
        """Read the images and labels, as `decaylab.data.images.Images`."""
        return built(self.read)(self.name, train_size=train_size, seed=seed, root=root, options=options)

    def require(self, root: Any = None) -> None:
        """Return when its files are on this machine.

        Raises:
            DecaylabError: They are not; the message names the command that gets them.
        """
        if self.find is not None:
            built(self.find)(self.name, root)


@dataclass(frozen=True, kw_only=True)
class TextData:
    """What there is to know of a corpus.

    Attributes:
        name: Its name in configurations.
        help: What it is, one line.
        open: Opens it: called with its name, returns a `decaylab.data.corpus.Corpus`. None where its tokens are
            prepared beforehand.
        embedded: Whether it is on every machine that has the package.
        download: What fetching it moves over the network.
        prepared: Returns the folder of its tokens, where they are prepared beforehand; called with the tokenizer's
            name, raises a `DecaylabError` where they are not on this machine.
    """

    name: str
    help: str
    open: Builder | None = None
    embedded: bool = False
    download: str = ""
    prepared: Builder | None = None


IMAGE_DATA: dict[str, ImageData] = index(
    (
        ImageData(
            name="digits",
            help="1,797 handwritten digits of 8 x 8 pixels, 10 classes (scikit-learn)",
            read="decaylab.data.digits:read",
            splits=True,
            channels=1,
            image_size=8,
            train_size=1797,
            embedded=True,
        ),
        ImageData(
            name="cifar10",
            help="60,000 photographs of 32 x 32 pixels, 10 classes",
            read="decaylab.data.cifar:read",
            channels=3,
            image_size=32,
            train_size=50_000,
            download="162 MB",
            find="decaylab.data.cifar:find_cifar",
            fetch="decaylab.data.cifar:get_cifar",
            digest="decaylab.data.cifar:cifar_digest",
        ),
        ImageData(
            name="cifar100",
            help="60,000 photographs of 32 x 32 pixels, 100 classes",
            read="decaylab.data.cifar:read",
            channels=3,
            image_size=32,
            train_size=50_000,
            download="161 MB",
            find="decaylab.data.cifar:find_cifar",
            fetch="decaylab.data.cifar:get_cifar",
            digest="decaylab.data.cifar:cifar_digest",
        ),
    )
)

TEXT_DATA: dict[str, TextData] = index(
    (
        TextData(
            name="stdlib",
            help="the sources of this Python's standard library, about 12 MB",
            open="decaylab.data.corpus:standard_library",
            embedded=True,
        ),
        TextData(
            name="openwebtext",
            help="8 million web pages, 9 billion GPT-2 tokens",
            prepared="decaylab.data.openwebtext:prepared_folder",
            download="about 24 GB",
        ),
    )
)


def image_data(name: str) -> ImageData:
    """Return the row of a set of images.

    Args:
        name: A name in `IMAGE_DATA`, that of a plugin (entry point ``dataset.NAME``), or a reference: a row, or a
            function that returns ``(train_x, train_y, test_x, test_y)``, images (N, C, S, S) or (N, S, S) and labels
            (N,) as arrays. It may take ``seed`` and ``train_size``, and takes the data's ``options``.

    Raises:
        DecaylabError: There is none of that name.
    """
    return find("dataset", name, IMAGE_DATA, _adopt_images)


def text_data(name: str) -> TextData:
    """Return the row of a corpus.

    Args:
        name: A name in `TEXT_DATA`, that of a plugin (entry point ``dataset.NAME``), or a reference: a row, or a
            function without arguments that returns the text: one string, or two, to train and to validate on.

    Raises:
        DecaylabError: There is none of that name.
    """
    return find("dataset", name, TEXT_DATA, _adopt_text, forms=["folder:PATH"])


def _adopt_images(name: str, found: Any) -> ImageData:
    if isinstance(found, ImageData):
        return dataclasses.replace(found, name=name)
    if isinstance(found, TextData) or not callable(found):
        raise DecaylabError(f"{name} is no set of images: expected a function that returns images and labels as arrays")

    def read(name: str, train_size: int | None, seed: int, root: Any, options: Options) -> Any:
        arrays = fitting(found, name, {"train_size": train_size, "seed": seed, "root": root}, options)
        return built("decaylab.data.images:from_arrays")(name, arrays)

    splits = "train_size" in parameters(found)[0]
    return ImageData(name=name, help=first_line(found), read=read, splits=splits, takes_options=True)


def _adopt_text(name: str, found: Any) -> TextData:
    if isinstance(found, TextData):
        return dataclasses.replace(found, name=name)
    if isinstance(found, ImageData) or not callable(found):
        raise DecaylabError(f"{name} is no text: expected a function that returns one string, or two")
    opened = lambda name: built("decaylab.data.corpus:from_text")(name, fitting(found, name, {}))  # noqa: E731
    return TextData(name=name, help=first_line(found), open=opened)
