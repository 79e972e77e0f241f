"""The picture of a choice: rows from the best, means and intervals where they are, costs at the right."""

from __future__ import annotations

import pytest
import torch
from matplotlib.colors import to_hex
from viz_tools import xdata, ydata

from faithmap.errors import duration
from faithmap.methods.base import Passes
from faithmap.selection import Choice, LeftOut, Ranked
from faithmap.viz import ranking


def test_rows_are_methods_in_descending_order() -> None:
    noise = 0.02 * torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    rows = [
        Ranked(name, name == "edges", mean + noise[i], Passes(10 + i, i), 0.5 * (i + 1))
        for i, (name, mean) in enumerate([("igos", 0.6), ("gradcam", 0.6), ("edges", 0.3), ("gradient", 0.1)])
    ]
    rows.sort(key=lambda row: -row.mean)
    choice = Choice("insertion_minus_deletion", tuple(rows), (LeftOut("rise", "would exceed the budget", 90.0),), 60.0, 20.0)
    figure = ranking(choice, title="Methods for a net")
    (ax,) = figure.axes
    figure.draw_without_rendering()
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [f"{row.name} (control)" if row.control else row.name for row in rows]
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the best is at the top"
    means = {ydata(line)[0]: line for line in ax.get_lines() if line.get_marker() == "o"}
    bars = {ydata(line)[0]: line for line in ax.get_lines() if line.get_linewidth() > 2}
    for i, row in enumerate(rows):
        assert xdata(means[i])[0] == pytest.approx(row.mean)
        assert xdata(bars[i]).tolist() == [row.interval.low, row.interval.high] if row.interval else []
        cost = [text.get_text() for text in ax.texts if text.get_position()[1] == i]
        assert cost == [str(row.passes.forward), str(row.passes.backward), duration(row.seconds)]
    colours = [to_hex(means[i].get_color()) for i in range(4)]
    assert len(set(colours)) == 4, "the best, one indistinguishable from it, a control, one that is worse"
    words = " ".join(text.get_text() for text in figure.texts)
    assert "Methods for a net" in words
    assert "16 images" in words
    assert "1 left out" in words


@pytest.mark.parametrize(
    "names", [["contrastive_excitation_backprop", "b", "edges"], [f"m{i}" for i in range(20)], ["x" * 99, "$a$"]]
)
@pytest.mark.parametrize("count", [1, 12])
def test_texts_are_inside_and_do_not_overlap(names: list[str], count: int) -> None:
    noise = torch.randn(len(names), count, generator=torch.Generator().manual_seed(0))
    rows = [Ranked(n, n == "edges", 0.9 - 0.04 * i + noise[i], Passes(32110, 32000), 3000.0) for i, n in enumerate(names)]
    choice = Choice("deletion", tuple(rows), (), 60.0, 20.0)
    figure = ranking(choice, title="Methods for timm/vit_base_patch16_224.augreg_in21k_ft_in1k")
    figure.draw_without_rendering()
    (ax,) = figure.axes
    low, high = ax.get_xlim()
    ticks = [label for label in ax.get_xticklabels() if low <= label.get_position()[0] <= high]  # others are not drawn
    texts = [*figure.texts, *ax.texts, *ax.get_yticklabels(), *ticks, ax.xaxis.label]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])
    words = " ".join(text.get_text() for text in figure.texts)
    assert ("95 % intervals" in words) == (count > 1)
    assert "too few to show any difference" in words if count == 1 else "lower is better" in words
