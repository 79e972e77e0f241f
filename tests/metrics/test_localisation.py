"""Localisation against closed forms and against the definitions, written out slowly."""

from __future__ import annotations

import doctest
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import given
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.metrics import EnergyPointingGame, PointingGame, RelevanceRank
from faithmap.metrics.functional import (
    annotated_regions,
    difficult_subset,
    energy_pointing_game,
    pointing_accuracy,
    pointing_distance,
    pointing_game,
    relevance_rank,
)
from faithmap.model import Geometry
from faithmap.warning_types import EmptyHeatmapWarning

ALL = (pointing_distance, energy_pointing_game, relevance_rank)


def one_hot(row: int, column: int, height: int = 60, width: int = 80) -> Tensor:
    heatmap = torch.zeros(1, height, width)
    heatmap[0, row, column] = 1
    return heatmap


def noise(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(n, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("down", "across", "hit"),
    [
        (10, 11, True),
        (5, 14, True),
        (14, 5, True),
        (0, 14, True),
        (0, 15, False),
        (15, 0, False),
        (9, 12, False),
        (12, 9, False),
    ],
)
def test_nearer_than_fifteen_pixels_is_a_hit(down: int, across: int, hit: bool) -> None:
    """14.87 pixels, the last distance on a grid below 15, and 15.0 in all the ways there are."""
    places = ((20 - down, 30 - across), (24 + down, 39 + across), (20 - down, 39 + across), (24 + down, 30 - across))
    heatmaps = torch.cat([one_hot(*place) for place in places])
    mask = torch.zeros(4, 60, 80, dtype=torch.bool)
    mask[:, 20:25, 30:40] = True
    for objects in (torch.tensor([[30, 20, 40, 25]] * 4), mask):
        assert pointing_game(heatmaps, objects).tolist() == [hit] * 4
        assert pointing_distance(heatmaps, objects).tolist() == pytest.approx([math.hypot(down, across)] * 4)


def test_without_tolerance_only_inside_counts() -> None:
    box = torch.tensor([[30, 20, 40, 25]])
    inside = [(20, 30), (24, 39)]
    beside = [(19, 30), (20, 29), (25, 39), (24, 40)]
    assert all(bool(pointing_game(one_hot(*place), box, tolerance=0)) for place in inside)
    assert not any(bool(pointing_game(one_hot(*place), box, tolerance=0)) for place in beside)
    assert not any(bool(pointing_game(one_hot(*place), box, tolerance=1)) for place in beside), "1 is not nearer than 1"
    assert all(bool(pointing_game(one_hot(*place), box, tolerance=1.01)) for place in beside)


def test_distance_is_to_the_nearest_pixel_of_a_mask_with_holes() -> None:
    mask = torch.zeros(1, 60, 80, dtype=torch.bool)
    mask[0, 10:51, 10:51] = True
    mask[0, 20:41, 20:41] = False
    assert float(pointing_distance(one_hot(30, 30), mask)) == 11
    assert float(pointing_distance(one_hot(31, 27), mask)) == 8


def test_of_equal_pixels_the_first_in_reading_order_points() -> None:
    heatmap = torch.zeros(1, 40, 60)
    heatmap[0, 10, 50] = heatmap[0, 30, 5] = 2.0
    assert float(pointing_distance(heatmap, torch.tensor([[50, 10, 51, 11]]))) == 0
    assert float(pointing_distance(heatmap.flip(2), torch.tensor([[9, 10, 10, 11]]))) == 0


def test_rounding_of_the_interpolation_breaks_no_tie() -> None:
    """A plateau of 0.1 between two cells: rounding would put the highest pixel anywhere on it."""
    heatmap = torch.zeros(1, 3, 4, dtype=torch.float64)
    heatmap[0, 1, 1:3] = 0.1
    explanation = Explanation(heatmap, (101, 301))
    assert float(pointing_distance(explanation, torch.tensor([[100, 50, 101, 51]]))) == 0


def test_a_constant_map_points_nowhere() -> None:
    for value in (0.0, -1.0, 0.3):
        with pytest.warns(EmptyHeatmapWarning, match="1 of the heatmaps are constant"):
            assert not pointing_game(torch.full((1, 4, 4), value), torch.tensor([[0, 0, 4, 4]]))
    coarse = Explanation(torch.full((1, 3, 3), 0.3, dtype=torch.float64), (40, 70))
    with pytest.warns(EmptyHeatmapWarning):
        assert pointing_distance(coarse, torch.tensor([[0, 0, 4, 4]])).isinf()


def test_a_uniform_map_scores_the_share_of_the_area() -> None:
    boxes = torch.tensor([[0, 0, 5, 6], [3, 2, 9, 7]])
    areas = torch.tensor([30.0, 30.0]) / 80
    assert torch.allclose(energy_pointing_game(torch.ones(2, 8, 10), boxes), areas)
    assert torch.allclose(relevance_rank(torch.full((2, 8, 10), -3.0), boxes), areas)
    assert torch.allclose(relevance_rank(torch.zeros(2, 8, 10), boxes), areas)


def test_a_perfect_map_scores_one_and_its_opposite_nothing() -> None:
    box, mask = torch.tensor([[3, 2, 9, 7]]), torch.zeros(1, 8, 10)
    mask[0, 2:7, 3:9] = 1
    assert [float(f(mask, box)) for f in ALL] == [0, 1, 1]
    assert [float(f(1 - mask, box)) for f in ALL[1:]] == [0, 0]


def test_energy_counts_positive_values_alone() -> None:
    heatmap = torch.tensor([[[3.0, 1.0, -5.0, -7.0]]])
    assert float(energy_pointing_game(heatmap, torch.tensor([[0, 0, 1, 1]]))) == 0.75
    assert float(energy_pointing_game(heatmap, torch.tensor([[1, 0, 4, 1]]))) == 0.25
    with pytest.warns(EmptyHeatmapWarning, match="1 of the heatmaps are without positive values: they score 0"):
        found = energy_pointing_game(torch.stack([-torch.ones(1, 4), heatmap[0]]), torch.tensor([[0, 0, 1, 1]] * 2))
    assert found.tolist() == [0, 0.75]


def test_rank_of_ties_across_the_cut_is_their_mean_over_all_orders() -> None:
    """Object: 3 of 6 pixels. One is on top, one of the four that are level, one is last: (1 + 2 x 1/4) / 3."""
    heatmap = torch.tensor([[[9.0, 5.0, 5.0, 5.0, 5.0, 1.0]]])
    mask = torch.tensor([[[True, False, True, False, False, True]]])
    assert float(relevance_rank(heatmap, mask)) == pytest.approx((1 + 2 / 4) / 3)
    assert torch.equal(relevance_rank(heatmap.flip(2), mask.flip(2)), relevance_rank(heatmap, mask))


def test_rounding_of_the_interpolation_ranks_nothing() -> None:
    """0.1 everywhere is a little more or less between the cells."""
    uniform = Explanation(torch.full((1, 3, 3), 0.1, dtype=torch.float64), (40, 70))
    assert float(relevance_rank(uniform, [[0, 0, 10, 20]])) == pytest.approx(200 / 2800, abs=1e-12)


def test_several_boxes_of_an_image_are_one_object() -> None:
    heatmap = noise(1, 8, 10)
    mask = torch.zeros(8, 10, dtype=torch.bool)
    mask[0:4, 0:4] = mask[2:6, 2:6] = mask[7, 9] = True
    boxes = torch.tensor([[0, 0, 4, 4], [2, 2, 6, 6], [9, 7, 10, 8]])
    parts = torch.zeros(3, 8, 10, dtype=torch.bool)
    parts[0, 0:4, 0:4] = parts[1, 2:6, 2:6] = parts[2, 7, 9] = True
    for function in ALL:
        wanted = function(heatmap, [mask])
        assert torch.equal(function(heatmap, [boxes]), wanted)
        assert torch.equal(function(heatmap, boxes.unsqueeze(0)), wanted)
        assert torch.equal(function(heatmap, [parts]), wanted)
        assert torch.equal(function(heatmap, [boxes.tolist()]), wanted)


def test_an_image_with_fewer_boxes_than_its_neighbour_gets_none() -> None:
    boxes = [[[3, 3, 5, 5]], [[3, 3, 5, 5], [0, 0, 1, 1]]]
    assert energy_pointing_game(one_hot(0, 0).expand(2, -1, -1), boxes).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((2, 3, 5, 7), range(3, 7), range(2, 5)),
        ((2.4, 3.5, 5.6, 7.5), range(3, 7), range(2, 6)),
        ((2.6, 3.6, 5.4, 7.4), range(4, 7), range(3, 5)),
        ((-4, -4, 2, 30), range(8), range(2)),
        ((3.6, 2.7, 3.7, 2.8), range(3, 4), range(4, 5)),
        ((9.9, 7.9, 10, 8), range(7, 8), range(9, 10)),
        ((4, 4, 4, 4), range(4, 5), range(4, 5)),
    ],
)
def test_a_pixel_is_in_a_box_if_its_centre_is(box: tuple[float, ...], rows: range, columns: range) -> None:
    region = next(annotated_regions.annotated_regions(torch.ones(1, 8, 10), [box], None, None)).objects[0]
    wanted = torch.zeros(8, 10, dtype=torch.bool)
    wanted[rows.start : rows.stop, columns.start : columns.stop] = True
    assert torch.equal(region, wanted)


def slowly(heatmap: Tensor, mask: Tensor) -> tuple[float, float, float]:
    """The definitions, for one map at the photograph's size, NaN where the model saw nothing, all values different."""
    places = [(r, c) for r in range(heatmap.shape[0]) for c in range(heatmap.shape[1]) if not math.isnan(heatmap[r, c])]
    ranked = sorted(places, key=lambda p: -float(heatmap[p]))
    own = [(r, c) for r in range(mask.shape[0]) for c in range(mask.shape[1]) if mask[r, c]]
    top = ranked[0]
    distance = min(math.hypot(top[0] - r, top[1] - c) for r, c in own)
    mass = sum(max(float(heatmap[p]), 0) for p in places)
    energy = sum(max(float(heatmap[p]), 0) for p in places if mask[p]) / mass
    covered = [p for p in own if p in set(places)]
    rank = sum(bool(mask[p]) for p in ranked[: len(covered)]) / len(covered)
    return distance, energy, rank


def test_the_definitions_written_out() -> None:
    maps = noise(4, 13, 17)
    masks = noise(4, 13, 17, seed=1) > 1.2
    found = torch.stack([function(maps, masks) for function in ALL], dim=1)
    for i in range(4):
        assert found[i].tolist() == pytest.approx(slowly(maps[i], masks[i]))


@pytest.mark.parametrize("size", [(30, 50), (50, 30), (40, 40)])
def test_the_definitions_on_a_photograph_that_was_cropped(size: tuple[int, int]) -> None:
    """Literally: the heatmap at the view's pixels, put back on the photograph."""
    geometry = Geometry(resize=24, crop=(20, 20))
    explanation = Explanation(noise(1, 5, 5), (20, 20), rows=torch.tensor([2.0, 6, 10, 14, 17]))
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[0, 3:14, 8:20] = True
    window = geometry.window(size)
    placed = torch.full(size, math.nan, dtype=torch.float64)
    rows, columns = given(explanation.rows), torch.linspace(0, 19, 5)
    for y in range(size[0]):
        for x in range(size[1]):
            v = (y + 0.5 - window.top) / window.height
            u = (x + 0.5 - window.left) / window.width
            if 0 <= v < 1 and 0 <= u < 1:
                placed[y, x] = bilinear(explanation.heatmap[0], rows, columns, 20 * v - 0.5, 20 * u - 0.5)
    for function, wanted in zip(ALL, slowly(placed, mask[0]), strict=True):
        assert float(function(explanation, mask, geometry=geometry)) == pytest.approx(wanted, abs=1e-9)
        box = torch.tensor([[8, 3, 20, 14]])
        assert float(function(explanation, box, geometry=geometry, image_sizes=[size])) == pytest.approx(wanted, abs=1e-9)


def bilinear(cells: Tensor, rows: Tensor, columns: Tensor, y: float, x: float) -> float:
    def weights(centres: list[float], at: float) -> list[float]:
        at = min(max(at, centres[0]), centres[-1])
        return [max(0.0, 1 - abs(at - c) / (g if at < c else h)) for c, g, h in neighbours(centres)]

    def neighbours(centres: list[float]) -> list[tuple[float, float, float]]:
        gaps = [b - a for a, b in itertools.pairwise(centres)]
        return list(zip(centres, [gaps[0], *gaps], [*gaps, gaps[-1]], strict=True))

    w, v = weights(rows.tolist(), y), weights(columns.tolist(), x)
    return sum(a * b * float(cells[i, j]) for i, a in enumerate(w) for j, b in enumerate(v))


def test_the_highest_pixel_of_a_crop_is_where_it_was_on_the_photograph() -> None:
    """Resized by half and cropped: cell (3, 4) of the view is the photograph's pixels 20 + 6.. and 60 + 8.."""
    geometry = Geometry(resize=50, crop=(30, 30))
    assert geometry.window((100, 180))[:2] == (20, 60)
    heatmap = one_hot(3, 4, 30, 30)
    box = torch.tensor([[60 + 8, 20 + 6, 60 + 10, 20 + 8]])
    assert float(pointing_distance(heatmap, box, image_sizes=[(100, 180)], geometry=geometry)) == 0
    assert float(pointing_distance(heatmap, box - 10, image_sizes=[(100, 180)], geometry=geometry)) == pytest.approx(
        math.hypot(9, 9)
    )


def test_pixels_outside_the_models_input_are_left_out() -> None:
    geometry = Geometry(crop=(10, 10))
    uniform, half, outside = torch.ones(1, 10, 10), torch.tensor([[0, 0, 10, 20]]), torch.tensor([[0, 0, 3, 3]])
    known: dict[str, Any] = {"image_sizes": [(20, 20)], "geometry": geometry}
    assert float(energy_pointing_game(uniform, half, **known)) == 0.5
    assert float(relevance_rank(uniform, half, **known)) == 0.5
    assert float(energy_pointing_game(uniform, outside, **known)) == 0
    assert float(relevance_rank(uniform, outside, **known)) == 0
    assert bool(pointing_game(one_hot(0, 0, 10, 10), outside, **known)), "5 pixels from the corner, 4.24 from the box"
    assert float(pointing_distance(one_hot(0, 0, 10, 10), outside, **known)) == pytest.approx(math.hypot(3, 3))


def test_a_crop_padded_with_black_sticks_out() -> None:
    heatmap = torch.ones(1, 10, 10)
    found = energy_pointing_game(heatmap, torch.tensor([[0, 0, 3, 6]]), image_sizes=[(6, 6)], geometry=Geometry(crop=(10, 10)))
    assert float(found) == 0.5


def test_without_geometry_the_heatmap_is_of_the_whole_photograph() -> None:
    """An image of 20 x 20 stretched from 40 x 60: its pixel (10, 5) is the photograph's (20..21, 15..17)."""
    explanation = Explanation(one_hot(10, 5, 20, 20), (20, 20))
    for box, distance in (((15, 20, 18, 22), 0), ((15, 25, 18, 30), 5)):
        assert float(pointing_distance(explanation, [box], image_sizes=[(40, 60)])) == distance


@pytest.mark.parametrize("function", ALL)
def test_the_value_of_an_image_does_not_depend_on_the_batch(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = Geometry(resize=24, crop=(20, 20))
    sizes = [(30, 50), (44, 40), (30, 50), (61, 33), (44, 40)]
    maps = noise(5, 6, 6).float()
    boxes = [torch.tensor([[5 + i, 6, 20 + i, 25], [2, 2, 9, 3 + i]][: 1 + i % 2]) for i in range(5)]
    whole = function(maps, boxes, image_sizes=sizes, geometry=geometry)
    alone = [function(maps[i : i + 1], boxes[i : i + 1], image_sizes=sizes[i : i + 1], geometry=geometry) for i in range(5)]
    assert torch.allclose(whole, torch.cat(alone), atol=1e-6)
    assert len(whole.unique()) > 3
    order = torch.tensor([3, 1, 4, 0, 2])
    turned = function(maps[order], [boxes[i] for i in order], image_sizes=[sizes[i] for i in order], geometry=geometry)
    assert torch.allclose(turned, whole[order], atol=1e-6)
    monkeypatch.setattr(annotated_regions, "PIXELS_PER_GROUP", 2000)
    assert torch.allclose(function(maps, boxes, image_sizes=sizes, geometry=geometry), whole, atol=1e-6)


def test_values_have_the_precision_of_the_maps_and_at_least_single() -> None:
    maps, boxes = noise(2, 9, 9), torch.tensor([[1, 1, 5, 6]] * 2)
    for function in ALL:
        exact = function(maps, boxes)
        assert exact.dtype == torch.float64
        assert function(maps.float(), boxes).dtype == torch.float32
        assert torch.allclose(function(maps.half(), boxes), exact.float(), atol=2e-3)
        assert torch.allclose(function(maps.bfloat16(), boxes), exact.float(), atol=0.06)


def test_inputs_are_not_changed() -> None:
    maps = noise(1, 4, 4).requires_grad_()
    initial = maps.detach().clone()
    for function in ALL:
        assert not function(maps, [[(0, 0, 2, 2)]]).requires_grad
    assert torch.equal(maps, initial)
    assert maps.grad is None


BOX = torch.tensor([[0.0, 0.0, 2.0, 2.0]])


@pytest.mark.parametrize(
    ("maps", "objects", "settings", "message"),
    [
        (torch.ones(4, 4), BOX, {}, r"shape \(4, 4\); give \(images, rows, columns\)"),
        (torch.full((1, 4, 4), math.nan), BOX, {}, "NaN or infinite values"),
        (torch.ones(2, 4, 4), BOX, {}, "given for 1 images, and 2 heatmaps"),
        (torch.ones(1, 4, 4), torch.ones(1, 3), {}, r"objects of image 0 have shape \(3,\) and dtype float32; give boxes"),
        (torch.ones(1, 4, 4), torch.ones(1, 4, 5, dtype=torch.uint8), {}, "masks as bool"),
        (torch.ones(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool), {}, "object of image 0 has no pixels"),
        (torch.ones(1, 4, 4), [torch.zeros(0, 4)], {}, "object of image 0 has no pixels"),
        (torch.ones(1, 4, 4), [torch.ones(1, 1, 4, 4, dtype=torch.bool)], {}, r"masks of image 0 have shape \(1, 1, 4, 4\)"),
        (torch.ones(1, 4, 4), [[2, 0, 1, 3]], {}, r"box \[2.0, 0.0, 1.0, 3.0\] of image 0 does not lie on an image"),
        (torch.ones(1, 4, 4), [[4, 0, 6, 3]], {}, "does not lie on an image"),
        (torch.ones(1, 4, 4), [[-3, 0, 0, 3]], {}, "does not lie on an image"),
        (torch.ones(1, 4, 4), [[0, 0, math.nan, 3]], {}, "does not lie on an image"),
        (torch.ones(1, 4, 4), [[0, 0, math.inf, 3]], {}, "does not lie on an image"),
        (torch.ones(2, 4, 4), [BOX, torch.ones(4, 4, dtype=torch.bool)], {}, "boxes for all, or masks for all"),
        (torch.ones(1, 4, 4), BOX, {"image_sizes": [(4, 4)] * 2}, "image_sizes has 2 sizes for 1 images"),
        (torch.ones(1, 4, 4), BOX, {"geometry": Geometry(crop=(4, 4))}, "boxes with a geometry need image_sizes"),
        (
            torch.ones(1, 4, 4),
            torch.ones(1, 4, 4, dtype=torch.bool),
            {"image_sizes": [(4, 5)]},
            "masks are of .4, 4.; give masks of its size",
        ),
        (
            torch.ones(1, 4, 4),
            BOX,
            {"image_sizes": [(0, 4)]},
            r"image 0 has size \(0, 4\) in image_sizes; give \(height, width\)",
        ),
        (
            Explanation(torch.ones(1, 4, 4), (8, 8)),
            BOX,
            {"image_sizes": [(20, 20)], "geometry": Geometry(crop=(10, 10))},
            r"explain images of \(8, 8\), but this geometry gives \(10, 10\)",
        ),
    ],
)
def test_inputs_that_do_not_fit_each_other_are_refused(maps: Any, objects: Any, settings: dict[str, Any], message: str) -> None:
    for function in ALL:
        with pytest.raises(ValueError, match=message):
            function(maps, objects, **settings)


def test_a_negative_tolerance_is_refused() -> None:
    for tolerance in (-1, math.nan):
        with pytest.raises(ValueError, match="give 0 pixels or more"):
            pointing_game(torch.ones(1, 4, 4), BOX, tolerance=tolerance)


def test_difficult_is_small_and_not_alone() -> None:
    """Two dogs of 1250 pixels are a quarter of 100 x 100, and so not less."""
    boxes = torch.tensor([[0, 0, 50, 25], [50, 50, 100, 75], [0, 0, 5, 5]])
    names = ["dog", "dog", "cat"]
    assert difficult_subset(boxes, names, (100, 100)) == {"dog": False, "cat": True}
    assert difficult_subset(boxes, names, (100, 101)) == {"dog": True, "cat": True}
    assert difficult_subset(boxes[:2], names[:2], (100, 101)) == {"dog": False}, "nothing distracts"
    assert difficult_subset(boxes[:0], [], (100, 101)) == {}
    with pytest.raises(ValueError, match="one label per box"):
        difficult_subset(boxes, names[:2], (100, 100))


def test_accuracy_is_the_mean_over_classes() -> None:
    hits, classes = torch.tensor([1, 1, 0, 1, 0, 0]).bool(), torch.tensor([5, 5, 5, 900, 0, 0])
    assert float(pointing_accuracy(hits, classes)) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert float(pointing_accuracy(hits.double(), classes)) == pytest.approx((2 / 3 + 1 + 0) / 3)
    for wrong in (classes[:2], classes[:0]):
        with pytest.raises(ValueError, match="give one class per hit"):
            pointing_accuracy(hits[: 3 if len(wrong) else 0], wrong)


def pointing_game_of(*hits: bool, classes: list[int]) -> PointingGame:
    """A game of which the outcome is known."""
    metric, box = PointingGame(tolerance=0), torch.tensor([[0, 0, 1, 1]])
    for hit, target in zip(hits, classes, strict=True):
        metric.update(one_hot(*((0, 0) if hit else (9, 9))), box, target)
    return metric


def test_the_metric_is_the_mean_over_classes_and_lists_each() -> None:
    metric = pointing_game_of(True, True, False, True, classes=[5, 5, 5, 2])
    assert float(metric.compute()) == pytest.approx((2 / 3 + 1) / 2)
    assert metric.per_image().tolist() == [1, 1, 0, 1]
    assert {c: (round(s.mean, 3), s.count) for c, s in metric.per_class().items()} == {2: (1.0, 1), 5: (0.667, 3)}
    metric.reset()
    with pytest.raises(ValueError, match="call update first"):
        metric.per_class()


def test_forward_returns_the_value_of_the_batch() -> None:
    metric, box = pointing_game_of(True, classes=[3]), torch.tensor([[0, 0, 1, 1]])
    assert float(metric(one_hot(59, 79), box, 3)) == 0
    assert float(metric.compute()) == 0.5


def test_classes_settings_are_those_of_the_functions() -> None:
    geometry, sizes = Geometry(resize=24, crop=(20, 20)), [(30, 50), (44, 40)]
    boxes, maps = torch.tensor([[5, 6, 20, 25], [2, 2, 9, 13]]), noise(2, 6, 6)
    for kind, function in ((EnergyPointingGame, energy_pointing_game), (RelevanceRank, relevance_rank)):
        metric = kind(geometry=geometry)
        metric.update(heatmaps=maps, objects=boxes, image_sizes=sizes)
        wanted = function(maps, boxes, image_sizes=sizes, geometry=geometry)
        assert torch.equal(metric.per_image(), wanted)
        assert torch.equal(metric.compute(), wanted.mean())
        with pytest.raises(ValueError, match="give update a target"):
            metric.per_class()
        metric.reset()
        metric.update(maps, boxes, [7, 8], sizes)
        assert [s.mean for s in metric.per_class().values()] == wanted.tolist()
    distances = pointing_distance(maps, boxes, image_sizes=sizes, geometry=geometry)
    for tolerance in (float(distances.max()), float(distances.max()) + 0.01):
        pointing = PointingGame(tolerance=tolerance, geometry=geometry)
        pointing.update(maps, boxes, 1, sizes)
        assert pointing.per_image().sum() == (distances < tolerance).sum()


def test_the_class_comes_from_the_explanation_or_must_be_given() -> None:
    box, metric = torch.tensor([[0, 0, 1, 1]]), PointingGame()
    metric.update(Explanation(one_hot(0, 0), (60, 80), target=torch.tensor([4])), box)
    metric.update(Explanation(one_hot(0, 0), (60, 80), target=torch.tensor([4])), box, torch.tensor([6]))
    assert list(metric.per_class()) == [4, 6]
    with pytest.raises(ValueError, match="evaluated per class; give a target"):
        metric.update(one_hot(0, 0), box)
    wrong_targets: list[Any] = [[1, 2], [0.5]]
    for wrong in wrong_targets:
        with pytest.raises(ValueError, match="give one class per image"):
            metric.update(one_hot(0, 0), box, wrong)
    assert len(metric.values) == len(metric.classes) == 2, "a refused batch leaves nothing"


def test_a_refused_batch_leaves_no_class_behind() -> None:
    metric = pointing_game_of(True, classes=[1])
    with pytest.raises(ValueError, match="no pixels"):
        metric.update(one_hot(0, 0), torch.zeros(1, 60, 80, dtype=torch.bool), 3)
    assert len(metric.values) == len(metric.classes) == 1


def test_interval_is_of_the_mean_over_classes() -> None:
    """400 of 800 in one class, 90 of 100 in another: 0.7, with the error of both binomials."""
    classes = torch.tensor([0] * 800 + [1] * 100)
    hits = torch.cat([torch.arange(800) % 2 == 0, torch.arange(100) >= 10])
    metric = PointingGame()
    metric.values, metric.classes = [hits.float()], [classes]
    metric._update_count = 1
    interval, error = metric.interval(), math.sqrt(0.25 / 800 + 0.09 / 100) / 2
    assert (interval.low + interval.high) / 2 == pytest.approx(0.7, abs=0.004)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert metric.interval() == interval != metric.interval(seed=1)
    sure = pointing_game_of(True, True, True, classes=[1, 1, 2]).interval()
    assert (sure.low, sure.high) == (1, 1)
    for wrong in ({"level": 1.0}, {"resamples": 0}):
        with pytest.raises(ValueError, match="give a level between 0 and 1"):
            metric.interval(**wrong)


def test_pairs_differ_by_the_difference_of_both_means() -> None:
    classes = [0, 0, 0, 1]
    one, other = (
        pointing_game_of(True, True, False, True, classes=classes),
        pointing_game_of(False, True, False, True, classes=classes),
    )
    found = one.paired_with(other)
    assert found.mean == pytest.approx(float(one.compute() - other.compute()))
    assert found.mean == pytest.approx(1 / 6)
    assert found.p == 1.0
    with pytest.raises(ValueError, match="different images or classes"):
        one.paired_with(pointing_game_of(True, True, False, True, classes=[0, 0, 1, 1]))
    with pytest.raises(TypeError, match="cannot be paired with RelevanceRank"):
        one.paired_with(RelevanceRank())


def test_values_of_several_processes_are_gathered() -> None:
    """Of a second process that has the same: twice as many images, of which nothing is left afterwards."""
    metric = pointing_game_of(True, False, True, classes=[4, 4, 7])
    metric.dist_sync_fn = lambda values, group: [values, values]
    metric.distributed_available_fn = lambda: True
    assert float(metric.compute()) == 0.75
    assert {c: s.count for c, s in metric.per_class().items()} == {4: 4, 7: 2}
    assert metric.interval().low < 0.75
    assert [len(metric.values), len(metric.classes)] == [3, 3], "each goes on with its own"


@pytest.mark.parametrize("page", ["pointing_game", "energy_pointing_game", "relevance_rank"])
def test_the_examples_of_the_docs_run(page: str) -> None:
    path = Path(__file__).parents[2] / "docs" / "metrics" / f"{page}.md"
    found = doctest.testfile(str(path), module_relative=False)
    assert (found.failed, found.attempted > 3) == (0, True)
