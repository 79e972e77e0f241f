"""Agreement of maps against closed forms, scipy and torchmetrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.functional.image import structural_similarity_index_measure

from faithmap.explanation import Explanation
from faithmap.metrics import SSIM, Spearman, TopKOverlap
from faithmap.metrics.base import HeatmapMetric
from faithmap.metrics.functional import agreement_matrix, spearman, ssim, top_k_overlap
from faithmap.metrics.functional.agreement import on_one_grid

MEASURES = [spearman, top_k_overlap, partial(top_k_overlap, k=5), ssim, partial(ssim, data_range=3.0)]


def pair(*shape: int, levels: int | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, *shape, generator=generator)
    second = 0.6 * first + 0.4 * second
    return (first, second) if levels is None else ((first * levels).floor(), (second * levels).floor())


def test_spearman_of_distinct_values_is_the_textbook_formula() -> None:
    """1 - 6 sum d^2 / (N (N^2 - 1)): two neighbours that change places in 5 make d^2 = 2."""
    first, second = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]]), torch.tensor([[[10.0, 30.0, 20.0, 40.0, 1e30]]])
    assert spearman(first, second).item() == pytest.approx(1 - 6 * 2 / (5 * 24))


def test_spearman_is_exact_at_both_ends() -> None:
    first = torch.rand(2, 224, 224)
    assert spearman(first, first.exp()).tolist() == [1.0, 1.0]
    assert spearman(first.double(), -first.double()).tolist() == [-1.0, -1.0]
    assert spearman(first.round(), first.round() * 7 - 2).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("levels", [None, 3, 40])
def test_spearman_with_ties_equals_scipy(levels: int | None) -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = pair(3, 9, 11, levels=levels)
    wanted = [stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(first, second, strict=True)]
    assert spearman(first.double(), second.double()).tolist() == pytest.approx(wanted, abs=1e-12)


def test_a_constant_map_has_no_order() -> None:
    flat, other = torch.full((1, 3, 3), 0.1), torch.rand(1, 3, 3)
    assert spearman(flat, other).item() == spearman(other, flat).item() == spearman(flat, flat).item() == 0
    assert ssim(torch.ones(1, 8, 8), torch.full((1, 8, 8), 5.0)).item() == 1, "both become 0 everywhere"


def test_the_top_cells_are_counted_exactly() -> None:
    first, second = torch.zeros(1, 10, 10), torch.zeros(1, 10, 10)
    first[0, 0, :4], second[0, 0, 2:6] = 1.0, 1.0
    assert top_k_overlap(first, second, 4).item() == 0.5
    assert top_k_overlap(first, second, 0.04).item() == 0.5
    assert top_k_overlap(first, second, 100).item() == top_k_overlap(first, second, 1.0).item() == 1
    assert top_k_overlap(first, second, 1).item() == top_k_overlap(first, second, 1e-9).item() == 0, "one cell at least"


def test_equal_cells_are_taken_in_reading_order() -> None:
    """Of a sparse map and its top 3, one cell is above 0 and the two zeros that come first fill up."""
    first, second = torch.zeros(1, 1, 8), torch.zeros(1, 1, 8)
    first[..., 7], second[..., 6] = 1.0, 1.0
    assert top_k_overlap(first, second, 3).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("size", [(6, 6), (7, 9), (28, 40)])
def test_ssim_equals_torchmetrics(size: tuple[int, int]) -> None:
    first, second = (maps.double() * 2 - 0.5 for maps in pair(3, *size))

    def theirs(a: Tensor, b: Tensor, data_range: float) -> Tensor:
        value = structural_similarity_index_measure(a.unsqueeze(1), b.unsqueeze(1), data_range=data_range, reduction="none")
        assert isinstance(value, Tensor)
        return value

    assert torch.allclose(ssim(first, second, data_range=2.0), theirs(first, second, 2.0), atol=1e-9)

    def unit(maps: Tensor) -> Tensor:
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        return (maps - low) / (high - low)

    assert torch.allclose(ssim(first, second), theirs(unit(first), unit(second), 1.0), atol=1e-9)


def test_ssim_does_not_depend_on_the_unit_unless_a_data_range_is_given() -> None:
    first, second = pair(2, 12, 12)
    assert torch.allclose(ssim(first * 100 - 3, second / 7), ssim(first, second), atol=1e-5)
    assert (ssim(first * 2, second, data_range=1.0) < ssim(first, second, data_range=1.0) - 0.05).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_is_symmetric_and_computed_pair_by_pair(
    measure: Callable[[Tensor | Explanation, Tensor | Explanation], Tensor],
) -> None:
    first, second = pair(4, 8, 8)
    together = measure(first, second)
    assert 0 < together.min() < together.max() < 1
    assert torch.allclose(measure(second, first), together, atol=1e-6)
    assert torch.equal(measure(first.flip(0), second.flip(0)).flip(0), together)
    alone = torch.cat([measure(a, b) for a, b in zip(first.split(1), second.split(1), strict=True)])
    assert torch.allclose(alone, together, atol=1e-6)
    assert torch.allclose(measure(first.bfloat16(), second), together, atol=0.1)
    assert (measure(first.bfloat16(), second.bfloat16()).dtype, measure(first.double(), second).dtype) == (
        torch.float32,
        torch.float64,
    )


@pytest.mark.parametrize("measure", MEASURES)
def test_maps_that_do_not_fit_each_other_are_refused(
    measure: Callable[[Tensor | Explanation, Tensor | Explanation], Tensor],
) -> None:
    maps = torch.rand(2, 8, 8)
    with pytest.raises(ValueError, match=r"shapes \(2, 8, 8\) and \(2, 8, 9\)"):
        measure(maps, torch.rand(2, 8, 9))
    with pytest.raises(ValueError, match="NaN"):
        measure(maps, maps.where(maps > 0.1, torch.nan))
    with pytest.raises(ValueError, match=r"images of \(32, 32\) and \(32, 40\)"):
        measure(Explanation(maps, (32, 32)), Explanation(maps, (32, 40)))
    with pytest.raises(ValueError, match="same images"):
        measure(Explanation(maps, (32, 32)), Explanation(maps[:1], (32, 32)))


def test_settings_outside_their_range_are_refused() -> None:
    maps = torch.rand(2, 8, 8)
    for k in (0, 65, 0.0, 1.5, -0.1, True):
        with pytest.raises(ValueError, match=r"k is .* for maps of 64 cells"):
            top_k_overlap(maps, maps, k)
    with pytest.raises(ValueError, match="data_range is 0"):
        ssim(maps, maps, data_range=0.0)
    with pytest.raises(ValueError, match=r"5 x 8 cells are too small.*at least 6 x 6"):
        ssim(maps[:, :5], maps[:, :5])


def test_explanations_are_compared_on_the_finer_grid() -> None:
    """A map that is linear in the place is the same map at every resolution."""

    def ramp(rows: int, columns: int) -> Tensor:
        down, across = torch.linspace(0, 1, rows).view(-1, 1), torch.linspace(0, 1, columns)
        return (2 * down + across).unsqueeze(0)

    coarse, fine = Explanation(ramp(3, 13), (32, 32)), Explanation(ramp(9, 5), (32, 32))
    first, second = on_one_grid(coarse, fine)
    assert first.shape == second.shape == (1, 9, 13)
    assert torch.allclose(first, second, atol=1e-6)
    assert torch.allclose(first, ramp(9, 13), atol=1e-6)


def test_cells_are_compared_at_their_positions_in_the_image() -> None:
    """The same values at other places are another map; at the same places they are compared untouched."""
    values = torch.tensor([[[0.0, 1.0, 0.0, 0.0]]])
    shifted = Explanation(values, (1, 40), columns=torch.tensor([0.0, 10.0, 20.0, 30.0]))
    there = Explanation(values, (1, 40), columns=torch.tensor([9.0, 19.0, 29.0, 39.0]))
    again = Explanation(values * 2, (1, 40), columns=torch.tensor([0.0, 10.0, 20.0, 30.0], dtype=torch.float64))
    assert spearman(shifted, again).item() == 1
    assert on_one_grid(shifted, again)[0] is values
    assert spearman(shifted, there).item() < 0.9
    assert spearman(values, there).item() == 1, "a tensor beside an explanation has the same cells"


def test_a_constant_map_stays_constant_when_it_is_resampled() -> None:
    """0.1 is no sum of its own parts, so that interpolation of it is not constant."""
    flat = Explanation(torch.full((1, 3, 3), 0.1), (32, 32), rows=torch.tensor([1.0, 9.3, 28.7]))
    other = Explanation(torch.rand(1, 9, 9), (32, 32))
    assert on_one_grid(flat, other)[0].unique().numel() == 1
    assert spearman(flat, other).item() == 0


def test_the_agreement_matrix_has_every_pair_of_methods() -> None:
    first, second = pair(3, 8, 8)
    maps = {"one": first, "other": second, "turned": -first}
    found = agreement_matrix(maps)
    assert found.shape == (3, 3, 3)
    assert torch.equal(found[:, 0, 1], spearman(first, second))
    assert torch.equal(found[:, 0, 2], torch.full((3,), -1.0))
    assert torch.equal(found, found.mT)
    assert torch.equal(agreement_matrix(maps, partial(top_k_overlap, k=7))[:, 0, 1], top_k_overlap(first, second, 7))
    with pytest.raises(ValueError, match="at least one method"):
        agreement_matrix({})


def test_metric_classes_equal_the_functions() -> None:
    first, second = pair(3, 8, 8)
    collection = MetricCollection([Spearman(), TopKOverlap(5), SSIM(data_range=2.0)])
    for a, b in zip(first.split([1, 2]), second.split([1, 2]), strict=True):
        collection.update(a, b)
    for name, values in (
        ("Spearman", spearman(first, second)),
        ("TopKOverlap", top_k_overlap(first, second, 5)),
        ("SSIM", ssim(first, second, data_range=2.0)),
    ):
        metric = collection[name]
        assert isinstance(metric, HeatmapMetric)
        assert torch.allclose(metric.per_image(), values)
    assert Spearman.higher_is_better is TopKOverlap.higher_is_better is SSIM.higher_is_better is None
