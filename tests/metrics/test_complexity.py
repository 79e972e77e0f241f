"""Entropy and Gini index against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from faithmap.explanation import Explanation
from faithmap.metrics import Complexity, Sparseness
from faithmap.metrics.functional import entropy, gini


def one_hot(cells: int) -> Tensor:
    heatmap = torch.zeros(1, 1, cells)
    heatmap[..., 1] = 0.3
    return heatmap


@pytest.mark.parametrize("cells", [2, 7, 196, 50176])
@pytest.mark.parametrize("scale", [1.0, -3e-38, 2e38])
def test_a_uniform_map_is_most_complex_and_a_single_cell_least(cells: int, scale: float) -> None:
    alike, alone = torch.full((1, 1, cells), scale), one_hot(cells) * scale
    assert entropy(alike).item() == 1.0
    assert gini(alike).item() == pytest.approx(0.0, abs=1e-7)
    assert entropy(alone).item() == 0.0
    assert gini(alone).item() == pytest.approx(1 - 1 / cells)


def test_a_map_of_zeros_counts_as_uniform() -> None:
    assert (entropy(torch.zeros(1, 3, 4)).item(), gini(torch.zeros(1, 3, 4)).item()) == (1.0, 0.0)


def test_a_map_with_half_of_its_cells_equal_and_the_rest_zero() -> None:
    """Entropy ln(N/2) / ln N; Gini 1/2, whatever the signs."""
    halves = torch.tensor([[[2.0, -2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]]])
    assert entropy(halves).item() == pytest.approx(math.log(4) / math.log(8))
    assert gini(halves).item() == pytest.approx(0.5)


def test_the_gini_index_of_a_ramp() -> None:
    """Of 1 to N the Gini index is (N - 1) / 3N, in any order, and the entropy that of the triangular numbers."""
    ramp = torch.arange(1.0, 13.0).flip(0).view(1, 3, 4)
    shares = [k / 78 for k in range(1, 13)]
    assert gini(ramp).item() == pytest.approx(11 / 36)
    assert entropy(ramp).item() == pytest.approx(-sum(p * math.log(p) for p in shares) / math.log(12))


def test_the_equation_of_hurley_and_rickard_term_by_term() -> None:
    maps = torch.randn(3, 5, 6, dtype=torch.float64)
    for heatmap, found in zip(maps, gini(maps).tolist(), strict=True):
        ordered = sorted(map(abs, heatmap.flatten().tolist()))
        total = sum(c / sum(ordered) * (30 - k + 0.5) / 30 for k, c in enumerate(ordered, start=1))
        assert found == pytest.approx(1 - 2 * total, rel=1e-12)


@pytest.mark.parametrize("measure", [entropy, gini])
def test_a_measure_does_not_depend_on_the_unit_or_the_other_maps(measure: Callable[[Tensor | Explanation], Tensor]) -> None:
    maps = torch.rand(4, 6, 6, generator=torch.Generator().manual_seed(0))
    together = measure(maps)
    assert torch.allclose(torch.cat([measure(one) for one in maps.split(1)]), together, atol=1e-6)
    assert torch.allclose(measure(maps * torch.tensor([1e-30, -1.0, 7.0, 1e30]).view(-1, 1, 1)), together, atol=1e-6)
    assert torch.equal(measure(maps.flip(0)).flip(0), together)
    assert torch.allclose(measure(maps.half()), together, atol=2e-3)
    assert (measure(maps.half()).dtype, measure(maps.double()).dtype) == (torch.float32, torch.float64)
    assert torch.equal(measure(Explanation(maps, (32, 32), rows=torch.arange(6.0))), together)


@pytest.mark.parametrize("measure", [entropy, gini])
@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (torch.rand(3, 3), r"shape \(3, 3\)"),
        (torch.rand(2, 1, 1), "more than one cell"),
        (torch.ones(2, 3, 3, dtype=torch.long), "dtype int64"),
        (torch.full((1, 2, 2), torch.nan), "NaN"),
    ],
)
def test_invalid_maps_are_refused(measure: Callable[[Tensor | Explanation], Tensor], maps: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        measure(maps)


def test_metric_classes_equal_the_functions() -> None:
    maps = torch.rand(3, 4, 4)
    collection = MetricCollection([Complexity(), Sparseness()])
    for one in maps.split([1, 2]):
        collection.update(images=torch.rand(len(one), 3, 8, 8), heatmaps=one)
    found = collection.compute()
    assert torch.allclose(found["Complexity"], entropy(maps).mean())
    assert torch.allclose(found["Sparseness"], gini(maps).mean())
    sparseness = collection["Sparseness"]
    assert isinstance(sparseness, Sparseness)
    assert torch.equal(sparseness.per_image(), gini(maps))
    assert (Complexity.higher_is_better, Sparseness.higher_is_better) == (False, True)
