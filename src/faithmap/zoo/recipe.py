"""Recipe: what a name stands for before weights are read, with its errors and its class labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from torch import Tensor, nn

from faithmap.geometry import Geometry
from faithmap.text import one_line

ModelState: TypeAlias = dict[str, Tensor]


class Preprocessing(NamedTuple):
    """From an image to a model's input: its geometry, then (x - mean) / std of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    geometry: Geometry


class TrainedModule(NamedTuple):
    """A module with weights, their digest, and the labels of its classes."""

    module: nn.Module
    digest: str
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class Recipe:
    """How to build a model.

    Args:
        name: the full name for `load`.
        preprocessing: of images.
        labels: of the published weights' classes.
        build: returns an untrained module with a number of classes; None for the published number.
        publish: returns the module with its published weights, which it may download.
        rename: maps the keys of a published file to those of the built module.
    """

    name: str
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    build: Callable[[int | None], nn.Module]
    publish: Callable[[], TrainedModule]
    rename: Callable[[ModelState], ModelState] = lambda state: state


class ModelError(ValueError):
    """A model cannot be loaded. The message is one line: the model or file, what is wrong with it, what to do.

    >>> from faithmap import load
    >>> load("efficientnet_lite9")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    faithmap.zoo.recipe.ModelError: 'efficientnet_lite9': is no model; ...
    """


def refusal(name: str, problem: object, remedy: str) -> ModelError:
    """The error to raise, with control characters escaped, because names and messages come from files and servers."""
    return ModelError(one_line(f"{name}: {problem}; {remedy}"))


@contextmanager
def refusing(name: str, problem: str, remedy: str) -> Iterator[None]:
    """Turn any exception inside into a ModelError that ends with the first line of its message."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise refusal(name, f"{problem} ({_first_line(error)})", remedy) from error


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].removesuffix(".")[:160] if lines else type(error).__name__


def imagenet_labels() -> tuple[str, ...]:
    """Short and unique labels of ImageNet-1k, in the usual order of its classes.

    These are torchvision's, which distinguish ``crane`` from ``crane bird`` and ``maillot`` from ``maillot tank suit``. The
    first WordNet lemma, which timm has, is the same for both.

    >>> imagenet_labels()[282], len(set(imagenet_labels()))
    ('tiger cat', 1000)
    """
    from torchvision.models import ResNet18_Weights  # noqa: PLC0415 - takes a second

    return tuple(ResNet18_Weights.DEFAULT.meta["categories"])


def short_labels(names: Sequence[str]) -> tuple[str, ...]:
    """The first synonym of each class, or all synonyms if the first is that of two classes.

    >>> short_labels(["tench, Tinca tinca", "crane", "crane, bird"])
    ('tench', 'crane', 'crane, bird')
    """
    firsts = [name.split(",")[0].strip() for name in names]
    count = Counter(firsts)
    return tuple(first if count[first] == 1 else name for first, name in zip(firsts, names, strict=True))
