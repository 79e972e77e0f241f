r"""Perturbation curves: the score as the cells of a heatmap are deleted from the image, or inserted into the baseline.

The cells of a heatmap are ranked, highest first. Deletion starts from the image and replaces the k first cells by a baseline;
insertion starts from the baseline and puts the k first cells back. The result is the area under the curve of the score against
the true fraction :math:`x = k / N`, both ends included, by the trapezoid rule (Petsiuk et al. 2018, RISE):

.. math:: A = \sum_i \tfrac12 (f_i + f_{i+1}) (x_{i+1} - x_i)

Equal cells are ranked in reading order, rows from the top, columns from the left: the sort is stable.

Metrics begin with :func:`prepared_inputs`: the checks of images and maps, and the scores of the clean images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from faithmap.baselines import Baseline, Blur, make_baseline, with_zero
from faithmap.explanation import Explanation, cell_ranks
from faithmap.model import check_images, normalised_zero, undisturbed, working_images
from faithmap.probe import InputProbe, MaskProbe, clean_scores, recognised_baselines
from faithmap.score import Score, ScoreKind, Target, uninformed_probability
from faithmap.warning_types import BaselineWarning, is_suppressed, warn


@dataclass(frozen=True, eq=False)
class PreparedInputs:
    """Images, their heatmaps, and the score that evaluates them.

    Attributes:
        images: as the library computes with them, see :func:`~faithmap.model.working_images`.
        explanation: of the same images, with finite heatmaps.
        score: of the target.
        clean: score of each clean image.
        uninformed: probability of a class if the model knows nothing.
    """

    images: Float[Tensor, "n c h w"]
    explanation: Explanation
    score: Score
    clean: Float[Tensor, " n"]
    uninformed: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.images.shape[-2], self.images.shape[-1]

    @property
    def index(self) -> Int[Tensor, " n"]:
        """The indices of all images."""
        return torch.arange(len(self.images), device=self.images.device)


@contextmanager
def prepared_inputs(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target,
    *,
    kind: ScoreKind = "probability",
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
) -> Iterator[PreparedInputs]:
    """Check the inputs of a metric and score the clean images; inside the block the model is in evaluation mode.

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: None for the Explanation's target, or else the predicted class.
        kind: of a class's score: probability or logit.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, or a chunk size below 1.
    """
    check_images(model, images)
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; give at least 1")
    explanation, images = as_explanation(heatmaps, images), working_images(model, images)
    with undisturbed(model):
        target = explanation.explained if target is None else target
        logits, score, clean = clean_scores(model, images, target, kind, chunk_size, autocast)
        yield PreparedInputs(images, explanation, score, clean, uninformed_probability(score, logits))


def as_explanation(heatmaps: Explanation | Float[Tensor, "n r c"], images: Float[Tensor, "n c h w"]) -> Explanation:
    """The heatmaps as an Explanation of these images.

    Raises:
        ValueError: for maps that do not fit the images, have more cells than pixels along an axis, or contain NaN.
    """
    size = (images.shape[-2], images.shape[-1])
    values = heatmaps.heatmap if isinstance(heatmaps, Explanation) else heatmaps
    if values.ndim != 3 or len(values) != len(images):
        raise ValueError(f"heatmaps have shape {tuple(values.shape)} for {len(images)} images; give (images, rows, columns)")
    if any(cells > pixels for cells, pixels in zip(values.shape[-2:], size, strict=True)):
        raise ValueError(f"heatmaps of {tuple(values.shape[-2:])} are finer than the images of {size}")
    if not bool(values.isfinite().all()):
        raise ValueError("heatmaps contain NaN or infinite values, which have no rank")
    if isinstance(heatmaps, Explanation):
        if heatmaps.image_size != size:
            raise ValueError(f"the heatmaps explain images of {heatmaps.image_size}, but these are of {size}; resize neither")
        return heatmaps
    return Explanation(heatmaps.detach(), size)


ProtocolName: TypeAlias = Literal["igos", "igos_resampled", "rise"]
Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class Protocol:
    """Baselines, steps and order of a deletion and insertion test. Areas of different protocols or resolutions do not compare.

    >>> PROTOCOLS["igos"].unit, PROTOCOLS["igos"].steps
    ('cells', 50)

    Attributes:
        name: of the protocol, which every result states.
        unit: what is ranked: the heatmap's own cells, which then are the cells of a mask that is upsampled bilinearly with
            aligned corners; or pixels.
        steps: parts into which the ranking is divided; None for one part per row of pixels (224 pixels at 224 x 224).
        deletion_baseline: what deleted cells become; "zero" is 0 in the model's normalised space. A result contains the
            constant that this is in pixel units.
        insertion_baseline: the image before any cell is inserted.
        resampled: whether a heatmap whose cells have other positions than those of the mask is resampled to these before its
            cells are ranked.
    """

    name: str
    unit: Literal["cells", "pixels"]
    steps: int | None
    deletion_baseline: Baseline
    insertion_baseline: Baseline
    resampled: bool = False

    def ranked(self, explanation: Explanation) -> Float[Tensor, "n r c"]:
        """The values that are ranked.

        Args:
            explanation: the heatmaps that are tested.
        """
        if self.unit == "pixels":
            return explanation.at()
        return explanation.cells if self.resampled else explanation.heatmap


PROTOCOLS = {
    "igos": Protocol("igos", "cells", 50, "blur", "blur"),
    "igos_resampled": Protocol("igos_resampled", "cells", 50, "blur", "blur", resampled=True),
    "rise": Protocol("rise", "pixels", None, "zero", Blur(kernel_size=11, sigma=5.0)),
}
"""``igos``: one heavy blur for both curves; the paper ranks heatmaps "at the original resolutions before upsampling", so a
coarse map is ranked by its raw cells. ``igos_resampled``: the same after resampling to the positions of the mask's cells.
``rise`` (Petsiuk 2018): grey for deletion, a light blur for insertion."""


@dataclass(frozen=True, eq=False)
class Curve:
    """The score of each image against the fraction of cells that were deleted or inserted.

    >>> Curve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[1.0, 0.0, 0.0]])).area
    tensor([0.2500])

    Attributes:
        fractions: fractions of the cells that are removed or inserted, from 0 to 1.
        scores: score at each fraction, one row for each image.
    """

    fractions: Float[Tensor, " k"]
    scores: Float[Tensor, "n k"]

    @property
    def area(self) -> Float[Tensor, " n"]:
        """Area under each image's curve, by the trapezoid rule."""
        return torch.trapezoid(self.scores, self.fractions, dim=1)

    def of(self, image: int) -> Curve:
        """The curve of one image, still with a leading dimension of 1.

        Args:
            image: index of the image.
        """
        return replace(self, scores=self.scores[image].unsqueeze(0))


@dataclass(frozen=True)
class PerturbationCurve:
    """One kind of curve: which cells are kept after k removal steps.

    Attributes:
        kind: deletion replaces the first k cells by the baseline; insertion keeps only the first k cells.
        least_first: start with the lowest cell instead of the highest.
    """

    kind: Literal["deletion", "insertion"]
    least_first: bool = False

    def kept(self, ranks: Int[Tensor, "m r c"], counts: Int[Tensor, " m"]) -> Bool[Tensor, "m r c"]:
        """The cells that are kept after the given number of cells was deleted or inserted."""
        first = ranks < counts.view(-1, 1, 1)
        return first if self.kind == "insertion" else ~first

    def evaluate(self, probe: MaskProbe, heatmap: Float[Tensor, "m r c"], counts: Int[Tensor, " k"]) -> Float[Tensor, "m k"]:
        """Score of each image after each number of cells."""
        ranks = cell_ranks(-heatmap if self.least_first else heatmap)
        pairs = torch.cartesian_prod(torch.arange(len(heatmap), device=counts.device), counts)
        scores = []
        for index, count in (chunk.T for chunk in pairs.split(probe.chunk_size)):
            masks = self.kept(ranks[index], count).to(probe.images.dtype)
            scores.append(probe.scores(masks, index))
        return torch.cat(scores).view(len(heatmap), len(counts))


DELETION, INSERTION = PerturbationCurve("deletion"), PerturbationCurve("insertion")
LEAST_FIRST = PerturbationCurve("deletion", least_first=True)


class EvaluatedCurves(NamedTuple):
    """One curve per kind, with the protocol whose baselines are resolved, and the resolution that was ranked."""

    curves: tuple[Curve, ...]
    protocol: Protocol
    resolution: tuple[int, int]


def evaluate_curves(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target,
    kinds: Sequence[PerturbationCurve],
    *,
    protocol: ProtocolName | Protocol = "igos",
    steps: int | None = None,
    baseline: Baseline | None = None,
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> EvaluatedCurves:
    """Evaluate several kinds of curves on the same images; the parameters are those of ``deletion_insertion``."""
    resolved = resolve_protocol(protocol, steps, baseline, model)
    parts = []
    with prepared_inputs(model, images, heatmaps, target, chunk_size=chunk_size, autocast=autocast) as inputs:
        ranked = resolved.ranked(inputs.explanation)
        counts = step_counts(ranked[0].numel(), resolved.steps or images.shape[-2]).to(images.device)
        for part in inputs.index.split(chunk_size):
            part_images, score = inputs.images[part], inputs.score.of(part)
            scores = []
            for kind in kinds:
                removed = resolved.insertion_baseline if kind.kind == "insertion" else resolved.deletion_baseline
                baselines = make_baseline(removed, part_images)
                probe = MaskProbe(model, score, part_images, baselines, chunk_size=chunk_size, autocast=autocast)
                scores.append(kind.evaluate(probe, ranked[part], counts))
            curves_of_part = zip(kinds, scores, strict=True)
            warn_if_recognised(model, inputs, part, curves_of_part, resolved, chunk_size=chunk_size, autocast=autocast)
            parts.append(torch.stack(scores))
            if progress is not None:
                progress(int(part[-1]) + 1, len(images))
    fractions = (counts.double() / ranked[0].numel()).to(parts[0].dtype)
    curves = tuple(Curve(fractions, scores) for scores in torch.cat(parts, dim=1))
    return EvaluatedCurves(curves, resolved, (ranked.shape[-2], ranked.shape[-1]))


def warn_if_recognised(
    model: nn.Module,
    inputs: PreparedInputs,
    part: Int[Tensor, " m"],
    curves: Iterable[tuple[PerturbationCurve, Float[Tensor, "m k"]]],
    protocol: Protocol,
    *,
    chunk_size: int,
    autocast: torch.dtype | None,
) -> None:
    """Warn once for each image whose class the model still recognises where all cells are removed.

    Args:
        model: in evaluation mode.
        inputs: of the metric.
        part: the images of the curves.
        curves: kinds and scores of their curves.
        protocol: of the curves. The light blur of RISE's insertion is meant to be recognised, and is not tested.
        chunk_size: maximum number of images per pass.
        autocast: of the metric's passes.
    """
    if not inputs.score.is_class_probability or is_suppressed():
        return
    removed = []
    for kind, scores in curves:
        light = kind.kind == "insertion" and protocol.insertion_baseline is PROTOCOLS["rise"].insertion_baseline
        removed += [] if light else [scores[:, 0 if kind.kind == "insertion" else -1]]
    if not removed:
        return
    probe = InputProbe(model, inputs.score, inputs.images, chunk_size=chunk_size, autocast=autocast)
    of_baseline = torch.stack(removed).amax(dim=0)
    for image, message in recognised_baselines(probe, part, of_baseline, inputs.clean[part], inputs.uninformed):
        warn(f"image {image}: {message}", BaselineWarning)


def resolve_protocol(
    protocol: ProtocolName | Protocol, steps: int | None, baseline: Baseline | None, model: nn.Module
) -> Protocol:
    """The protocol with the given steps and baseline in place of its own, and its baselines in the units of the images."""
    if isinstance(protocol, str) and protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r} is unknown; give one of {', '.join(PROTOCOLS)}, or a Protocol")
    resolved = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}; give at least 1")
    resolved = resolved if steps is None else replace(resolved, steps=steps)
    given = (resolved.deletion_baseline, resolved.insertion_baseline) if baseline is None else (baseline, baseline)
    deletion, insertion = (with_zero(b, normalised_zero(model)) for b in given)
    return replace(resolved, deletion_baseline=deletion, insertion_baseline=insertion)


def step_counts(cells: int, steps: int) -> Int[Tensor, " k"]:
    """Exact numbers of cells at each removal step, from none to all.

    >>> step_counts(10, 4)
    tensor([ 0,  2,  5,  8, 10])
    """
    return torch.linspace(0, cells, min(steps, cells) + 1, dtype=torch.float64).round().long()


@dataclass(frozen=True, eq=False)
class DeletionInsertion:
    """Both curves of n images, with their protocol and the resolution that was ranked.

    Attributes:
        deletion: the score as the highest cells are removed first; a low area is good.
        insertion: the score as the highest cells are inserted first; a high area is good.
        protocol: baseline, steps and order of the test.
        resolution: (rows, columns) of the cells that were ranked.

    >>> fractions = torch.tensor([0.0, 0.5, 1.0])
    >>> falling, rising = Curve(fractions, torch.tensor([[1.0, 0.0, 0.0]])), Curve(fractions, torch.tensor([[0.0, 1.0, 1.0]]))
    >>> protocol = Protocol("mine", "cells", 2, "blur", "blur")
    >>> DeletionInsertion(falling, rising, protocol, (7, 7)).difference
    tensor([0.5000])
    """

    deletion: Curve
    insertion: Curve
    protocol: Protocol
    resolution: tuple[int, int]

    @property
    def difference(self) -> Float[Tensor, " n"]:
        """Insertion area minus deletion area: a map that scores well on only one of them does not score well here."""
        return self.insertion.area - self.deletion.area

    def __len__(self) -> int:
        return len(self.deletion.scores)

    def __getitem__(self, image: int) -> DeletionInsertion:
        """The curves of one image, still with a leading dimension of 1."""
        return replace(self, deletion=self.deletion.of(image), insertion=self.insertion.of(image))


@dataclass(frozen=True, eq=False)
class MostLeast:
    """Two deletion curves of n images: the most relevant cells first (MoRF), the least relevant first (LeRF) (Samek 2017).

    Attributes:
        most: the score as the highest cells are removed first.
        least: the score as the lowest cells are removed first.
        protocol: baseline, steps and order of the test.
        resolution: (rows, columns) of the cells that were ranked.

    >>> fractions = torch.tensor([0.0, 0.5, 1.0])
    >>> most, least = Curve(fractions, torch.tensor([[1.0, 0.0, 0.0]])), Curve(fractions, torch.tensor([[1.0, 1.0, 0.0]]))
    >>> MostLeast(most, least, Protocol("mine", "cells", 2, "blur", "blur"), (7, 7)).difference
    tensor([0.5000])
    """

    most: Curve
    least: Curve
    protocol: Protocol
    resolution: tuple[int, int]

    @property
    def difference(self) -> Float[Tensor, " n"]:
        """Area between the two curves; 0 in expectation for a random map."""
        return self.least.area - self.most.area


def deletion_insertion(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target = None,
    *,
    protocol: ProtocolName | Protocol = "igos",
    steps: int | None = None,
    baseline: Baseline | None = None,
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> DeletionInsertion:
    """Evaluate the deletion curve and the insertion curve of each image's heatmap.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> images, heatmaps = torch.rand(2, 3, 4, 4), torch.rand(2, 2, 2)
    >>> curves = deletion_insertion(model, images, heatmaps)
    >>> curves.deletion.fractions, tuple(curves.difference.shape)
    (tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000]), (2,))

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: the class whose softmax probability is the score, one for all images or one for each, or a callable; None for
            the Explanation's target, or else the predicted class.
        protocol: the name of one of PROTOCOLS, or a Protocol.
        steps: parts into which the ranking is divided, at least 1; None for the protocol's steps.
        baseline: for both curves; None for the protocol's baselines.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images).

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, an unknown protocol, or steps below 1.
    """
    (deletion, insertion), resolved, resolution = evaluate_curves(
        model,
        images,
        heatmaps,
        target,
        (DELETION, INSERTION),
        protocol=protocol,
        steps=steps,
        baseline=baseline,
        chunk_size=chunk_size,
        autocast=autocast,
        progress=progress,
    )
    return DeletionInsertion(deletion, insertion, resolved, resolution)


def deletion(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target = None,
    *,
    protocol: ProtocolName | Protocol = "igos",
    steps: int | None = None,
    baseline: Baseline | None = None,
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Curve:
    """Evaluate the deletion curve of each image's heatmap.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> images, heatmaps = torch.rand(2, 3, 4, 4), torch.rand(2, 2, 2)
    >>> tuple(deletion(model, images, heatmaps).scores.shape)
    (2, 5)

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: the class whose softmax probability is the score, one for all images or one for each, or a callable; None for
            the Explanation's target, or else the predicted class.
        protocol: the name of one of PROTOCOLS, or a Protocol.
        steps: parts into which the ranking is divided, at least 1; None for the protocol's steps.
        baseline: what deleted cells become; None for the protocol's baseline.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images).

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, an unknown protocol, or steps below 1.
    """
    (curve,), _, _ = evaluate_curves(
        model,
        images,
        heatmaps,
        target,
        (DELETION,),
        protocol=protocol,
        steps=steps,
        baseline=baseline,
        chunk_size=chunk_size,
        autocast=autocast,
        progress=progress,
    )
    return curve


def insertion(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target = None,
    *,
    protocol: ProtocolName | Protocol = "igos",
    steps: int | None = None,
    baseline: Baseline | None = None,
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Curve:
    """Evaluate the insertion curve of each image's heatmap.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> images, heatmaps = torch.rand(2, 3, 4, 4), torch.rand(2, 2, 2)
    >>> tuple(insertion(model, images, heatmaps).scores.shape)
    (2, 5)

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: the class whose softmax probability is the score, one for all images or one for each, or a callable; None for
            the Explanation's target, or else the predicted class.
        protocol: the name of one of PROTOCOLS, or a Protocol.
        steps: parts into which the ranking is divided, at least 1; None for the protocol's steps.
        baseline: what the image is before any cell is inserted; None for the protocol's baseline.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images).

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, an unknown protocol, or steps below 1.
    """
    (curve,), _, _ = evaluate_curves(
        model,
        images,
        heatmaps,
        target,
        (INSERTION,),
        protocol=protocol,
        steps=steps,
        baseline=baseline,
        chunk_size=chunk_size,
        autocast=autocast,
        progress=progress,
    )
    return curve


def most_least(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target = None,
    *,
    protocol: ProtocolName | Protocol = "igos",
    steps: int | None = None,
    baseline: Baseline | None = None,
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> MostLeast:
    """Evaluate deletion with the most relevant cells first, and with the least relevant cells first.

    Equal cells are ranked in reading order in both, so that a constant map deletes the same cells twice and has difference 0.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> images = torch.rand(2, 3, 4, 4)
    >>> most_least(model, images, torch.ones(2, 2, 2)).difference
    tensor([0., 0.])

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: the class whose softmax probability is the score, one for all images or one for each, or a callable; None for
            the Explanation's target, or else the predicted class.
        protocol: the name of one of PROTOCOLS, or a Protocol.
        steps: parts into which the ranking is divided, at least 1; None for the protocol's steps.
        baseline: what deleted cells become; None for the protocol's baseline.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images).

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, an unknown protocol, or steps below 1.
    """
    (most, least), resolved, resolution = evaluate_curves(
        model,
        images,
        heatmaps,
        target,
        (DELETION, LEAST_FIRST),
        protocol=protocol,
        steps=steps,
        baseline=baseline,
        chunk_size=chunk_size,
        autocast=autocast,
        progress=progress,
    )
    return MostLeast(most, least, resolved, resolution)
