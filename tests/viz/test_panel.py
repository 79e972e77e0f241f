from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor
from viz_tools import drawn

from faithmap.explanation import Explanation
from faithmap.metrics.functional import DeletionInsertion, deletion_insertion
from faithmap.model import Classifier, Geometry
from faithmap.viz import limits, overlay, placed, save_figure, show
from faithmap.viz.figure import to_bytes

LABELS = ("ruby", "emerald", "sapphire")


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def pixels(figure: Figure, panel: int) -> np.ndarray:
    return drawn(figure.axes[panel])


def test_panels_in_order(image: Tensor, explanation: Explanation, evidence: DeletionInsertion) -> None:
    figure = show(image, explanation, evidence, labels=LABELS)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["Photograph", "Heatmap", "Heatmap on the photograph", "Deletion and insertion"]
    assert np.array_equal(pixels(figure, 0), to_bytes(image))
    assert np.array_equal(
        pixels(figure, 2), to_bytes(overlay(image, placed(explanation, image), ends=limits(explanation.heatmap)))
    )


def test_without_evidence_there_are_no_curves(image: Tensor, explanation: Explanation) -> None:
    assert [ax.get_title() for ax in show(image, explanation).axes][2:] == ["Heatmap on the photograph"]


def test_heatmap_shows_the_raw_cells_and_its_bar_the_raw_values(image: Tensor, explanation: Explanation) -> None:
    explanation = replace(explanation, heatmap=7 * explanation.heatmap - 20)
    cells = show(image, explanation).axes[1]
    assert np.array_equal(drawn(cells), explanation.heatmap[0].double())
    assert cells.images[0].get_interpolation() == "nearest"
    assert list(cells.images[0].get_extent()) == [0, 60, 40, 0]
    assert cells.get_xlabel() == "from -20 to 673"
    (bar,) = cells.child_axes
    assert bar.get_ylim() == cells.images[0].get_clim() == (0, 673)


def test_title_says_class_probability_method_and_resolution(
    image: Tensor, explanation: Explanation, evidence: DeletionInsertion
) -> None:
    text = words(show(image, explanation, evidence, labels=LABELS))
    assert f"emerald, probability {float(evidence.deletion.scores[0, 0]):.3f}" in text
    assert "Oracle, 10 \N{MULTIPLICATION SIGN} 10 cells; deletion and insertion by the igos protocol" in text
    assert f"insertion  {float(evidence.insertion.area):.3f}" in text
    assert f"deletion  {float(evidence.deletion.area):.3f}" in text


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, "class 1"),
        ({"score": torch.tensor([0.25])}, "class 1, probability 0.250"),
        ({"score": torch.tensor([4.5]), "settings": {"score": "logit"}}, "class 1, logit 4.500"),
        ({"score": torch.tensor([2.5]), "target": None}, "explained score 2.500"),
        ({"target": None}, "heatmap"),
    ],
)
def test_title_without_a_proof_says_what_is_known(
    image: Tensor, explanation: Explanation, known: dict[str, Any], expected: str
) -> None:
    assert show(image, replace(explanation, **known)).texts[0].get_text() == expected


def test_a_given_title_replaces_the_default(image: Tensor, explanation: Explanation) -> None:
    title, subtitle = show(image, explanation, title="Emerald or $5, but not $6?").texts
    assert title.get_text() == "Emerald or $5, but not $6?"
    assert not title.get_parse_math()
    assert not subtitle.get_parse_math()


def test_name_too_long_for_the_title_leaves_the_probability_in_place(
    image: Tensor, explanation: Explanation, evidence: DeletionInsertion
) -> None:
    drawn_text = " ".join(text.get_text() for text in show(image, explanation, evidence, labels=["stone, " * 50] * 3).texts)
    assert f" …, probability {float(evidence.deletion.scores[0, 0]):.3f}" in drawn_text


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_a_map_that_ranks_nothing_is_replaced_by_a_message(image: Tensor, explanation: Explanation, value: float) -> None:
    figure = show(image, replace(explanation, heatmap=torch.full((1, 10, 10), value)))
    said = "values that are not finite:\nranks nothing" if value else "one value everywhere:\nranks nothing"
    for ax in figure.axes[1:]:
        assert not ax.images
        assert not ax.child_axes
        assert [text.get_text() for text in ax.texts] == [said]


@pytest.mark.parametrize("size", [(60, 90), (90, 60)])
def test_heat_is_on_its_place_of_the_original_photograph(size: tuple[int, int]) -> None:
    geometry = Geometry(32, (28, 28))
    photo = torch.zeros(1, 3, *size)
    heat = torch.zeros(1, 28, 28)
    heat[0, 4, 21] = 1
    figure = show(geometry(photo), Explanation(heat, (28, 28)), photo=photo, geometry=geometry)
    window, scale = geometry.window(size), min(size) / 32
    visible = ~placed(Explanation(heat, (28, 28)), photo, geometry)[0].isnan().numpy()
    row, column = np.unravel_index((pixels(figure, 2).sum(axis=-1) * visible).argmax(), size)
    assert abs(row + 0.5 - window.top - 4.5 * scale) <= scale
    assert abs(column + 0.5 - window.left - 21.5 * scale) <= scale
    assert pixels(figure, 0).shape == (*size, 3)
    assert figure.axes[2].get_xlabel() == "pale: not shown to the model"


def test_whole_photograph_has_no_pale_part(image: Tensor, explanation: Explanation) -> None:
    assert show(image, explanation).axes[2].get_xlabel() == ""


@pytest.mark.parametrize(
    ("size", "label"),
    [
        ((40, 60), "ox"),
        ((60, 40), "Appenzeller Sennenhund, " * 12),
        ((50, 50), "Donaudampfschifffahrtsgesellschaft" * 9),
        ((20, 90), "MMMMM " * 60),
        ((90, 20), "MMMMM " * 60),
    ],
)
def test_all_texts_are_inside_and_no_title_overlaps_another(model: Classifier, size: tuple[int, int], label: str) -> None:
    image = torch.rand(1, 3, *size)
    explanation = Explanation(1e-7 * torch.rand(1, 7, 9), size, target=torch.tensor([1]), method="SmoothGradCAMPlusPlus")
    evidence = deletion_insertion(model, image, explanation, steps=4)
    figure = show(image, explanation, evidence, labels=[label] * 3, reference=evidence)
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = {text.get_text(): text.get_window_extent() for text in texts}
    outside = {text for text, box in boxes.items() if min(box.p0) < 0 or bool((box.p1 > figure.bbox.p1).any())}
    assert outside == set()
    titles = [ax.title.get_window_extent() for ax in figure.axes] + [t.get_window_extent() for t in figure.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(titles) for b in titles[:i])


def test_tensors_with_a_gradient_can_be_shown(
    image: Tensor, explanation: Explanation, evidence: DeletionInsertion, tmp_path: Path
) -> None:
    save_figure(
        show(
            image.clone().requires_grad_(), replace(explanation, heatmap=explanation.heatmap.clone().requires_grad_()), evidence
        ),
        tmp_path / "a.png",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, w, p: (x.expand(2, -1, -1, -1), w, p), "image has 2 images"),
        (lambda x, w, p: (x, replace(w, heatmap=w.heatmap.expand(2, -1, -1)), p), "explanation has 2 images"),
        (lambda x, w, p: (x[..., :50], w, p), "image is 40 x 50 pixels, but the explained one was 40 x 60"),
        (lambda x, w, p: (x * 3, w, p), "range from 0 to 3"),
        (lambda x, w, p: (x, w, replace(p, deletion=replace(p.deletion, scores=p.deletion.scores.repeat(2, 1)))), "2 images"),
    ],
)
def test_inputs_that_do_not_fit(
    image: Tensor, explanation: Explanation, evidence: DeletionInsertion, change: Callable[..., Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        show(*change(image, explanation, evidence))


def test_photo_without_its_geometry(image: Tensor, explanation: Explanation) -> None:
    with pytest.raises(ValueError, match="give the photo and the geometry of the model"):
        show(image, explanation, photo=torch.zeros(1, 3, 100, 100))
