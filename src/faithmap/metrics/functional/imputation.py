r"""Noisy linear imputation: a removed pixel becomes the weighted mean of its neighbours, and a little noise (Rong et al. 2022).

With :math:`N(i)` the up to eight neighbours of pixel i,

.. math:: x_i = \sum_{j \in N(i)} w_{ij} x_j \Big/ \sum_{j \in N(i)} w_{ij} + \varepsilon_i,
          \qquad w = \tfrac16 \text{ along edges}, \tfrac1{12} \text{ along diagonals}

for all removed pixels at once: a linear system, since neighbours may be removed too. The noise is added to its solution.
Source: "A Consistent and Efficient Evaluation Strategy for Attribution Methods". What it leaves open:

- Neighbours outside the image do not count, and the weights of the others are scaled up to a sum of 1, as in the authors' code.
- Where everything is removed nothing is known, and every constant solves the system. The image's mean colour is taken: a
  single pixel that is left makes everything its own colour, and this is the mean over that pixel.
- Values are not cut to [0, 1]: the solution never leaves the range of the known pixels, and the noise may by a few hundredths.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from faithmap.metrics.functional.multigrid import neighbours, solve
from faithmap.score import at_least_single
from faithmap.seeds import Generators, resolve_generators

TOLERANCE = 1e-5
"""A thousandth of the noise; and what a pixel is rounded by in single precision is about a hundredth of it."""


@torch.no_grad()
def linear_imputation(
    images: Float[Tensor, "m c h w"],
    removed: Bool[Tensor, "m h w"],
    *,
    tolerance: float = TOLERANCE,
    max_iterations: int = 100,
) -> Float[Tensor, "m c h w"]:
    """Fill the removed pixels of each image, without noise.

    Args:
        images: in [0, 1], or of any other range.
        removed: the pixels that are not known.
        tolerance: of the largest error of a pixel, in the images' units. Images in half precision are solved in single.
        max_iterations: of the solver; 5 to 12 are usual.

    Raises:
        ValueError: for masks that do not fit the images, or a tolerance that is finer than the images' precision.
        RuntimeError: if the tolerance is not met.

    >>> linear_imputation(torch.tensor([[[[0.0, 9.0, 1.0]]]]), torch.tensor([[[False, True, False]]]))
    tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    if removed.dtype != torch.bool or removed.shape != (len(images), *images.shape[-2:]):
        given = f"{str(removed.dtype).removeprefix('torch.')} of shape {tuple(removed.shape)}"
        raise ValueError(f"removed is {given} for images of shape {tuple(images.shape)}; give bool (images, rows, columns)")
    if not tolerance > 0 or max_iterations < 1:
        raise ValueError(f"tolerance is {tolerance} and max_iterations {max_iterations}; give more than 0, and at least 1")
    exact = at_least_single(images)
    nothing_left = removed.all(dim=2).all(dim=1).view(-1, 1, 1, 1)
    free = removed.unsqueeze(1) & ~nothing_left
    low = exact.masked_fill(free, torch.inf).amin(dim=(2, 3), keepdim=True)
    high = exact.masked_fill(free, -torch.inf).amax(dim=(2, 3), keepdim=True)
    resolved = 10 * torch.finfo(exact.dtype).eps * float(torch.maximum(high, -low).max())
    if tolerance < resolved:
        raise ValueError(f"tolerance is {tolerance:.2g}, but {exact.dtype} resolves about {resolved:.1g}; give at least that")
    middle = (low + high) / 2  # what is solved for is the distance from it, which rounds less
    known = (exact - middle).masked_fill(free, 0)
    b = neighbours(known) * free
    x = solve(free.squeeze(1), b, tolerance=tolerance, max_iterations=max_iterations) + middle
    x = torch.where(nothing_left, exact.mean(dim=(2, 3), keepdim=True), x.clamp(low, high))
    return torch.where(removed.unsqueeze(1), x.to(images.dtype), images)


@torch.no_grad()
def noisy_linear_imputation(
    images: Float[Tensor, "m c h w"],
    removed: Bool[Tensor, "m h w"],
    *,
    noise_std: float = 0.01,
    seed: int = 0,
    generator: Generators = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = 100,
) -> Float[Tensor, "m c h w"]:
    """Fill the removed pixels of each image, with noise.

    Args:
        images: in [0, 1].
        removed: the pixels that are not known.
        noise_std: of the Gaussian noise on every removed pixel, in the images' units.
        seed: of the noise, from which each image has its own.
        generator: instead of the seed: one, or one for each image.
        tolerance: as for :func:`linear_imputation`.
        max_iterations: likewise.

    Raises:
        ValueError: as :func:`linear_imputation`, and for a negative noise.
        RuntimeError: likewise.
    """
    generators = resolve_generators(generator, seed, len(images), images.device)
    noise = imputation_noise(images, noise_std, generators)
    filled = linear_imputation(images, removed, tolerance=tolerance, max_iterations=max_iterations)
    return with_noise(filled, noise, removed)


def imputation_noise(
    images: Float[Tensor, "m c h w"], noise_std: float, generators: list[torch.Generator]
) -> Float[Tensor, "m c h w"]:
    """One draw for every pixel of each image."""
    if not noise_std >= 0:
        raise ValueError(f"noise_std is {noise_std}; give 0 or more, in the units of the images")
    dtype = at_least_single(images[:0]).dtype
    draws = [torch.randn(images.shape[1:], generator=g, device=images.device, dtype=dtype) for g in generators]
    return torch.stack(draws) * noise_std


def with_noise(
    filled: Float[Tensor, "m c h w"], noise: Float[Tensor, "m c h w"], removed: Bool[Tensor, "m h w"]
) -> Float[Tensor, "m c h w"]:
    """The noise on the removed pixels alone."""
    return torch.where(removed.unsqueeze(1), (filled + noise).to(filled.dtype), filled)
