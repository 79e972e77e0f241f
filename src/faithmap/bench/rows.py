"""Row: everything that is known of one image under one method; the columns of the store are its fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class Row:
    """One row; None where there is nothing to say.

    Attributes:
        index: of the item in the data set.
        image: path of the file, relative to the data set.
        sha256: of the file's content.
        size: (height, width) of what the model saw.
        target: the explained class.
        predicted: the model's.
        label: the explained class's name.
        probability: of the target, on the clean image.
        score: likewise, as the method's own score has it.
        values: of the scalar metrics, by column.
        curves: of deletion and insertion, by column.
        forward: passes that the method took.
        backward: likewise.
        seconds: that the method took.
        metric_seconds: that the metrics took.
        peak_memory: of the accelerator, in bytes.
        heatmap: at its native resolution.
        rows_at: centres of its rows; None where the corners are aligned.
        columns_at: likewise.
        warnings: of the file and of the method.
        error: why there is nothing else.
    """

    index: int
    image: str
    sha256: str | None = None
    size: tuple[int, int] | None = None
    target: int | None = None
    predicted: int | None = None
    label: str | None = None
    probability: float | None = None
    score: float | None = None
    values: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    forward: int | None = None
    backward: int | None = None
    seconds: float | None = None
    metric_seconds: float | None = None
    peak_memory: int | None = None
    heatmap: NDArray[np.float32] | None = None
    rows_at: Sequence[float] | None = None
    columns_at: Sequence[float] | None = None
    warnings: Sequence[str] = ()
    error: str | None = None
