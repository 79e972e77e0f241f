r"""LIME and KernelSHAP: a linear model of the score as a function of which parts of the image are kept.

The M parts of an image are the cells of a grid, or segments given by the user. :math:`v \in \{0, 1\}^M` is 1 for the parts that
are kept; the others are replaced by a baseline. The map has the coefficients :math:`\beta` of

.. math:: \min_{\beta_0, \beta} \; \sum_s \pi(v_s) \bigl( y(x_{v_s}) - \beta_0 - v_s \cdot \beta \bigr)^2 + \lambda \|\beta\|^2

==========  ===========================================================  ====================================================
\           how the :math:`v_s` are drawn                                :math:`\pi(v)`
LIME        each part with probability 1/2                               :math:`e^{-d^2 / 2 w^2}, \; d = 1 - \sqrt{|v| / M}`
KernelSHAP  :math:`|v| = k` with probability :math:`\propto 1/(k(M-k))`  1; a million for all parts and for none
==========  ===========================================================  ====================================================

(Ribeiro, Singh and Guestrin 2016, with the distance of its authors' code for images, the cosine of v to the whole image;
Lundberg and Lee 2017.) captum draws the samples; the least squares are solved here, in double precision.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.baselines import Baseline, describe_baseline, make_baseline
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request, rows_and_columns, warn_if_recognised
from faithmap.methods.captum_methods.base import captum, drawing
from faithmap.probe import InputProbe

Segments: TypeAlias = Tensor | Callable[[Tensor], Tensor]
"""The part of each pixel: whole numbers (h, w) or (n, h, w), or a callable that makes (h, w) of an image (c, h, w)."""


@dataclass(eq=False)
class Surrogate(Explainer):
    """Base of LIME and KernelSHAP.

    Maps have the image's resolution. Each pixel has the signed coefficient of its part, whatever the part's size.

    Args:
        cells: parts of a grid, per side or as (rows, columns).
        segments: the parts, instead of a grid: whole numbers (h, w) or (n, h, w), or a callable that makes (h, w) of an image
            (c, h, w), such as a superpixel algorithm.
        samples: number of images with random parts removed; at least 2 more than there are parts.
        baseline: value of removed pixels; ``"zero"`` is 0 in the model's normalised space, a grey.
    """

    reads_removals: ClassVar[bool] = True
    cells: int | tuple[int, int] = 7
    segments: Segments | None = None
    samples: Annotated[int, Ge(1)] = 1000
    baseline: Baseline = "zero"

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data."""
        return {**super().settings, "baseline": describe_baseline(self.baseline)}

    @property
    def _grid(self) -> tuple[int, int]:
        return rows_and_columns(self.cells)

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """One for each sample, one for the target, and one for the baseline."""
        del image
        return Passes(self.samples + 2, 0)

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        captum()
        if self.segments is None and not all(1 <= cells <= pixels for cells, pixels in zip(self._grid, size, strict=True)):
            raise ValueError(f"cells are {self._grid}; give 1 to {size[0]} rows and 1 to {size[1]} columns")

    def _explain(self, request: Request) -> RawHeatmap:
        images, count = request.images, len(request.images)
        probe = InputProbe(self.model, request.score, images, chunk_size=self.chunk_size, autocast=self.autocast)
        maps, fits = [], []
        for i in range(count):
            coefficients, parts, fit = self._one(request, probe, i)
            maps.append(coefficients.to(images.device)[parts])
            fits.append(fit)
            request.progress(i + 1, count)
        passes = (probe.forward + 1).tolist()
        diagnostics = [{"forward_passes": p, "backward_passes": 0, **d} for p, d in zip(passes, fits, strict=True)]
        return RawHeatmap(torch.stack(maps), diagnostics)

    def _one(
        self, request: Request, probe: InputProbe, image: int
    ) -> tuple[Float[Tensor, " parts"], Int[Tensor, "h w"], dict[str, Any]]:
        """The coefficients of the parts of one image, the part of each pixel, and the diagnostics of the fit."""
        x, numbers = request.images[image : image + 1], torch.tensor([image], device=request.images.device)
        chosen = request.baseline_for(numbers, self.baseline)
        baseline, parts = make_baseline(chosen, x), self._parts(request.images, image)

        def scores(z: Tensor) -> Tensor:
            return probe.scores(z, numbers.expand(len(z)))

        count = int(parts.max()) + 1
        if count < 2 or self.samples < count + 2:
            raise ValueError(
                f"there are {count} parts for {self.samples} samples; give at least 2 parts, and 2 samples more than parts"
            )
        solver = LeastSquares(self._penalty)
        library = self._library(scores, solver)
        with drawing(request.generators[image]):
            library.attribute(
                x,
                baseline,
                feature_mask=parts.expand(1, 1, *parts.shape),
                n_samples=self.samples,
                perturbations_per_eval=min(self.chunk_size, self.samples),
                return_input_shape=False,
            )
        vars(library).clear()  # it refers to itself, and would keep the image until Python's next search for cycles
        of_baseline = scores(baseline)
        warn_if_recognised(self, request, numbers, baseline, request.as_probability(of_baseline))
        change = request.clean[image] - of_baseline[0]
        gap = (solver.coefficients.sum() - change).abs() / change.abs()
        return solver.coefficients.float(), parts, {"parts": count, "fit": solver.fitted, "completeness_gap": float(gap)}

    def _parts(self, images: Float[Tensor, "n c h w"], image: int) -> Int[Tensor, "h w"]:
        """The part of each pixel, numbered from 0 without gaps."""
        rows, columns = images.shape[-2:]
        if self.segments is None:
            down, across = (
                torch.arange(pixels, device=images.device) * cells // pixels
                for cells, pixels in zip(self._grid, (rows, columns), strict=True)
            )
            return down.unsqueeze(1) * self._grid[1] + across
        given = self.segments if isinstance(self.segments, Tensor) else self.segments(images[image])
        one = given[image] if given.ndim == 3 and len(given) == len(images) else given
        if one.shape != (rows, columns) or one.is_floating_point() or one.is_complex():
            shape, dtype = tuple(given.shape), str(given.dtype).removeprefix("torch.")
            raise ValueError(
                f"segments have shape {shape} and dtype {dtype}; give whole numbers, {(rows, columns)} for each image"
            )
        numbered: Tensor = one.to(images.device).unique(return_inverse=True)[1]
        return numbered

    @property
    def _penalty(self) -> float:
        """Weight of the penalty, lambda."""
        return 0.0

    @abstractmethod
    def _library(self, scores: Callable[[Tensor], Tensor], solver: LeastSquares) -> Any:
        """The method of captum with this solver."""


@dataclass(eq=False)
class LIME(Surrogate):
    """LIME: coefficients of a linear model that fits the score near the image.

    Args:
        kernel_width: w, the width of the weighting of samples by their distance to the whole image; smaller is more local.
        penalty: lambda, the weight of the squared coefficients. With 0 and a wide kernel, a coefficient is the mean change of
            the score when the part is added.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 1, bias=False))
    >>> _ = torch.nn.init.constant_(model[1].weight, 0.5)
    >>> explain = LIME(model, cells=(1, 2), samples=20, penalty=0.0, baseline="black", score="logit")
    >>> explain(torch.tensor([[[[0.2, 0.8]]]]), 0).heatmap
    tensor([[[0.1000, 0.4000]]])
    """

    title: ClassVar[str] = "LIME"
    kernel_width: Annotated[float, Gt(0)] = 0.25
    penalty: Annotated[float, Ge(0)] = 1.0

    @property
    def _penalty(self) -> float:
        return self.penalty

    def _library(self, scores: Callable[[Tensor], Tensor], solver: LeastSquares) -> Any:
        return captum().Lime(scores, interpretable_model=solver, similarity_func=self.nearness)

    def nearness(self, image: Tensor, subsets: Tensor, parts: Float[Tensor, "1 parts"], **more: Any) -> Float[Tensor, " 1"]:
        r""":math:`\pi(v)`, with the parameters that captum gives.

        Args:
            image: the explained image; not used.
            subsets: the image with some parts removed; not used.
            parts: 1 for each part that is kept, 0 for each part that is removed.
            more: further arguments of captum; not used.
        """
        del image, subsets, more
        distance = 1 - parts.double().mean(dim=1).sqrt()
        nearness: Tensor = torch.exp(-distance.square() / (2 * self.kernel_width**2))
        return nearness


@dataclass(eq=False)
class KernelSHAP(Surrogate):
    """KernelSHAP: estimates of the Shapley values of the parts, which sum to the change of the score.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 1, bias=False))
    >>> _ = torch.nn.init.constant_(model[1].weight, 0.5)
    >>> explain = KernelSHAP(model, cells=(1, 2), samples=20, baseline="black", score="logit")
    >>> explain(torch.tensor([[[[0.2, 0.8]]]]), 0).heatmap
    tensor([[[0.1000, 0.4000]]])
    """

    title: ClassVar[str] = "KernelSHAP"

    def _library(self, scores: Callable[[Tensor], Tensor], solver: LeastSquares) -> Any:
        shap = captum().KernelShap(scores)
        shap.interpretable_model = solver
        return shap


class LeastSquares:
    r"""Weighted least squares with an intercept, with the methods that captum needs of a surrogate model.

    It fits :math:`y = \beta_0 + v \cdot \beta` with a penalty on :math:`\|\beta\|^2`.

    Args:
        penalty: weight of the penalty; 0 for none.

    Attributes:
        coefficients: beta, in double precision.
        fitted: fraction of the weighted variance of y that is explained, at most 1.
    """

    coefficients: Float[Tensor, " parts"]
    fitted: float

    def __init__(self, penalty: float = 0.0) -> None:
        self.penalty = penalty

    def fit(self, loader: Iterable[tuple[Tensor, Tensor, Tensor]]) -> dict[str, float]:
        """Fit to samples, scores and weights, in one batch or several; captum calls this."""
        subsets, scores, weights = (torch.cat(parts).double() for parts in zip(*loader, strict=True))
        share = (weights / weights.sum()).unsqueeze(1)
        middle, level = (share * subsets).sum(dim=0), (share.squeeze(1) * scores).sum()
        rows, values = subsets - middle, scores - level
        root = weights.sqrt().unsqueeze(1)
        ridge = torch.eye(subsets.shape[1], dtype=torch.float64, device=subsets.device) * self.penalty**0.5
        left = torch.cat([root * rows, ridge])
        right = torch.cat([root * values.unsqueeze(1), ridge.new_zeros(len(ridge), 1)])
        self.coefficients = torch.linalg.lstsq(left, right).solution.squeeze(1)
        missed, spread = ((weights * v.square()).sum() for v in (values - rows @ self.coefficients, values))
        self.fitted = float(1 - missed / spread) if float(spread) > 0 else 1.0
        return {}

    def representation(self) -> Float[Tensor, " parts"]:
        """The coefficients; captum calls this."""
        return self.coefficients
