r"""Jurors: measures of a heatmap, each beside the same measure of control maps that know nothing of the model.

A :class:`Removal` removes cells in its own way: by a blur, a colour, noise, another photograph, shuffled patches, on the
mirrored image, or for a second model. Its value is

.. math:: D = A_{insertion} - A_{deletion}

with A the areas under the curves (:mod:`faithmap.metrics.functional.curves`). To insert the k first cells is to delete the
N - k last ones, so that D is the symmetric relevance gain: the area where the least important cells are removed first, minus
the area where the most important ones are (Blücher et al. 2024, "Decoupling Pixel Flipping and Occlusion Strategy for
Consistent XAI Benchmarks"). It depends less on the removal than each of the two areas. Other jurors are ROAD, SaCo and
infidelity.

A juror has no vote for an image

- if the method decided its map by scores under the same kind of removal (``Explanation.optimises``): a measure that a method
  optimised is no evidence for it;
- if the model still recognises the class where all cells are removed (:func:`~faithmap.baselines.is_recognised`), since then
  nothing was removed; or does not recognise it in the juror's copy of the image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.baselines import Baseline, family_of, is_recognised, make_baseline
from faithmap.explanation import Explanation, cell_ranks
from faithmap.metrics.functional.curves import PreparedInputs
from faithmap.metrics.functional.infidelity import Region, infidelity
from faithmap.metrics.functional.road import road
from faithmap.metrics.functional.saco import saco
from faithmap.model import Classifier
from faithmap.probe import MaskProbe, clean_scores
from faithmap.score import Score, Target

UNRECOGNISED = 0.01
"""A class of at most this probability, or at most that of a model that knows nothing, is not recognised in the image.

``benchmarks/jury.py --probabilities``: 0.24 % of the classes of other photographs are above it, and all predicted ones are."""

OPTIMISED = "the method optimised it"
"""The reason of a juror without a vote for a method that optimised its measure."""

View: TypeAlias = Literal["plain", "mirrored", "shifted"]
Images: TypeAlias = Float[Tensor, "n c h w"]


def _shifted(images: Images) -> Images:
    """The images an eighth of their size further down and to the right; the border is mirrored."""
    down, across = images.shape[-2] // 8, images.shape[-1] // 8
    return F.pad(images, (across, 0, down, 0), mode="reflect")[..., : images.shape[-2], : images.shape[-1]]


VIEWS: Mapping[View, Callable[[Images], Images]] = MappingProxyType(
    {"plain": lambda images: images, "mirrored": lambda images: images.flip(-1), "shifted": _shifted}
)


@dataclass
class ViewProbe(MaskProbe):
    """Shows the model each composed image mirrored or shifted, and at the model's own size.

    >>> image = torch.tensor([[[[1.0, 2.0]]]])
    >>> score = Score("logit", classes=torch.tensor([0]))
    >>> probe = ViewProbe(nn.Flatten(), score, image, baseline=torch.zeros_like(image), view="mirrored")
    >>> probe.scores(torch.ones(1, 1, 2), torch.tensor([0]))
    tensor([2.])

    Attributes:
        view: of each composed image.
        shown_size: (height, width) of what the model gets; None for the size of the images.
    """

    view: View = "plain"
    shown_size: tuple[int, int] | None = None

    def _composed(self, up: Float[Tensor, "m 1 h w"], index: Int[Tensor, " m"]) -> Images:
        return view_of(super()._composed(up, index), self.view, self.shown_size)


def view_of(images: Images, view: View, size: tuple[int, int] | None = None) -> Images:
    """The images mirrored, shifted or as they are, at a size.

    >>> view_of(torch.tensor([[[[1.0, 2.0]]]]), "mirrored")
    tensor([[[[2., 1.]]]])

    Args:
        images: to be shown to a model.
        view: of each image.
        size: (height, width); None for that of the images.
    """
    changed = VIEWS[view](images)
    if size is None or size == tuple(changed.shape[-2:]):
        return changed
    return F.interpolate(changed, size, mode="bilinear", antialias=True, align_corners=False)


def other_photograph(images: Images) -> Images:
    """A photograph that is part of the library, behind each image: of coffee, at the images' size, in their channels.

    >>> other_photograph(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 1, 8, 8])

    Args:
        images: of any size and number of channels; a grey photograph if they have not three.
    """
    from faithmap.data import read_image, sample_photo  # noqa: PLC0415 - reading image files loads Pillow

    photo = read_image(sample_photo("coffee")).to(images)
    photo = F.interpolate(photo, images.shape[-2:], mode="bilinear", antialias=True, align_corners=False)
    channels = photo if images.shape[1] == 3 else photo.mean(dim=1, keepdim=True).expand(-1, images.shape[1], -1, -1)
    return channels.expand(images.shape)


@dataclass(frozen=True, eq=False)
class Case:
    """What a jury is asked about: heatmaps of n images, each beside its control maps. :func:`evidence` makes it.

    >>> from faithmap.metrics.functional.curves import prepared_inputs
    >>> model, image, heatmap = nn.Flatten(), torch.ones(1, 1, 1, 2), torch.tensor([[[1.0, 2.0]]])
    >>> with prepared_inputs(model, image, heatmap, target=0) as inputs:
    ...     Case(model, inputs, [inputs.explanation], (0.5,)).ranks
    tensor([[[[1, 0]]]])

    Attributes:
        model: that was explained, in evaluation mode.
        inputs: images, heatmaps and score.
        maps: the heatmaps and their controls, as Explanations of the same images, the heatmaps first.
        fractions: of the cells that the curves remove, without 0 and 1.
        second: another model with the same classes, in evaluation mode; or None.
        seed: of random perturbations.
        chunk_size: maximum number of images in one pass.
        autocast: a lower precision for the passes, or None.
    """

    model: nn.Module
    inputs: PreparedInputs
    maps: Sequence[Explanation]
    fractions: tuple[float, ...]
    second: nn.Module | None = None
    seed: int = 0
    chunk_size: int = 32
    autocast: torch.dtype | None = None

    @property
    def target(self) -> Target:
        """The target that the score resolves."""
        score = self.inputs.score
        return score.function if score.classes is None else score.classes

    @cached_property
    def ranks(self) -> Int[Tensor, "n m r c"]:
        """Of the cells of each map, 0 for the highest."""
        return torch.stack([cell_ranks(explanation.heatmap) for explanation in self.maps], dim=1)

    def asked_model(self, *, second: bool) -> tuple[nn.Module, Score, tuple[int, int] | None]:
        """A model, the score of the same target, and the size of its images; None for that of the explained ones.

        Args:
            second: whether it is the second model.
        """
        if not second:
            return self.model, self.inputs.score, None
        assert self.second is not None  # noqa: S101 - a juror of a second model is only asked with one
        size = self.second.geometry.crop if isinstance(self.second, Classifier) else None
        images = view_of(self.inputs.images, "plain", size)
        score = clean_scores(self.second, images, self.target, "probability", self.chunk_size, self.autocast)[1]
        return self.second, score, size


@dataclass(frozen=True, eq=False)
class Judgement:
    """What one juror says of n images.

    >>> Judgement(torch.ones(1, 4), torch.tensor([True]), [""], torch.zeros(1), torch.zeros(1, 4), optimised=False).vote
    tensor([True])

    Attributes:
        values: of the heatmap and of each control map; high is good.
        vote: whether the juror can judge the image.
        reason: why not; one text for each image, empty if it can.
        scope: share of the image's own score that is left, in the mean over all removals of the random map: near 1 the removal
            removes nothing, near 0 nothing survives it (compare the reference out-of-model-scope score of Blücher et al.); NaN
            without a random map.
        excess: by how much the insertion of the cells of each map exceeds the image's own score at most, at least 0.
        optimised: whether the method optimised the measure, which then has no vote.
    """

    values: Float[Tensor, "n m"]
    vote: Bool[Tensor, " n"]
    reason: Sequence[str]
    scope: Float[Tensor, " n"]
    excess: Float[Tensor, "n m"]
    optimised: bool


class Juror(ABC):
    """One measure of a panel; high values are good.

    >>> class Brightness(Juror):
    ...     name = "brightness"
    ...     def passes(self, maps, fractions): return 0
    ...     def judge(self, case): return unconditional(torch.stack([e.heatmap.mean(dim=(1, 2)) for e in case.maps], dim=1))
    >>> Brightness().passes(4, 4)
    0
    """

    name: str
    kinds: ClassVar[frozenset[str]] = frozenset()
    """Kinds of removal of which a method that optimised one has optimised this measure."""

    @abstractmethod
    def passes(self, maps: int, fractions: int) -> int:
        """Forward passes for one image.

        Args:
            maps: number of maps, controls included.
            fractions: number of removals of each curve.
        """

    def optimised_by(self, kinds: Collection[str]) -> bool:
        """Whether a method that optimised these kinds of removal optimised this measure.

        Args:
            kinds: see :attr:`Explanation.optimises <faithmap.Explanation>`.
        """
        return not self.kinds.isdisjoint(kinds)

    @abstractmethod
    def judge(self, case: Case) -> Judgement:
        """The values of all maps.

        Args:
            case: images and maps.
        """


def unconditional(values: Float[Tensor, "n m"], optimised: bool = False) -> Judgement:
    """The judgement of a juror that removes nothing as a whole.

    Args:
        values: of all maps.
        optimised: whether the method optimised this measure.

    >>> unconditional(torch.ones(1, 4), optimised=True).reason
    ['the method optimised it']
    """
    nothing = torch.zeros_like(values)
    vote = torch.full_like(nothing[:, 0], not optimised, dtype=torch.bool)
    return Judgement(values, vote, [OPTIMISED if optimised else ""] * len(values), nothing[:, 0], nothing, optimised)


@dataclass(frozen=True)
class Removal(Juror):
    """Deletion and insertion under one removal.

    Args:
        name: for results.
        baselines: what a removed cell becomes. The first whose kind the method did not optimise; if there is none, the first,
            without a vote.
        view: of each composed image that the model is shown.
        second: whether by the second model.

    >>> Removal("grey", ("grey",)).passes(maps=4, fractions=4)
    34
    """

    name: str
    baselines: tuple[Baseline, ...]
    view: View = "plain"
    second: bool = False

    def optimised_by(self, kinds: Collection[str]) -> bool:
        """Whether every baseline is of a kind that was optimised.

        Args:
            kinds: of removal.
        """
        return all(family_of(baseline) in kinds for baseline in self.baselines)

    def passes(self, maps: int, fractions: int) -> int:
        """Two curves of each map, and their common ends.

        Args:
            maps: number of maps, controls included.
            fractions: number of removals of each curve.
        """
        return 2 * maps * fractions + 2 + self.second

    def judge(self, case: Case) -> Judgement:
        """The areas of all maps.

        Args:
            case: images and maps.
        """
        optimises = case.inputs.explanation.optimises
        chosen = next((b for b in self.baselines if family_of(b) not in optimises), self.baselines[0])
        model, score, size = case.asked_model(second=self.second)
        images = case.inputs.images
        settings: dict[str, Any] = {"chunk_size": case.chunk_size, "autocast": case.autocast}
        settings |= {"view": self.view, "shown_size": size}
        probe = ViewProbe(model, score, images, baseline=make_baseline(chosen, images), **settings)
        ends = torch.cat([torch.ones(len(images), 1, 1), torch.zeros(len(images), 1, 1)]).to(images)
        whole, nothing = probe.scores(ends, case.inputs.index.repeat(2)).chunk(2)
        deletion, insertion, x = _curves(probe, case.ranks, case.fractions, whole, nothing)
        areas = torch.trapezoid(torch.stack([deletion, insertion]), x, dim=-1)
        optimised = family_of(chosen) in optimises
        reason = self._reasons(case, whole, nothing, optimised=optimised)
        return Judgement(
            areas[1] - areas[0],
            torch.tensor([not text for text in reason], device=images.device),
            reason,
            areas[0][:, 1:2].mean(dim=1) / whole,
            (insertion.amax(dim=-1) - whole.unsqueeze(1)).clamp(min=0),
            optimised,
        )

    def _reasons(
        self, case: Case, whole: Float[Tensor, " n"], nothing: Float[Tensor, " n"], *, optimised: bool
    ) -> Sequence[str]:
        if optimised:
            return [OPTIMISED] * len(whole)
        if not case.inputs.score.is_class_probability:
            return [""] * len(whole)
        absent = whole <= max(UNRECOGNISED, case.inputs.uninformed)
        recognised = is_recognised(nothing, whole, case.inputs.uninformed)
        reasons = []
        for image, (own, left) in enumerate(torch.stack([whole, nothing], dim=1).tolist()):
            not_there = f"the class is not recognised in it: {own:.3f}" if bool(absent[image]) else ""
            still = f"the class is still recognised: {left:.3f} of {own:.3f}" if bool(recognised[image]) else ""
            reasons.append(not_there or still)
        return reasons


def _curves(
    probe: MaskProbe,
    ranks: Int[Tensor, "n m r c"],
    fractions: Sequence[float],
    whole: Float[Tensor, " n"],
    nothing: Float[Tensor, " n"],
) -> tuple[Float[Tensor, "n m k"], Float[Tensor, "n m k"], Float[Tensor, " k"]]:
    """The deletion and the insertion curve of each map, ends included, and the exact fractions."""
    images, maps, cells = len(ranks), ranks.shape[1], ranks[0, 0].numel()
    counts = torch.tensor([round(fraction * cells) for fraction in fractions], device=ranks.device).clamp(1, cells)
    numbers = [torch.arange(count, device=ranks.device) for count in (images, maps, len(counts), 2)]
    scores = []
    for index, which, step, inserting in (rows.T for rows in torch.cartesian_prod(*numbers).split(probe.chunk_size)):
        first = ranks[index, which] < counts[step].view(-1, 1, 1)
        kept = first == inserting.bool().view(-1, 1, 1)
        scores.append(probe.scores(kept.to(probe.images.dtype), index))
    deletion, insertion = torch.cat(scores).view(images, maps, len(counts), 2).unbind(dim=-1)
    start, end = (values.view(-1, 1, 1).expand(-1, maps, 1) for values in (whole, nothing))
    x = torch.cat([counts.new_zeros(1), counts, counts.new_full((1,), cells)]).to(deletion.dtype) / cells
    return torch.cat([start, deletion, end], dim=-1), torch.cat([end, insertion, start], dim=-1), x


@dataclass(frozen=True)
class Imputation(Juror):
    """ROAD: least minus most relevant pixels first, removed by imputation from their neighbours.

    Args:
        name: for results.
        fractions: of the pixels that are removed, ascending.

    >>> Imputation().passes(maps=4, fractions=4)
    28
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"imputed"})
    name: str = "imputed pixels (ROAD)"
    fractions: tuple[float, ...] = (0.1, 0.3, 0.6)

    def passes(self, maps: int, fractions: int) -> int:
        """Two orders at each fraction, and the clean image, for each map.

        Args:
            maps: number of maps, controls included.
            fractions: is not used.
        """
        del fractions
        return maps * (2 * len(self.fractions) + 1)

    def judge(self, case: Case) -> Judgement:
        """The area between the two curves of each map.

        Args:
            case: images and maps.
        """
        settings: dict[str, Any] = {"chunk_size": case.chunk_size, "autocast": case.autocast, "seed": case.seed}
        images, target = case.inputs.images, case.target
        values = [road(case.model, images, e, target, fractions=self.fractions, **settings).difference for e in case.maps]
        return unconditional(torch.stack(values, dim=1), self.optimised_by(case.inputs.explanation.optimises))


@dataclass(frozen=True)
class Magnitudes(Juror):
    """SaCo: whether groups of pixels with larger values matter more.

    Args:
        name: for results.
        groups: of pixels, at least 2.

    >>> Magnitudes().passes(maps=4, fractions=4)
    44
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"colour"})
    name: str = "magnitudes (SaCo)"
    groups: int = 10

    def passes(self, maps: int, fractions: int) -> int:
        """One for each group, and the clean image, for each map.

        Args:
            maps: number of maps, controls included.
            fractions: is not used.
        """
        del fractions
        return maps * (self.groups + 1)

    def judge(self, case: Case) -> Judgement:
        """The coefficient of each map.

        Args:
            case: images and maps.
        """
        images, target = case.inputs.images, case.target
        settings: dict[str, Any] = {"groups": self.groups, "chunk_size": case.chunk_size, "autocast": case.autocast}
        values = [saco(case.model, images, e, target, **settings) for e in case.maps]
        return unconditional(torch.stack(values, dim=1), self.optimised_by(case.inputs.explanation.optimises))


@dataclass(frozen=True)
class Falls(Juror):
    """Infidelity of random fifths of a grid: the share of the squared falls of the score that the map explains.

    Args:
        name: for results.
        draws: number of perturbations.
        cells: of the grid, on a side.
        share: of the cells that are removed in the mean.

    >>> Falls(draws=50).passes(maps=4, fractions=4)
    204
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"infidelity", "colour"})
    name: str = "explained falls (infidelity)"
    draws: int = 50
    cells: int = 14
    share: float = 0.2

    def passes(self, maps: int, fractions: int) -> int:
        """One for each draw, and the clean image, for each map.

        Args:
            maps: number of maps, controls included.
            fractions: is not used.
        """
        del fractions
        return maps * (self.draws + 1)

    def judge(self, case: Case) -> Judgement:
        """One minus the unexplained share, of each map.

        Args:
            case: images and maps.
        """
        images, target = case.inputs.images, case.target
        settings: dict[str, Any] = {"seed": case.seed, "chunk_size": case.chunk_size, "autocast": case.autocast}
        settings["perturbation"] = Region(self.cells, self.share, baseline="mean")
        results = [infidelity(case.model, images, e, target, draws=self.draws, **settings) for e in case.maps]
        values = torch.stack([1 - result.unexplained for result in results], dim=1)
        return unconditional(values.to(images.dtype), self.optimised_by(case.inputs.explanation.optimises))
