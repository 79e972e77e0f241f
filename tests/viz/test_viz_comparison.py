from dataclasses import replace

import pytest
import torch
from matplotlib.text import Text

from faithmap.explanation import Explanation
from faithmap.metrics.functional import deletion_insertion
from faithmap.viz import compare, overlay, placed, show
from faithmap.viz.figure import to_bytes


def test_one_picture_a_method_with_its_areas(model, image, why, proof):
    other = replace(why, heatmap=why.heatmap.flip(1))
    played = deletion_insertion(model, image, other)
    figure = compare(image, {"first": (why, proof), "second": (other, played)}, labels=("ruby", "emerald", "sapphire"))
    assert [ax.get_title() for ax in figure.axes] == ["Photograph", "first", "second"]
    for ax, map_, areas in zip(figure.axes[1:], (why, other), (proof, played), strict=True):
        assert (ax.images[0].get_array() == to_bytes(overlay(image, placed(map_, image)))).all()
        assert ax.get_xlabel() == f"deletion {areas.deletion.area.item():.3f}  insertion {areas.insertion.area.item():.3f}"
    text = "\n".join(t.get_text() for t in figure.findobj(Text))
    assert "emerald, probability" in text
    assert "igos protocol, 10 \N{MULTIPLICATION SIGN} 10 cells" in text


def test_rows_of_pictures(image, why):
    figure = compare(image, {str(i): (why, None) for i in range(5)}, columns=3)
    tops = [round(ax.get_position().y1, 3) for ax in figure.axes]
    assert len(set(tops[:3])) == len(set(tops[3:])) == 1
    assert tops[0] > tops[3]


def test_rows_are_about_equally_long(image, why):
    figure = compare(image, {str(i): (why, None) for i in range(4)}, columns=4)
    tops = [round(ax.get_position().y1, 3) for ax in figure.axes]
    assert [tops.count(top) for top in sorted(set(tops), reverse=True)] == [3, 2]


def test_areas_that_cannot_be_compared(model, image, why, proof):
    coarse = Explanation(torch.rand(1, 5, 5), (40, 60), target=why.target)
    figure = compare(image, {"fine": (why, proof), "coarse": (coarse, deletion_insertion(model, image, coarse))})
    assert "cannot be compared" in "\n".join(t.get_text() for t in figure.findobj(Text))


def test_a_map_that_ranks_nothing_is_said(image, why):
    figure = compare(image, {"flat": (replace(why, heatmap=torch.ones(1, 10, 10)), None)})
    assert "ranks nothing" in "\n".join(t.get_text() for t in figure.axes[1].texts)


def test_nothing_to_compare(image):
    with pytest.raises(ValueError, match="nothing to compare"):
        compare(image, {})


def test_cells_are_drawn_where_they_stand(image, why):
    """Three columns at pixels 0, 20 and 50 of 60: their borders lie half way between."""
    heatmap, columns = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]), torch.tensor([0.0, 20.0, 50.0])
    placed_cells = replace(why, heatmap=heatmap, rows=torch.tensor([9.5, 29.5]), columns=columns)
    cells = show(image, placed_cells).axes[1]
    (mesh,) = cells.collections
    corners = mesh.get_coordinates()
    assert corners[0, :, 0].tolist() == [0, 10.5, 35.5, 60]
    assert corners[:, 0, 1].tolist() == [0, 20, 40]
    assert mesh.get_array().tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (cells.get_xlim(), cells.get_ylim()) == ((0, 60), (40, 0))
