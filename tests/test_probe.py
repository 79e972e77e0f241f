"""Phi, and questions in chunks."""

from __future__ import annotations

import pytest
import torch
from oracles import Linear, SmallNet

from faithmap.masking import compose, upsample
from faithmap.probe import MaskProbe
from faithmap.score import Score

CLASSES = torch.tensor([0, 1, 1])


def engine(model: torch.nn.Module, images: torch.Tensor, chunk_size: int) -> MaskProbe:
    return MaskProbe(model.eval(), Score(classes=CLASSES), images, 0.3 * images + 0.2, chunk_size=chunk_size)


def test_one_shows_the_image_and_zero_the_baseline(images: torch.Tensor) -> None:
    baseline = 1 - images
    assert torch.allclose(compose(images, baseline, torch.ones(3, 1, 32, 32)), images)
    assert torch.equal(compose(images, baseline, torch.zeros(3, 1, 32, 32)), baseline)


def test_a_mask_of_the_images_size_is_not_resampled() -> None:
    mask = torch.rand(1, 1, 5, 6)
    assert upsample(mask, (5, 6)) is mask


def test_scores_are_those_of_the_composed_images(small_net: SmallNet, images: torch.Tensor) -> None:
    index = torch.tensor([2, 0, 1, 0])
    masks = torch.rand(4, 5, 7)
    asked = engine(small_net, images, 3).scores(masks, index)
    shown = compose(images[index], (0.3 * images + 0.2)[index], upsample(masks.unsqueeze(1), (32, 32)))
    expected = small_net(shown).softmax(1).gather(1, CLASSES[index].unsqueeze(1)).squeeze(1)
    assert torch.allclose(asked, expected, atol=1e-6)


@pytest.mark.parametrize("resolution", [(4, 4), (1, 6), (32, 32)])
def test_gradients_are_autograds(small_net: SmallNet, images: torch.Tensor, resolution: tuple[int, int]) -> None:
    images, net = images.double(), small_net.double()
    masks = torch.rand(3, *resolution, dtype=torch.float64, requires_grad=True)
    index, shares = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0.5, 1.0, 0.3, 0.7, 0.2], dtype=torch.float64)
    asked = engine(net, images, 2).gradients(masks, index, shares)
    shown = compose(
        images[index], (0.3 * images + 0.2)[index], upsample((masks[index] * shares.view(-1, 1, 1)).unsqueeze(1), (32, 32))
    )
    score = net(shown).softmax(1).gather(1, CLASSES[index].unsqueeze(1)).sum()
    assert torch.allclose(asked, torch.autograd.grad(score, masks)[0], atol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 100])
def test_chunks_do_not_matter(small_net: SmallNet, images: torch.Tensor, chunk_size: int) -> None:
    index = torch.tensor([2, 0, 1, 0, 2, 2, 1])
    masks, shares = torch.rand(7, 4, 4), torch.rand(7)
    one, many = engine(small_net, images, 7), engine(small_net, images, chunk_size)
    assert torch.allclose(one.scores(masks, index), many.scores(masks, index), atol=1e-6)
    assert torch.allclose(one.gradients(masks[:3], index, shares), many.gradients(masks[:3], index, shares), atol=1e-6)
    assert many.forward.tolist() == [4, 4, 6]
    assert many.backward.tolist() == [2, 2, 3]


def test_no_pass_is_larger_than_a_chunk(images: torch.Tensor) -> None:
    class Counting(Linear):
        largest = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Counting.largest = max(Counting.largest, len(x))
            return super().forward(x)

    masked = engine(Counting(torch.rand(3, 32, 32)), images, 4)
    masked.scores(torch.rand(11, 2, 2), torch.zeros(11, dtype=torch.long))
    masked.gradients(torch.rand(3, 2, 2), torch.arange(11) % 3, torch.rand(11))
    assert Counting.largest == 4
