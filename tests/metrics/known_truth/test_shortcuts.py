"""Planted shortcuts: marks and their masks, a head that decides by the mark alone, and the score of known maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import given
from torch import Tensor, nn

import faithmap as fm
from faithmap.explanation import Explanation
from faithmap.metrics import PlantedShortcutScore
from faithmap.metrics.known_truth import MARKS, PlantedShortcut, place_mark, plant, plant_shortcut, shortcut_score
from faithmap.metrics.known_truth.shortcuts import FeatureLayer


class Features(nn.Module):
    """Random convolutions, of which one layer has 16 x 16 and one 8 x 8 cells."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fine = nn.Sequential(nn.Conv2d(3, 24, 5, 2, 2), nn.ReLU(), nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(24, 24, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.coarse(self.fine(x)).mean(dim=(2, 3)))
        return logits


def photographs(count: int = 24) -> Tensor:
    """Smooth random images."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(4))
    return nn.functional.interpolate(coarse, (32, 32), mode="bilinear")


@pytest.fixture(scope="module")
def shortcut() -> PlantedShortcut:
    return plant_shortcut(photographs(), Features(), mark="logo", unused="texture", size=0.3)


@pytest.mark.parametrize("kind", MARKS)
@pytest.mark.parametrize(("place", "along"), [(0.0, 0.0), (0.3, 0.8), (1.0, 1.0)])
def test_a_mark_changes_its_box_alone(kind: Any, place: float, along: float) -> None:
    images = photographs(1)
    box = place_mark(kind, 0.25, (32, 32), place, along)
    marked, masks = plant(images, kind, [box])
    changed = (marked != images).any(dim=1)
    assert bool((changed <= masks).all())
    assert float(changed.sum()) > 0.9 * float(masks.sum())
    assert 0 <= marked.min() <= marked.max() <= 1


def test_rulers_are_at_the_four_edges() -> None:
    boxes = {place_mark("ruler", 0.1, (40, 80), place, 0.0) for place in (0.1, 0.3, 0.6, 0.9)}
    assert boxes == {(0, 0, 4, 40), (0, 0, 80, 4), (0, 36, 80, 40), (76, 0, 80, 40)}


def test_the_planted_model_decides_by_the_mark_on_images_that_it_was_not_trained_on(shortcut: PlantedShortcut) -> None:
    assert min(shortcut.accuracy_with, shortcut.accuracy_without) >= 0.9
    assert shortcut.model(shortcut.images).argmax(dim=1).unique().tolist() == [1]
    assert shortcut.model.labels == ("without logo", "with logo")
    blank = torch.where(shortcut.masks.unsqueeze(1), torch.full_like(shortcut.images, 0.5), shortcut.images)
    assert float((shortcut.model(blank).argmax(dim=1) == 0).float().mean()) >= 0.75, "the unused mark is still there"


def test_the_two_marks_are_apart_and_in_every_image(shortcut: PlantedShortcut) -> None:
    unused = given(shortcut.unused_masks)
    assert not bool((unused & shortcut.masks).any())
    assert bool(unused.flatten(1).any(dim=1).all())


def test_a_gradient_shows_the_mark_and_not_the_unused_one(shortcut: PlantedShortcut) -> None:
    explanation = fm.Gradient(shortcut.model, score="logit")(shortcut.images, 1)
    score, unused = (shortcut_score(explanation, masks) for masks in (shortcut.masks, given(shortcut.unused_masks)))
    assert float(score.found.mean()) >= 0.9
    assert float(score.share.mean()) > 0.5 > 0.2 > float(unused.share.mean())


@pytest.mark.parametrize("explainer", [fm.GradCAM, fm.HiResCAM, fm.IntegratedGradients])
def test_methods_explain_the_planted_model(explainer: Any, shortcut: PlantedShortcut) -> None:
    explanation = explainer(shortcut.model, score="logit")(shortcut.images[:2], 1)
    assert torch.isfinite(explanation.heatmap).all()


def test_the_head_gets_the_finer_of_two_layers_and_the_model_is_left_unchanged() -> None:
    network = Features().train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    layer = FeatureLayer.of(network, None, photographs(1))
    assert (len(layer.centres[0]), len(layer.centres[1])) == (16, 16)
    first, second = (plant_shortcut(photographs(), network, size=0.3) for _ in range(2))
    assert torch.equal(first.model(first.images), second.model(second.images)), "no random numbers but the places"
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not network._forward_hooks
    assert network.training


def test_scores_of_known_maps() -> None:
    mask = torch.zeros(1, 20, 20, dtype=torch.bool)
    mask[0, :4, :4] = True
    right, wrong = mask.float(), torch.zeros(1, 20, 20)
    wrong[0, 10:, 10:] = 1
    assert [float(value) for value in shortcut_score(right, mask)] == [1, 1, 0]
    found, share, rank = shortcut_score(wrong, mask)
    assert (float(found), float(share)) == (0, 0)
    assert float(rank) == pytest.approx((100 + (300 - 16) / 2) / 400), "100 pixels are higher, half of the equal others, too"
    constant = shortcut_score(torch.ones(1, 20, 20), mask)
    assert [float(value) for value in constant] == pytest.approx([0, 0.04, 0.48])
    metric = PlantedShortcutScore(part="share")
    metric.update(torch.cat([right, wrong]), mask)
    assert metric.per_image().tolist() == [1, 0]


def test_a_mark_that_is_smaller_than_a_cell_belongs_to_the_cell_around_it() -> None:
    mask = torch.zeros(1, 20, 20, dtype=torch.bool)
    mask[0, 1:3, 1:3] = True
    heatmap = torch.zeros(1, 2, 2)
    heatmap[0, 0, 0] = 1
    centres = torch.tensor([4.5, 14.5])
    score = shortcut_score(Explanation(heatmap, (20, 20), rows=centres, columns=centres), mask)
    assert float(score.rank) == 0
    assert float(score.share) == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plant_shortcut(photographs(4), Features()), "images has 4 entries"),
        (lambda: plant_shortcut(photographs(), Features(), mark="stain"), "mark is 'stain'; give one of logo"),  # type: ignore[arg-type]
        (lambda: plant_shortcut(photographs(), Features(), unused="logo"), "both 'logo'"),
        (lambda: plant_shortcut(photographs(), Features(), size=0.01), "2 pixels or more"),
        (lambda: plant_shortcut(photographs(), Features(), unused="cast", size=0.9), "no room for both"),
        (
            lambda: plant_shortcut(photographs(), Features(), size=0.07, least_accuracy=1.01),
            "did not learn the rule: .* with the logo",
        ),
        (lambda: plant(torch.zeros(1, 1, 8, 8), "logo", [(0, 0, 4, 4)]), "give \\(n, 3, h, w\\)"),
        (lambda: shortcut_score(torch.ones(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)), "an image without a mark"),
        (lambda: PlantedShortcutScore(part="top"), "part is 'top'"),  # type: ignore[arg-type]
    ],
)
def test_invalid_input_is_refused_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
