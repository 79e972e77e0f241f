from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F
from viz_tools import drawn

from faithmap.explanation import Explanation
from faithmap.metrics.functional import deletion_insertion
from faithmap.model import Classifier
from faithmap.viz import strip
from faithmap.viz.figure import to_bytes


def rows(figure: Figure) -> tuple[list[Axes], list[Axes]]:
    half = len(figure.axes) // 2
    return figure.axes[:half], figure.axes[half:]


def literal(image: Tensor, baseline: Tensor, heatmap: Tensor, count: int, kind: str) -> Tensor:
    """The picture after a number of cells, one cell after the other."""
    order = sorted(range(heatmap.numel()), key=lambda i: -float(heatmap.flatten()[i]))
    mask = torch.ones(heatmap.numel()) if kind == "deletion" else torch.zeros(heatmap.numel())
    for cell in order[:count]:
        mask[cell] = 1 - mask[cell]
    up = F.interpolate(mask.view(1, 1, *heatmap.shape[-2:]), image.shape[-2:], mode="bilinear", align_corners=True)
    return image * up + baseline * (1 - up)


def test_pictures_and_scores_are_those_of_the_literal_computation(
    model: Classifier, image: Tensor, explanation: Explanation
) -> None:
    figure = strip(model, image, explanation, 0.5, ratios=(0.02, 0.1, 1.0))
    for kind, axes in zip(("deletion", "insertion"), rows(figure), strict=True):
        for ax, count in zip(axes, (0, 2, 10, 100), strict=True):
            expected = literal(image, torch.full_like(image, 0.5), explanation.heatmap, count, kind)
            picture = drawn(ax).astype(int)
            assert np.abs(picture - to_bytes(expected)).max() <= 1
            assert ax.get_xlabel() == f"{float(model(expected).softmax(1)[0, 1]):.3f}"


def test_scores_are_points_of_the_metrics_curves(model: Classifier, image: Tensor, explanation: Explanation) -> None:
    evidence = deletion_insertion(model, image, explanation)
    deletion, insertion = rows(strip(model, image, explanation, ratios=(0.02, 0.1, 0.2, 0.5)))
    for axes, curve in ((deletion, evidence.deletion), (insertion, evidence.insertion)):
        assert [ax.get_xlabel() for ax in axes] == [f"{float(curve.scores[0, i]):.3f}" for i in (0, 1, 5, 10, 25)]


def test_columns_state_the_exact_fraction(model: Classifier, image: Tensor) -> None:
    explanation = Explanation(torch.arange(49.0).view(1, 7, 7), (40, 60))
    deletion, insertion = rows(strip(model, image, explanation))
    assert [ax.get_title() for ax in deletion] == ["0 %", "2 %", "4.1 %", "10.2 %", "20.4 %", "49 %"]
    assert {ax.get_title() for ax in insertion} == {""}


def test_title_states_class_and_probability(model: Classifier, image: Tensor, explanation: Explanation) -> None:
    figure = strip(model, image, explanation)
    assert figure.texts[0].get_text() == f"emerald, probability {float(model(image).softmax(1)[0, 1]):.3f}"
    assert strip(model, image, explanation, title="stones").texts[0].get_text() == "stones"


def test_class_comes_from_the_target_the_explanation_or_the_model(
    model: Classifier, image: Tensor, explanation: Explanation
) -> None:
    predicted = model.label(int(model(image).argmax()))
    assert strip(model, image, replace(explanation, target=None)).texts[0].get_text().startswith(predicted)
    assert strip(model, image, explanation, target=2).texts[0].get_text().startswith("sapphire")
    figure = strip(model, image, replace(explanation, target=None), target=lambda logits: logits[:, 0] * 0 + 7)
    assert {ax.get_xlabel() for ax in figure.axes} == {"7.000"}
    assert figure.texts[0].get_text() == "explained score 7.000"


def test_model_stays_unchanged(model: Classifier, image: Tensor, explanation: Explanation) -> None:
    model = copy.deepcopy(model).train()
    strip(model, image, explanation)
    assert model.training


@pytest.mark.parametrize("value", [1.0, torch.nan])
def test_constant_or_invalid_map_has_no_strip(model: Classifier, image: Tensor, explanation: Explanation, value: float) -> None:
    with pytest.raises(ValueError, match="ranks nothing, so that there is nothing to delete"):
        strip(model, image, replace(explanation, heatmap=torch.full((1, 10, 10), value)))


@pytest.mark.parametrize("ratios", [(-0.1,), (0.5, 1.5)])
def test_ratios_are_fractions(model: Classifier, image: Tensor, explanation: Explanation, ratios: Sequence[float]) -> None:
    with pytest.raises(ValueError, match="give fractions from 0 to 1"):
        strip(model, image, explanation, ratios=ratios)
