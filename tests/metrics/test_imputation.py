"""Noisy linear imputation against direct solves, and what is known without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from faithmap.metrics.functional import linear_imputation, multigrid, noisy_linear_imputation
from faithmap.metrics.functional.multigrid import GridLevel, cycle, down, hierarchy, up

NEIGHBOURS = {(y, x): 1 / 12 if y and x else 1 / 6 for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x}


def averages(height: int, width: int) -> Tensor:
    """The matrix that takes every pixel to the weighted mean of its neighbours inside the image, written out."""
    matrix = torch.zeros(height * width, height * width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            for (i, j), weight in NEIGHBOURS.items():
                if 0 <= y + i < height and 0 <= x + j < width:
                    matrix[y * width + x, (y + i) * width + x + j] = weight
    return matrix / matrix.sum(dim=1, keepdim=True)


def directly(image: Tensor, removed: Tensor) -> Tensor:
    """The paper's system of one image, solved densely."""
    gone, filled = removed.flatten(), image.flatten(1).clone()
    means = averages(*removed.shape)
    system = torch.eye(int(gone.sum()), dtype=torch.float64) - means[gone][:, gone]
    filled[:, gone] = torch.linalg.solve(system, means[gone][:, ~gone] @ filled[:, ~gone].T).T
    return filled.view_as(image)


def seeded(seed: int = 4) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [(11, 13), (8, 8), (1, 9), (7, 1), (2, 2), (16, 5)])
def test_imputation_solves_the_linear_system_of_the_paper(size: tuple[int, int]) -> None:
    """Holes at borders and corners among them, sizes that halve evenly and not, one mask and more known and removed."""
    images = torch.rand(5, 3, *size, dtype=torch.float64, generator=seeded())
    removed = torch.rand(5, *size, generator=seeded(5)) < torch.tensor([0.1, 0.4, 0.7, 0.9, 1.0]).view(5, 1, 1)
    removed[:, size[0] // 2, size[1] // 2] = False
    filled = linear_imputation(images, removed, tolerance=1e-12)
    for image, mask, found in zip(images, removed, filled, strict=True):
        assert torch.allclose(found, directly(image, mask), atol=1e-10, rtol=0)


def test_a_wide_hole_equals_the_solution_of_a_sparse_direct_solver() -> None:
    """Single precision at the default tolerance, where conjugate gradients alone would need over a hundred steps."""
    sparse, linalg = pytest.importorskip("scipy.sparse"), pytest.importorskip("scipy.sparse.linalg")

    side = 96
    image = torch.rand(1, 1, side, side, generator=seeded())
    removed = torch.ones(1, side, side, dtype=torch.bool)
    removed[:, :3, 5:] = removed[:, 40:44, 50:54] = False
    index = torch.arange(side * side).view(side, side)
    total, rows, columns, weights = torch.zeros(side, side, dtype=torch.float64), [], [], []
    for (y, x), weight in NEIGHBOURS.items():
        rows_and_columns = index[max(0, -y) : side - max(0, y), max(0, -x) : side - max(0, x)]
        total.view(-1)[rows_and_columns.flatten()] += weight
        rows.append(rows_and_columns.flatten())
        columns.append((rows_and_columns + y * side + x).flatten())
        weights.append(torch.full((rows_and_columns.numel(),), weight, dtype=torch.float64))
    places = (torch.cat(rows).numpy(), torch.cat(columns).numpy())
    sums = sparse.csr_matrix((torch.cat(weights).numpy(), places))
    means = sparse.diags(1 / total.flatten().numpy()) @ sums
    gone = removed.flatten().numpy()
    system = sparse.identity(int(gone.sum())) - means[gone][:, gone]
    wanted = linalg.spsolve(system.tocsc(), means[gone][:, ~gone] @ image.flatten().double().numpy()[~gone])
    filled = linear_imputation(image, removed).flatten()[removed.flatten()]
    assert torch.allclose(filled.double(), torch.from_numpy(wanted), atol=3e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
def test_imputation_equals_the_authors_imputer() -> None:
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    image, removed = torch.rand(3, 20, 17, generator=seeded()), torch.rand(20, 17, generator=seeded(5)) < 0.6
    wanted = road.NoisyLinearImputer(noise=0)(image.clone(), (~removed).float())
    assert torch.allclose(linear_imputation(image.unsqueeze(0), removed.unsqueeze(0))[0], wanted, atol=3e-5, rtol=0)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_constant_image_is_reproduced_exactly(share: float) -> None:
    images = torch.tensor([0.3, 0.7]).view(2, 1, 1, 1).expand(2, 3, 24, 31)
    removed = torch.rand(2, 24, 31, generator=seeded()) < share
    assert torch.equal(linear_imputation(images, removed), images)


def test_a_ramp_is_reproduced_in_the_interior() -> None:
    """A linear function is the mean of its neighbours, as long as they are all there; at the border they are not."""
    ramp = (torch.arange(33).double().view(33, 1) / 80 + torch.arange(40).double() / 100).expand(1, 2, 33, 40)
    inside, outside = torch.zeros(2, 1, 33, 40, dtype=torch.bool)
    inside[:, 1:-1, 1:20] = True
    outside[:, :, 3:20] = True
    assert torch.allclose(linear_imputation(ramp, inside, tolerance=1e-11), ramp, atol=1e-10, rtol=0)
    assert (linear_imputation(ramp, outside) - ramp).abs().max() > 0.01


def test_one_known_pixel_fills_the_image_and_without_any_the_mean_does() -> None:
    images = torch.rand(2, 3, 19, 22, generator=seeded())
    removed = torch.ones(2, 19, 22, dtype=torch.bool)
    removed[0, 4, 7] = False
    filled = linear_imputation(images, removed)
    assert torch.equal(filled[0], images[0, :, 4:5, 7:8].expand(3, 19, 22))
    assert torch.allclose(filled[1], images[1].mean(dim=(1, 2), keepdim=True).expand(3, 19, 22))
    assert torch.equal(linear_imputation(images, ~removed)[0, :, :4], images[0, :, :4]), "what is known stays, bit for bit"


def test_the_solution_of_a_mask_does_not_depend_on_the_other_masks() -> None:
    """An easy mask stops long before a hard one, and nothing is added to it afterwards."""
    images, removed = torch.rand(3, 2, 40, 40, generator=seeded()), torch.ones(3, 40, 40, dtype=torch.bool)
    removed[0, 1:] = False
    removed[1, 20, 20] = removed[2, :, 0] = False
    together = linear_imputation(images, removed, tolerance=1e-3)
    for i in range(3):
        alone = linear_imputation(images[i : i + 1], removed[i : i + 1], tolerance=1e-3)
        assert torch.allclose(together[i : i + 1], alone, atol=1e-6, rtol=0)


def test_the_tolerance_is_one_of_the_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finer one costs cycles and buys accuracy; the number of cycles hardly grows with the hole."""
    cycles = []

    def counting(levels: list[GridLevel], r: Tensor) -> Tensor:
        cycles.append(r.shape[-1])
        return cycle(levels, r)

    monkeypatch.setattr(multigrid, "cycle", counting)
    found = {}
    for side in (32, 128):
        image, removed = torch.rand(1, 1, side, side, generator=seeded()), torch.ones(1, side, side, dtype=torch.bool)
        removed[:, :, 0] = removed[:, side // 2, side // 3] = False
        exact = linear_imputation(image.double(), removed, tolerance=1e-12)
        for tolerance in (1e-2, 1e-4):
            cycles.clear()
            error = (linear_imputation(image, removed, tolerance=tolerance) - exact).abs().max()
            assert error < 3 * tolerance
            found[side, tolerance] = cycles.count(side)
    assert found[128, 1e-2] < found[128, 1e-4] <= 12
    assert found[128, 1e-4] <= found[32, 1e-4] + 3


def test_the_cycle_is_symmetric_and_positive() -> None:
    """Conjugate gradients ask that of it, for every mask: single free pixels and single known ones among them."""
    free = torch.rand(4, 9, 10, generator=seeded()) < torch.tensor([0.1, 0.4, 0.8, 0.97]).view(4, 1, 1)
    free[:, 3, 3] = False
    levels = hierarchy(free, torch.float64)
    units = torch.eye(90, dtype=torch.float64).view(1, 90, 9, 10).expand(4, -1, -1, -1) * free.unsqueeze(1)
    for matrix, mask in zip(cycle(levels, units).flatten(2), free.flatten(1), strict=True):
        inner = matrix[mask][:, mask]
        assert torch.allclose(inner, inner.T, atol=1e-12)
        assert torch.linalg.eigvalsh(inner).min() > 0.05
        assert not matrix[:, ~mask].any()


def test_the_smoother_converges_on_every_grid_of_every_mask() -> None:
    """Eigenvalues of the inverse times the operator stay below 2; a lone pixel under four coarse cells is the worst case."""
    free = torch.rand(4, 9, 10, generator=seeded()) < torch.tensor([0.1, 0.4, 0.8, 0.97]).view(4, 1, 1)
    free[0] = False
    free[0, 3, 3] = free[0, 5, 7] = True
    for level in hierarchy(free, torch.float64):
        cells = level.free[0].numel()
        units = torch.eye(cells, dtype=torch.float64).view(1, cells, *level.free.shape[-2:]) * level.free
        scale = level.inverse.sqrt()
        scaled = (scale * level.operator(scale * units)).flatten(2)
        assert torch.linalg.eigvalsh(scaled).max() < 1.82


def test_a_solution_stays_between_the_known_pixels() -> None:
    """However loosely it was solved."""
    images = (torch.rand(20, 1, 40, 40, generator=seeded()) > 0.5).float()
    removed = torch.rand(20, 40, 40, generator=seeded(5)) < 0.9
    for tolerance in (0.1, 0.03):
        filled = linear_imputation(images, removed, tolerance=tolerance)
        assert filled.min() >= 0
        assert filled.max() <= 1


def test_a_bright_image_is_solved_as_exactly_as_a_dark_one() -> None:
    """What is common to all known pixels takes no part in the solution, where a wide hole would amplify its rounding."""
    image = 0.95 + 0.05 * torch.rand(1, 1, 96, 96, generator=seeded())
    removed = torch.ones(1, 96, 96, dtype=torch.bool)
    removed[:, 0, :9] = False
    exact = linear_imputation(image.double(), removed, tolerance=1e-11)
    assert torch.allclose(linear_imputation(image, removed, tolerance=3e-6).double(), exact, atol=6e-6, rtol=0)


@pytest.mark.parametrize("size", [(6, 7), (1, 4), (9, 1)])
def test_down_is_the_transpose_of_up(size: tuple[int, int]) -> None:
    x = torch.rand(1, 2, (size[0] + 1) // 2, (size[1] + 1) // 2, dtype=torch.float64, generator=seeded())
    y = torch.rand(1, 2, *size, dtype=torch.float64, generator=seeded(5))
    assert torch.allclose((up(x, size) * y).sum(), (x * down(y)).sum())
    assert torch.equal(up(torch.ones_like(x), size), torch.ones_like(y))


def test_coarse_operators_are_galerkin_products() -> None:
    """Nine weights a cell hold the whole of P^T A P."""
    free = torch.rand(1, 10, 13, generator=seeded()) < 0.7
    fine, coarse = hierarchy(free, torch.float64)[:2]
    x = torch.rand(1, 1, 5, 7, dtype=torch.float64, generator=seeded(5))
    assert torch.allclose(coarse.operator(x), down(fine.operator(fine.free * up(x, (10, 13)))))


def test_only_removed_pixels_get_noise_and_each_image_its_own() -> None:
    images, removed = torch.full((2, 3, 64, 64), 0.5), torch.zeros(2, 64, 64, dtype=torch.bool)
    removed[:, :, :48] = True
    noisy = noisy_linear_imputation(images, removed, noise_std=0.02, seed=3)
    assert torch.equal(noisy[..., 48:], images[..., 48:])
    assert (noisy - images)[..., :48].std(dim=(1, 2, 3)).tolist() == pytest.approx([0.02] * 2, rel=0.05)
    alone = noisy_linear_imputation(images[:1], removed[:1], noise_std=0.02, seed=3)
    assert torch.equal(noisy[:1], alone)
    assert not torch.equal(noisy[0], noisy[1])
    with pytest.raises(ValueError, match=r"noise_std is -1"):
        noisy_linear_imputation(images, removed, noise_std=-1)


def test_half_precision_is_solved_in_single_precision() -> None:
    images, removed = torch.rand(1, 3, 33, 33, generator=seeded()).half(), torch.rand(1, 33, 33, generator=seeded(5)) < 0.9
    filled = linear_imputation(images, removed)
    assert filled.dtype == torch.float16
    assert torch.allclose(filled.float(), linear_imputation(images.float(), removed), atol=5e-4, rtol=0)


def test_a_tolerance_that_is_not_reached_is_an_error() -> None:
    images, removed = torch.rand(1, 1, 64, 64, generator=seeded()), torch.ones(1, 64, 64, dtype=torch.bool)
    removed[:, 0] = False
    with pytest.raises(RuntimeError, match=r"after 3 iterations, above the tolerance of 1e-05; .*larger tolerance"):
        linear_imputation(images, removed, max_iterations=3)
    with pytest.raises(ValueError, match=r"tolerance is 1e-12, but torch.float32 resolves about 1e-06"):
        linear_imputation(images, removed, tolerance=1e-12)


@pytest.mark.parametrize(
    ("removed", "options", "words"),
    [
        (torch.zeros(2, 4, 4), {}, "removed is float32 of shape"),
        (torch.zeros(2, 4, 5, dtype=torch.bool), {}, "give bool"),
        (torch.zeros(2, 4, 4, dtype=torch.bool), {"tolerance": 0.0}, "tolerance is 0.0"),
    ],
)
def test_invalid_masks_and_settings_are_refused(removed: Tensor, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        linear_imputation(torch.rand(2, 3, 4, 4), removed, **options)
