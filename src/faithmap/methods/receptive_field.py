r"""Probing: where the cells of a layer look, by the gradient of each to the image.

For layers behind operations of which :mod:`faithmap.methods.placement` knows nothing. A cell's centre is the centroid of
the squared gradient of its activation to the pixels,

.. math:: centre(j) = \frac{\sum_y y \, |\partial A_j / \partial x_y|^2}{\sum_y |\partial A_j / \partial x_y|^2}

with the channels summed with random signs, on noise. Cells away from the image's border, where what they see is cut off, are
put on one straight line :math:`start + jump \cdot j` for each axis, by least squares.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.methods.placement import Pair, Place, tiles

CELLS = 5
"""Cells of an axis that are asked, at the most."""

Activate = Callable[[Tensor], Tensor]
"""From images to a layer's activation (n, k, h, w), differentiable."""


def probed(activate: Activate, image: Float[Tensor, "1 c h w"], shape: tuple[int, int]) -> Place:
    """Where the cells of a layer of that shape stand; equal tiles of the image where gradients give no answer.

    They give none where an axis has fewer than two cells away from the border, no gradient arrives, or the centres do not rise
    as evenly as cells do: by half a cell at the worst.
    """
    size = (image.shape[-2], image.shape[-1])
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(image.shape, generator=generator).to(image).requires_grad_()
    with torch.enable_grad():
        activation = activate(noise)
        signs = torch.randint(2, (1, activation.shape[1], 1, 1), generator=generator).to(activation) * 2 - 1
        cells = (activation * signs).sum(dim=1)[0]
        lines = [_line(cells, noise, axis, shape) for axis in (0, 1)]
    if lines[0] is None or lines[1] is None:
        return tiles(shape, size)
    (top, down), (left, across) = lines[0], lines[1]
    return Place((top, left), (down, across))


def _line(cells: Float[Tensor, "r c"], image: Tensor, axis: int, shape: tuple[int, int]) -> Pair | None:
    """Start and jump of one axis, from cells along the middle of the other."""
    count, middle = shape[axis], shape[1 - axis] // 2
    inner = torch.arange(count)[1:-1] if count > 3 else torch.arange(count)
    asked = inner[torch.linspace(0, len(inner) - 1, min(CELLS, len(inner))).round().long()] if len(inner) > 1 else inner[:0]
    if len(asked) < 2:
        return None
    centres = []
    for j in asked.tolist():
        cell = cells[j, middle] if axis == 0 else cells[middle, j]
        (gradient,) = torch.autograd.grad(cell, image, retain_graph=True)
        weight = gradient[0].double().square().sum(dim=(0, 2 - axis))
        if not bool(weight.sum() > 0) or not bool(weight.isfinite().all()):
            return None
        centres.append(float(weight @ torch.arange(len(weight), device=weight.device).double() / weight.sum()))
    points = torch.stack([torch.ones(len(asked)), asked.float()], dim=1).double()
    wanted = torch.tensor(centres, dtype=torch.float64)
    start, jump = torch.linalg.lstsq(points, wanted.unsqueeze(1)).solution.flatten().tolist()
    off = float((points @ torch.tensor([start, jump], dtype=torch.float64) - wanted).abs().max())
    return (start, jump) if jump > 0 and off <= jump / 2 else None
