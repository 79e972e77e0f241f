from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh
from matplotlib.text import Text
from torch import Tensor
from viz_tools import drawn, legend, ydata

from faithmap.explanation import Explanation
from faithmap.metrics.functional import DeletionInsertion, deletion_insertion
from faithmap.model import Classifier
from faithmap.viz import compare, overlay, placed, show
from faithmap.viz.figure import to_bytes


def test_one_picture_per_method_with_its_areas(
    model: Classifier, image: Tensor, explanation: Explanation, evidence: DeletionInsertion
) -> None:
    other = replace(explanation, heatmap=explanation.heatmap.flip(1))
    curves = deletion_insertion(model, image, other)
    figure = compare(
        image, {"first": (explanation, evidence), "second": (other, curves)}, labels=("ruby", "emerald", "sapphire")
    )
    photograph, *pictures = figure.axes
    maps, plots = pictures[0::2], pictures[1::2]
    assert [ax.get_title() for ax in (photograph, *maps)] == ["Photograph", "first", "second"]
    for plot, areas in zip(plots, (evidence, curves), strict=True):
        deletion, insertion = plot.lines
        assert (ydata(deletion) == areas.deletion.scores[0].numpy()).all()
        assert (ydata(insertion) == areas.insertion.scores[0].numpy()).all()
    for ax, map_, areas in zip(maps, (explanation, other), (evidence, curves), strict=True):
        assert (drawn(ax) == to_bytes(overlay(image, placed(map_, image)))).all()
        assert ax.get_xlabel() == f"deletion {areas.deletion.area.item():.3f}  insertion {areas.insertion.area.item():.3f}"
    text = "\n".join(t.get_text() for t in figure.findobj(Text))
    assert "emerald, probability" in text
    assert "igos protocol, 10 \N{MULTIPLICATION SIGN} 10 cells" in text


def test_rows_of_pictures(image: Tensor, explanation: Explanation) -> None:
    figure = compare(image, {str(i): (explanation, None) for i in range(5)}, columns=3)
    tops = [round(ax.get_position().y1, 3) for ax in figure.axes]
    assert len(set(tops[:3])) == len(set(tops[3:])) == 1
    assert tops[0] > tops[3]


def test_rows_are_about_equally_long(image: Tensor, explanation: Explanation) -> None:
    figure = compare(image, {str(i): (explanation, None) for i in range(4)}, columns=4)
    tops = [round(ax.get_position().y1, 3) for ax in figure.axes]
    assert [tops.count(top) for top in sorted(set(tops), reverse=True)] == [3, 2]


def test_areas_that_cannot_be_compared(
    model: Classifier, image: Tensor, explanation: Explanation, evidence: DeletionInsertion
) -> None:
    coarse = Explanation(torch.rand(1, 5, 5), (40, 60), target=explanation.target)
    figure = compare(image, {"fine": (explanation, evidence), "coarse": (coarse, deletion_insertion(model, image, coarse))})
    assert "cannot be compared" in "\n".join(t.get_text() for t in figure.findobj(Text))


def test_random_maps_are_drawn_beside_the_curves_of_their_resolution(
    model: Classifier, image: Tensor, explanation: Explanation, evidence: DeletionInsertion
) -> None:
    coarse = Explanation(torch.rand(1, 5, 5), (40, 60), target=explanation.target)
    curves = deletion_insertion(model, image, coarse)
    random = deletion_insertion(model, image, torch.rand(1, 5, 5))
    figure = compare(image, {"fine": (explanation, evidence), "coarse": (coarse, curves)}, references=[random])
    fine, beside = figure.axes[2], figure.axes[4]
    assert len(fine.lines) == 2
    assert (ydata(beside.lines[0]) == random.deletion.scores[0].numpy()).all()
    assert [text.get_text() for text in legend(figure.axes[0]).get_texts()][2:] == [
        "deletion, random map",
        "insertion, random map",
    ]


def test_the_area_of_a_random_map_is_stated(
    model: Classifier, image: Tensor, explanation: Explanation, evidence: DeletionInsertion
) -> None:
    random = deletion_insertion(model, image, torch.rand(1, 10, 10))
    figure = compare(image, {"one": (explanation, evidence)}, references=[random], columns=9)
    stated = " ".join(t.get_text() for t in figure.texts)
    assert f"a random map: deletion {random.deletion.area.item():.3f}" in stated


def test_cells_are_drawn_below_the_overlay(image: Tensor, explanation: Explanation) -> None:
    """The raw map has its own values, one per cell."""
    figure = compare(image, {"one\nnoise_std=0": (explanation, None)}, parts=("overlay", "cells"))
    photograph, overlaid, cells = figure.axes
    assert overlaid.get_title() == "one\nnoise_std=0"
    assert (drawn(cells) == explanation.heatmap[0].numpy()).all()
    assert cells.get_position().y1 < overlaid.get_position().y0
    assert photograph.get_position().y1 == overlaid.get_position().y1


@pytest.mark.parametrize("parts", [(), ("curves",), ("curves", "overlay"), ("overlay", "overlay"), ("map",)])
def test_parts_that_make_no_picture(image: Tensor, explanation: Explanation, parts: Any) -> None:
    with pytest.raises(ValueError, match="give some of overlay, cells, curves"):
        compare(image, {"one": (explanation, None)}, parts=parts)


def test_a_constant_map_is_stated(image: Tensor, explanation: Explanation) -> None:
    figure = compare(image, {"flat": (replace(explanation, heatmap=torch.ones(1, 10, 10)), None)})
    assert "ranks nothing" in "\n".join(t.get_text() for t in figure.axes[1].texts)


def test_nothing_to_compare(image: Tensor) -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        compare(image, {})


def test_cells_are_drawn_at_their_positions(image: Tensor, explanation: Explanation) -> None:
    """Three columns at pixels 0, 20 and 50 of 60: their borders lie half way between."""
    heatmap, columns = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]), torch.tensor([0.0, 20.0, 50.0])
    placed_cells = replace(explanation, heatmap=heatmap, rows=torch.tensor([9.5, 29.5]), columns=columns)
    cells = show(image, placed_cells).axes[1]
    (mesh,) = cells.collections
    assert isinstance(mesh, QuadMesh)
    corners = np.asarray(mesh.get_coordinates())
    assert corners[0, :, 0].tolist() == [0, 10.5, 35.5, 60]
    assert corners[:, 0, 1].tolist() == [0, 20, 40]
    assert np.asarray(mesh.get_array()).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (cells.get_xlim(), cells.get_ylim()) == ((0, 60), (40, 0))
