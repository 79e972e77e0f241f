"""Methods that optimise a mask: what I-GOS and Mask share.

The heatmap is :math:`1 - M` at the mask's own resolution, corners aligned with the image's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.baselines import Baseline, describe_baseline, make_baseline
from faithmap.methods.base import Explainer, Progress, RawHeatmap, Request, check_resolution, rows_and_columns
from faithmap.probe import MaskedModel
from faithmap.warning_types import BaselineWarning


def size_penalty(mask: Float[Tensor, "n r c"]) -> Float[Tensor, " n"]:
    r"""How much of the image is removed, :math:`\overline{|1 - M|}`; in [0, 1].

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


Penalty = Callable[[Float[Tensor, "m r c"]], Float[Tensor, " m"]]
"""G of each mask."""


@dataclass(frozen=True)
class Regulariser:
    """g(M), its parts and its gradient.

    Args:
        lambda1: weight of the removed area.
        lambda2: weight of the total variation.
    """

    lambda1: float
    lambda2: float

    def __call__(self, mask: Float[Tensor, "n r c"]) -> Float[Tensor, " n"]:
        """G of each mask."""
        return self.lambda1 * size_penalty(mask) + self.lambda2 * total_variation(mask)

    def gradient(self, mask: Float[Tensor, "n r c"]) -> Float[Tensor, "n r c"]:
        """Of each mask's own g; zero for the size of a cell that is exactly 1, where the absolute value has its kink."""
        mask = mask.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self(mask).sum(), mask)[0]


class Trace:
    """Objective, score, size and total variation at the start and after each iteration, and the steps taken."""

    def __init__(self, images: int, iterations: int, like: Tensor) -> None:
        shape = (iterations + 1, images)
        names = ("objective", "score", "size", "total_variation", "step")
        self.values = {name: like.new_full(shape, math.nan) for name in names}

    def record(
        self,
        iteration: int,
        index: Int[Tensor, " m"],
        mask: Float[Tensor, "m r c"],
        objective: Float[Tensor, " m"],
        penalty: Penalty,
        step: Float[Tensor, " m"] | None = None,
    ) -> None:
        """Write down where the images ``index`` stand after an iteration; 0 is the start."""
        row = {
            "objective": objective,
            "score": objective - penalty(mask),
            "size": size_penalty(mask),
            "total_variation": total_variation(mask),
        }
        for name, values in row.items() if step is None else {**row, "step": step}.items():
            self.values[name][iteration, index] = values.to(self.values[name].dtype)

    def as_dicts(self, masked: MaskedModel, **per_image: Tensor) -> list[dict[str, Any]]:
        """Plain data for each image: its lists end where its optimisation did."""
        columns = {name: values.T.tolist() for name, values in self.values.items()}
        columns |= {"forward_passes": masked.forward.tolist(), "backward_passes": masked.backward.tolist()}
        columns |= {name: values.tolist() for name, values in per_image.items()}
        images = range(len(masked.images))
        return [{name: _without_nan(column[i]) for name, column in columns.items()} for i in images]


def _without_nan(value: Any) -> Any:
    return [v for v in value if not math.isnan(v)] if isinstance(value, list) else value


RECOGNISED = 0.2
"""A baseline whose score is more than this share of the image's is still recognised."""

ROUNDING = 1e-6
"""A fall of the score below this part of it is rounding."""


@dataclass(eq=False)
class MaskOptimiser(Explainer):
    """Base of the methods that optimise a mask.

    Args:
        resolution: cells a side, or (rows, columns); up to the image's own size.
        lambda1: weight of the removed area; None for the method's default, the same at every resolution.
        lambda2: weight of the total variation; None for the method's default up to 28 cells on the longer side, in proportion
            beyond, since neighbouring cells of a finer mask differ less.
        iterations: at the most.
        baseline: what a removed pixel becomes, unless the call says otherwise.

    The weights are meant for a score that falls from about 1 to about 0. A callable target may have any unit and any sign: it
    is divided by its fall from the image to the baseline, which the diagnostics name ``score_fall``; objective and score there
    are in these units.
    """

    DEFAULT_LAMBDAS: ClassVar[tuple[float, float]]
    """(lambda1, lambda2 up to 28 cells a side), chosen by ``benchmarks/tune_igos.py`` on the even photographs."""

    resolution: int | tuple[int, int] = 28
    lambda1: float | None = None
    lambda2: float | None = None
    iterations: int = 15
    baseline: Baseline = "blur"

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the mask."""
        return rows_and_columns(self.resolution)

    @property
    def regulariser(self) -> Regulariser:
        """g(M), the defaults filled in."""
        lambda1, lambda2 = self.DEFAULT_LAMBDAS[0], self.DEFAULT_LAMBDAS[1] * max(1.0, max(self.shape) / 28)
        return Regulariser(lambda1 if self.lambda1 is None else self.lambda1, lambda2 if self.lambda2 is None else self.lambda2)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data, the lambdas in force among them."""
        inforce = {"lambda1": self.regulariser.lambda1, "lambda2": self.regulariser.lambda2}
        return {**super().settings, **inforce, "baseline": describe_baseline(self.baseline)}

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        check_resolution(self.shape, self.shape, size)
        if self.iterations < 1:
            raise ValueError(f"iterations is {self.iterations}; give at least 1")
        if min(self.regulariser.lambda1, self.regulariser.lambda2) < 0:
            raise ValueError("lambda1 and lambda2 weigh penalties; give values of at least 0")

    def _explain(self, request: Request) -> RawHeatmap:
        """Work on as many images at once as one pass holds, so that memory does not grow with their number."""
        heatmaps, diagnostics = [], []
        everything = torch.arange(len(request.images), device=request.images.device)
        for images in everything.split(self.chunk_size):
            masked = self._masked(request, images)
            generators = [request.generators[i] for i in images.tolist()]
            mask, trace = self._optimise(masked, generators, self._part(request, int(images[0])))
            heatmaps.append(1 - mask)
            scale = masked.score.scale
            diagnostics += trace.as_dicts(masked, **({} if scale is None else {"score_fall": 1 / scale}))
        return RawHeatmap(torch.cat(heatmaps), diagnostics)

    @abstractmethod
    def _optimise(
        self, masked: MaskedModel, generators: list[torch.Generator], progress: Progress
    ) -> tuple[Float[Tensor, "n r c"], Trace]:
        """The best mask of each image, and how it was found."""

    def _masked(self, request: Request, index: Int[Tensor, " m"]) -> MaskedModel:
        """The model and some of the images over their baselines; says where a baseline is still recognised."""
        images = request.images[index]
        chosen = request.baseline_for(index, self.baseline)
        masked = MaskedModel(
            self.model,
            request.score.of(index),
            images,
            make_baseline(chosen, images),
            chunk_size=self.chunk_size,
            autocast=self.autocast,
        )
        shown = masked.scores(images.new_zeros(len(images), 1, 1), torch.arange(len(images), device=images.device))
        clean = request.clean[index]
        if request.score.is_class_probability:
            warn_if_recognised(request, index, shown, clean)
        if request.score.function is not None:
            masked.score = replace(masked.score, scale=1 / self._fall(request, index, clean, shown))
        return masked

    def _fall(self, request: Request, index: Int[Tensor, " m"], clean: Tensor, shown: Tensor) -> Float[Tensor, " m"]:
        """How far each callable's score falls from the image to the baseline, as a size; says where it does not fall."""
        for i in (~(shown < clean)).nonzero().flatten().tolist():
            request.warn(
                int(index[i]),
                f"the baseline scores {float(shown[i]):.4g}, no less than the image's {float(clean[i]):.4g}: there is nothing "
                "to take away; give another baseline, or a target that is high where it holds",
                BaselineWarning,
            )
        fall = (clean - shown).abs()
        return fall.where(fall > ROUNDING * clean.abs(), 1.0)

    def _part(self, request: Request, start: int) -> Progress:
        """Progress of one group of images, told as progress of all."""
        total = self.iterations * len(request.images)

        def report(done: int, _: int) -> None:
            request.progress(self.iterations * start + done, total)

        return report

    def _objective(self, masked: MaskedModel, mask: Float[Tensor, "m r c"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """F(M), the plain objective."""
        return masked.scores(mask, index) + self.regulariser(mask)


def warn_if_recognised(
    request: Request, index: Int[Tensor, " m"], shown: Float[Tensor, " m"], clean: Float[Tensor, " m"]
) -> None:
    """Say where the model still sees the explained class in nothing but the baseline.

    Args:
        request: whose images they are.
        index: which.
        shown: the class's probabilities in their baselines.
        clean: in the images.
    """
    for i in (shown > RECOGNISED * clean).nonzero().flatten().tolist():
        request.warn(
            int(index[i]),
            f"the baseline still scores {float(shown[i]):.3f} of the image's {float(clean[i]):.3f}; "
            "give a stronger one, such as baseline='strong_blur' or 'grey'",
            BaselineWarning,
        )
