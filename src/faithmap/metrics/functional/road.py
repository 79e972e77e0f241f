r"""ROAD (Rong et al. 2022): does the score fall faster if the most relevant pixels are removed than if the least relevant are?

"Remove and debias": a removed pixel is not replaced by a constant, which would show the shape of the mask to the model, but
imputed from its neighbours. Pixels are ranked by the heatmap at the image's size. With :math:`f_k` the score after the k first
of N pixels were removed, most relevant first (MoRF) or least relevant first (LeRF),

.. math:: ROAD = \frac1{|K|} \sum_{k \in K} \left( f^{LeRF}_k - f^{MoRF}_k \right)

over the chosen fractions :math:`k / N`. Equal pixels are ranked in reading order in both orders, so that a constant map removes
the same pixels twice and scores 0.

Noisy linear imputation: with :math:`N(i)` the up to eight neighbours of pixel i,

.. math:: x_i = \sum_{j \in N(i)} w_{ij} x_j \Big/ \sum_{j \in N(i)} w_{ij} + \varepsilon_i,
          \qquad w = \tfrac16 \text{ along edges}, \tfrac1{12} \text{ along diagonals}

for all removed pixels at once: a linear system, since neighbours may be removed too
(:mod:`faithmap.metrics.functional.multigrid`). The noise is added to its solution. Source: "A Consistent and Efficient
Evaluation Strategy for Attribution Methods". Choices that the paper leaves open:

- Neighbours outside the image do not count, and the other weights are scaled to a sum of 1, as in the authors' code.
- If all pixels are removed, every constant solves the system. The image's mean colour is used: an image with a single known
  pixel takes the colour of that pixel everywhere, and this is the mean over all choices of it.
- Values are not clipped to [0, 1]: the solution stays in the range of the known pixels, and the noise exceeds it by a few
  hundredths at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from faithmap.explanation import Explanation, cell_ranks
from faithmap.metrics.functional.curves import Curve, PreparedInputs, Progress, prepared_inputs
from faithmap.metrics.functional.multigrid import neighbours, solve
from faithmap.probe import run_model
from faithmap.score import Target, at_least_single
from faithmap.seeds import Generators, resolve_generators

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Fractions of removed pixels. At 0 and 1 both orders give the same image, so the ends are left out."""

TOLERANCE = 1e-5
"""A thousandth of the noise; the rounding of a pixel in single precision is about a hundredth of it."""


@dataclass(frozen=True, eq=False)
class Road:
    """Both curves of n images; a curve's fractions are those of whole pixels.

    >>> fractions = torch.tensor([0.25, 0.5])
    >>> most, least = Curve(fractions, torch.tensor([[0.2, 0.0]])), Curve(fractions, torch.tensor([[0.8, 0.6]]))
    >>> Road(most, least, clean=torch.tensor([0.9])).difference
    tensor([0.6000])

    Attributes:
        most: scores after the most relevant pixels were removed.
        least: scores after the least relevant pixels were removed.
        clean: score of each clean image, the point at fraction 0.
    """

    most: Curve
    least: Curve
    clean: Float[Tensor, " n"]

    @property
    def difference(self) -> Float[Tensor, " n"]:
        """Least minus most, the mean over the fractions, in [-1, 1]; 0 in expectation for a random map."""
        return (self.least.scores - self.most.scores).mean(dim=1)

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, image: int) -> Road:
        """The curves of one image, still with a leading dimension of 1."""
        return replace(self, most=self.most.of(image), least=self.least.of(image), clean=self.clean[image].unsqueeze(0))


def road(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target = None,
    *,
    fractions: Sequence[float] = FRACTIONS,
    noise_std: float = 0.01,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    generator: Generators = None,
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Road:
    """Remove the most and the least relevant pixels of each image by imputation, and evaluate the score.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> road(model, torch.rand(2, 3, 4, 4), torch.ones(2, 4, 4)).difference.tolist()
    [0.0, 0.0]

    Args:
        model: the model that was explained.
        images: the images that were explained, in [0, 1].
        heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: the class whose softmax probability is the score, or a callable; None for the Explanation's target, or else the
            predicted class.
        fractions: of removed pixels, ascending, in [0, 1]; each is rounded to whole pixels.
        noise_std: standard deviation of the noise on imputed pixels, in pixel units. All fractions and both orders of an image
            share one draw, so that only the removed pixels make them differ.
        tolerance: error of an imputed pixel at which the solver stops, in pixel units.
        seed: of the noise; the seed of each image is derived from it and the image's index.
        generator: one for the run, or one per image; None for ``seed``.
        chunk_size: maximum number of images per pass and per imputation.
        autocast: a lower precision for the model's passes; None for full precision. Imputation is not affected.
        progress: called with (images done, number of images).

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, or fractions that do not ascend within [0, 1].
        RuntimeError: if an imputation does not reach the tolerance.
    """
    parts = []
    with (
        prepared_inputs(model, images, heatmaps, target, chunk_size=chunk_size, autocast=autocast) as inputs,
        torch.no_grad(),
    ):
        counts = pixel_counts(fractions, images.shape[-2:].numel())
        generators = resolve_generators(generator, seed, len(images), images.device)
        removal = _ImputedRemoval(
            model, inputs, counts.to(images.device), noise_std, generators, tolerance, chunk_size, autocast
        )
        for part in inputs.index.split(chunk_size):
            parts.append(removal.scores(part))
            if progress is not None:
                progress(int(part[-1]) + 1, len(images))
    most, least = torch.cat(parts).unbind(dim=1)
    exact = (counts.double() / images.shape[-2:].numel()).to(most)
    return Road(Curve(exact, most), Curve(exact, least), inputs.clean)


def pixel_counts(fractions: Sequence[float], pixels: int) -> Int[Tensor, " k"]:
    """Fractions of an image as whole numbers of pixels.

    >>> pixel_counts((0.1, 0.5, 1.0), 25)
    tensor([ 2, 12, 25])
    """
    given = torch.as_tensor(fractions, dtype=torch.float64).cpu()
    if given.ndim != 1 or len(given) == 0 or not bool(((given >= 0) & (given <= 1)).all()) or bool((given.diff() <= 0).any()):
        raise ValueError(f"fractions are {fractions!r}; give at least one, rising, each in [0, 1]")
    return (given * pixels).round().long()


@dataclass(frozen=True, eq=False)
class _ImputedRemoval:
    """Scores of images whose pixels are removed in both orders."""

    model: nn.Module
    inputs: PreparedInputs
    counts: Int[Tensor, " k"]
    noise_std: float
    generators: list[torch.Generator]
    tolerance: float
    chunk_size: int
    autocast: torch.dtype | None

    def scores(self, part: Int[Tensor, " m"]) -> Float[Tensor, "m 2 k"]:
        """Of some of the images: in both orders, after every number of removed pixels."""
        images, score, explanation = self.inputs.images[part], self.inputs.score.of(part), self.inputs.explanation
        heatmap = replace(explanation, heatmap=explanation.heatmap[part]).at(self.inputs.size)
        ranks = torch.stack([cell_ranks(heatmap), cell_ranks(-heatmap)], dim=1)
        noise = imputation_noise(images, self.noise_std, [self.generators[i] for i in part.tolist()])
        all_images = torch.arange(len(part), device=part.device)
        removals = torch.cartesian_prod(all_images, torch.arange(2, device=part.device), self.counts)
        scores = []
        for index, order, count in (chunk.T for chunk in removals.split(self.chunk_size)):
            removed = ranks[index, order] < count.view(-1, 1, 1)
            imputed = linear_imputation(images[index], removed, tolerance=self.tolerance)
            output = run_model(self.model, with_noise(imputed, noise[index], removed), self.autocast)
            scores.append(score(output, index))
        return torch.cat(scores).view(len(part), 2, -1)


@torch.no_grad()
def linear_imputation(
    images: Float[Tensor, "m c h w"],
    removed: Bool[Tensor, "m h w"],
    *,
    tolerance: float = TOLERANCE,
    max_iterations: int = 100,
) -> Float[Tensor, "m c h w"]:
    """Impute the removed pixels of each image, without noise.

    Args:
        images: in [0, 1], or any other range.
        removed: True for each unknown pixel.
        tolerance: largest error of a pixel, in the images' units. Images in half precision are solved in single precision.
        max_iterations: maximum number of iterations of the solver; 5 to 12 are usual.

    Raises:
        ValueError: for masks that do not fit the images, or a tolerance below the images' precision.
        RuntimeError: if the tolerance is not reached.

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
    middle = (low + high) / 2  # the solution is the difference from it, which has smaller rounding errors
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
    """Impute the removed pixels of each image, with noise.

    >>> images, removed = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 4, 4, dtype=torch.bool)
    >>> removed[:, 1, 1] = True
    >>> imputed = noisy_linear_imputation(images, removed)
    >>> bool((imputed != images).any(dim=1).eq(removed).all()), bool((imputed - images).abs().max() < 0.05)
    (True, True)

    Args:
        images: in [0, 1].
        removed: True for each unknown pixel.
        noise_std: standard deviation of the Gaussian noise on every removed pixel, in the images' units, at least 0.
        seed: of the noise; the seed of each image is derived from it and the image's index.
        generator: one for the run, or one per image; None for ``seed``.
        tolerance: largest error of a pixel before the noise, in the images' units.
        max_iterations: maximum number of iterations of the solver; 5 to 12 are usual.

    Raises:
        ValueError: for masks that do not fit the images, a tolerance below the images' precision, or a negative noise_std.
        RuntimeError: if the tolerance is not reached.
    """
    generators = resolve_generators(generator, seed, len(images), images.device)
    noise = imputation_noise(images, noise_std, generators)
    imputed = linear_imputation(images, removed, tolerance=tolerance, max_iterations=max_iterations)
    return with_noise(imputed, noise, removed)


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
    imputed: Float[Tensor, "m c h w"], noise: Float[Tensor, "m c h w"], removed: Bool[Tensor, "m h w"]
) -> Float[Tensor, "m c h w"]:
    """The noise added to the removed pixels only."""
    return torch.where(removed.unsqueeze(1), (imputed + noise).to(imputed.dtype), imputed)
