"""SaCo against a model whose falls are known, and the definition written out."""

from __future__ import annotations

import itertools

import pytest
import torch
from oracles import Linear, SmallNet
from torch import Tensor

from faithmap.metrics import SaCo
from faithmap.metrics.functional import saco


def pixel_model(weights: list[float]) -> tuple[Linear, Tensor]:
    """A linear score of one row of pixels, all of them 1; without a pixel the score falls by its weight."""
    return Linear(torch.tensor(weights).view(1, 1, 1, -1)), torch.ones(1, 1, 1, len(weights))


def test_values_in_the_order_of_the_falls_score_one_and_their_negatives_minus_one() -> None:
    weights = [0.5, 2.0, -1.0, 1.0]
    model, image = pixel_model(weights)

    def score(output: Tensor) -> Tensor:
        return output[:, 0]

    heatmap = torch.tensor(weights).view(1, 1, -1)
    assert saco(model, image, heatmap, score, groups=4, baseline="black").item() == pytest.approx(1.0)
    assert saco(model, image, -heatmap, score, groups=4, baseline="black").item() == pytest.approx(-1.0)


def test_one_wrong_pair_costs_the_difference_of_its_values() -> None:
    model, image = pixel_model([3.0, 1.0, 2.0])
    heatmap = torch.tensor([[[10.0, 6.0, 4.0]]])  # pairs: 4 and 6 are right, 2 is wrong
    value = saco(model, image, heatmap, lambda output: output[:, 0], groups=3, baseline="black")
    assert value.item() == pytest.approx((4 + 6 - 2) / (4 + 6 + 2))


@torch.no_grad()
def slowly(model: SmallNet, image: Tensor, heatmap: Tensor, groups: int) -> float:
    """Algorithm 1, group by group and pair by pair."""
    model.eval()
    target = model(image).argmax()
    clean = model(image).softmax(dim=1)[0, target]
    order = heatmap.flatten().argsort(descending=True, stable=True)
    sums, falls = [], []
    for group in order.tensor_split(groups):
        without = image.clone()
        without.view(3, -1)[:, group] = image.mean(dim=(2, 3))[0].unsqueeze(1)
        sums.append(heatmap.flatten()[group].sum())
        falls.append(clean - model(without).softmax(dim=1)[0, target])
    signed, total = 0.0, 0.0
    for i, j in itertools.combinations(range(groups), 2):
        weight = float(sums[i] - sums[j])
        signed += weight if falls[i] >= falls[j] else -weight
        total += abs(weight)
    return signed / total


def test_it_is_the_published_algorithm(small_net: SmallNet, images: Tensor) -> None:
    heatmaps = torch.rand(3, *images.shape[-2:], generator=torch.Generator().manual_seed(1))
    wanted = [slowly(small_net, image[None], heatmap, 8) for image, heatmap in zip(images, heatmaps, strict=True)]
    found = saco(small_net, images, heatmaps, groups=8, chunk_size=5)
    assert found.tolist() == pytest.approx(wanted, abs=1e-5)
    assert saco(small_net, images, 3 * heatmaps, groups=8).tolist() == pytest.approx(wanted, abs=1e-5)
    metric = SaCo(small_net, groups=8)
    for i in range(3):
        metric.update(images[i : i + 1], heatmaps[i : i + 1])
    assert metric.per_image().tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("groups", [1, 1025])
def test_groups_have_pixels_and_pairs(groups: int, small_net: SmallNet, images: Tensor) -> None:
    with pytest.raises(ValueError, match=f"groups is {groups}; give 2 or more, and at most the number of pixels"):
        saco(small_net, images, torch.ones(3, 4, 4), groups=groups)
