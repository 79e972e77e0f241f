"""What a removed pixel becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from faithmap.baselines import BASELINES, Blur, Constant, MedianBlur, Noise, Shuffled, describe_baseline, make_baseline


def test_blur_equals_that_of_torchvision() -> None:
    images = torch.rand(2, 3, 224, 224, dtype=torch.float64)
    assert torch.allclose(Blur(51, 50.0)(images), gaussian_blur(images, [51, 51], [50.0, 50.0]), atol=1e-12)


def test_blur_scales_with_the_image() -> None:
    images = torch.rand(1, 3, 112, 112, dtype=torch.float64)
    assert torch.allclose(Blur(49, 50.0)(images), gaussian_blur(images, [25, 25], [25.0, 25.0]), atol=1e-12)


def test_the_untruncated_gaussian_is_stronger() -> None:
    images = torch.rand(1, 3, 64, 64)
    assert BASELINES["strong_blur"](images).std() < BASELINES["blur"](images).std() < images.std()


@pytest.mark.parametrize("name", sorted(BASELINES))
@pytest.mark.parametrize("size", [(32, 32), (20, 45), (3, 3)])
def test_the_baseline_of_an_image_does_not_depend_on_the_other_images(name: str, size: tuple[int, int]) -> None:
    images = torch.rand(3, 3, *size)
    together = make_baseline(name, images)
    assert together.shape == images.shape
    for i in range(3):
        assert torch.allclose(together[i : i + 1], make_baseline(name, images[i : i + 1]), atol=1e-6)


@pytest.mark.parametrize("name", ["blur", "strong_blur", "median_blur", "mean"])
def test_a_flat_image_is_its_own_baseline(name: str) -> None:
    flat = torch.full((1, 3, 24, 24), 0.3)
    assert torch.allclose(make_baseline(name, flat), flat, atol=1e-6)


def test_the_median_removes_thin_lines() -> None:
    image = torch.zeros(1, 1, 224, 224)
    image[:, :, 100] = 1
    assert MedianBlur()(image).max() == 0
    assert Blur()(image).max() > 0


def test_constants_tensors_and_callables_are_baselines() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(make_baseline(0.25, images), torch.full_like(images, 0.25))
    assert make_baseline(Constant((0.1, 0.2, 0.3)), images)[1, :, 2, 2].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert torch.equal(make_baseline(torch.zeros(3, 4, 4), images), torch.zeros_like(images))
    assert torch.equal(make_baseline(lambda x: 1 - x, images), 1 - images)


def test_the_noise_depends_on_the_seed_only() -> None:
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(Noise(seed=1)(images), Noise(seed=1)(images))
    assert not torch.equal(Noise(seed=1)(images), Noise(seed=2)(images))


@pytest.mark.parametrize(
    ("baseline", "words"),
    [
        ("fog", "'fog' is unknown; give one of blur"),
        (torch.zeros(4, 4, 4), "shape|size"),
        (torch.zeros(5, 2, 3, 4, 4), "does not broadcast"),
        (float("nan"), "NaN"),
    ],
)
def test_an_unknown_name_a_shape_that_does_not_fit_and_nan_are_no_baseline(baseline: Any, words: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=words):
        make_baseline(baseline, torch.rand(2, 3, 4, 4))


def test_a_baseline_is_described_by_plain_data() -> None:
    assert describe_baseline("blur") == {"name": "blur", "kind": "Blur", "kernel_size": 51, "sigma": 50.0}
    assert describe_baseline(0.5) == {"kind": "Constant", "value": 0.5}
    assert describe_baseline(torch.zeros(1)) == {"kind": "Tensor"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blur(sigma=0.0), "sigma is 0.0; give a number of pixels above 0"),
        (lambda: Blur(sigma=-3.0), "sigma is -3.0"),
        (lambda: Blur(kernel_size=-5), "kernel_size is -5; give an odd number of pixels"),
        (lambda: MedianBlur(window=0), "window is 0; give an odd number of pixels"),
    ],
)
def test_settings_outside_their_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("size", [(16, 16), (13, 9), (1, 5), (3, 3)])
def test_shuffled_patches_are_those_of_the_image_and_none_is_at_its_place(size: tuple[int, int]) -> None:
    count = min(4, size[0]), min(4, size[1])
    number = torch.arange(size[0] * size[1], dtype=torch.float32).view(1, 1, *size).expand(2, 3, *size)
    shuffled = Shuffled(patches=4)(number)
    assert shuffled.shape == number.shape
    assert torch.equal(shuffled[0, 0], shuffled[1, 2]), "one order for all images and channels"
    tall, wide = -(-size[0] // count[0]), -(-size[1] // count[1])
    if size == (16, 16):
        assert torch.equal(shuffled[0, 0].flatten().sort().values, number[0, 0].flatten())
    corner = shuffled[0, 0, :tall, :wide]
    assert not torch.equal(corner, number[0, 0, :tall, :wide])
    assert not bool((shuffled[0, 0] == number[0, 0]).all())


def test_a_single_patch_has_no_other_order() -> None:
    with pytest.raises(ValueError, match="patches is 1; give at least 2 along each side"):
        Shuffled(patches=1)
