r"""Methods that optimise a mask: their objective, the record of an optimisation, and their base class.

A mask M is 1 where it keeps the image and 0 where it replaces it by the baseline. The objective is low for a mask that removes
the score and whose removed area is small and smooth (Qi, Khorram and Li, AAAI 2020, Eqs. 2 and 9):

.. math::
    F(M) = f(\Phi(I, M)) + g(M), \qquad
    g(M) = \lambda_1 \overline{|1 - M|} + \lambda_2 TV(M)

The terms of g are means over cells, so that the weights keep their meaning when the number of cells changes. The heatmap is
:math:`1 - M` at the mask's own resolution, corners aligned with the image's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Bool, Float, Int
from torch import Tensor

from faithmap.baselines import Baseline, describe_baseline, make_baseline
from faithmap.methods.base import (
    Explainer,
    Progress,
    RawHeatmap,
    Request,
    check_resolution,
    rows_and_columns,
    warn_if_recognised,
)
from faithmap.probe import MaskProbe
from faithmap.warning_types import BaselineWarning

ROUNDING = 1e-6
"""A fall of the score below this share of it is rounding."""


def size_penalty(mask: Float[Tensor, "n r c"]) -> Float[Tensor, " n"]:
    r"""The share of the image that is removed, :math:`\overline{|1 - M|}`; in [0, 1].

    >>> size_penalty(torch.tensor([[[1.0, 0.0], [0.5, 1.0]]]))
    tensor([0.3750])
    """
    return (1 - mask).abs().mean(dim=(1, 2))


def total_variation(mask: Float[Tensor, "n r c"]) -> Float[Tensor, " n"]:
    r"""Mean squared difference of neighbouring cells, rows plus columns (Fong and Vedaldi 2017, Eq. 4, beta = 2).

    .. math:: TV(M) = \overline{(M_{i+1,j} - M_{i,j})^2} + \overline{(M_{i,j+1} - M_{i,j})^2}

    >>> total_variation(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
    tensor([1.])
    """
    parts = [mask.diff(dim=dim).square().mean(dim=(1, 2)) for dim in (1, 2) if mask.shape[dim] > 1]
    return torch.stack(parts).sum(dim=0) if parts else mask.new_zeros(len(mask))


@dataclass(frozen=True)
class Regulariser:
    """g(M).

    Args:
        lambda1: weight of the removed area.
        lambda2: weight of the total variation.

    >>> Regulariser(lambda1=1.0, lambda2=0.5)(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
    tensor([1.])
    """

    lambda1: float
    lambda2: float

    def __call__(self, mask: Float[Tensor, "m r c"]) -> Float[Tensor, " m"]:
        """The value of g for each mask."""
        return self.lambda1 * size_penalty(mask) + self.lambda2 * total_variation(mask)


def mask_probe(explainer: Explainer, request: Request, index: Int[Tensor, " m"], baseline: Baseline) -> MaskProbe:
    """The probe of some of a call's images over their baselines.

    Args:
        explainer: whose model, chunks and precision.
        request: the call.
        index: the images; one that stands in it twice has two rows.
        baseline: what a removed pixel becomes.
    """
    images = request.images[index]
    settings: dict[str, Any] = {"chunk_size": explainer.chunk_size, "autocast": explainer.autocast}
    return MaskProbe(explainer.model, request.score.of(index), images, make_baseline(baseline, images), **settings)


class Objective:
    """F(M) of the masks of a few images.

    ``index`` is the image of each mask. A method that optimises several masks of an image together overrides
    ``initial_masks``, ``final_mask`` and ``score``.

    Args:
        probe: runs the model on masked images.
        regulariser: the regulariser g.

    >>> from faithmap.score import Score
    >>> ones = torch.ones(1, 1, 1, 2)
    >>> probe = MaskProbe(torch.nn.Flatten(), Score("logit", classes=torch.tensor([1])), ones, 0 * ones)
    >>> Objective(probe, Regulariser(lambda1=1.0, lambda2=0.0))(torch.tensor([[[1.0, 0.5]]]), torch.tensor([0]))
    tensor([0.7500])
    """

    def __init__(self, probe: MaskProbe, regulariser: Regulariser) -> None:
        self.probe, self.regulariser = probe, regulariser

    def __call__(self, masks: Float[Tensor, "m ..."], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """F, without noise.

        Args:
            masks: to be evaluated.
            index: index of the image that each mask belongs to.
        """
        return self.score(masks, index) + self.penalty(self.final_mask(masks), index)

    def initial_masks(self, shape: tuple[int, int]) -> Float[Tensor, "n ..."]:
        """The masks at the start: ones, which keep all of each image.

        Args:
            shape: (rows, columns) of a mask.
        """
        return self.probe.images.new_ones(len(self.probe.images), *shape)

    def final_mask(self, masks: Float[Tensor, "m ..."]) -> Float[Tensor, "m r c"]:
        """M, which the heatmap shows.

        Args:
            masks: what the method optimises.
        """
        return masks

    def score(self, masks: Float[Tensor, "m ..."], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The terms of F that the model is run for.

        Args:
            masks: to be evaluated.
            index: index of the image that each mask belongs to.
        """
        return self.probe.scores(masks, index)

    def penalty(self, mask: Float[Tensor, "m r c"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """g(M) of final masks.

        Args:
            mask: final masks.
            index: index of the image that each mask belongs to.
        """
        del index
        return self.regulariser(mask)

    def penalty_gradient(self, mask: Float[Tensor, "m r c"], index: Int[Tensor, " m"]) -> Float[Tensor, "m r c"]:
        """The gradient of g; that of :math:`|1 - M|` is taken as 0 at its kink, M = 1.

        Args:
            mask: final masks.
            index: index of the image that each mask belongs to.
        """
        mask = mask.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.penalty(mask, index).sum(), mask)[0]


class Trace:
    """Objective, score, size and total variation at the start and after each iteration, and the steps taken.

    The values stay on the device until the optimisation is over.

    Args:
        objective: the objective F.
        iterations: maximum number of iterations.
        masks: the masks at the start.
        values: the objective F of these masks.

    >>> from faithmap.score import Score
    >>> ones = torch.ones(1, 1, 1, 2)
    >>> probe = MaskProbe(torch.nn.Flatten(), Score("logit", classes=torch.tensor([1])), ones, 0 * ones)
    >>> objective, mask, index = Objective(probe, Regulariser(1.0, 0.0)), torch.ones(1, 1, 2), torch.tensor([0])
    >>> trace = Trace(objective, 1, mask, objective(mask, index))
    >>> trace.record(1, index, 0.5 * mask, objective(0.5 * mask, index))
    >>> trace.as_dicts()[0]["size"]
    [0.0, 0.5]
    """

    def __init__(
        self, objective: Objective, iterations: int, masks: Float[Tensor, "n ..."], values: Float[Tensor, " n"]
    ) -> None:
        self.objective = objective
        names = ("objective", "score", "size", "total_variation", "step")
        self._columns = {name: values.new_full((iterations + 1, len(values)), math.nan) for name in names}
        self.record(0, torch.arange(len(values), device=values.device), masks, values)

    def record(
        self,
        iteration: int,
        index: Int[Tensor, " m"],
        masks: Float[Tensor, "m ..."],
        values: Float[Tensor, " m"],
        step: Float[Tensor, " m"] | None = None,
    ) -> None:
        """Store the results of an iteration for the images ``index``.

        Args:
            iteration: counted from 1.
            index: which images.
            masks: after the iteration.
            values: F of these masks.
            step: size of the steps; None for a method without step sizes.
        """
        mask = self.objective.final_mask(masks)
        row = {
            "objective": values,
            "score": values - self.objective.penalty(mask, index),
            "size": size_penalty(mask),
            "total_variation": total_variation(mask),
        }
        for name, column in row.items() if step is None else {**row, "step": step}.items():
            self._columns[name][iteration, index] = column

    @property
    def last_objective(self) -> Float[Tensor, " n"]:
        """F of each image after its last iteration."""
        column = self._columns["objective"]
        return column.gather(0, (~column.isnan()).sum(dim=0, keepdim=True) - 1).squeeze(0)

    def replace(self, where: Bool[Tensor, " n"], other: Trace) -> None:
        """Take the record of some images from another optimisation.

        Args:
            where: these images.
            other: an optimisation of the same images.
        """
        self._columns = {name: column.where(~where, other._columns[name]) for name, column in self._columns.items()}

    def as_dicts(self) -> list[dict[str, Any]]:
        """Plain data for each image; its lists end with its optimisation."""
        columns = {name: values.T.tolist() for name, values in self._columns.items()}
        lists = [{name: [v for v in column[i] if not math.isnan(v)] for name, column in columns.items()} for i in self._images]
        probe = self.objective.probe
        passes = zip(probe.forward.tolist(), probe.backward.tolist(), strict=True)
        return [
            {**record, "forward_passes": forward, "backward_passes": backward}
            for record, (forward, backward) in zip(lists, passes, strict=True)
        ]

    @property
    def _images(self) -> range:
        return range(len(self.objective.probe.images))


@dataclass(eq=False)
class MaskOptimiser(Explainer):
    """Base of the methods that optimise a mask.

    A subclass names its default weights and overrides ``_optimise``.

    Args:
        resolution: cells per side, or (rows, columns), from 1 to the image's own size. Finer maps delete better and look more
            scattered; deletion and insertion scores of different resolutions cannot be compared.
        lambda1: weight of the removed area, at least 0; None for the method's default, the same at every resolution.
        lambda2: weight of the total variation, at least 0; None for the method's default up to 28 cells on the longer side,
            in proportion beyond, since neighbouring cells of a finer mask differ less.
        iterations: maximum number of iterations, at least 1.
        baseline: what a removed pixel becomes, where the call gives none: a name of :data:`faithmap.BASELINES`, a pixel value,
            a tensor or a callable.

    The weights are meant for a score that falls from about 1 to about 0. A callable target may have any unit and any sign: it
    is divided by its fall from the image to the baseline, which the diagnostics name ``score_fall``; objective and score there
    are in these units.

    Raises:
        ValueError: when called, for settings outside these ranges.

    A method of your own, with the plain gradient and a fixed step:

    >>> class GradientDescent(MaskOptimiser):
    ...     DEFAULT_LAMBDAS = (0.1, 2.0)
    ...
    ...     def _optimise(self, probe, generators, progress):
    ...         objective, index = Objective(probe, self.regulariser), torch.arange(len(probe.images))
    ...         mask = objective.initial_masks(self.shape)
    ...         trace = Trace(objective, self.iterations, mask, objective(mask, index))
    ...         for iteration in range(1, self.iterations + 1):
    ...             gradient = probe.gradients(mask, index, torch.ones(len(index))) + objective.penalty_gradient(mask, index)
    ...             mask = (mask - gradient).clamp(0, 1)
    ...             trace.record(iteration, index, mask, objective(mask, index))
    ...             progress(iteration * len(index), self.iterations * len(index))
    ...         return mask, trace
    >>> method = GradientDescent(torch.nn.Flatten(), resolution=2, iterations=1, score="logit")
    >>> method(torch.ones(1, 1, 2, 2), 0, baseline=0.0).heatmap
    tensor([[[1., 0.],
             [0., 0.]]])
    """

    reads_removals: ClassVar[bool] = True
    DEFAULT_LAMBDAS: ClassVar[tuple[float, float]]
    """(lambda1, lambda2 up to 28 cells per side), chosen by ``benchmarks/tune_igos.py`` on the even photographs."""

    resolution: int | tuple[int, int] = 28
    lambda1: Annotated[float, Ge(0)] | None = None
    lambda2: Annotated[float, Ge(0)] | None = None
    iterations: Annotated[int, Ge(1)] = 15
    baseline: Baseline = "blur"

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the mask."""
        return rows_and_columns(self.resolution)

    @property
    def regulariser(self) -> Regulariser:
        """g(M), with the default weights where none are given."""
        lambda1, lambda2 = self.DEFAULT_LAMBDAS[0], self.DEFAULT_LAMBDAS[1] * max(1.0, max(self.shape) / 28)
        return Regulariser(lambda1 if self.lambda1 is None else self.lambda1, lambda2 if self.lambda2 is None else self.lambda2)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data, with the weights in force."""
        weights = {"lambda1": self.regulariser.lambda1, "lambda2": self.regulariser.lambda2}
        return {**super().settings, **weights, "baseline": describe_baseline(self.baseline)}

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        check_resolution(self.shape, self.shape, size)

    def _explain(self, request: Request) -> RawHeatmap:
        """Explain one chunk of images after the other, so that memory does not grow with their number."""
        heatmaps, diagnostics = [], []
        for index in torch.arange(len(request.images), device=request.images.device).split(self.chunk_size):
            probe = self._probe(request, index)
            probe.forward += 1  # the pass over the clean images
            generators = [request.generators[i] for i in index.tolist()]
            mask, trace = self._optimise(probe, generators, self._progress(request, int(index[0])))
            heatmaps.append(1 - mask)
            scale = probe.score.scale
            falls = [{}] * len(index) if scale is None else [{"score_fall": fall} for fall in (1 / scale).tolist()]
            diagnostics += [{**record, **fall} for record, fall in zip(trace.as_dicts(), falls, strict=True)]
        return RawHeatmap(torch.cat(heatmaps), diagnostics)

    @abstractmethod
    def _optimise(
        self, probe: MaskProbe, generators: list[torch.Generator], progress: Progress
    ) -> tuple[Float[Tensor, "n r c"], Trace]:
        """The method itself.

        Args:
            probe: runs the model on masked versions of a chunk of images.
            generators: one for each of these images.
            progress: called with (iterations done, iterations in all), summed over these images.

        Returns:
            The best mask of each image, and the record of the optimisation.
        """

    def _probe(self, request: Request, index: Int[Tensor, " m"]) -> MaskProbe:
        """The probe of some images over their baselines; warns if the model still recognises a baseline."""
        clean = request.clean[index]
        probe = mask_probe(self, request, index, request.baseline_for(index, self.baseline))
        of_baseline = probe.scores(probe.images.new_zeros(len(index), 1, 1), torch.arange(len(index), device=index.device))
        warn_if_recognised(self, request, index, probe.baseline, request.as_probability(of_baseline))
        if request.score.function is not None:
            probe.score = replace(probe.score, scale=1 / _score_fall(request, index, of_baseline, clean))
        return probe

    def _progress(self, request: Request, start: int) -> Progress:
        """The progress of a chunk, reported as progress over all images."""
        total = self.iterations * len(request.images)

        def report(done: int, _: int) -> None:
            request.progress(self.iterations * start + done, total)

        return report


def _score_fall(request: Request, index: Int[Tensor, " m"], of_baseline: Tensor, clean: Tensor) -> Float[Tensor, " m"]:
    """The size of the fall of a callable's score from the image to the baseline; warns if the score does not fall."""
    for i in (~(of_baseline < clean)).nonzero().flatten().tolist():
        request.warn(
            int(index[i]),
            f"the baseline scores {float(of_baseline[i]):.4g}, no less than the image's {float(clean[i]):.4g}: there is no "
            "score to remove; give another baseline, or a target that is high for the image",
            BaselineWarning,
        )
    fall = (clean - of_baseline).abs()
    return fall.where(fall > ROUNDING * clean.abs(), 1.0)
