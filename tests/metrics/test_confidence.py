"""Average drop, increase in confidence and average gain against closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import Patch, SmallNet, Untouched
from torch import Tensor
from torchmetrics import MetricCollection

from faithmap.explanation import Explanation
from faithmap.metrics import AverageDrop, AverageGain, IncreaseInConfidence
from faithmap.metrics.base import HeatmapMetric
from faithmap.metrics.functional import Confidence, confidence
from faithmap.metrics.functional.confidence import scaled
from faithmap.model import Classifier


def probability(visible: Tensor, gain: float = 12.0) -> Tensor:
    """Of class 0, as a Patch of that mean brightness gives it."""
    return torch.sigmoid(2 * gain * (visible - 0.5))


def patch_map(inside: float, outside: float = 0.0) -> Tensor:
    heatmap = torch.full((1, 32, 32), outside, dtype=torch.float64)
    heatmap[:, 8:16, 8:16] = inside
    return heatmap


@pytest.fixture
def maps() -> Tensor:
    return torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(2)) - 0.2


def test_a_model_that_looks_at_one_patch() -> None:
    """The score under a map is that of the patch's brightness times the map's value there."""
    model, image = Patch(slice(8, 16), slice(8, 16)).double(), torch.full((1, 3, 32, 32), 0.6, dtype=torch.float64)
    right, wrong, half = patch_map(2.0), patch_map(0.0, 1.0), patch_map(1.0, 2.0)
    maps = torch.cat([right, wrong, half])
    found = confidence(model, image.expand(3, -1, -1, -1), maps, 0)
    y, o = probability(torch.tensor(0.6, dtype=torch.float64)), probability(torch.tensor([0.6, 0.0, 0.3], dtype=torch.float64))
    assert torch.allclose(found.clean, y.expand(3), atol=1e-12, rtol=0)
    assert torch.allclose(found.masked, o, atol=1e-12, rtol=0)
    assert torch.allclose(found.drop, 100 * (y - o) / y, atol=1e-9, rtol=0)
    assert not found.increase.any()
    assert not found.gain.any()


def test_a_map_that_hides_counter_evidence_increases_the_score() -> None:
    """Class 1 is as likely as the patch is dark: a map that darkens it raises the score."""
    model, image = Patch(slice(8, 16), slice(8, 16)).double(), torch.full((1, 3, 32, 32), 0.6, dtype=torch.float64)
    found = confidence(model, image, patch_map(0.5, 1.0), 1)
    y, o = 1 - probability(torch.tensor(0.6, dtype=torch.float64)), 1 - probability(torch.tensor(0.3, dtype=torch.float64))
    assert found.increase.tolist() == [100.0]
    assert found.drop.tolist() == [0.0]
    assert found.gain.item() == pytest.approx((100 * (o - y) / (1 - y)).item(), rel=1e-9)


def test_a_map_of_ones_has_no_drop_and_no_gain(images: Tensor) -> None:
    """Also where no two passes of the model round alike, at any constant, and at a coarse resolution."""

    class Wavering(torch.nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x.mean(dim=(2, 3)) + torch.tensor([1e-5 * self.calls, 0, 0])

    for constant in (1.0, 0.3, 7.0):
        for scaling in ("max", "min_max"):
            found = confidence(Wavering(), images, torch.full((3, 7, 5), constant), scaling=scaling, chunk_size=2)
            assert torch.equal(found.clean, found.masked)
            assert not torch.stack([found.drop, found.increase, found.gain]).any()


def test_a_map_without_a_positive_value_shows_a_black_image(small_net: SmallNet, images: Tensor) -> None:
    with torch.no_grad():
        clean = small_net.eval()(images).softmax(1).max(1)
        black = small_net(torch.zeros(1, 3, 32, 32)).softmax(1)[0, clean.indices]
    for constant in (0.0, -2.0):
        found = confidence(small_net, images, torch.full((3, 7, 7), constant))
        assert torch.allclose(found.masked, black, atol=1e-6)


def test_the_map_multiplies_pixels_before_normalisation() -> None:
    """White times 0 is black, whatever colour the model's normalisation puts at 0."""
    model = Classifier(Patch(slice(0, 4), slice(0, 4), gain=1.0), mean=[0.4] * 3, std=[0.2] * 3)
    found = confidence(model, torch.ones(1, 3, 4, 4), torch.zeros(1, 4, 4), 0)
    assert found.clean.item() == pytest.approx(probability(torch.tensor(3.0), 1.0).item(), abs=1e-6)
    assert found.masked.item() == pytest.approx(probability(torch.tensor(-2.0), 1.0).item(), abs=1e-6)


def test_a_score_of_zero_has_no_drop_and_a_score_of_one_no_gain() -> None:
    found = Confidence(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 0.25, 1.0, 0.25]))
    assert found.drop.tolist() == [0.0, 0.0, 0.0, 75.0]
    assert found.gain.tolist() == [0.0, 25.0, 0.0, 0.0]
    assert found.increase.tolist() == [0.0, 100.0, 0.0, 0.0]


def test_each_map_is_scaled_on_its_own() -> None:
    maps = torch.tensor([[[-1.0, 0.0, 1.0]], [[2.0, 3.0, 4.0]], [[-3.0, -2.0, -1.0]], [[5.0, 5.0, 5.0]], [[0.0, 0.0, 0.0]]])
    wanted = [[0, 0, 1], [0.5, 0.75, 1], [0, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert scaled(maps).squeeze(1).tolist() == wanted
    wanted[:3] = [[0, 0.5, 1]] * 3
    assert scaled(maps, "min_max").squeeze(1).tolist() == wanted
    assert torch.equal(scaled(maps[:1].abs(), "none"), maps[:1].abs())
    assert scaled(maps[:1].half()).dtype == torch.float32


def test_a_map_is_scaled_before_it_is_resampled() -> None:
    """A peak between two pixels is cut by resampling, and stays cut."""
    model, image = Patch(slice(0, 1), slice(0, 4)).double(), torch.ones(1, 1, 1, 4, dtype=torch.float64)
    explanation = Explanation(torch.tensor([[[0.0, 8.0, 0.0]]]).double(), (1, 4))
    found = confidence(model, image, explanation, 0)
    assert found.masked.item() == pytest.approx(probability(torch.tensor(1 / 3, dtype=torch.float64)).item(), abs=1e-9)


@pytest.mark.parametrize("chunk_size", [1, 2, 64])
def test_the_scores_of_an_image_do_not_depend_on_the_other_images(
    small_net: SmallNet, images: Tensor, maps: Tensor, chunk_size: int
) -> None:
    together = confidence(small_net, images, maps)
    turned = confidence(small_net, images.flip(0), maps.flip(0), chunk_size=chunk_size)
    alone = confidence(small_net, images[1:2], maps[1:2], chunk_size=chunk_size)
    assert torch.allclose(turned.masked.flip(0), together.masked, atol=1e-6)
    assert torch.allclose(alone.drop, together.drop[1:2], atol=1e-4)
    assert torch.equal(together[1].masked, together.masked[1:2])
    assert len(together) == 3


def test_values_equal_those_of_torch_cam(images: Tensor) -> None:
    """Which multiplies after normalisation: the same for a model without any. Its maps are its own."""
    metrics, methods = pytest.importorskip("torchcam.metrics"), pytest.importorskip("torchcam.methods")
    net = SmallNet().eval()
    with methods.GradCAM(net, target_layer="conv2") as extractor:
        maps = extractor([0, 1, 4], net(images).softmax(dim=-1))[0].detach()
        metric = metrics.ClassificationMetric(extractor, lambda logits: logits.softmax(dim=-1))
        metric.update(images, [0, 1, 4])
        theirs = metric.summary()
    sized = torch.nn.functional.interpolate(maps.unsqueeze(1), (32, 32), mode="bilinear").squeeze(1)
    found = confidence(net, images, sized, [0, 1, 4], scaling="none")
    assert found.drop.mean().item() == pytest.approx(100 * theirs["avg_drop"], abs=1e-3)
    assert found.increase.mean().item() == pytest.approx(100 * theirs["conf_increase"], abs=1e-3)


def test_the_model_is_left_unchanged(small_net: SmallNet, images: Tensor, maps: Tensor, untouched: Untouched) -> None:
    untouched(small_net.train())
    confidence(small_net, images, maps)
    with pytest.raises(ValueError, match=r"scores range from 2 to 2; give a target in \[0, 1\]"):
        confidence(small_net, images, maps, lambda output: output[:, 0] * 0 + 2)


@pytest.mark.parametrize(
    ("maps", "options", "words"),
    [
        (torch.rand(2, 5, 5), {}, "for 3 images"),
        (torch.full((3, 5, 5), float("nan")), {}, "NaN"),
        (torch.rand(3, 5, 5), {"scaling": "softmax"}, "'softmax' is unknown; give one of max, min_max, none"),
        (torch.rand(3, 5, 5) + 1, {"scaling": "none"}, "use another scaling"),
        (torch.rand(3, 5, 5), {"target": [1]}, "1 entry for 3 images"),
    ],
)
def test_invalid_maps_and_settings_are_refused(
    small_net: SmallNet, images: Tensor, maps: Tensor, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        confidence(small_net, images, maps, **options)


def test_half_precision_stays_within_its_tolerance(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    found, exact = (
        confidence(small_net, images, maps.half(), 0, autocast=torch.bfloat16),
        confidence(small_net, images, maps, 0),
    )
    assert found.masked.dtype == torch.float32
    assert torch.allclose(found.masked, exact.masked, atol=0.05)
    single = confidence(small_net, images, maps.half(), 0)
    assert torch.allclose(single.masked, exact.masked, atol=1e-3)
    assert (found.masked - single.masked).abs().max() > 1e-4


READINGS = ["AverageDrop", "IncreaseInConfidence", "AverageGain"]


@pytest.mark.parametrize("groups", [True, [READINGS]])
def test_metric_classes_are_the_means_of_the_function(
    small_net: SmallNet, images: Tensor, maps: Tensor, groups: bool | list[list[str]]
) -> None:
    """A collection in which they form a group asks the model for the first of them alone."""
    wanted = confidence(small_net, images, maps)
    passes: list[int] = []
    handle = small_net.register_forward_hook(lambda *_: passes.append(1))
    collection = MetricCollection(
        [AverageDrop(small_net), IncreaseInConfidence(small_net), AverageGain(small_net)], compute_groups=groups
    )
    for i in range(3):
        collection.update(images=images[i : i + 1], heatmaps=maps[i : i + 1])
    handle.remove()
    found = collection.compute()
    for name, values in zip(READINGS, (wanted.drop, wanted.increase, wanted.gain), strict=True):
        assert float(found[name]) == pytest.approx(float(values.mean()), abs=1e-4)
        metric = collection[name]
        assert isinstance(metric, HeatmapMetric)
        assert torch.allclose(metric.per_image(), values, atol=1e-4)
    assert len(passes) == (18 if groups is True else 6)
    assert [collection[name].higher_is_better for name in READINGS] == [False, True, True]


def test_forward_returns_the_batch_and_compute_the_whole(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    wanted = confidence(small_net, images, maps, scaling="min_max").drop
    metric = AverageDrop(small_net, scaling="min_max")
    assert torch.allclose(metric(images[:1], maps[:1]), wanted[0], atol=1e-4)
    assert torch.allclose(metric(images[1:], maps[1:]), wanted[1:].mean(), atol=1e-4)
    assert torch.allclose(metric.per_image(), wanted, atol=1e-4)
