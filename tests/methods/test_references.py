"""What each distribution draws: its range, its counts, and nothing but the image's own generator."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from faithmap.baselines import Blur, Constant
from faithmap.data import image_files, sample_photo
from faithmap.methods.cams import Expected
from faithmap.methods.references import (
    Distribution,
    EvenBlurs,
    ImageSet,
    Mixture,
    RandomBlurs,
    RandomConstants,
    RandomNoise,
    References,
    draw_references,
)

IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def draw(references: References, count: int, seed: int = 0) -> Tensor:
    return draw_references(references, IMAGE, count, torch.Generator().manual_seed(seed))


def flat(levels: list[float]) -> Tensor:
    """One grey image for each level."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)


def levels(drawn: Tensor) -> list[float]:
    return [round(value, 4) for value in drawn[:, 0, 0, 0].tolist()]


DISTRIBUTIONS: dict[str, References] = {
    "images": ImageSet(flat([0.1, 0.2, 0.3])),
    "tensor": flat([0.1, 0.2, 0.3]),
    "blurs": RandomBlurs(),
    "noise": RandomNoise(),
    "constants": RandomConstants(),
    "mixture": Mixture([RandomNoise(), "black", flat([0.1, 0.2])]),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_seed_is_all_that_matters(name: str) -> None:
    references = DISTRIBUTIONS[name]
    first = draw(references, 5)
    torch.manual_seed(99)
    assert first.shape == (5, 3, 16, 16)
    assert torch.equal(first, draw(references, 5))
    assert not torch.equal(first, draw(references, 5, seed=1))


def test_a_finite_set_is_drawn_without_replacement() -> None:
    images = ImageSet(flat([0.1, 0.2, 0.3]))
    assert sorted(levels(draw(images, 3))) == [0.1, 0.2, 0.3]
    drawn = levels(draw(images, 8))
    assert {level: drawn.count(level) for level in (0.1, 0.2, 0.3)}.keys() == {0.1, 0.2, 0.3}
    assert sorted(drawn.count(level) for level in (0.1, 0.2, 0.3)) == [2, 3, 3]


def test_a_baseline_is_the_distribution_of_one_image() -> None:
    assert torch.equal(draw("grey", 3), torch.full((3, 3, 16, 16), 0.5))
    assert torch.equal(draw(Blur(), 2), Blur()(IMAGE).expand(2, -1, -1, -1))
    assert torch.equal(draw(0.25, 2), torch.full((2, 3, 16, 16), 0.25))
    assert torch.equal(draw(flat([0.3]), 2), flat([0.3, 0.3]))


def test_constants_fill_their_range_colour_by_colour() -> None:
    drawn = draw(RandomConstants(0.2, 0.4), 200)
    assert torch.equal(drawn, drawn[..., :1, :1].expand_as(drawn))
    assert 0.2 <= drawn.min() < 0.22
    assert 0.38 < drawn.max() <= 0.4
    assert (drawn[:, 0, 0, 0] != drawn[:, 1, 0, 0]).all()


def test_noise_has_its_moments_and_stays_in_range() -> None:
    drawn = draw(RandomNoise(0.4, 0.05), 20)
    assert drawn.mean().item() == pytest.approx(0.4, abs=0.002)
    assert drawn.std().item() == pytest.approx(0.05, abs=0.002)
    assert (draw(RandomNoise(0.5, 5.0), 2) - 0.5).abs().max() == 0.5


def test_any_number_of_blurs_covers_the_range() -> None:
    """Variance falls with sigma: eight strata of log-sigma give eight different ones between the two bounds."""
    variances = draw(RandomBlurs(7.0, 70.0), 8).var(dim=(1, 2, 3))
    weakest, strongest = (Blur(kernel_size=None, sigma=s)(IMAGE).var() for s in (7.0, 70.0))
    assert strongest < variances.min() < variances.max() < weakest
    assert len(variances.unique()) == 8


def test_even_blurs_are_in_the_middle_of_equal_parts_and_drawn_by_nobody() -> None:
    """Of 4 to 64 in four parts, on the scale of logarithms; by the fractions .31, .93, .55 and .16 of the golden section."""
    sigmas = [4 * 2 ** (4 * share) for share in (3 / 8, 7 / 8, 5 / 8, 1 / 8)]
    wanted = torch.cat([draw(RandomBlurs(sigma, sigma), 1) for sigma in sigmas])
    for seed in (0, 1):
        assert (draw(EvenBlurs(4.0, 64.0), 4, seed) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("sigma", [12.0, 50.0])
def test_a_blur_is_the_gaussian_over_mirrored_borders(sigma: float) -> None:
    image = torch.rand(1, 3, 40, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    width = sigma * 40 / 224

    def smear(n: int) -> Tensor:
        matrix = torch.zeros(n, n, dtype=torch.float64)
        steps = torch.arange(-round(8 * width), round(8 * width) + 1)
        kernel = torch.exp(-0.5 * (steps.double() / width) ** 2)
        for j in range(n):
            places = (j + steps) % (2 * n)
            matrix[j].index_add_(0, torch.minimum(places, 2 * n - 1 - places), kernel / kernel.sum())
        return matrix

    drawn = draw_references(RandomBlurs(sigma, sigma), image, 2, torch.Generator())
    wanted = smear(40) @ image @ smear(60).mT
    assert (drawn - wanted).abs().max() < 1e-5


def test_a_blur_that_blurs_nothing_gives_the_image_back() -> None:
    assert (draw(RandomBlurs(1e-4, 1e-4), 1) - IMAGE).abs().max() < 1e-5


def test_a_mixture_gives_each_part_its_share() -> None:
    drawn = levels(draw(Mixture([Constant(0.1), Constant(0.2), Constant(0.3)]), 7))
    assert [drawn.count(level) for level in (0.1, 0.2, 0.3)] == [3, 2, 2]
    assert drawn != sorted(drawn)


def test_a_loader_is_sampled_uniformly_and_not_held() -> None:
    counts = torch.zeros(20)
    for seed in range(300):
        batches = ((flat([i / 100, (i + 1) / 100]), torch.tensor([0, 1])) for i in range(0, 20, 2))
        kept = ImageSet.of_loader(batches, 5, torch.Generator().manual_seed(seed))
        assert len(kept.images) == 5
        counts[(100 * kept.images[:, 0, 0, 0]).round().long()] += 1
    assert counts.sum() == 1500
    assert (counts - 75).abs().max() < 4 * 75**0.5


def test_a_short_loader_gives_all_it_has() -> None:
    assert levels(ImageSet.of_loader([flat([0.1, 0.2])], 5, torch.Generator()).images) == [0.1, 0.2]
    with pytest.raises(ValueError, match="yields none"):
        ImageSet.of_loader([], 5, torch.Generator())


def test_of_a_folder_only_the_chosen_are_read() -> None:
    folder = sample_photo().parent
    paths = []

    def read(path: Path) -> Tensor:
        paths.append(path)
        return IMAGE

    assert len(ImageSet.of_folder(folder, read, 1, torch.Generator().manual_seed(0)).images) == 1
    assert len(paths) == 1
    assert paths[0] in image_files([folder])


class Broken(Distribution):
    def __init__(self, drawn: Tensor) -> None:
        self.drawn = drawn

    def __call__(self, image: Tensor, count: int, generator: torch.Generator) -> Tensor:
        return self.drawn


@pytest.mark.parametrize(
    ("references", "message"),
    [
        (Broken(torch.zeros(1, 3, 16, 16)), r"Broken drew \(1, 3, 16, 16\); a distribution returns finite \(2, 3, 16, 16\)"),
        (Broken(torch.full((2, 3, 16, 16), torch.nan)), r"a distribution returns finite \(2, 3, 16, 16\)"),
        (ImageSet(torch.zeros(2, 3, 8, 8)), r"reference images have shape \(2, 3, 8, 8\); give \(images, 3, 16, 16\)"),
        (Mixture([]), "no parts"),
        ("pink", "baseline 'pink' is unknown"),
    ],
)
def test_references_that_do_not_fit_the_image_are_refused(references: References, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(references, 2)


def test_positions_without_jitter_are_in_the_middle_of_their_parts() -> None:
    even, drawn = (Expected(samples=4, jitter=jitter).draw(IMAGE, torch.Generator().manual_seed(0)) for jitter in (False, True))
    assert even.position.tolist() == [0.125, 0.375, 0.625, 0.875]
    assert (drawn.position * 4).floor().tolist() == [0, 1, 2, 3]
    assert (drawn.position - even.position).abs().min() > 1e-3
