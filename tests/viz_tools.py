"""Typed access to what a matplotlib figure contains."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from numpy.typing import NDArray


def xdata(line: Line2D) -> NDArray[np.float64]:
    return np.asarray(line.get_xdata(), dtype=np.float64)


def ydata(line: Line2D) -> NDArray[np.float64]:
    return np.asarray(line.get_ydata(), dtype=np.float64)


def points(line: Line2D) -> NDArray[np.float64]:
    return np.asarray(line.get_xydata(), dtype=np.float64)


def legend(ax: Axes) -> Legend:
    found = ax.get_legend()
    assert found is not None
    return found


def drawn(ax: Axes) -> NDArray[Any]:
    """The pixels or values of the first image on the axes."""
    return np.asarray(ax.images[0].get_array())
