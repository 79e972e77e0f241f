"""Recipe: what a name stands for, before any weights are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from torch import Tensor, nn

from faithmap.geometry import Geometry

State: TypeAlias = dict[str, Tensor]


class Shown(NamedTuple):
    """What a model is shown of a photograph: its geometry, then (x - mean) / std of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    geometry: Geometry


class Trained(NamedTuple):
    """A module with its weights, their digest, and the names of its classes."""

    module: nn.Module
    digest: str
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class Recipe:
    """How to make a model.

    Args:
        name: in full, as `load` takes it.
        shown: of a photograph.
        labels: of the published weights' classes.
        build: an untrained module with that many classes; None for as many as it was published with.
        publish: the module with its published weights, which this may download.
        rename: brings the keys of a published file into the form that the built module has.
    """

    name: str
    shown: Shown
    labels: tuple[str, ...] | None
    build: Callable[[int | None], nn.Module]
    publish: Callable[[], Trained]
    rename: Callable[[State], State] = lambda state: state
