"""Walks whose every number is known, and what a map's most important channels are worth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from oracles import SmallNet, Untouched, given
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.methods.cams.cam import ExpectedGradCAM, GradCAM
from faithmap.methods.cams.estimators import Expected
from faithmap.methods.cams.saturation import Saturation, saturation, top_features
from faithmap.score import ScoreKind

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.warning_types.FaithmapWarning")


class Squares(nn.Module):
    """The layer doubles the image, the score is the square of what it returns; the other class is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.layer.weight, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).square().sum(dim=(1, 2, 3))
        return torch.stack([y, torch.zeros_like(y)], dim=1)


def test_a_walk_from_black() -> None:
    """A = 2 a x: y = a^2 y(x), the cosine is 1 all the way but where A is 0, the gradient's norm is a |2 A(x)|."""
    image = torch.rand(2, 1, 3, 4, dtype=torch.float64)
    walk = saturation(
        Squares().double(), image, 0, target_layer="layer", baseline="black", score="logit", positions=11, chunk_size=4
    )
    a = torch.linspace(0, 1, 11, dtype=torch.float64)
    norm = (2 * image).flatten(1).norm(dim=1, keepdim=True)
    assert torch.allclose(walk.positions, a)
    assert torch.allclose(walk.score, a**2 * norm**2)
    assert torch.allclose(walk.gradient_norm, 2 * a * norm)
    assert torch.allclose(walk.similarity[:, 1:], torch.ones(2, 10, dtype=torch.float64))
    assert walk.target_layer == "layer"


def test_the_share_counts_from_the_image_back() -> None:
    """It reaches 19/20 of the change at 0.5, leaves again, and comes back at 0.8 for good."""
    score = torch.tensor([[0.0, 0.2, 0.4, 0.6, 0.8, 0.96, 0.9, 0.7, 0.96, 1.0, 1.0]])
    walk = Saturation(torch.linspace(0, 1, 11), score, score, score, "layer")
    assert walk.share().item() == pytest.approx(0.2)
    assert walk.share(0.35).item() == pytest.approx(0.6)
    assert Saturation(walk.positions, -score, score, score, "layer").share().item() == pytest.approx(0.2)


def test_a_score_at_the_tolerance_is_near() -> None:
    score = torch.tensor([[0.0, 0.5, 1.0]])
    assert Saturation(torch.linspace(0, 1, 3), score, score, score, "layer").share(0.5).item() == 0.5


def test_a_channel_without_positive_values_adds_nothing() -> None:
    net = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    image = torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.0, 0.0], [0.0, 0.0]]]])
    explanation = GradCAM(net, target_layer="0")(image, 0)
    assert top_features(net, image, explanation, 2).heatmap.tolist() == [[[0.0, 0.25], [0.5, 0.25]]]


def test_a_probability_saturates_where_the_logit_does_not() -> None:
    image = torch.ones(1, 1, 4, 4)
    settings: dict[str, Any] = {"target_layer": "layer", "baseline": "black", "positions": 101}
    probability, logit = (saturation(Squares(), image, 0, score=s, **settings) for s in get_args(ScoreKind))
    assert logit.share().item() == pytest.approx(0.02, abs=0.011)
    assert probability.share().item() > 0.6
    assert probability.gradient_norm[0, -1] < 1e-6 < logit.gradient_norm[0, -1]


def test_model_and_images_are_left_unchanged(small_net: SmallNet, images: Tensor, untouched: Untouched) -> None:
    untouched(small_net.train())
    with torch.no_grad():
        walk = saturation(small_net, images, target_layer="conv2", positions=5)
    assert not walk.score.requires_grad
    assert walk.score.shape == walk.similarity.shape == walk.gradient_norm.shape == (3, 5)


def test_top_features_are_the_channels_that_contribute_most(small_net: SmallNet, images: Tensor) -> None:
    explanation = GradCAM(small_net, target_layer="conv2")(images, 1)
    small_net.eval()
    with torch.no_grad():
        a = small_net.conv2(small_net.relu(small_net.norm(small_net.conv1(images))))
        weights = 20 * small_net.head.weight[1].view(1, 16, 1, 1) * (a > 0) / 64
        order = (weights.mean(dim=(2, 3), keepdim=True) * a).sum(dim=(2, 3)).argsort(dim=1, descending=True)
    assert [d["top_channels"]["conv2"] for d in explanation.diagnostics] == order[:, :10].tolist()
    top = top_features(small_net, images, explanation, 2)
    for i in range(3):
        features = a[i, order[i, :2]].relu()
        expected = sum(f / f.max() if f.max() > 0 else f for f in features) / 2
        assert torch.allclose(top.heatmap[i], expected, atol=1e-6)
    assert torch.equal(given(top.rows), given(explanation.rows))


def test_invalid_settings_and_explanations_are_refused(small_net: SmallNet, images: Tensor) -> None:
    with pytest.raises(ValueError, match="at least 2 positions"):
        saturation(small_net, images, positions=1)
    with pytest.raises(ValueError, match="array names no top channels"):
        top_features(small_net, images, Explanation(torch.rand(3, 4, 4), (32, 32)))
    both = GradCAM(small_net, target_layer=["conv1", "conv2"])(images)
    with pytest.raises(ValueError, match="of one layer"):
        top_features(small_net, images, both)
    single = GradCAM(small_net, target_layer="conv2")(images)
    mixed = replace(single, diagnostics=(*single.diagnostics[:2], both.diagnostics[2]))
    with pytest.raises(ValueError, match="of one layer"):
        top_features(small_net, images, mixed)
    with pytest.raises(ValueError, match="give 1 to 10 channels"):
        top_features(small_net, images, GradCAM(small_net, target_layer="conv2")(images), 11)


class Capped(nn.Module):
    """Two channels, the image's own; the score is the sum of the first, at most 1, plus a tenth of the sum of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1, bias=False)
        self.layer.weight.data = torch.eye(2).view(2, 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.layer(x).sum(dim=(2, 3)).unbind(dim=1)
        y = first.clamp(max=1) + second / 10
        return torch.stack([y, torch.zeros_like(y)], dim=1)


def test_the_expectation_sees_a_saturated_channel_that_the_gradient_does_not() -> None:
    """The first channel sums to 2 at the image and the score is capped at 1: from the middle of the path on it has no gradient.

    So Grad-CAM's weights are 0 and 1/10. The contributions expected from black are A / 2 and A / 10 in each cell, whose means
    over the four cells are 1/4 and 1/20; they sum to the score, 1 + 2/10.
    """
    image = torch.tensor([[[[0.8, 0.2], [0.4, 0.6]], [[0.3, 0.7], [0.9, 0.1]]]], dtype=torch.float64)
    model = Capped().double()
    plain = GradCAM(model, target_layer="layer")(image, 0)
    along = Expected(
        samples=20, references=0.0, paths=1, noise_std=0.0, jitter=False, difference="increment", pool="contribution"
    )
    expected = ExpectedGradCAM(model, target_layer="layer", gradient=along)(image, 0)
    first, second = image[0]
    assert torch.allclose(plain.heatmap[0], second / 10)
    assert torch.allclose(expected.heatmap[0], first / 4 + second / 20)
    assert plain.diagnostics[0]["top_channels"]["layer"][0] == 1
    assert expected.diagnostics[0]["top_channels"]["layer"][0] == 0
    assert expected.diagnostics[0]["completeness_gap"] == pytest.approx(0, abs=1e-6)
