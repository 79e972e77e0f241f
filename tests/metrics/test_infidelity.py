"""Infidelity against closed forms, the equation taken literally, and captum."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

import pytest
import torch
from oracles import Linear, Patch, SmallNet, Untouched, fails_from, given
from torch import Tensor, nn

from faithmap.baselines import Blur
from faithmap.explanation import Explanation
from faithmap.metrics.functional import PERTURBATIONS, Gaussian, Region, Square, infidelity
from faithmap.metrics.functional.infidelity import Perturbation, PerturbationName, Reading, segment_map
from faithmap.model import Classifier
from faithmap.seeds import image_generators, normal_draws, uniform_draws

NAMES = sorted(PERTURBATIONS)
PerturbationSetting: TypeAlias = PerturbationName | Perturbation | Callable[[Tensor, torch.Generator], Tensor]


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def maps() -> Tensor:
    return torch.randn(3, 8, 8, generator=generator(2))


@pytest.fixture
def linear() -> tuple[Linear, Tensor]:
    """A linear model of three channels, and two images."""
    weight = torch.randn(3, 9, 11, generator=generator(1), dtype=torch.float64)
    return Linear(weight), torch.rand(2, 3, 9, 11, generator=generator(3), dtype=torch.float64)


class Module(nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.forward = function


class Fixed:
    """Hands out the same perturbed images, and masks, in order."""

    def __init__(self, composed: Tensor, masks: Tensor | None = None) -> None:
        self.images, self.masks, self.next = composed.flatten(0, 1), masks, 0

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor | tuple[Tensor, Tensor]:
        i, self.next = self.next, self.next + 1
        composed = self.images[i : i + 1]
        return composed if self.masks is None else (composed, self.masks.flatten(0, 1)[i : i + 1])


@pytest.mark.parametrize("perturbation", NAMES)
def test_the_gradient_of_a_linear_model_has_no_infidelity(
    linear: tuple[Linear, Tensor], perturbation: PerturbationSetting
) -> None:
    model, images = linear
    gradient = model.weight.detach().expand(2, -1, -1, -1)
    found = infidelity(model, images, gradient, 0, perturbation=perturbation, reading="local", score="logit", draws=20)
    assert torch.allclose(found.scale, torch.ones(2).double(), atol=1e-12)
    assert (found.value < 1e-24).all()
    assert (found.unexplained < 1e-24).all()
    raw = infidelity(
        model, images, gradient, 0, perturbation=perturbation, reading="local", score="logit", draws=20, scaled=False
    )
    assert (raw.value < 1e-24).all()


@pytest.mark.parametrize("perturbation", [Square((30, 120), baseline="grey"), Region((3, 4), baseline="grey")])
@pytest.mark.parametrize("channels", [True, False])
def test_gradient_times_difference_has_no_infidelity_under_removal(
    linear: tuple[Linear, Tensor], perturbation: Square | Region, channels: bool
) -> None:
    model, images = linear
    shares = model.weight.detach() * (images - 0.5)
    found = infidelity(
        model,
        images,
        shares if channels else shares.sum(1),
        0,
        perturbation=perturbation,
        score="logit",
        draws=20,
        scaled=False,
    )
    assert found.reading == "global"
    assert (found.value < 1e-24).all()
    assert torch.allclose(found.scale, torch.ones(2).double(), atol=1e-12)


def test_one_value_per_pixel_applies_to_every_channel(linear: tuple[Linear, Tensor]) -> None:
    weight = torch.randn(1, 9, 11, generator=generator(), dtype=torch.float64)
    model, images = Linear(weight.expand(3, -1, -1).clone()), linear[1]
    found = infidelity(
        model, images, weight.expand(2, -1, -1), 0, perturbation="gaussian", score="logit", draws=20, scaled=False
    )
    assert found.reading == "local"
    assert (found.value < 1e-24).all()


def literal(predicted: list[float], fallen: list[float], scaled: bool) -> tuple[float, float]:
    scale = sum(a * d for a, d in zip(predicted, fallen, strict=True)) / sum(a * a for a in predicted)
    factor = scale if scaled else 1.0
    return scale, sum((factor * a - d) ** 2 for a, d in zip(predicted, fallen, strict=True)) / len(fallen)


@pytest.mark.parametrize("scaled", [True, False])
def test_the_equation_taken_literally(small_net: SmallNet, images: Tensor, maps: Tensor, scaled: bool) -> None:
    composed = torch.rand(3, 4, 3, 32, 32, generator=generator())
    found = infidelity(small_net, images, maps, 2, perturbation=Fixed(composed), draws=4, scaled=scaled)
    pixels = Explanation(maps, (32, 32)).at().double()
    with torch.no_grad():

        def score(x: Tensor) -> Tensor:
            logits: Tensor = small_net.eval()(x)
            return logits.softmax(1)[:, 2].double()

        for i in range(3):
            predicted = [float(((images[i] - x).double() * pixels[i]).sum()) for x in composed[i]]
            fallen = [float(score(images[i : i + 1]) - score(x.unsqueeze(0))) for x in composed[i]]
            scale, value = literal(predicted, fallen, scaled)
            assert float(found.scale[i]) == pytest.approx(scale, rel=1e-4)
            assert float(found.value[i]) == pytest.approx(value, rel=1e-4)
            assert float(found.unexplained[i]) == pytest.approx(value / (sum(d * d for d in fallen) / 4), rel=1e-4)
            factor = scale if scaled else 1.0
            errors = torch.tensor([(factor * a - d) ** 2 for a, d in zip(predicted, fallen, strict=True)])
            assert float(found.standard_error[i]) == pytest.approx(float(errors.std()) / 2, rel=1e-4)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("reading", ["local", "global"])
def test_values_equal_those_of_captum(small_net: SmallNet, images: Tensor, scaled: bool, reading: Reading) -> None:
    metrics = pytest.importorskip("captum.metrics")
    attributions = torch.randn(images.shape, generator=generator(7))
    masks = (torch.rand(3, 6, 32, 32, generator=generator(8)) < 0.3).float()
    composed = images.unsqueeze(1) * (1 - masks.unsqueeze(2)) + 0.25 * masks.unsqueeze(2)
    taken = masks.unsqueeze(2).expand_as(composed) if reading == "global" else images.unsqueeze(1) - composed
    small_net.eval()
    wanted = metrics.infidelity(
        lambda x: small_net(x).softmax(1),
        lambda inputs: (taken.flatten(0, 1), composed.flatten(0, 1)),
        images,
        attributions,
        target=1,
        n_perturb_samples=6,
        normalize=scaled,
    )
    found = infidelity(
        small_net,
        images,
        attributions,
        1,
        perturbation=Fixed(composed, masks),
        draws=6,
        reading=reading,
        scaled=scaled,
        chunk_size=5,
    )
    assert torch.allclose(found.value.float(), wanted, rtol=1e-4)


def test_a_factor_of_the_map_changes_only_the_scale(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    plain, tenfold, flipped = (infidelity(small_net, images, maps * k, draws=10) for k in (1, 10, -1))
    assert torch.allclose(tenfold.value, plain.value)
    assert torch.allclose(tenfold.scale * 10, plain.scale)
    assert torch.allclose(flipped.value, plain.value)
    assert torch.allclose(flipped.scale, -plain.scale)
    assert (plain.unexplained <= 1).all()


def test_the_scale_is_the_best_factor(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    best = infidelity(small_net, images, maps, draws=10)
    for factor in (0.9, 1.1):
        other = infidelity(small_net, images, maps * best.scale.view(-1, 1, 1).float() * factor, draws=10, scaled=False)
        assert (other.value > best.value).all()


def test_a_map_of_zeros_predicts_nothing(small_net: SmallNet, images: Tensor) -> None:
    found = infidelity(small_net, images, torch.zeros(3, 4, 4), draws=10)
    assert found.scale.tolist() == [0, 0, 0]
    assert torch.equal(found.value, found.observed.square().mean(1))
    assert found.unexplained.tolist() == [1, 1, 1]


def test_a_score_that_never_falls_leaves_nothing_to_explain(images: Tensor, maps: Tensor) -> None:
    found = infidelity(Linear(torch.zeros(3, 32, 32)), images, maps, 0, draws=3)
    assert found.value.tolist() == found.unexplained.tolist() == [0, 0, 0]


def test_the_standard_error_is_the_spread_of_repeated_runs(linear: tuple[Linear, Tensor]) -> None:
    model, images = linear
    runs = [infidelity(model, images, torch.ones(2, 9, 11), 0, score="logit", draws=40, seed=s) for s in range(60)]
    spread = torch.stack([run.value for run in runs]).std(0)
    standard_error = torch.stack([run.standard_error for run in runs]).mean(0)
    assert torch.allclose(spread, standard_error, rtol=0.3)
    alone = infidelity(model, images, torch.ones(2, 9, 11), 0, draws=1)
    assert alone.standard_error.isnan().all()
    assert alone.value.isfinite().all()


@pytest.mark.parametrize(
    "perturbation", [*NAMES, Square((20, 20), squares=3), Region(torch.arange(32) // 5 * torch.ones(32, 1).long())]
)
@pytest.mark.parametrize("chunk_size", [1, 3, 64])
def test_the_draws_of_an_image_do_not_depend_on_the_other_images(
    small_net: SmallNet, images: Tensor, maps: Tensor, perturbation: PerturbationSetting, chunk_size: int
) -> None:
    together = infidelity(small_net, images, maps, perturbation=perturbation, draws=5)
    alone = infidelity(
        small_net,
        images[1:2],
        maps[1:2],
        perturbation=perturbation,
        draws=5,
        chunk_size=chunk_size,
        generator=image_generators(0, [1]),
    )
    assert torch.allclose(together.predicted[1:2], alone.predicted, rtol=1e-6, atol=1e-5)
    assert torch.allclose(together.value[1:2], alone.value, atol=1e-6)
    assert torch.allclose(together[1].scale, alone.scale, rtol=1e-4)
    assert len(together) == 3
    assert torch.equal(together[-1].value, together.value[2:])


def test_the_order_of_images_does_not_matter(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    straight = infidelity(small_net, images, maps, draws=8, generator=image_generators(0, range(3)))
    turned = infidelity(small_net, images.flip(0), maps.flip(0), draws=8, generator=image_generators(0, [2, 1, 0]))
    assert torch.allclose(turned.value.flip(0), straight.value, atol=1e-6)


def test_seeds_and_generators_decide_the_draws(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    plain = infidelity(small_net, images, maps, draws=4)
    assert torch.equal(infidelity(small_net, images, maps, draws=4).value, plain.value)
    assert torch.equal(infidelity(small_net, images, maps, draws=4, generator=image_generators(0, range(3))).value, plain.value)
    for other in ({"seed": 1}, {"generator": generator()}):
        assert not torch.equal(infidelity(small_net, images, maps, draws=4, **other).value, plain.value)
    assert plain.observed[0].unique().numel() == 4, "draws differ"


@pytest.mark.parametrize("draw", [normal_draws, uniform_draws])
def test_a_draw_is_the_same_however_many_are_drawn_at_once(draw: Callable[..., Tensor]) -> None:
    """35 numbers: a vectorised generator draws them by the 16, and the rest in another way."""
    together, one_by_one = generator(), generator()
    assert torch.equal(draw(4, (5, 7), together), torch.cat([draw(1, (5, 7), one_by_one) for _ in range(4)]))


def test_no_graph_is_kept(images: Tensor, maps: Tensor) -> None:
    calls: list[bool] = []

    def means(x: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return 9 * x.mean((2, 3))  # not in [0, 1], as probabilities are

    model = Module(means)
    found = infidelity(model, images, Explanation(maps.requires_grad_(), (32, 32)), 0, draws=2)
    assert calls == [False, False]
    assert not found.predicted.requires_grad


def test_a_gaussian_is_the_baseline_with_noise() -> None:
    images = torch.rand(2, 3, 40, 40, generator=generator())
    composed = Gaussian("grey", std=0.1, limits=None).prepare(images)[1](50, generator()).images
    assert float(composed.mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(composed.std()) == pytest.approx(0.1, rel=0.01)
    assert float(composed[0].flatten().dot(composed[1].flatten()) / 4800) == pytest.approx(0.25, abs=3e-3), (
        "pixels are independent"
    )
    assert torch.allclose(Gaussian("blur", std=0).prepare(images)[1](1, generator()).images[0], Blur()(images)[1])
    cut = Gaussian().prepare(images)[0](50, generator()).images
    assert cut.min() == 0
    assert not (cut > 1).any()
    assert float((cut == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert float(cut[cut > 0].square().mean().sqrt()) == pytest.approx(0.2, rel=0.01)
    assert Gaussian().prepare(images)[0](2, generator()).removed is None


def test_squares_have_every_side_and_place() -> None:
    """28 pixels: sides 1 to 10, as the authors have it."""
    images = torch.rand(1, 3, 28, 30, generator=generator())
    draw = Square(baseline="white").prepare(images)[0](4000, generator())
    removed = given(draw.removed)
    assert torch.equal(draw.images, torch.where(removed.unsqueeze(1), torch.ones(()), images))
    sides = removed.any(2).sum(1)
    assert torch.equal(sides, removed.any(1).sum(1))
    assert torch.equal(removed.sum((1, 2)), sides.square())
    counts = sides.bincount()[1:] / 4000
    assert len(counts) == 10
    assert torch.allclose(counts, torch.full((10,), 0.1), atol=0.02)
    small = removed[sides == 1].float().mean(0)
    assert float(small.sum(1).std() * 28) < 0.5, "every row as often"
    rows, columns = removed.any(2)[sides == 10].float().mean(0), removed.any(1)[sides == 10].float().mean(0)
    assert rows[0] > 0.02
    assert rows[-1] > 0.02
    assert columns[0] > 0.02
    assert columns[-1] > 0.02


def test_squares_scale_with_the_shorter_side_and_stay_inside() -> None:
    for size, sides in (((112, 224), {28}), ((4, 4), {1}), ((224, 224), {56})):
        draw = Square((56, 56)).prepare(torch.rand(1, 1, *size))[0](5, generator())
        assert set(given(draw.removed).any(2).sum(1).tolist()) == sides
    tiny = Square().prepare(torch.rand(1, 1, 4, 4))[0](50, generator()).removed
    assert given(tiny).sum((1, 2)).tolist() == [1] * 50, "never nothing"
    whole = Square((300, 300)).prepare(torch.rand(1, 1, 6, 6))[0](3, generator()).removed
    assert given(whole).all()
    three = Square((8, 8), squares=3).prepare(torch.rand(1, 1, 224, 224))[0](200, generator()).removed
    assert float(given(three).sum((1, 2)).float().mean()) == pytest.approx(192, rel=0.02)


def test_regions_are_cells_or_a_users_segments() -> None:
    images = torch.rand(2, 3, 6, 8, generator=generator())
    draw = Region((2, 4), share=0.25, baseline="black").prepare(images)[0](3000, generator())
    cells = given(draw.removed).view(3000, 2, 3, 4, 2).float()
    assert torch.equal(cells.mean((2, 4)), cells.amax((2, 4))), "a cell goes as a whole"
    assert torch.allclose(cells[:, :, 0, :, 0].mean(0), torch.full((2, 4), 0.25), atol=0.03)
    joint = (cells[:, 0, 0, 0, 0] * cells[:, 1, 0, 2, 0]).mean()
    assert float(joint) == pytest.approx(0.0625, abs=0.02), "cells go independently"
    assert torch.equal(draw.images, images[0] * ~given(draw.removed).unsqueeze(1))
    names = torch.stack([torch.arange(48).view(6, 8) % 3 * 100 - 7, torch.zeros(6, 8).long()])
    first, second = (given(draw(50, generator()).removed) for draw in Region(names).prepare(images))
    for removed in first:
        assert all(removed[names[0] == name].unique().numel() == 1 for name in names[0].unique())
    assert {int(r.sum()) for r in second} == {0, 48}
    assert torch.equal(given(Region(lambda x: names).prepare(images)[0](50, generator()).removed), first)
    assert torch.equal(given(Region(names[0]).prepare(images)[1](50, generator()).removed), first)


def test_a_grid_that_does_not_divide_has_cells_of_nearly_one_size() -> None:
    grid = segment_map(7, torch.zeros(1, 3, 32, 32))[0]
    assert sorted(set(grid[:, 0].bincount(minlength=43)[::7].tolist())) == [4, 5]
    assert grid.unique().tolist() == list(range(49))
    assert segment_map((2, 4), torch.zeros(1, 3, 6, 8)).unique().tolist() == list(range(8))


def test_the_map_is_resampled_to_pixels(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    placed = Explanation(
        maps, (32, 32), rows=torch.linspace(2, 29, 8), columns=torch.linspace(2, 29, 8), target=torch.tensor([1] * 3)
    )
    given = infidelity(small_net, images, placed, draws=5)
    assert torch.allclose(given.value, infidelity(small_net, images, placed.at(), 1, draws=5).value, atol=1e-9)
    assert not torch.allclose(given.predicted, infidelity(small_net, images, maps, 1, draws=5).predicted, rtol=1e-2)


def test_lower_precision_keeps_the_value(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    """Half precision resolves a score near 1 to 5e-4, bfloat16 to 4e-3."""
    model = Classifier(small_net)
    full = infidelity(model, images, maps, 1, draws=8, perturbation="region")
    halved = infidelity(model, images.half(), maps.half(), 1, draws=8, perturbation="region")
    cast = infidelity(model, images, maps, 1, draws=8, perturbation="region", autocast=torch.bfloat16)
    assert torch.allclose(halved.value, full.value, rtol=0.05, atol=1e-6)
    assert torch.allclose(cast.value, full.value, rtol=0.3, atol=1e-4)
    assert halved.value.dtype == torch.float64
    local = [infidelity(model, x, maps, 1, draws=5).predicted for x in (images, images.half())]
    assert torch.allclose(local[0], local[1], rtol=1e-2, atol=0.5)


def test_progress_counts_draws(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    calls: list[tuple[int, int]] = []
    infidelity(small_net, images, maps, draws=10, chunk_size=16, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(16, 30), (30, 30)]


def test_passes_are_full_and_never_larger_than_a_chunk(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    sizes: list[int] = []
    handle = small_net.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    infidelity(small_net, images, maps, draws=10, chunk_size=8)
    handle.remove()
    assert sizes == [3, 8, 8, 8, 6]


@pytest.mark.parametrize("perturbation", [*NAMES, lambda image, generator: image + 1])
def test_a_model_may_change_its_input_in_place(images: Tensor, maps: Tensor, perturbation: PerturbationSetting) -> None:
    class Means(nn.Module):
        def __init__(self, spoils: bool) -> None:
            super().__init__()
            self.spoils = spoils

        def forward(self, x: Tensor) -> Tensor:
            return (x.mul_(2) if self.spoils and len(x) > 3 else x * 2).mean((2, 3))

    kept, spoilt = (
        infidelity(Means(spoils), images, maps, 0, perturbation=perturbation, draws=8, chunk_size=4, reading="local")
        for spoils in (False, True)
    )
    assert torch.equal(kept.value, spoilt.value)


def test_a_perturbation_may_change_its_image_in_place(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    initial = images.clone()
    infidelity(small_net, images, maps, draws=3, perturbation=lambda image, generator: image.zero_())
    assert torch.equal(images, initial)


def test_the_model_is_left_unchanged_also_after_an_error(
    small_net: SmallNet, images: Tensor, maps: Tensor, untouched: Untouched
) -> None:
    def fails(image: Tensor, generator: torch.Generator) -> NoReturn:
        raise ZeroDivisionError

    untouched(small_net.train())
    infidelity(small_net, images, maps, draws=3)
    with pytest.raises(ZeroDivisionError):
        infidelity(small_net, images, maps, draws=3, progress=fails_from(0))
    with pytest.raises(ZeroDivisionError):
        infidelity(small_net, images, maps, draws=3, perturbation=fails)


def test_a_score_that_is_nan_is_an_error(images: Tensor, maps: Tensor) -> None:
    model, composed = Linear(torch.ones(3, 32, 32)), torch.zeros(3, 3, 3, 32, 32)
    composed[1, 1:, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"image 1: .* in 2 of 3 draws"):
        infidelity(model, images, maps, 0, draws=3, perturbation=Fixed(composed))


def test_a_model_that_returns_nan_for_perturbed_images_is_an_error(images: Tensor, maps: Tensor) -> None:
    """Logarithms of pixels that noise has made negative: the clean score is a number, the others are not."""
    images, broken = images + 1, Module(lambda x: x.log().mean((2, 3)))
    with pytest.raises(ValueError, match="NaN or infinite in 2 of 2 draws"):
        infidelity(broken, images, maps, 0, draws=2, perturbation=Gaussian(limits=None))


def test_an_infinite_pixel_is_an_error_also_if_the_model_ignores_it(images: Tensor, maps: Tensor) -> None:
    unseen = torch.zeros(3, 2, 3, 32, 32)
    unseen[2, 1, 0, 31, 31] = math.inf
    with pytest.raises(ValueError, match=r"image 2: .* in 1 of 2 draws"):
        infidelity(Patch(slice(0, 8), slice(0, 8)), images, maps, 0, draws=2, perturbation=Fixed(unseen))


def test_passes_run_in_the_precision_of_autocast(images: Tensor, maps: Tensor) -> None:
    calls: list[torch.dtype] = []

    def means(x: Tensor) -> Tensor:
        calls.append((x.flatten(2) @ x.flatten(2).mT).dtype)
        return 9 * x.mean((2, 3))  # not in [0, 1], as probabilities are

    infidelity(
        Module(means),
        images,
        maps,
        0,
        draws=1,
        autocast=torch.bfloat16,
    )
    assert calls == [torch.bfloat16] * 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heatmaps": torch.rand(2, 5, 5)}, "for 3 images"),
        ({"heatmaps": torch.full((3, 5, 5), math.nan)}, "NaN"),
        ({"heatmaps": torch.full((3, 3, 32, 32), math.nan)}, "NaN"),
        ({"heatmaps": torch.rand(3, 1, 32, 32)}, r"\(3, 1, 32, 32\) for images of \(3, 3, 32, 32\)"),
        ({"perturbation": "salt"}, "'salt' is unknown; give one of gaussian, square, region"),
        ({"draws": 0}, "draws is 0"),
        ({"reading": "both"}, "'both'"),
        ({"perturbation": "gaussian", "reading": "global"}, "this perturbation removes none"),
        ({"score": "odds"}, "odds"),
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"target": [1]}, "1 entry for 3 images"),
        ({"generator": [torch.Generator()]}, "1 entries for 3 images"),
        ({"perturbation": Gaussian("pink")}, "'pink' is unknown"),
        ({"perturbation": Region(33)}, "33 x 33 cells does not fit"),
        ({"perturbation": Region(torch.zeros(2, 32, 32).long())}, "whole numbers"),
        ({"perturbation": Region(torch.zeros(32, 32))}, "whole numbers"),
        ({"perturbation": lambda image, generator: image[0]}, r"returned \(3, 32, 32\)"),
        ({"perturbation": lambda image, generator: (image, image)}, r"the mask \(1, 3, 32, 32\)"),
    ],
)
def test_invalid_maps_and_settings_are_refused(
    small_net: SmallNet, images: Tensor, maps: Tensor, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        infidelity(small_net, images, **{"heatmaps": maps, **options})


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Gaussian, {"std": -1}),
        (Gaussian, {"std": math.nan}),
        (Square, {"sides": (5, 4)}),
        (Square, {"sides": (0, 4)}),
        (Square, {"squares": 0}),
        (Region, {"share": 0}),
        (Region, {"share": 1.5}),
    ],
)
def test_settings_of_perturbations_outside_their_range_are_refused(kind: type, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give"):
        kind(**settings)
