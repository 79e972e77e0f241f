r"""Sensitivity (Yeh et al. 2019): relative change of the heatmap under small perturbations of the image.

.. math:: S(e) = \frac{\|\Phi(x + e) - \Phi(x)\|}{\|\Phi(x)\|}, \qquad \|e\|_\infty \le r

The maximum and the mean of S over draws of e, uniform in that ball. Norms are Euclidean, over the cells of the map as the
explainer returns it. x + e is clipped to the range of images, which keeps e in the ball.

Both maps explain the same class with the same random numbers: the class is resolved on the clean images, and an explainer that
draws random numbers gets generators of the same seed for an image and all its perturbed versions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.metrics.functional.curves import Progress
from faithmap.model import check_images, working_images
from faithmap.score import Target, target_of
from faithmap.seeds import Generators, chunked_draws, resolve_generators, uniform_draws
from faithmap.warning_types import EmptyHeatmapWarning, suppressed, warn

PIXEL_TOLERANCE = 1e-3
"""How far pixels may lie outside the limits, because of resizing."""


class HeatmapFunction(Protocol):
    """An explainer, or any function from images to maps.

    A parameter named ``target`` receives the classes, a parameter named ``generator`` one generator per image. The function
    returns an Explanation, or a tensor whose first dimension is the images.

    >>> def brightness(images): return images.mean(dim=1)
    >>> function: HeatmapFunction = brightness
    """

    def __call__(self, images: Tensor, /, *args: Any, **kwargs: Any) -> Explanation | Tensor:
        """Maps of the images."""


@dataclass(frozen=True, eq=False)
class SensitivityResult:
    """Relative change of each image's map, in double precision.

    >>> result = SensitivityResult(torch.tensor([[0.1, 0.3]]), radius=0.02)
    >>> result.maximum, result.mean
    (tensor([0.3000]), tensor([0.2000]))

    Attributes:
        changes: of every draw, relative to the clean map. For a clean map of zeros, the change is 0 if the other map is zero,
            too, and infinite otherwise.
        radius: radius of the ball, in pixel units.
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
    explainer: HeatmapFunction,
    images: Float[Tensor, "n c h w"],
    target: Target = None,
    *,
    radius: float = 0.02,
    draws: int = 10,
    limits: tuple[float, float] | None = (0.0, 1.0),
    seed: int = 0,
    generator: Generators = None,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> SensitivityResult:
    """Perturb each image a few times, and measure the relative change of its map.

    >>> images = torch.rand(2, 3, 4, 4)
    >>> result = sensitivity(lambda images: images.mean(dim=1), images, radius=0.02)
    >>> bool((result.maximum > 0).all()), tuple(result.changes.shape)
    (True, (2, 10))

    Args:
        explainer: an explainer, or a function from images to maps, see :class:`HeatmapFunction`.
        images: the images that are explained.
        target: the explained class, as the explainer takes it; None for the target of the explainer's own result on the clean
            images.
        radius: r, in pixel units, at least 0.
        draws: number of perturbed versions of each image, at least 1.
        limits: the range of images, to which perturbed images are clipped; None for images in other units than [0, 1].
        seed: of the run; the seed of each image is derived from it and the image's index.
        generator: one for the run, or one per image; None for ``seed``.
        chunk_size: maximum number of images per call of the explainer.
        progress: called with (perturbed maps done, number of perturbed maps).

    Raises:
        ValueError: for images outside the limits, invalid settings, a target that the explainer neither takes nor returns,
            or maps that contain NaN.
    """
    if not radius >= 0 or draws < 1 or chunk_size < 1:
        raise ValueError(
            f"radius, draws and chunk_size are {radius}, {draws}, {chunk_size}; give 0 or more, and at least 1 each"
        )
    check_images(nn.Identity(), images)
    images = working_images(nn.Identity(), images)
    low, high = _clip_bounds(images, limits)
    generators = resolve_generators(generator, seed, len(images), images.device)
    fixed = _FixedTargetExplainer(explainer, [int(torch.randint(2**62, (), generator=g, device=g.device)) for g in generators])
    clean = fixed.clean(images, target, chunk_size)
    changes: list[Tensor] = []
    for chunk in chunked_draws(len(images), draws, chunk_size):
        index = torch.cat([torch.full((count,), i, device=images.device) for i, count in chunk])
        noise = torch.cat([uniform_draws(count, images.shape[1:], generators[i]).to(images) for i, count in chunk])
        perturbed = noise.mul_(2).sub_(1).mul_(radius).add_(images[index])
        maps = fixed.perturbed(perturbed.clamp_(low[index], high[index]) if limits is not None else perturbed, index)
        changes.append(relative_change(maps, clean[index]))
        if progress is not None:
            progress(sum(map(len, changes)), len(images) * draws)
    return SensitivityResult(torch.cat(changes).view(len(images), draws), radius)


def relative_change(maps: Float[Tensor, "m ..."], clean: Float[Tensor, "m ..."]) -> Float[Tensor, " m"]:
    """The norm of the difference over the norm of the clean map; 0 / 0 is 0, any other number over 0 is infinite.

    >>> relative_change(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 4.0], [0.0, 0.0], [0.0, 0.0]]))
    tensor([0.7500, 0.0000,    inf], dtype=torch.float64)
    """
    reference = clean.flatten(1).double()
    change = (maps.flatten(1).double() - reference).norm(dim=1)
    return torch.where(change > 0, change / reference.norm(dim=1), 0.0)


@dataclass
class _FixedTargetExplainer:
    """Explains clean and perturbed images with the same classes and the same random numbers."""

    explainer: HeatmapFunction
    seeds: list[int]
    target: Target = None
    parameters: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = _parameter_names(self.explainer)

    def clean(self, images: Tensor, target: Target, chunk_size: int) -> Tensor:
        """The maps of the clean images; resolves the target."""
        if target is not None and "target" not in self.parameters:
            names = ", ".join(self.parameters)
            raise ValueError(f"a target was given, but the explainer takes {names}; name a parameter 'target'")
        self.target = _as_classes(target, images)
        parts = torch.arange(len(images), device=images.device).split(chunk_size)
        results = [self._explain(images[part], part) for part in parts]
        explained = [classes for _, classes in results if classes is not None]
        self.target = torch.cat(explained) if explained else self.target
        if self.target is None and "target" in self.parameters:
            raise ValueError("target is None, and the explainer does not return the class that it explained; give a target")
        maps = torch.cat([values for values, _ in results])
        for i in (maps.flatten(1) == 0).all(dim=1).nonzero().flatten().tolist():
            message = f"image {i}: the clean heatmap is zero everywhere, so that every relative change is infinite"
            warn(message, EmptyHeatmapWarning)
        return maps

    def perturbed(self, images: Tensor, index: Int[Tensor, " m"]) -> Tensor:
        """The maps of perturbed versions of some of the images."""
        with suppressed():  # the clean images already raised the warnings
            maps, classes = self._explain(images, index)
        if classes is not None and isinstance(self.target, Tensor) and not torch.equal(classes, self.target[index]):
            raise ValueError("the explainer chose another class for a perturbed image; give it a parameter 'target'")
        return maps

    def _explain(self, images: Tensor, index: Int[Tensor, " m"]) -> tuple[Tensor, Int[Tensor, " m"] | None]:
        arguments: dict[str, Any] = {}
        if "target" in self.parameters:
            arguments["target"] = target_of(self.target, index)
        if "generator" in self.parameters:
            arguments["generator"] = [torch.Generator(images.device).manual_seed(self.seeds[i]) for i in index.tolist()]
        with torch.enable_grad():
            result = self.explainer(images, **arguments)
        maps = (result.heatmap if isinstance(result, Explanation) else result).detach()
        if len(maps) != len(images) or not bool(maps.isfinite().all()):
            raise ValueError(
                f"the explainer returned maps of shape {tuple(maps.shape)} for {len(images)} images, or NaN; give one each"
            )
        return maps, result.target if isinstance(result, Explanation) else None


def _parameter_names(explainer: HeatmapFunction) -> frozenset[str]:
    """Names of an explainer's parameters; of a module, those of its forward."""
    called: Callable[..., object] = explainer.forward if isinstance(explainer, nn.Module) else explainer
    try:
        return frozenset(inspect.signature(called).parameters)
    except ValueError:  # a built-in function without a signature
        return frozenset({"images"})


def _as_classes(target: Target, images: Tensor) -> Target:
    """One class per image as a tensor."""
    if not isinstance(target, (Tensor, Sequence)):
        return target
    classes = torch.as_tensor(target, device=images.device)
    if classes.ndim > 1 or (classes.ndim == 1 and len(classes) != len(images)):
        count = f"{len(classes)} {'entry' if len(classes) == 1 else 'entries'}"
        raise ValueError(f"target has {count} for {len(images)} images; give one class per image, or an int for all")
    return classes.expand(len(images))


def _clip_bounds(images: Tensor, limits: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    """The limits, or the value of the pixel itself if it lies outside them."""
    if limits is None:
        return images, images
    low, high = float(images.min()), float(images.max())
    if low < limits[0] - PIXEL_TOLERANCE or high > limits[1] + PIXEL_TOLERANCE:
        raise ValueError(
            f"pixels range from {low:.3g} to {high:.3g}, outside the limits {limits}; give limits=None for other units"
        )
    return images.clamp(max=limits[0]), images.clamp(min=limits[1])
