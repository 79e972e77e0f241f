r"""Infidelity (Yeh et al. 2019): does the heatmap foretell by how much the score falls?

A random perturbation I is taken from the image; the heatmap foretells a fall of :math:`I \cdot \Phi`:

.. math::
    INFD = E_I \left[ (\beta \, I \cdot \Phi - (f(x) - f(x - I)))^2 \right], \qquad
    \beta^* = \frac{E[(I \cdot \Phi) (f(x) - f(x - I))]}{E[(I \cdot \Phi)^2]}

A heatmap's own scale means nothing, so each image's map is multiplied by the best one, :math:`\beta^*` ("optimal scaling").

What :math:`I \cdot \Phi` is depends on what a value of the heatmap says, in the paper as in captum (``multiply_by_inputs``):

:local: by how much the score falls for one unit of a pixel, as a gradient does. The sum is over :math:`\Phi (x - x')`, with
    :math:`x' = x - I` what is shown. One value a pixel is every channel's: :math:`\sum_{yx} \Phi_{yx} \sum_c (x - x')_{cyx}`.
:global: by how much the score falls if that pixel goes, as a gradient times :math:`x - b` does. The sum is over
    :math:`\Phi m`, with m = 1 where pixels have gone. Channels that have values of their own are added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.metrics.functional.draws import streamed
from faithmap.metrics.functional.examined import Examined, examined
from faithmap.metrics.functional.perturbations import AnyPerturbation, Perturbation, Perturbed, make_perturbation
from faithmap.probe import run_model
from faithmap.score import ScoreKind, Target, at_least_single
from faithmap.seeds import Generators, resolve_generators

Reading: TypeAlias = Literal["local", "global"]


@dataclass(frozen=True, eq=False)
class InfidelityResult:
    """What was foretold and what happened, for n images; numbers are in double precision.

    Two numbers are kept of each draw: sums of their squares would cancel where the map is nearly perfect.

    Attributes:
        foretold: I . Phi of every draw, not scaled.
        fallen: f(x) - f(x - I) of every draw.
        scaled: the value is that of the scaled map.
        perturbation: what was drawn from.
        reading: what I . Phi was.
    """

    foretold: Float[Tensor, "n k"]
    fallen: Float[Tensor, "n k"]
    scaled: bool
    perturbation: Perturbation
    reading: Reading

    @property
    def scale(self) -> Float[Tensor, " n"]:
        """The best factor, beta*; below 0 for a map that is better upside down, 0 for one that foretells 0 in every draw."""
        squares = self.foretold.square().mean(dim=1)
        return torch.where(squares > 0, (self.foretold * self.fallen).mean(dim=1) / squares, 0.0)

    @property
    def value(self) -> Float[Tensor, " n"]:
        """Each image's infidelity, the square of a score: 0 is perfect."""
        return self._errors.mean(dim=1)

    @property
    def standard_error(self) -> Float[Tensor, " n"]:
        """Of each value, over the draws; NaN for a single draw, which says nothing of it."""
        draws = self.fallen.shape[1]
        return self._errors.std(dim=1) / draws**0.5 if draws > 1 else torch.full_like(self.value, torch.nan)

    @property
    def unexplained(self) -> Float[Tensor, " n"]:
        """The value as a part of what a map of zeros has, E[(f(x) - f(x - I))^2]: at most 1 if scaled; 0 if nothing fell."""
        squares = self.fallen.square().mean(dim=1)
        return torch.where(squares > 0, self.value / squares, 0.0)

    @property
    def _errors(self) -> Float[Tensor, "n k"]:
        factor = self.scale.unsqueeze(1) if self.scaled else 1.0
        return (factor * self.foretold - self.fallen).square()

    def __len__(self) -> int:
        return len(self.fallen)

    def __getitem__(self, image: int) -> InfidelityResult:
        """The result of one image, still with a leading dimension of 1."""
        return replace(self, foretold=self.foretold[image].unsqueeze(0), fallen=self.fallen[image].unsqueeze(0))


def infidelity(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"] | Float[Tensor, "n c h w"],
    target: Target = None,
    *,
    perturbation: AnyPerturbation = "square",
    draws: int = 1000,
    reading: Reading | None = None,
    scaled: bool = True,
    score: ScoreKind = "probability",
    seed: int = 0,
    generator: Generators = None,
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> InfidelityResult:
    """Perturb each image many times, and compare what its heatmap foretells with what the model says.

    Args:
        model: as it was explained.
        images: as they were explained.
        heatmaps: one value a pixel after resampling to the image's size; or attributions of every channel, (n, c, h, w).
        target: the class whose score is followed; None for the Explanation's, else the predicted class.
        perturbation: "square"; "gaussian", the paper's first, which takes a photograph's score away in every draw alike and so
            hardly tells maps apart; "region"; one of these classes with other settings; or a function of an image (1, c, h, w)
            and its generator that returns what is shown, x - I, or a pair of that and the mask (1, h, w) of what was removed.
        draws: perturbations of each image.
        reading: what a value of a heatmap says; None is as the authors have it: global where pixels are removed whole, as
            "square" and "region" do, else local.
        scaled: multiply each map by its best factor.
        score: of the target class.
        seed: of the run; each image gets its own from it and its index.
        generator: one for the run, or one an image; None for ``seed``.
        chunk_size: images in one pass at the most; neither draws nor values depend on it beyond rounding.
        autocast: a lower precision for the model's passes.
        progress: called with (draws done, draws in all), over all images.

    Raises:
        ValueError: for maps that do not fit the images or hold NaN, settings that do not exist, a global reading of
            what removes no pixels, or a score that is not finite.
    """
    made = make_perturbation(perturbation)
    if draws < 1 or reading not in ("local", "global", None):
        raise ValueError(f"draws is {draws} and reading {reading!r}; give at least 1 draw, and 'local', 'global' or None")
    whole = None if isinstance(heatmaps, Explanation) or heatmaps.ndim != 4 else _of_every_channel(heatmaps, images)
    maps = heatmaps if whole is None else whole.sum(dim=1)
    with examined(model, images, maps, target, kind=score, chunk_size=chunk_size, autocast=autocast) as case, torch.no_grad():
        values = case.explanation.at(case.size).unsqueeze(1) if whole is None else whole
        generators = resolve_generators(generator, seed, len(images), images.device)
        test = _Test(model, case, at_least_single(values.to(images.device)), reading, autocast)
        draw = made.prepare(case.images)
        for parts in streamed(len(images), draws, chunk_size):
            test.ask([(i, draw[i](count, generators[i])) for i, count in parts])
            if progress is not None:
                progress(test.done, len(images) * draws)
    return test.result(scaled, made)


class _Test:
    """Asks the model about perturbed images, and keeps two numbers of each."""

    def __init__(
        self, model: nn.Module, case: Examined, values: Tensor, reading: Reading | None, autocast: torch.dtype | None
    ) -> None:
        self.model, self.case, self.values, self.reading, self.autocast = model, case, values, reading, autocast
        self.foretold: list[Tensor] = []
        self.fallen: list[Tensor] = []
        self.done = 0

    def ask(self, perturbed: list[tuple[int, Perturbed]]) -> None:
        """One pass of the model."""
        self.reading = self.reading or ("local" if perturbed[0][1].removed is None else "global")
        self.foretold += [foretold(self.case.images[i], p, self.values[i], self.reading) for i, p in perturbed]
        shown = perturbed[0][1].shown if len(perturbed) == 1 else torch.cat([p.shown for _, p in perturbed])
        index = torch.cat([torch.full((len(p.shown),), i, device=shown.device) for i, p in perturbed])
        output = run_model(self.model, shown, self.autocast)
        self.fallen.append(self.case.clean[index].double() - self.case.score(output, index).double())
        self.done += len(shown)

    def result(self, scaled: bool, perturbation: Perturbation) -> InfidelityResult:
        """Every draw of every image."""
        foretold, fallen = (torch.cat(kept).view(len(self.case.images), -1) for kept in (self.foretold, self.fallen))
        lost = ~(foretold.isfinite() & fallen.isfinite())
        if bool(lost.any()):
            image = int(lost.any(dim=1).nonzero()[0])
            count, draws = int(lost[image].sum()), fallen.shape[1]
            raise ValueError(f"image {image}: the score or I . Phi is NaN or infinite in {count} of {draws} draws")
        assert self.reading is not None  # noqa: S101 - the first pass settles it
        return InfidelityResult(foretold, fallen, scaled, perturbation, self.reading)


def foretold(
    image: Float[Tensor, "c h w"], perturbed: Perturbed, values: Float[Tensor, "v h w"], reading: Reading
) -> Float[Tensor, " k"]:
    r"""I . Phi of every draw; ``values`` has one channel for all, or as many as the image.

    >>> taken = Perturbed(torch.zeros(1, 3, 1, 2), torch.tensor([[[True, False]]]))
    >>> [foretold(torch.ones(3, 1, 2), taken, torch.ones(1, 1, 2), kind).item() for kind in ("local", "global")]
    [6.0, 1.0]
    """
    if reading == "global":
        if perturbed.removed is None:
            raise ValueError(
                "a global reading asks which pixels have gone, and this perturbation removes none; read it as 'local'"
            )
        products = perturbed.removed.to(values) * values.sum(dim=0)
    elif len(values) == 1:  # channels first: a third of the work
        products = (at_least_single(image).sum(dim=0) - at_least_single(perturbed.shown).sum(dim=1)).mul(values)
    else:
        products = (at_least_single(image) - at_least_single(perturbed.shown)).mul_(values)
    return products.sum(dim=-1).flatten(1).double().sum(dim=1)


def _of_every_channel(attributions: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    if attributions.shape != images.shape:
        raise ValueError(
            f"attributions have shape {tuple(attributions.shape)} for images of {tuple(images.shape)}; give the same"
        )
    return attributions.detach()
