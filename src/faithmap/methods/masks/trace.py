"""What an optimisation went through, image by image, kept on the device until it is over."""

from __future__ import annotations

import math
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from faithmap.masking import MaskedModel
from faithmap.methods.masks.objective import Penalty, size_penalty, total_variation


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
