r"""Sensitivity (Yeh et al. 2019): how far does the heatmap move when the image hardly does?

.. math:: S(e) = \frac{\|\Phi(x + e) - \Phi(x)\|}{\|\Phi(x)\|}, \qquad \|e\|_\infty \le r

The maximum and the mean of S over draws of e, uniform in that ball. Norms are Euclidean, over the cells of the map as the
explainer returns it. x + e is cut to the range of images, which keeps e in the ball.

What is compared is two maps of one class with one set of random numbers: the class is settled on the clean images, and an
explainer that draws gets, for an image and all its disturbed versions, generators of the same seed.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.metrics.functional.draws import streamed, uniform
from faithmap.model import check_images
from faithmap.score import Target, target_of
from faithmap.seeds import Generators, resolve_generators
from faithmap.warning_types import EmptyHeatmapWarning, suppressed

TOLERANCE = 1e-3
"""By how much pixels may lie outside the limits, as they do after resizing."""


class Explains(Protocol):
    """An explainer, or any function from images to maps.

    A parameter of the name ``target`` is given the classes, one of the name ``generator`` a generator for each image. The
    answer is an Explanation, or a tensor whose first dimension is the images.
    """

    def __call__(self, images: Tensor, /, *args: Any, **kwargs: Any) -> Explanation | Tensor:
        """Maps of the images."""


@dataclass(frozen=True, eq=False)
class SensitivityResult:
    """How far each image's map moved, in double precision.

    Attributes:
        changes: of every draw, relative to the clean map. Against a clean map of zeros, another of zeros
            is 0 and anything else infinite.
        radius: of the ball, in pixel units.
    """

    changes: Float[Tensor, "n k"]
    radius: float

    @property
    def maximum(self) -> Float[Tensor, " n"]:
        """The largest change of each image."""
        return self.changes.amax(dim=1)

    @property
    def mean(self) -> Float[Tensor, " n"]:
        """The mean change of each image."""
        return self.changes.mean(dim=1)

    def __len__(self) -> int:
        return len(self.changes)

    def __getitem__(self, image: int) -> SensitivityResult:
        """The result of one image, still with a leading dimension of 1."""
        return replace(self, changes=self.changes[image].unsqueeze(0))


def sensitivity(
    explainer: Explains,
    images: Float[Tensor, "n c h w"],
    target: Target = None,
    *,
    radius: float = 0.02,
    draws: int = 10,
    limits: tuple[float, float] | None = (0.0, 1.0),
    seed: int = 0,
    generator: Generators = None,
    chunk_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> SensitivityResult:
    """Disturb each image a few times, and measure how far its map moves.

    Args:
        explainer: as :class:`Explains` says.
        images: what is explained.
        target: the explained class, as the explainer takes it; None for the one that it tells of the clean images.
        radius: r, in pixel units.
        draws: disturbed versions of each image.
        limits: the range of images, to which the disturbed ones are cut; None for a model that takes other units than [0, 1].
        seed: of the run; each image gets its own from it and its index.
        generator: one for the run, or one an image; None for ``seed``.
        chunk_size: images in one call of the explainer at the most.
        progress: called with (disturbed maps done, disturbed maps in all).

    Raises:
        ValueError: for images outside the limits, settings that do not exist, a target that the explainer does not take
            or tell, or maps that hold NaN.
    """
    if not radius >= 0 or draws < 1 or chunk_size < 1:
        raise ValueError(
            f"radius, draws and chunk_size are {radius}, {draws}, {chunk_size}; give 0 or more, and at least 1 each"
        )
    check_images(nn.Identity(), images)
    images = images.detach()
    low, high = _bounds(images, limits)
    generators = resolve_generators(generator, seed, len(images), images.device)
    asked = _Asked(explainer, [int(torch.randint(2**62, (), generator=g, device=g.device)) for g in generators])
    clean = asked.clean(images, target, chunk_size)
    changes: list[Tensor] = []
    for parts in streamed(len(images), draws, chunk_size):
        index = torch.cat([torch.full((count,), i, device=images.device) for i, count in parts])
        noise = torch.cat([uniform(count, images.shape[1:], generators[i]).to(images) for i, count in parts])
        shown = noise.mul_(2).sub_(1).mul_(radius).add_(images[index])
        maps = asked.disturbed(shown.clamp_(low[index], high[index]) if limits is not None else shown, index)
        changes.append(relative_change(maps, clean[index]))
        if progress is not None:
            progress(sum(map(len, changes)), len(images) * draws)
    return SensitivityResult(torch.cat(changes).view(len(images), draws), radius)


def relative_change(maps: Float[Tensor, "m ..."], clean: Float[Tensor, "m ..."]) -> Float[Tensor, " m"]:
    """The norm of the difference over the norm of the clean map; 0 of 0 is 0, anything else of 0 is infinite.

    >>> relative_change(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 4.0], [0.0, 0.0], [0.0, 0.0]]))
    tensor([0.7500, 0.0000,    inf], dtype=torch.float64)
    """
    before = clean.flatten(1).double()
    moved = (maps.flatten(1).double() - before).norm(dim=1)
    return torch.where(moved > 0, moved / before.norm(dim=1), 0.0)


@dataclass
class _Asked:
    """An explainer that is asked twice about an image: the same class, the same random numbers."""

    explainer: Explains
    seeds: list[int]
    target: Target = None
    takes: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.takes = _parameters(self.explainer)

    def clean(self, images: Tensor, target: Target, chunk_size: int) -> Tensor:
        """The maps of the clean images; from then on the class is settled."""
        if target is not None and "target" not in self.takes:
            raise ValueError(f"a target was given, but the explainer takes {', '.join(self.takes)}; name a parameter 'target'")
        self.target = _as_classes(target, images)
        parts = torch.arange(len(images), device=images.device).split(chunk_size)
        answers = [self._ask(images[part], part) for part in parts]
        told = [classes for _, classes in answers if classes is not None]
        self.target = torch.cat(told) if told else self.target
        if self.target is None and "target" in self.takes:
            raise ValueError("target is None, and the explainer does not tell which class it explained; give a target")
        maps = torch.cat([values for values, _ in answers])
        for i in (maps.flatten(1) == 0).all(dim=1).nonzero().flatten().tolist():
            words = f"image {i}: the clean heatmap is zero everywhere, so that no change is small against it"
            warnings.warn(words, EmptyHeatmapWarning, stacklevel=3)
        return maps

    def disturbed(self, images: Tensor, index: Int[Tensor, " m"]) -> Tensor:
        """The maps of disturbed versions of some of the images."""
        with suppressed():  # what there is to say was said of the clean images
            maps, classes = self._ask(images, index)
        if classes is not None and isinstance(self.target, Tensor) and not torch.equal(classes, self.target[index]):
            raise ValueError("the explainer chose another class for a disturbed image; give it a parameter 'target'")
        return maps

    def _ask(self, images: Tensor, index: Int[Tensor, " m"]) -> tuple[Tensor, Int[Tensor, " m"] | None]:
        named: dict[str, Any] = {}
        if "target" in self.takes:
            named["target"] = target_of(self.target, index)
        if "generator" in self.takes:
            named["generator"] = [torch.Generator(images.device).manual_seed(self.seeds[i]) for i in index.tolist()]
        with torch.enable_grad():
            answer = self.explainer(images, **named)
        maps = (answer.heatmap if isinstance(answer, Explanation) else answer).detach()
        if len(maps) != len(images) or not bool(maps.isfinite().all()):
            raise ValueError(
                f"the explainer made maps of shape {tuple(maps.shape)} for {len(images)} images, or NaN; give one each"
            )
        return maps, answer.target if isinstance(answer, Explanation) else None


def _parameters(explainer: Explains) -> frozenset[str]:
    """What an explainer can be given by name; a module is known by its forward."""
    called: Callable[..., object] = explainer.forward if isinstance(explainer, nn.Module) else explainer
    try:
        return frozenset(inspect.signature(called).parameters)
    except ValueError:  # built in, without a signature
        return frozenset({"images"})


def _as_classes(target: Target, images: Tensor) -> Target:
    """One class per image as a tensor, so that it can follow its image."""
    if not isinstance(target, (Tensor, Sequence)):
        return target
    classes = torch.as_tensor(target, device=images.device)
    if classes.ndim > 1 or (classes.ndim == 1 and len(classes) != len(images)):
        count = f"{len(classes)} {'entry' if len(classes) == 1 else 'entries'}"
        raise ValueError(f"target has {count} for {len(images)} images; give one class per image, or an int for all")
    return classes.expand(len(images))


def _bounds(images: Tensor, limits: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    """The limits, and beyond them what an image holds itself."""
    if limits is None:
        return images, images
    low, high = float(images.min()), float(images.max())
    if low < limits[0] - TOLERANCE or high > limits[1] + TOLERANCE:
        raise ValueError(
            f"pixels range from {low:.3g} to {high:.3g}, outside the limits {limits}; give limits=None for other units"
        )
    return images.clamp(max=limits[0]), images.clamp(min=limits[1])
