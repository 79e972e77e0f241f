"""Deletion and insertion against closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import Linear, Patch, SmallNet, Untouched, fails_from
from torch import Tensor

from faithmap.baselines import Blur, Constant
from faithmap.explanation import Explanation, cell_ranks
from faithmap.metrics.functional import PROTOCOLS, Curve, Protocol, deletion_insertion
from faithmap.metrics.functional.curves import ProtocolName
from faithmap.model import Classifier

BLACK = Protocol("black", "cells", 100, "black", "black")


def logit_odds(scores: Tensor) -> Tensor:
    return torch.log(scores / (1 - scores)) / 2


def test_a_linear_model_has_straight_line_evidence() -> None:
    """Every deleted pixel takes its own w x from the logit: the curves are known at every point."""
    weight = torch.linspace(-1, 1, 36, dtype=torch.float64).view(1, 6, 6) / 10
    image = torch.rand(1, 1, 6, 6, dtype=torch.float64)
    evidence = (weight * image[0]).view(1, 6, 6)
    curves = deletion_insertion(Linear(weight), image, evidence, 0, protocol=BLACK)
    ordered = evidence.flatten().sort(descending=True).values
    inserted = torch.cat([torch.zeros(1), ordered.cumsum(0)]).double()
    assert torch.allclose(logit_odds(curves.insertion.scores[0]), inserted, atol=1e-12)
    assert torch.allclose(logit_odds(curves.deletion.scores[0]), evidence.sum() - inserted, atol=1e-12)
    assert torch.allclose(curves.insertion.fractions, torch.arange(37).double() / 36)


def test_duality_for_a_linear_model() -> None:
    """What the reversed map inserts last, the map deletes first."""
    weight = torch.randn(1, 5, 5, dtype=torch.float64) / 5
    image, heatmap = torch.rand(1, 1, 5, 5).double(), torch.rand(1, 5, 5).double()
    forward = deletion_insertion(Linear(weight), image, heatmap, 0, protocol=BLACK)
    backward = deletion_insertion(Linear(weight), image, -heatmap, 0, protocol=BLACK)
    assert torch.allclose(forward.deletion.scores, backward.insertion.scores.flip(1), atol=1e-12)


def test_a_model_that_looks_at_one_patch() -> None:
    """White image, black baseline: the score is sigmoid(12) with the patch, sigmoid(-12) without, linear odds between."""
    model = Patch(slice(8, 16), slice(8, 16)).double()
    image = torch.ones(1, 3, 32, 32, dtype=torch.float64)
    heatmap = torch.zeros(1, 32, 32, dtype=torch.float64)
    heatmap[0, 8:16, 8:16] = torch.arange(64, 0, -1).view(8, 8)
    curves = deletion_insertion(model, image, heatmap, 0, protocol=BLACK, steps=1024)
    odds = 6 - 12 * torch.arange(1025).clamp(max=64) / 64
    assert torch.allclose(logit_odds(curves.deletion.scores[0]), odds.double(), atol=1e-9)
    assert torch.allclose(logit_odds(curves.insertion.scores[0]), -odds.double(), atol=1e-9)
    low, high = curves.deletion.scores[0, -1], curves.deletion.scores[0, 0]
    assert curves.deletion.area.item() == pytest.approx((0.5 * 64 * (low + high) + 960 * low).item() / 1024, rel=1e-9)
    assert curves.difference.item() == pytest.approx(curves.insertion.area.item() - curves.deletion.area.item())


def test_ends_are_the_image_and_the_baseline(small_net: SmallNet, images: Tensor) -> None:
    curves = deletion_insertion(small_net, images, torch.rand(3, 7, 7), steps=10)
    with torch.no_grad():
        full = small_net.eval()(images).softmax(1).max(1)
        gone = small_net(Blur()(images)).softmax(1).gather(1, full.indices.unsqueeze(1)).squeeze(1)
    assert torch.allclose(curves.deletion.scores[:, 0], full.values, atol=1e-6)
    assert torch.allclose(curves.insertion.scores[:, -1], full.values, atol=1e-6)
    assert torch.allclose(curves.deletion.scores[:, -1], gone, atol=1e-6)
    assert torch.allclose(curves.insertion.scores[:, 0], gone, atol=1e-6)


def test_area_is_on_the_true_fractions() -> None:
    """A straight line from 1 to 0 has area one half, however unevenly it is sampled."""
    fractions = torch.tensor([0.0, 0.1, 0.15, 0.7, 1.0])
    assert Curve(fractions, 1 - fractions.unsqueeze(0)).area.item() == pytest.approx(0.5)


def test_exact_counts_on_a_sparse_map(images: Tensor) -> None:
    """A percentile threshold would remove every zero at once; ranks remove as many cells as were asked for."""
    sparse = torch.zeros(3, 8, 8)
    sparse[:, 3, 3] = 1
    model = Linear(torch.ones(3, 32, 32) / 3072)
    curves = deletion_insertion(model, torch.ones_like(images), sparse, 0, protocol=BLACK, steps=4)
    kept = logit_odds(curves.deletion.scores[0])
    assert curves.deletion.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (kept.diff() < -0.15).all()


def test_equal_cells_are_removed_in_reading_order() -> None:
    assert cell_ranks(torch.zeros(2, 64, 64)).flatten(1).tolist() == [list(range(4096))] * 2
    assert cell_ranks(torch.tensor([[[0.0, 2.0], [2.0, 1.0]]])).flatten().tolist() == [3, 0, 1, 2]


@pytest.mark.parametrize("protocol", ["igos", "rise"])
@pytest.mark.parametrize("chunk_size", [1, 7, 64])
def test_the_scores_of_an_image_do_not_depend_on_the_other_images(
    small_net: SmallNet, images: Tensor, protocol: ProtocolName, chunk_size: int
) -> None:
    maps = Explanation(torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(3)), (32, 32))
    together = deletion_insertion(small_net, images, maps, protocol=protocol)
    alone = deletion_insertion(small_net, images[1:2], maps[1], protocol=protocol, chunk_size=chunk_size)
    assert torch.allclose(together.deletion.scores[1:2], alone.deletion.scores, atol=1e-5)
    assert torch.allclose(together.insertion.area[1:2], alone.insertion.area, atol=1e-5)


def test_the_order_of_images_does_not_matter(small_net: SmallNet, images: Tensor) -> None:
    maps = torch.rand(3, 5, 5)
    straight = deletion_insertion(small_net, images, maps).difference
    assert torch.allclose(deletion_insertion(small_net, images.flip(0), maps.flip(0)).difference.flip(0), straight, atol=1e-6)


def test_only_the_order_of_cells_counts(small_net: SmallNet, images: Tensor) -> None:
    maps = torch.rand(3, 5, 5)
    assert torch.equal(
        deletion_insertion(small_net, images, maps).difference,
        deletion_insertion(small_net, images, (maps * 4).exp()).difference,
    )


def test_the_rise_protocol_replaces_whole_pixels() -> None:
    """224 pixels a step at 224: one step for each row; deleted pixels are 0 after normalisation."""
    weight = torch.ones(1, 4, 4, dtype=torch.float64) / 16
    model = Classifier(Linear(weight).double(), mean=[0.5], std=[0.25]).double()
    image = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    curves = deletion_insertion(model, image, torch.rand(1, 2, 2).double(), 0, protocol="rise")
    assert curves.resolution == (4, 4)
    assert curves.protocol.name == "rise"
    assert curves.protocol.deletion_baseline == Constant((0.5,))
    left = 2 * (1 - curves.deletion.fractions.double())
    assert torch.allclose(logit_odds(curves.deletion.scores[0].double()), left, atol=1e-6)


def test_the_target_of_an_explanation_is_the_default(small_net: SmallNet, images: Tensor) -> None:
    maps = torch.rand(3, 5, 5)
    given = deletion_insertion(small_net, images, maps, 2)
    kept = deletion_insertion(small_net, images, Explanation(maps, (32, 32), target=torch.full((3,), 2)))
    assert torch.equal(given.insertion.scores, kept.insertion.scores)


def test_the_result_of_one_image(small_net: SmallNet, images: Tensor) -> None:
    curves = deletion_insertion(small_net, images, torch.rand(3, 5, 5))
    assert [curves[i].difference.item() for i in range(len(curves))] == curves.difference.tolist()
    assert torch.equal(curves[-1].insertion.scores, curves.insertion.scores[2:])
    assert curves[0].protocol == curves.protocol


def test_the_model_is_left_unchanged(small_net: SmallNet, images: Tensor, untouched: Untouched) -> None:
    untouched(small_net.train())
    small_net.head.weight.requires_grad_(False)
    small_net.head.weight.requires_grad_(True)
    deletion_insertion(small_net, images, torch.rand(3, 5, 5))
    with pytest.raises(ZeroDivisionError):
        deletion_insertion(small_net, images, torch.rand(3, 5, 5), progress=fails_from(0))


@pytest.mark.parametrize(
    ("maps", "options", "words"),
    [
        (torch.rand(2, 5, 5), {}, "for 3 images"),
        (torch.rand(3, 40, 40), {}, "finer than the images"),
        (torch.full((3, 5, 5), float("nan")), {}, "NaN"),
        (torch.rand(3, 5, 5), {"protocol": "roar"}, "'roar' is unknown; give one of igos, igos_resampled, rise"),
        (torch.rand(3, 5, 5), {"steps": 0}, "steps is 0"),
        (torch.rand(3, 5, 5), {"target": [1]}, "1 entry for 3 images"),
    ],
)
def test_invalid_maps_and_protocols_are_refused(
    small_net: SmallNet, images: Tensor, maps: Tensor, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        deletion_insertion(small_net, images, maps, **options)


def test_the_protocols_are_named() -> None:
    assert set(PROTOCOLS) == {"igos", "igos_resampled", "rise"}
    assert PROTOCOLS["igos"].deletion_baseline == PROTOCOLS["igos"].insertion_baseline == "blur"


def test_cells_are_removed_at_their_positions_in_the_image() -> None:
    """Two columns of cells, both in the right half: the left half of a mask has the left cell's value, beyond the outermost."""
    heatmap = torch.tensor([[[1.0, 2.0]]])
    placed = Explanation(heatmap, (8, 8), rows=torch.tensor([3.5]), columns=torch.tensor([4.0, 7.0]))
    assert torch.equal(placed.cells, heatmap)
    crowded = Explanation(
        torch.tensor([[[1.0, 2.0, 4.0]]]), (1, 9), rows=torch.tensor([0.0]), columns=torch.tensor([0.0, 2.0, 4.0])
    )
    assert crowded.cells.tolist() == [[[1.0, 4.0, 4.0]]]
    image, model = torch.rand(1, 3, 1, 9), Patch(slice(0, 1), slice(0, 2))
    resampled = Explanation(crowded.cells, (1, 9))
    first = deletion_insertion(model, image, crowded, 0, protocol="igos_resampled")
    second = deletion_insertion(model, image, resampled, 0)
    assert torch.equal(first.deletion.scores, second.deletion.scores)


def test_a_coarse_map_is_ranked_by_its_own_cells() -> None:
    """Cells at pixels 0, 2 and 4 of 9 become the cells of a mask, at pixels 0, 4 and 8: its own highest cell is the last.

    Resampled, the map is 1, 4, 4: the middle cell is removed first, which takes an eighth of the patch of two pixels.
    """
    heatmap = torch.tensor([[[1.0, 2.0, 4.0]]])
    placed = Explanation(heatmap, (1, 9), rows=torch.tensor([0.0]), columns=torch.tensor([0.0, 2.0, 4.0]))
    image, model = torch.ones(1, 3, 1, 9), Patch(slice(0, 1), slice(0, 2))

    def odds(protocol: ProtocolName) -> list[float]:
        curves = deletion_insertion(model, image, placed, 0, protocol=protocol, baseline="black")
        return logit_odds(curves.deletion.scores[0]).tolist()

    assert odds("igos") == pytest.approx([6, 6, 6 - 12 / 8, -6], abs=0.01)
    assert odds("igos_resampled") == pytest.approx([6, 6 - 12 / 8, 6 - 12 / 8, -6], abs=0.01)


def test_parity_with_torch_cam_on_its_protocol(small_net: SmallNet, images: Tensor) -> None:
    """Hard replacement by 0 of the pixels of its own map, as it resizes it, in 32 equal parts."""
    metrics, methods = pytest.importorskip("torchcam.metrics"), pytest.importorskip("torchcam.methods")
    small_net.eval()
    protocol = Protocol("torch-cam", "pixels", 32, 0.0, 0.0)
    for image in images.split(1):
        with methods.GradCAM(small_net, target_layer="conv2") as extractor:
            target = int(small_net(image).argmax())
            (cam,) = extractor(target, small_net(image).softmax(dim=1))  # as the metric asks for it
            theirs = metrics.DeletionInsertionMetric(extractor, lambda logits: logits.softmax(dim=1), steps=32)
            theirs.update(image, target)
        heatmap = metrics._resize_cam(cam.detach(), (32, 32)).view(1, 32, 32)
        ours = deletion_insertion(small_net, image, heatmap, target, protocol=protocol)
        assert ours.deletion.area.item() == pytest.approx(theirs.summary()["deletion_auc"], abs=1e-5)
        assert ours.insertion.area.item() == pytest.approx(theirs.summary()["insertion_auc"], abs=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2)])
def test_half_precision_is_within_its_tolerance(
    small_net: SmallNet, images: Tensor, dtype: torch.dtype, tolerance: float
) -> None:
    heatmaps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = deletion_insertion(small_net, images, heatmaps, 0)
    half = deletion_insertion(small_net.to(dtype), images.to(dtype), heatmaps.to(dtype), 0)
    assert torch.allclose(half.deletion.area.float(), whole.deletion.area, atol=tolerance)
    assert torch.allclose(half.insertion.area.float(), whole.insertion.area, atol=tolerance)
    assert half.deletion.scores.dtype == torch.float32
