r"""LIME and KernelSHAP: a linear model of what the score makes of an image with parts removed.

The image's M parts are cells of a grid, or segments that the user gives. With :math:`v \in \{0, 1\}^M` saying which parts are
shown, the others replaced by a baseline, the map holds the coefficients :math:`\beta` of

.. math:: \min_{\beta_0, \beta} \; \sum_s \pi(v_s) \bigl( y(x_{v_s}) - \beta_0 - v_s \cdot \beta \bigr)^2 + \lambda \|\beta\|^2

==========  ===========================================================  ====================================================
\           how the :math:`v_s` are drawn                                :math:`\pi(v)`
LIME        each part with probability 1/2                               :math:`e^{-d^2 / 2 w^2}, \; d = 1 - \sqrt{|v| / M}`
KernelSHAP  :math:`|v| = k` with probability :math:`\propto 1/(k(M-k))`  1; a million for all parts and for none
==========  ===========================================================  ====================================================

(Ribeiro, Singh and Guestrin 2016, with the distance of its authors' code for images, the cosine of v to the whole image;
Lundberg and Lee 2017.) captum draws, and asks the model; the least squares are solved here, in double precision.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.baselines import Baseline, describe_baseline, make_baseline
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request, rows_and_columns
from faithmap.methods.captum_methods.least_squares import LeastSquares
from faithmap.methods.captum_methods.library import captum, drawing, silent
from faithmap.model import normalised_zero
from faithmap.probe import InputProbe

Segments: TypeAlias = Tensor | Callable[[Tensor], Tensor]
"""Which part each pixel belongs to: (h, w) or (n, h, w), of whole numbers; or what makes (h, w) of an image (c, h, w)."""


@dataclass(eq=False)
class Surrogate(Explainer):
    """Base of the two.

    Args:
        cells: of the grid, (rows, columns), or a number for both.
        segments: the parts, instead of a grid.
        samples: images with parts removed.
        baseline: what a removed pixel becomes; "zero" is 0 in the model's normalised space, a grey.

    The rest is explained at :class:`faithmap.methods.Explainer`. Maps have the image's own resolution; each pixel has its
    part's coefficient, which is signed, and no less where a part is small.
    """

    cells: int | tuple[int, int] = 7
    segments: Segments | None = None
    samples: int = 1000
    baseline: Baseline = "zero"

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data."""
        return {**super().settings, "baseline": describe_baseline(self.baseline)}

    @property
    def _grid(self) -> tuple[int, int]:
        return rows_and_columns(self.cells)

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """One a sample, the clean one, and the baseline."""
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
        maps, found = [], []
        for i in range(count):
            coefficients, parts, diagnostics = self._one(request, probe, i)
            maps.append(coefficients.to(images.device)[parts])
            found.append(diagnostics)
            request.progress(i + 1, count)
        passes = (probe.forward + 1).tolist()
        told = [{"forward_passes": p, "backward_passes": 0, **d} for p, d in zip(passes, found, strict=True)]
        return RawHeatmap(torch.stack(maps), told)

    def _one(
        self, request: Request, probe: InputProbe, image: int
    ) -> tuple[Float[Tensor, " parts"], Int[Tensor, "h w"], dict[str, Any]]:
        """The coefficients of one image's parts, these parts, and how well they fit."""
        x, numbers = request.images[image : image + 1], torch.tensor([image], device=request.images.device)
        chosen = request.baseline_for(numbers, self.baseline)
        chosen = normalised_zero(self.model) if isinstance(chosen, str) and chosen == "zero" else chosen
        baseline, parts = make_baseline(chosen, x), self._parts(request.images, image)

        def scores(z: Tensor) -> Tensor:
            return probe.scores(z, numbers.expand(len(z)))

        count = int(parts.max()) + 1
        if count < 2 or self.samples < count + 2:
            raise ValueError(
                f"there are {count} parts for {self.samples} samples; give at least 2 parts, and 2 samples more than parts"
            )
        solver = LeastSquares(self._penalty)
        with silent(), drawing(request.generators[image]):
            self._library(scores, solver).attribute(
                x,
                baseline,
                feature_mask=parts.expand(1, 1, *parts.shape),
                n_samples=self.samples,
                perturbations_per_eval=min(self.chunk_size, self.samples),
                return_input_shape=False,
            )
        change = request.clean[image] - scores(baseline)[0]
        gap = (solver.coefficients.sum() - change).abs() / change.abs()
        return solver.coefficients.float(), parts, {"parts": count, "fit": solver.fitted, "completeness_gap": float(gap)}

    def _parts(self, images: Float[Tensor, "n c h w"], image: int) -> Int[Tensor, "h w"]:
        """The part of each pixel, numbered from 0 without a gap."""
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
        """The penalty, lambda."""
        return 0.0

    @abstractmethod
    def _library(self, scores: Callable[[Tensor], Tensor], solver: LeastSquares) -> Any:
        """The method of captum's around the model."""


@dataclass(eq=False)
class LIME(Surrogate):
    """LIME.

    Args:
        kernel_width: w, of the distance to the whole image; the smaller, the more local.
        penalty: lambda. Without one, and with a wide kernel, every part has what it adds on average.
    """

    kernel_width: float = 0.25
    penalty: float = 1.0

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        if not self.kernel_width > 0 or self.penalty < 0:
            raise ValueError("give a kernel_width above 0 and a penalty of at least 0")

    @property
    def _penalty(self) -> float:
        return self.penalty

    def _library(self, scores: Callable[[Tensor], Tensor], solver: LeastSquares) -> Any:
        return captum().Lime(scores, interpretable_model=solver, similarity_func=self.nearness)

    def nearness(self, image: Tensor, shown: Tensor, parts: Float[Tensor, "1 parts"], **more: Any) -> Float[Tensor, " 1"]:
        r""":math:`\pi(v)`, in the form that captum asks for it."""
        del image, shown, more
        distance = 1 - parts.double().mean(dim=1).sqrt()
        nearness: Tensor = torch.exp(-distance.square() / (2 * self.kernel_width**2))
        return nearness


@dataclass(eq=False)
class KernelSHAP(Surrogate):
    """KernelSHAP: coefficients that estimate the Shapley values of the parts, and sum to the change of the score."""

    def _library(self, scores: Callable[[Tensor], Tensor], solver: LeastSquares) -> Any:
        shap = captum().KernelShap(scores)
        shap.interpretable_model = solver
        return shap
