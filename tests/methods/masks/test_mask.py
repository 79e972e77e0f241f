"""Mask, the peer of I-GOS: plain gradient, Adam, jitter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import Patch, SmallNet
from torch import Tensor, nn

from faithmap import Mask, image_generators
from faithmap.baselines import compose, upsample
from faithmap.methods.masks.base import Regulariser
from faithmap.methods.masks.mask import Jitter

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.warning_types.FaithmapWarning")


def test_without_jitter_it_is_adam_on_the_objective_written_out(small_net: SmallNet) -> None:
    net, image = small_net.double().eval(), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    explanation = Mask(net, resolution=5, iterations=4, lambda1=0.2, lambda2=0.5, jitter=0, learning_rate=0.05)(
        image, 1, baseline=0.2
    )
    mask = torch.ones(1, 5, 5, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([mask], lr=0.05)
    for _ in range(4):
        composed = compose(image, torch.full_like(image, 0.2), upsample(mask.unsqueeze(1), (32, 32)))
        loss = net(composed).softmax(1)[0, 1] + Regulariser(0.2, 0.5)(mask).sum()
        mask.grad = torch.autograd.grad(loss, mask)[0]
        adam.step()
        mask.data.clamp_(0, 1)
    assert torch.allclose(explanation.heatmap, 1 - mask.detach(), atol=1e-10)


def test_the_map_shows_the_patch_that_the_model_sees() -> None:
    model = Patch(slice(8, 16), slice(16, 24))
    image = torch.rand(1, 3, 32, 32) * 0.2 + 0.8
    explanation = Mask(model, resolution=16, iterations=60, lambda1=0.05, lambda2=0.1, jitter=0)(image, 0, baseline="black")
    peak = divmod(int(explanation.at()[0].argmax()), 32)
    assert 8 <= peak[0] < 16
    assert 16 <= peak[1] < 24
    assert explanation.diagnostics[0]["objective"][-1] < explanation.diagnostics[0]["objective"][0]


def test_jitter_shifts_by_whole_pixels_within_reach() -> None:
    image = torch.zeros(1, 1, 224, 224)
    image[0, 0, 100, 50] = 1
    jitter = Jitter(4, image_generators(0, [0]))
    shifts = [divmod(int(jitter(image, torch.tensor([0])).argmax()), 224) for _ in range(50)]
    rows, columns = {row - 100 for row, _ in shifts}, {column - 50 for _, column in shifts}
    assert min(rows) == min(columns) == -4
    assert max(rows) == max(columns) == 4
    assert len(rows) == len(columns) == 9


@pytest.mark.parametrize("chunk_size", [1, 2, 9])
def test_a_map_does_not_depend_on_the_other_images(small_net: SmallNet, images: Tensor, chunk_size: int) -> None:
    settings: dict[str, Any] = {"resolution": 6, "iterations": 5, "lambda1": 0.05, "lambda2": 0.5}
    together = Mask(small_net.double(), **settings)(images.double())
    other = Mask(small_net, **settings, chunk_size=chunk_size)
    for i in (2, 0, 1):
        alone = other(images[i : i + 1].double(), generator=image_generators(0, [i]))
        assert torch.allclose(alone.heatmap, together.heatmap[i : i + 1], atol=1e-9)


def test_an_iteration_takes_one_pass_of_each_kind(small_net: SmallNet, images: Tensor) -> None:
    report = Mask(small_net, resolution=4, iterations=7, lambda1=0.1, lambda2=1.0)(images).diagnostics[2]
    assert report["backward_passes"] == 7
    assert report["forward_passes"] == 7 + 4
    assert len(report["objective"]) == 2


def test_progress_rises_to_its_total(small_net: SmallNet, images: Tensor) -> None:
    calls: list[tuple[int, int]] = []
    explain = Mask(small_net, resolution=4, iterations=2, lambda1=0.1, lambda2=1.0, chunk_size=2)
    explain(images, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 6), (4, 6), (5, 6), (6, 6)]


def test_the_model_is_left_unchanged(small_net: SmallNet, images: Tensor, untouched: Callable[[nn.Module], nn.Module]) -> None:
    untouched(small_net.train())
    images.requires_grad_()
    assert not Mask(small_net, resolution=4, iterations=2)(images).heatmap.requires_grad
    assert images.grad is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0; give a number above 0"),
        ({"jitter": -1}, "jitter is -1; give a whole number"),
    ],
)
def test_settings_outside_their_range_are_refused(
    small_net: SmallNet, images: Tensor, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Mask(small_net, **settings)(images)
