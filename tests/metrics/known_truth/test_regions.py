"""Models that see a region: what is outside has no effect, and the score of a map is known in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from method_tools import TinyNet, cheap, small_images
from oracles import given
from torch import Tensor, nn

import faithmap as fm
from faithmap.explanation import Explanation
from faithmap.layers import find_layers
from faithmap.metrics import Leakage
from faithmap.metrics.known_truth import (
    difull,
    dipart,
    leakage,
    region_of,
    region_share,
    repeated_content,
    weighted_regions,
)
from faithmap.warning_types import EmptyHeatmapWarning

QUARTER = region_of((0, 0, 8, 8), (16, 16))

pytestmark = [
    pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning"),
    pytest.mark.filterwarnings("ignore::faithmap.EmptyHeatmapWarning"),
]


class Pooled(nn.Module):
    """Convolutions of stride 1, global average pooling and a linear layer."""

    def __init__(self, *, bypass: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bypass = bypass
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        y = self.second(x)
        logits: Tensor = self.head((y + x if self.bypass else y).mean(dim=(2, 3)))
        return logits


@pytest.mark.parametrize(
    "filling", [None, 0.25, (0.1, 0.2, 0.3), torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))]
)
def test_the_model_gets_the_region_and_the_filling(filling: Any) -> None:
    inner = fm.Classifier(TinyNet(), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), labels=("a", "b", "c"))
    images = small_images()
    values = torch.as_tensor((0.5, 0.4, 0.3) if filling is None else filling)
    composed = torch.where(QUARTER, images, values.view(-1, 1, 1) if values.ndim == 1 else values)
    model = difull(inner, QUARTER, filling=filling)
    assert isinstance(model, fm.Classifier)
    assert model.labels == inner.labels
    assert torch.allclose(model(images), inner(composed), atol=1e-5)


@pytest.mark.parametrize("name", ["gradient", "integrated_gradients", "gradient_times_input", "smoothgrad"])
def test_input_gradients_have_no_leakage(name: str) -> None:
    model = difull(TinyNet(), QUARTER)
    explanation = cheap(name, model)(small_images())
    assert leakage(explanation, QUARTER).tolist() == [0, 0]
    assert leakage(cheap(name, TinyNet())(small_images()), QUARTER).min() > 0.3, "of the model that sees all of the image"


@pytest.mark.parametrize("name", ["gradcam", "igos", "rank_descent", "occlusion", "rise", "expected_fusedcam", "hirescam"])
@pytest.mark.parametrize("kind", ["module", "classifier"])
def test_every_kind_of_method_works_and_explains_the_same_layer(name: str, kind: str) -> None:
    inner = TinyNet() if kind == "module" else fm.Classifier(TinyNet())
    model = difull(inner, QUARTER)
    explanation, whole = cheap(name, model)(small_images()), cheap(name, inner)(small_images())
    assert explanation.heatmap.shape == whole.heatmap.shape
    assert explanation.diagnostics[0].get("target_layer") == whole.diagnostics[0].get("target_layer")
    assert 0 <= leakage(explanation, QUARTER).min() <= leakage(explanation, QUARTER).max() < 1
    assert find_layers(model, None, small_images()).keys() == find_layers(inner, None, small_images()).keys()


def test_the_pixels_outside_have_no_effect_after_a_layer_was_searched() -> None:
    model, images = difull(TinyNet(), QUARTER), small_images()
    find_layers(model, None, images)
    assert torch.equal(model(images), model(torch.where(QUARTER, images, 1 - images)))


def test_leakage_of_known_maps() -> None:
    inside, outside = QUARTER.float().unsqueeze(0), (~QUARTER).float().unsqueeze(0)
    assert leakage(inside, QUARTER).tolist() == [0]
    assert leakage(-outside, QUARTER).tolist() == [1]
    assert leakage(inside - outside, QUARTER).tolist() == [0.75]
    metric = Leakage()
    metric.update(torch.cat([inside, outside]), QUARTER)
    assert metric.per_image().tolist() == [0, 1]
    with pytest.warns(EmptyHeatmapWarning, match="no importance"):
        assert leakage(torch.zeros(1, 16, 16), QUARTER).tolist() == [0]


def test_a_coarse_cell_that_reaches_the_region_does_not_leak() -> None:
    """Five columns in 16 pixels have centres 0, 3.75, 7.5, 11.25 and 15: the third reaches pixel 7, the fourth does not."""
    columns = torch.eye(5).unsqueeze(1)
    left = region_of((0, 0, 8, 16), (16, 16))
    assert leakage(Explanation(columns, (16, 16)), left).tolist() == [0, 0, 0, 1, 1]


def test_behind_the_feature_layer_only_the_cells_of_the_region_count() -> None:
    network, images = Pooled().eval(), small_images()
    left = region_of((0, 0, 8, 16), (16, 16))
    model = dipart(network, left, images[:1], target_layer="second")
    features = network.second(network.first(images).relu())
    assert torch.allclose(model(images), network.head(features[..., :8].mean(dim=(2, 3))), atol=1e-6)
    far = region_of((0, 0, 10, 16), (16, 16))  # two convolutions see two pixels further
    gradient = fm.Gradient(model)(images).heatmap
    assert bool((gradient[:, ~far] == 0).all())
    assert bool((gradient[..., 8:10] != 0).any()), "receptive fields lead out of the region"
    layer_maps = [fm.HiResCAM(model, target_layer="second")(images, target).heatmap for target in range(3)]
    assert max(float(heatmap[:, left].abs().max()) for heatmap in layer_maps) > 0
    assert max(float(heatmap[:, ~left].abs().max()) for heatmap in layer_maps) == 0


def test_dipart_refuses_a_layer_that_other_paths_lead_around() -> None:
    image = small_images(1)
    with pytest.raises(ValueError, match="other paths lead around the layer 'second'"):
        dipart(Pooled(bypass=True).eval(), QUARTER, image, target_layer="second")
    dipart(Pooled(bypass=True).eval(), QUARTER, image, target_layer="first")


BOXES = ((0, 0, 8, 8), (8, 8, 16, 16))


@pytest.mark.parametrize(("weights", "share"), [((3.0, 1.0), 0.75), ((1.0, 1.0), 0.5), ((0.2, 1.8), 0.1)])
def test_gradients_share_the_weights_of_two_equal_regions(weights: tuple[float, float], share: float) -> None:
    model = weighted_regions(TinyNet(), BOXES, weights)
    images = repeated_content(small_images(), BOXES)
    explanation = fm.Gradient(model)(images)
    assert torch.allclose(region_share(explanation, BOXES), torch.full((2,), share), atol=1e-4)


def test_the_probability_of_weighted_regions_is_the_weighted_mean() -> None:
    inner, images = fm.Classifier(TinyNet(), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)), small_images()
    model = weighted_regions(inner, BOXES, (3, 1), filling=0.2)
    alone = [torch.full_like(images, 0.2) for _ in BOXES]
    for canvas, (left, top, right, bottom) in zip(alone, BOXES, strict=True):
        canvas[..., :8, :8] = images[..., top:bottom, left:right]
    first, second = (inner(canvas).softmax(dim=1) for canvas in alone)
    assert torch.allclose(model(images), 0.75 * first + 0.25 * second, atol=1e-6)
    assert torch.allclose(given(fm.Gradient(model)(images, 0).score), model(images)[:, 0])


def test_methods_that_explain_a_layer_refuse_weighted_regions() -> None:
    with pytest.raises(ValueError, match="runs once"):
        fm.GradCAM(weighted_regions(TinyNet(), BOXES, (3, 1)))(small_images())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: difull(TinyNet(), torch.zeros(16, 16, dtype=torch.bool)), "region has 0 of 256 pixels"),
        (lambda: difull(TinyNet(), torch.ones(16, 16, dtype=torch.bool)), "region has 256 of 256 pixels"),
        (lambda: difull(TinyNet(), torch.ones(16, 16)), "give truth values"),
        (lambda: difull(TinyNet(), QUARTER)(torch.zeros(1, 3, 8, 8)), "the region \\(16, 16\\)"),
        (lambda: difull(TinyNet(), QUARTER, filling=(0.1, 0.2))(small_images()), "filling has shape \\(2, 1, 1\\)"),
        (lambda: region_of((4, 0, 4, 8), (16, 16)), "give left < right"),
        (lambda: region_of((4, 0, 17, 8), (16, 16)), "inside the image"),
        (lambda: weighted_regions(TinyNet(), ((0, 0, 8, 8), (8, 8, 12, 12)), (1, 1)), "two of one size"),
        (lambda: weighted_regions(TinyNet(), ((0, 0, 8, 8), (7, 7, 15, 15)), (1, 1)), "overlap"),
        (lambda: weighted_regions(TinyNet(), BOXES, (1, 0)), "two above 0"),
        (lambda: dipart(Pooled().eval(), QUARTER, small_images(1), target_layer=["first", "second"]), "2 layers"),  # type: ignore[arg-type]
    ],
)
def test_invalid_input_is_refused_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
