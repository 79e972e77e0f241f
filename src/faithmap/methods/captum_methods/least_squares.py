"""Weighted least squares with an intercept, in the form that captum asks for a surrogate in."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor


class LeastSquares:
    r"""Fits :math:`y = \beta_0 + v \cdot \beta` by weighted least squares, with a penalty on :math:`\|\beta\|^2`.

    Args:
        penalty: its weight; 0 for none.

    Attributes:
        coefficients: beta, in double precision.
        fitted: the part of the weighted variance of y that is explained, 1 at the best.
    """

    coefficients: Float[Tensor, " parts"]
    fitted: float

    def __init__(self, penalty: float = 0.0) -> None:
        self.penalty = penalty

    def fit(self, loader: Iterable[tuple[Tensor, Tensor, Tensor]]) -> dict[str, float]:
        """All samples, their scores and their weights, as one batch or several."""
        shown, scores, weights = (torch.cat(parts).double() for parts in zip(*loader, strict=True))
        share = (weights / weights.sum()).unsqueeze(1)
        middle, level = (share * shown).sum(dim=0), (share.squeeze(1) * scores).sum()
        rows, values = shown - middle, scores - level
        root = weights.sqrt().unsqueeze(1)
        ridge = torch.eye(shown.shape[1], dtype=torch.float64, device=shown.device) * self.penalty**0.5
        left = torch.cat([root * rows, ridge])
        right = torch.cat([root * values.unsqueeze(1), ridge.new_zeros(len(ridge), 1)])
        self.coefficients = torch.linalg.lstsq(left, right).solution.squeeze(1)
        missed, spread = ((weights * v.square()).sum() for v in (values - rows @ self.coefficients, values))
        self.fitted = float(1 - missed / spread) if float(spread) > 0 else 1.0
        return {}

    def representation(self) -> Float[Tensor, " parts"]:
        """The coefficients."""
        return self.coefficients
