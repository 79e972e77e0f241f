from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor
from viz_tools import drawn, xdata, ydata

from faithmap.explanation import Explanation
from faithmap.metrics.functional import Randomisation
from faithmap.viz import overlay, placed, sanity
from faithmap.viz.figure import to_bytes


def check(images: int = 2, stages: int = 8, **changes: Any) -> Randomisation:
    """Similarities that fall evenly from 0.8 to 0.1; SSIM half of it."""
    generator = torch.Generator().manual_seed(0)
    maps = [
        Explanation(torch.rand(images, 5, 5, generator=generator), (40, 60), target=torch.arange(images))
        for _ in range(1 + stages)
    ]
    similarity = torch.linspace(0.8, 0.1, stages).expand(images, -1)
    names = tuple(f"layer{i}" for i in range(stages))
    flat = torch.zeros(images, stages, dtype=torch.bool)
    made = Randomisation(names, similarity, similarity / 2, flat, maps[0], tuple(maps[1:]), "cascading", "initialiser", False)
    return replace(made, **changes)


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_one_row_per_image_with_the_first_and_the_last_stage(image: Tensor) -> None:
    images, checked = image.repeat(2, 1, 1, 1), check()
    figure = sanity(images, checked, stages=3, labels=["ruby", "emerald"])
    assert [ax.get_title() for ax in figure.axes[:4]] == ["trained", "layer0", "layer4", "layer7"]
    assert [ax.get_xlabel() for ax in figure.axes[5:9]] == ["emerald", "Spearman 0.80", "Spearman 0.40", "Spearman 0.10"]
    assert len(figure.axes) == 2 * 5
    for ax, explanation in zip(figure.axes[5:8], (checked.original, checked.heatmaps[0], checked.heatmaps[4]), strict=True):
        assert (drawn(ax) == to_bytes(overlay(image, placed(explanation[1], image)))).all()
    assert "from the output down" in words(figure)
    assert "each layer's own initialiser" in words(figure)


def test_curves_of_a_cascade_start_at_the_trained_model(image: Tensor) -> None:
    plot = sanity(image, check(1)).axes[-1]
    rank, dots, structure, *_ = plot.lines
    assert xdata(rank) == pytest.approx(range(9))
    assert ydata(rank) == pytest.approx([1.0, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert ydata(structure)[1:] == pytest.approx([0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05])
    assert xdata(dots).tolist() == [1, 3, 5, 6, 8]
    assert ydata(dots) == pytest.approx([0.8, 0.6, 0.4, 0.3, 0.1])
    alone = sanity(image, check(1, mode="independent", draw="permutation", absolute=True))
    assert xdata(alone.axes[-1].lines[0]) == pytest.approx(range(1, 9))
    assert "permuting the trained ones; absolute values compared" in words(alone)


def test_all_rows_have_one_scale(image: Tensor) -> None:
    checked = check()
    checked = replace(checked, spearman=torch.cat([checked.spearman[:1], -checked.spearman[1:]]))
    figure = sanity(image.repeat(2, 1, 1, 1), checked)
    assert figure.axes[6].get_ylim() == figure.axes[-1].get_ylim() == pytest.approx((-0.85, 1.05))


def test_constant_maps_are_stated_and_marked_by_a_cross(image: Tensor) -> None:
    checked = check(1, 3)
    flat = torch.tensor([[False, True, False]])
    dead = replace(checked.heatmaps[1], heatmap=torch.zeros(1, 5, 5))
    figure = sanity(image, replace(checked, flat=flat, heatmaps=(checked.heatmaps[0], dead, checked.heatmaps[2])))
    assert "ranks nothing" in figure.axes[2].texts[0].get_text()
    crosses = next(line for line in figure.axes[-1].lines if line.get_marker() == "x")
    assert xdata(crosses).tolist() == [2]
    assert xdata(figure.axes[-1].lines[1]).tolist() == [1, 3]


def test_long_names_keep_their_end(image: Tensor) -> None:
    checked = check(1, 1, layers=("encoder.layers.encoder_layer_11.mlp.0",))
    assert sanity(image, checked).axes[1].get_title() == "…coder_layer_11.mlp.0"


@pytest.mark.parametrize(
    ("count", "checked", "settings", "text"),
    [
        (1, check(1, heatmaps=()), {}, "made with keep_heatmaps=True"),
        (1, check(2), {}, "1 images, 5 stages to draw, and 8 kept for 2 images"),
        (1, check(1), {"stages": 0}, "at least 1 stage"),
    ],
)
def test_inputs_that_do_not_fit(image: Tensor, count: int, checked: Randomisation, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        sanity(image.repeat(count, 1, 1, 1), checked, **settings)
    with pytest.raises(ValueError, match="but the explained one was 40 x 60"):
        sanity(image[..., :50], check(1))
