"""ROAD against closed forms."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from oracles import Linear, Patch, SmallNet, Untouched, fails_from
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.metrics import ROAD
from faithmap.metrics.functional import linear_imputation, road
from faithmap.metrics.functional.road import FRACTIONS, pixel_counts
from faithmap.seeds import image_generators


@pytest.fixture
def maps() -> Tensor:
    return torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(2))


def test_a_model_that_looks_at_one_patch() -> None:
    """A white patch on black: without it the surroundings are black, with it alone removed or kept the score is known."""
    model = Patch(slice(8, 16), slice(8, 16)).double()
    image, heatmap = torch.zeros(1, 3, 32, 32, dtype=torch.float64), torch.zeros(1, 32, 32, dtype=torch.float64)
    image[..., 8:16, 8:16] = heatmap[:, 8:16, 8:16] = 1
    high, low = torch.sigmoid(torch.tensor([12.0, -12.0]).double())
    fractions = [64 / 1024, 0.5, 960 / 1024]
    result = road(model, image, heatmap, 0, fractions=fractions, noise_std=0)
    assert result.most.fractions.tolist() == result.least.fractions.tolist() == fractions
    assert torch.allclose(result.most.scores, low.expand(1, 3), atol=1e-12)
    assert torch.allclose(result.least.scores[:, :2], high.expand(1, 2), atol=1e-12)
    assert torch.allclose(result.least.scores[:, 2], high, atol=1e-12), "the patch alone is left, and seen"
    assert torch.allclose(result.clean, high.expand(1), atol=1e-12)
    assert result.difference.item() == pytest.approx((high - low).item(), abs=1e-9)
    assert torch.allclose(road(model, image, -heatmap, 0, fractions=fractions[:1], noise_std=0).difference, low - high)


def test_one_pixel_becomes_the_mean_of_its_neighbours() -> None:
    """A linear model tells every pixel of the imputed image: weights 1/6 and 1/12, plus the image's own noise."""
    weight = torch.randn(1, 6, 6, dtype=torch.float64) / 10
    image = torch.rand(1, 1, 6, 6, dtype=torch.float64)
    heatmap = torch.rand(1, 6, 6).double()
    heatmap[0, 2, 3], heatmap[0, 4, 1] = 2, -1
    result = road(Linear(weight), image, heatmap, 0, fractions=[1 / 36], noise_std=0.05, seed=9)
    noise = torch.randn((1, 6, 6), generator=image_generators(9, [0])[0], dtype=torch.float64) * 0.05
    for curve, (y, x) in ((result.most, (2, 3)), (result.least, (4, 1))):
        around = image[0, 0, y - 1 : y + 2, x - 1 : x + 2]
        mean = (around * torch.tensor([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12).sum()
        change = weight[0, y, x] * (mean + noise[0, y, x] - image[0, 0, y, x])
        odds = torch.log(curve.scores / (1 - curve.scores)) / 2
        assert torch.allclose(odds, (weight * image[0]).sum() + change, atol=1e-5)


def test_the_scores_are_those_of_the_imputed_images(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    """Every fraction of every image, written out as a loop; pixels ranked at the image's size."""
    result = road(small_net, images, maps, [0, 1, 2], noise_std=0)
    ranked, counts = Explanation(maps, (32, 32)).at().flatten(1), pixel_counts(FRACTIONS, 1024).tolist()
    for i in range(3):
        for sign, curve in ((1, result.most), (-1, result.least)):
            order = (sign * ranked[i]).argsort(descending=True, stable=True)
            removed = torch.zeros(9, 1024, dtype=torch.bool)
            for row, count in zip(removed, counts, strict=True):
                row[order[:count]] = True
            with torch.no_grad():
                filled = linear_imputation(images[i].expand(9, -1, -1, -1), removed.view(9, 32, 32))
                wanted = small_net.eval()(filled).softmax(1)[:, i]
            assert torch.allclose(curve.scores[i], wanted, atol=1e-5)
    assert torch.allclose(result.difference, (result.least.scores - result.most.scores).sum(1) / 9)


@pytest.mark.parametrize("chunk_size", [1, 7, 200])
def test_every_image_is_scored_for_every_batching(small_net: SmallNet, maps: Tensor, chunk_size: int) -> None:
    """With the same noise, which is the image's own."""
    images, maps = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1)), maps[[0, 1, 2, 0, 1]]
    target, inputs = [0, 1, 2, 3, 4], []
    together = road(small_net, images, maps, target, noise_std=0.05, fractions=[0.2, 0.7])
    assert len(together) == 5
    assert len(set(together.difference.tolist())) == 5
    for i in range(5):
        own = image_generators(0, [i])
        alone = road(small_net, images[i : i + 1], maps[i : i + 1], i, noise_std=0.05, fractions=[0.2, 0.7], generator=own)
        assert torch.allclose(alone.most.scores, together[i].most.scores, atol=1e-5)
        assert torch.allclose(alone.least.scores, together.least.scores[i : i + 1], atol=1e-5)
    chunked = road(
        small_net,
        images,
        maps,
        target,
        noise_std=0.05,
        fractions=[0.2, 0.7],
        chunk_size=chunk_size,
        progress=lambda done, total: inputs.append((done, total)),
    )
    assert torch.allclose(chunked.most.scores, together.most.scores, atol=1e-5)
    assert torch.allclose(chunked.least.scores, together.least.scores, atol=1e-5)
    assert inputs[-1] == (5, 5)
    assert len(inputs) == -(-5 // chunk_size)


def test_at_most_one_chunk_of_images_is_in_memory(monkeypatch: pytest.MonkeyPatch, images: Tensor, maps: Tensor) -> None:
    """By the model or by the solver, however many images and fractions there are; and no chunk is left half empty."""
    module = importlib.import_module("faithmap.metrics.functional.road")
    passed, solved = [], []

    class Sizes(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            passed.append(len(x))
            return 9 * x.mean(dim=(2, 3))  # not in [0, 1], as probabilities are

    def recorded(composed: Tensor, removed: Tensor, tolerance: float) -> Tensor:
        solved.append(len(composed))
        return linear_imputation(composed, removed, tolerance=tolerance)

    monkeypatch.setattr(module, "linear_imputation", recorded)
    road(Sizes(), images, maps, 0, chunk_size=2)
    assert passed == [2, 1, *solved]
    assert solved == [2] * (36 // 2) + [2] * (18 // 2)


def test_noise_is_seeded_and_shared_by_the_fractions_of_an_image(images: Tensor) -> None:
    """On a constant image the imputation is the noise alone; a constant map removes the same pixels in both orders."""
    model, flat = Linear(torch.ones(3, 32, 32) / 5000), torch.full_like(images, 0.5)
    one, same, other = (road(model, flat, torch.ones(3, 4, 4), 0, fractions=[0.5, 1.0], seed=s) for s in (0, 0, 1))
    assert torch.equal(one.most.scores, same.most.scores)
    assert not torch.equal(one.most.scores, other.most.scores)
    assert one.difference.abs().max() < 1e-6


def test_at_the_ends_both_orders_show_the_same_image(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    result = road(small_net, images, maps, fractions=[0.0, 0.5, 1.0], noise_std=0)
    assert torch.allclose(result.most.scores[:, 0], result.clean, atol=1e-6)
    assert torch.allclose(result.most.scores[:, 2], result.least.scores[:, 2], atol=1e-6)
    means = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    with torch.no_grad():
        classes = small_net.eval()(images).argmax(1)
        wanted = small_net(means).softmax(1).gather(1, classes.unsqueeze(1)).squeeze(1)
    assert torch.allclose(result.most.scores[:, 2], wanted, atol=1e-5)


def test_exact_counts_on_a_sparse_map() -> None:
    """A threshold would remove every zero at once."""
    sparse, image = torch.zeros(1, 8, 8), torch.zeros(1, 1, 8, 8)
    sparse[0, 3, 3] = 1
    inputs: list[int] = []

    class Counting(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            inputs.extend((x != 0).sum(dim=(1, 2, 3)).tolist())
            return torch.full((len(x), 2), 2.0)

    result = road(Counting(), image, sparse, 0, fractions=[0.12, 0.25, 0.5], noise_std=1.0)
    assert inputs[1:] == [8, 16, 32] * 2
    assert result.most.fractions.tolist() == [8 / 64, 0.25, 0.5]


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
def test_the_curve_equals_that_of_grad_cam(small_net: SmallNet, images: Tensor) -> None:
    """Its percentile is what stays, and its noise cannot be seeded: compared without."""
    library = pytest.importorskip("pytorch_grad_cam.metrics.road")
    peer = pytest.importorskip("pytorch_grad_cam.metrics.perturbation_confidence")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")

    maps, net = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(2)), small_net.eval()
    result = road(net, images, maps, 1, fractions=[0.25, 0.75], noise_std=0)
    for k, percentile in enumerate((75, 25)):
        for curve, order in ((result.most, maps), (result.least, 1 - maps)):
            removal = peer.RemoveMostRelevantFirst(percentile, library.NoisyLinearImputer(noise=0))
            theirs = peer.PerturbationConfidenceMetric(removal)
            scores = theirs(images, order.numpy(), [targets.ClassifierOutputSoftmaxTarget(1)] * 3, net, return_diff=False)
            assert curve.scores[:, k].tolist() == pytest.approx(scores.tolist(), abs=1e-4)


def test_half_precision_stays_within_its_tolerance(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    exact = road(small_net, images, maps, 0, fractions=[0.5])
    lower = road(small_net, images, maps.half(), 0, fractions=[0.5], autocast=torch.bfloat16)
    assert lower.most.scores.dtype == torch.float32
    assert torch.allclose(lower.most.scores, exact.most.scores, atol=0.05)
    single = road(small_net, images, maps.half(), 0, fractions=[0.5])
    assert torch.allclose(single.most.scores, exact.most.scores, atol=0.01)
    assert (lower.most.scores - single.most.scores).abs().max() > 1e-4


def test_the_model_is_left_unchanged(small_net: SmallNet, images: Tensor, maps: Tensor, untouched: Untouched) -> None:
    untouched(small_net.train())
    road(small_net, images, maps, fractions=[0.5])
    with pytest.raises(ZeroDivisionError):
        road(small_net, images, maps, fractions=[0.5], progress=fails_from(0))


@pytest.mark.parametrize(
    ("maps", "options", "words"),
    [
        (torch.rand(2, 5, 5), {}, "for 3 images"),
        (torch.full((3, 5, 5), float("nan")), {}, "NaN"),
        (torch.rand(3, 5, 5), {"fractions": [0.5, 0.5]}, "give at least one, rising, each in"),
        (torch.rand(3, 5, 5), {"fractions": [10, 20]}, "each in"),
        (torch.rand(3, 5, 5), {"fractions": []}, "at least one"),
        (torch.rand(3, 5, 5), {"noise_std": -0.1}, "noise_std is -0.1"),
        (torch.rand(3, 5, 5), {"tolerance": 1e-9}, "torch.float32 resolves"),
        (torch.rand(3, 5, 5), {"generator": image_generators(0, range(2))}, "2 entries for 3 images"),
        (torch.rand(3, 5, 5), {"target": [1]}, "1 entry for 3 images"),
    ],
)
def test_invalid_maps_and_settings_are_refused(
    small_net: SmallNet, images: Tensor, maps: Tensor, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        road(small_net, images, maps, **options)


def test_the_metric_class_equals_the_function_for_every_batching(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    wanted = road(small_net, images, maps, seed=5, noise_std=0.1, fractions=[0.3]).difference
    metric = ROAD(small_net, seed=5, noise_std=0.1, fractions=[0.3])
    assert torch.allclose(metric(images[:1], maps[:1]), wanted[0], atol=1e-5)
    metric.update(images[1:], maps[1:])
    assert torch.allclose(metric.per_image(), wanted, atol=1e-5)
    assert metric.higher_is_better
    unknown: dict[str, Any] = {"generator": None}
    with pytest.raises(TypeError, match="no setting 'generator'"):
        ROAD(small_net, **unknown)
