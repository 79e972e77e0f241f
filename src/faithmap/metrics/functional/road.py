r"""ROAD: does the score fall sooner when the most relevant pixels go than when the least relevant do? (Rong et al. 2022).

"Remove and debias": a removed pixel is not painted over, which would show the model the shape of the mask, but imputed from
its surroundings, :mod:`faithmap.metrics.functional.imputation`. Pixels are ranked by the heatmap at the image's size. With
:math:`f_k` the score after the k first of N pixels went, most relevant first (MoRF) or least relevant first (LeRF),

.. math:: ROAD = \frac1{|K|} \sum_{k \in K} \left( f^{LeRF}_k - f^{MoRF}_k \right)

over the chosen fractions :math:`k / N`. Equal pixels are ranked in reading order in both orders, so that a constant map
removes the same pixels twice and scores 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.metrics.functional.examined import Examined, examined
from faithmap.metrics.functional.games import Progress
from faithmap.metrics.functional.imputation import TOLERANCE, imputation_noise, linear_imputation, with_noise
from faithmap.metrics.functional.protocols import Curve, ranks
from faithmap.probe import run_model
from faithmap.score import Target
from faithmap.seeds import Generators, resolve_generators

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the pixels that go. The ends are left out: with nothing or everything removed both orders show the same image."""


@dataclass(frozen=True, eq=False)
class Road:
    """Both curves of n images; a curve's fractions are those of whole pixels.

    Attributes:
        most: the score after the most relevant pixels went.
        least: the score after the least relevant pixels went.
        clean: the score of each image as it is, the point at fraction 0.
    """

    most: Curve
    least: Curve
    clean: Float[Tensor, " n"]

    @property
    def difference(self) -> Float[Tensor, " n"]:
        """Least minus most, the mean over the fractions, in [-1, 1]; 0 by chance."""
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
    """Remove the most and the least relevant pixels of each image, and follow the score.

    Args:
        model: as it was explained.
        images: as they were explained, in [0, 1].
        heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: the class whose softmax probability is followed; None for the Explanation's, else the predicted class.
        fractions: of the pixels that go, rising, in [0, 1]; each is rounded to whole pixels.
        noise_std: on the imputed pixels, in pixel units. An image has one draw of noise, which its fractions and both orders
            share: they differ by what was removed alone.
        tolerance: of an imputed pixel, in pixel units.
        seed: of the noise; each image has its own.
        generator: instead of the seed: one, or one for each image.
        chunk_size: images in one pass, and in one imputation, at the most.
        autocast: a lower precision for the model's passes; imputation keeps its own.
        progress: called with (images done, images in all).

    Raises:
        ValueError: for maps that do not fit the images or hold NaN, or fractions that do not rise within [0, 1].
        RuntimeError: if an imputation does not meet the tolerance.
    """
    played = []
    with examined(model, images, heatmaps, target, chunk_size=chunk_size, autocast=autocast) as case, torch.no_grad():
        counts = pixel_counts(fractions, images.shape[-2:].numel())
        generators = resolve_generators(generator, seed, len(images), images.device)
        walk = _Walk(model, case, counts.to(images.device), noise_std, generators, tolerance, chunk_size, autocast)
        for part in case.index.split(chunk_size):
            played.append(walk.scores(part))
            if progress is not None:
                progress(int(part[-1]) + 1, len(images))
    most, least = torch.cat(played).unbind(dim=1)
    exact = (counts.double() / images.shape[-2:].numel()).to(most)
    return Road(Curve(exact, most), Curve(exact, least), case.clean)


def pixel_counts(fractions: Sequence[float], pixels: int) -> Int[Tensor, " k"]:
    """Whole numbers of pixels.

    >>> pixel_counts((0.1, 0.5, 1.0), 25)
    tensor([ 2, 12, 25])
    """
    given = torch.as_tensor(fractions, dtype=torch.float64).cpu()
    if given.ndim != 1 or len(given) == 0 or not bool(((given >= 0) & (given <= 1)).all()) or bool((given.diff() <= 0).any()):
        raise ValueError(f"fractions are {fractions!r}; give at least one, rising, each in [0, 1]")
    return (given * pixels).round().long()


@dataclass(frozen=True, eq=False)
class _Walk:
    """The settings, ready to follow some of the images at a time."""

    model: nn.Module
    case: Examined
    counts: Int[Tensor, " k"]
    noise_std: float
    generators: list[torch.Generator]
    tolerance: float
    chunk_size: int
    autocast: torch.dtype | None

    def scores(self, part: Int[Tensor, " m"]) -> Float[Tensor, "m 2 k"]:
        """In both orders, after every count of pixels."""
        images, score, why = self.case.images[part], self.case.score.of(part), self.case.explanation
        ranked = replace(why, heatmap=why.heatmap[part]).at(self.case.size)
        places = torch.stack([ranks(ranked), ranks(-ranked)], dim=1)
        noise = imputation_noise(images, self.noise_std, [self.generators[i] for i in part.tolist()])
        every = torch.arange(len(part), device=part.device)
        questions = torch.cartesian_prod(every, torch.arange(2, device=part.device), self.counts)
        answers = []
        for index, order, count in (chunk.T for chunk in questions.split(self.chunk_size)):
            removed = places[index, order] < count.view(-1, 1, 1)
            filled = linear_imputation(images[index], removed, tolerance=self.tolerance)
            output = run_model(self.model, with_noise(filled, noise[index], removed), self.autocast)
            answers.append(score(output, index))
        return torch.cat(answers).view(len(part), 2, -1)
