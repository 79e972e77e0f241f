"""Each weighting against its paper's equation, written out cell by cell in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from faithmap.methods.cams.weightings import WEIGHTINGS, Evidence, WeightingName, grad_cam_plus_plus, xgrad_cam

N, K, H, W = 2, 3, 4, 5


@pytest.fixture
def evidence() -> Evidence:
    generator = torch.Generator().manual_seed(0)
    activation, gradient = torch.randn(2, N, K, H, W, dtype=torch.float64, generator=generator)
    return Evidence(activation.relu(), gradient)


def weight(name: str, a: Tensor, g: Tensor, i: int, j: int) -> Tensor:
    """Of the cell (i, j) of one channel, whose activation and gradient are a and g."""
    cells = [(p, q) for p in range(H) for q in range(W)]
    mass = torch.stack([a[c] for c in cells]).sum()
    if name == "grad_cam":
        return torch.stack([g[c] for c in cells]).sum() / (H * W)
    if name == "grad_cam_plus_plus":
        return torch.stack([g[c] ** 2 / (2 * g[c] ** 2 + mass * g[c] ** 3) * g[c].clamp(min=0) for c in cells]).sum()
    if name == "xgrad_cam":
        return torch.stack([a[c] / mass * g[c] for c in cells]).sum()
    if name == "layer_cam":
        return g[i, j].clamp(min=0)
    return 0 * g[i, j] if name == "element_wise" and g[i, j] * a[i, j] <= 0 else g[i, j]


def slowly(name: str, a: Tensor, g: Tensor) -> Tensor:
    """The map of one image."""
    total = torch.zeros(H, W, dtype=torch.float64)
    for k in range(K):
        for i in range(H):
            for j in range(W):
                total[i, j] += weight(name, a[k], g[k], i, j) * a[k, i, j]
    return total


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_the_papers_equation(name: WeightingName, evidence: Evidence) -> None:
    maps = (WEIGHTINGS[name](evidence) * evidence.activation).sum(dim=1)
    for image in range(N):
        assert torch.allclose(maps[image], slowly(name, evidence.activation[image], evidence.gradient[image]), atol=1e-12)


def test_grad_cam_plus_plus_is_one_formula_for_every_size_of_object() -> None:
    """Where an object's cells share one slope, its weight is the slope's, whatever their number (Section 3.2 of the paper)."""
    weights = []
    for cells in (1, 4, 9):
        activation, gradient = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
        activation.view(-1)[:cells] = 1
        gradient.view(-1)[:cells] = 1e-3
        weights.append(grad_cam_plus_plus(Evidence(activation, gradient)).item())
    assert weights == pytest.approx([5e-4 * n / (1 + n * 5e-4) for n in (1, 4, 9)], rel=1e-6)


def test_no_weight_is_nan_where_there_is_nothing() -> None:
    nothing = Evidence(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3))
    for weighting in WEIGHTINGS.values():
        assert torch.equal(weighting(nothing).expand(1, 2, 3, 3), torch.zeros(1, 2, 3, 3))


def test_xgrad_cam_of_a_channel_that_cancels_out() -> None:
    activation = torch.tensor([[[[1.0, -1.0]]]])
    assert xgrad_cam(Evidence(activation, torch.ones_like(activation))).item() == 0
