"""LIME, KernelSHAP and GradientSHAP: linear models, a game whose Shapley values are known, captum with the same draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracles import Linear, SmallNet
from torch import Tensor, nn

from faithmap import Explainer, image_generators
from faithmap.methods.captum_methods import LIME, GradientSHAP, KernelSHAP
from faithmap.methods.captum_methods.base import drawing
from faithmap.methods.gradients import ExpectedGradients
from faithmap.methods.references import ImageSet

attr = pytest.importorskip("captum.attr")
pytestmark = pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning")

WEIGHT = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(4))
PICTURES = torch.rand(3, 3, 8, 6, generator=torch.Generator().manual_seed(5))


class FourFeatures(nn.Module):
    """Of the top left pixels of four quarters: a b + 2 a - c, times 4; the fourth plays no part."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = x[:, 0, 0, 0], x[:, 0, 0, 3], x[:, 0, 4, 0]
        y = 4 * (a * b + 2 * a - c)
        return torch.stack([y, -y], dim=1)


def shapley(model: nn.Module, players: int, show: Callable[[tuple[int, ...]], Tensor]) -> list[float]:
    """What each player adds, the mean over all orders."""
    orders = list(itertools.permutations(range(players)))
    value = {s: float(model(show(s))[0, 0]) for k in range(players + 1) for s in itertools.combinations(range(players), k)}
    added = [0.0] * players
    for order in orders:
        for place, player in enumerate(order):
            without, joined = tuple(sorted(order[:place])), tuple(sorted(order[: place + 1]))
            added[player] += (value[joined] - value[without]) / math.factorial(players)
    return added


@pytest.mark.parametrize("make", [lambda m, **k: LIME(m, penalty=0.0, **k), KernelSHAP])
def test_each_part_of_a_linear_model_has_its_contribution(make: Callable[..., Explainer]) -> None:
    """The sum of w (x - b) over a cell, or over a segment."""
    change = (WEIGHT * (PICTURES - 0.25)).sum(dim=1)
    explanation = make(Linear(WEIGHT), cells=(4, 2), samples=40, baseline=0.25, score="logit")(PICTURES, 1)
    cells = change.view(3, 4, 2, 2, 3).sum(dim=(2, 4))
    assert torch.allclose(explanation.heatmap, -cells.repeat_interleave(2, 1).repeat_interleave(3, 2), atol=1e-4)
    assert explanation.diagnostics[0]["fit"] == pytest.approx(1.0)
    assert max(d["completeness_gap"] for d in explanation.diagnostics) < 1e-3
    assert [d["forward_passes"] for d in explanation.diagnostics] == [42] * 3

    segments = torch.zeros(8, 6, dtype=torch.long)
    segments[2:5, 1:] = 7
    segments[6:] = -3
    explanation = make(Linear(WEIGHT), segments=segments, samples=20, baseline=0.25, score="logit")(PICTURES, 0)
    sums = torch.stack([change[:, segments == s].sum(dim=1) for s in (-3, 0, 7)], dim=1)
    assert torch.allclose(explanation.heatmap, sums[:, torch.bucketize(segments, torch.tensor([-3, 0, 7]))], atol=1e-4)
    each = torch.stack([segments, segments.flip(0), segments])
    flipped = make(Linear(WEIGHT), segments=each, samples=20, baseline=0.25, score="logit")(PICTURES, 0)
    assert torch.equal(flipped.heatmap[1][each[1] == 7].unique(), flipped.heatmap[1][each[1] == 7][:1])
    assert torch.allclose(flipped.heatmap[[0, 2]], explanation.heatmap[[0, 2]])

    made = make(Linear(WEIGHT), segments=lambda image: (image[0] > 0.5).long(), samples=20, baseline=0.25, score="logit")(
        PICTURES, 0
    )
    bright = PICTURES[:, 0] > 0.5
    for i in range(3):
        assert torch.allclose(made.heatmap[i][bright[i]], change[i][bright[i]].sum(), atol=1e-4)


def test_kernelshap_finds_shapley_values() -> None:
    """Of four players all coalitions are seen; half of what a and b make together is either's."""
    image = torch.full((1, 1, 8, 6), 0.9)

    def show(parts: tuple[int, ...]) -> Tensor:
        composed = torch.zeros(1, 1, 8, 6)
        for p in parts:
            composed[..., 4 * (p // 2) : 4 * (p // 2) + 4, 3 * (p % 2) : 3 * (p % 2) + 3] = 0.9
        return composed

    explanation = KernelSHAP(FourFeatures(), cells=2, samples=3000, baseline=0.0, score="logit", chunk_size=3000)(image, 0)
    wanted = shapley(FourFeatures(), 4, show)
    assert wanted == pytest.approx([4 * (0.405 + 1.8), 4 * 0.405, -3.6, 0.0], abs=1e-5)
    found = explanation.heatmap[0, ::4, ::3].flatten().tolist()
    assert found == pytest.approx(wanted, abs=0.1)
    assert sum(found) == pytest.approx(sum(wanted), rel=1e-4)


def test_a_narrow_kernel_of_lime_weighs_nearly_whole_images_and_a_penalty_shrinks_the_map() -> None:
    """Beside the whole image b shows what it adds to a; far from it, half of that."""
    image = torch.full((1, 1, 8, 6), 0.9)
    settings: dict[str, Any] = {"cells": 2, "samples": 600, "baseline": 0.0, "score": "logit", "chunk_size": 600}
    wide = LIME(FourFeatures(), kernel_width=100.0, penalty=0.0, **settings)(image, 0).heatmap[0]
    narrow = LIME(FourFeatures(), kernel_width=0.06, penalty=0.0, **settings)(image, 0).heatmap[0]
    assert float(wide[0, 3]) == pytest.approx(4 * 0.405, rel=0.1)
    assert float(narrow[0, 3]) == pytest.approx(4 * 0.81, rel=0.1)
    shrunk = LIME(FourFeatures(), kernel_width=100.0, penalty=150.0, **settings)(image, 0).heatmap[0]
    assert float(shrunk[0, 0]) == pytest.approx(float(wide[0, 0]) / 2, rel=0.1), "600 / 4 is the sum of squares"


def test_nearness_is_the_cosine_of_the_kept_parts_and_all_parts() -> None:
    """One part of four: the cosine is 1/2, and so is the distance."""
    captum_lime = pytest.importorskip("captum.attr._core.lime")
    lime, parts = LIME(nn.Identity(), kernel_width=0.5), torch.tensor([[0, 1, 0, 0]])
    found = float(lime.nearness(parts, parts, parts))
    assert found == pytest.approx(math.exp(-0.5))
    assert found == pytest.approx(captum_lime.get_exp_kernel_similarity_function("cosine", 0.5)(torch.ones(4), parts[0], None))
    assert float(lime.nearness(parts, parts, torch.ones(1, 4))) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_lime_and_kernelshap_equal_captum_for_the_same_draws(small_net: SmallNet, images: Tensor) -> None:
    pytest.importorskip("sklearn")
    linear_model = pytest.importorskip("captum._utils.models.linear_model")
    small_net.eval()
    target = int(small_net(images[:1]).argmax())
    (mask,) = (torch.arange(32) * 3 // 32,)
    mask = (mask.unsqueeze(1) * 3 + mask).expand(1, 1, -1, -1)
    ours = LIME(small_net, cells=3, samples=60, score="logit", kernel_width=0.5, penalty=2.0)
    with drawing(image_generators(0, [0])[0]):
        lime = attr.Lime(small_net, linear_model.SkLearnRidge(alpha=2.0), similarity_func=ours.nearness)
        theirs = lime.attribute(images[:1], target=target, feature_mask=mask, n_samples=60, perturbations_per_eval=32)
    assert torch.allclose(ours(images).heatmap[0], theirs[0, 0], atol=1e-3)
    with drawing(image_generators(0, [0])[0]):
        theirs = attr.KernelShap(small_net).attribute(images[:1], target=target, feature_mask=mask, n_samples=60)
    assert torch.allclose(KernelSHAP(small_net, cells=3, samples=60, score="logit")(images).heatmap[0], theirs[0, 0], atol=1e-2)


def test_gradientshap_equals_captum(small_net: SmallNet, images: Tensor) -> None:
    small_net.eval()
    target = int(small_net(images[:1]).argmax())
    generator = image_generators(0, [0])[0]
    references = ImageSet(images[1:])(images[:1], 2, generator)
    with drawing(generator):
        theirs, delta = attr.GradientShap(small_net).attribute(
            images[:1], references, 7, 0.1, target, return_convergence_delta=True
        )
    explain = GradientSHAP(small_net, samples=7, noise_std=0.1, references=images[1:], completeness=True, chunk_size=3)
    explanation = explain(images[:1])
    assert torch.allclose(explanation.heatmap, theirs.sum(dim=1).detach(), atol=1e-5)
    miss, total = float(delta.mean()), float(theirs.sum())
    assert explanation.diagnostics[0]["completeness_gap"] == pytest.approx(abs(miss / (total - miss)), rel=1e-3)
    assert explanation.diagnostics[0]["backward_passes"] == 7


def test_gradientshap_of_a_linear_model_is_the_image_less_the_reference() -> None:
    explain = GradientSHAP(Linear(WEIGHT), samples=3, references="grey", completeness=True)
    explanation = explain(PICTURES, 1)
    assert torch.allclose(explanation.heatmap, -(WEIGHT * (PICTURES - 0.5)).sum(dim=1), atol=1e-5)
    assert max(d["completeness_gap"] for d in explanation.diagnostics) < 1e-4
    given = explain(PICTURES, 0, baseline=PICTURES.roll(1, 0))
    assert torch.allclose(given.heatmap, (WEIGHT * (PICTURES - PICTURES.roll(1, 0))).sum(dim=1), atol=1e-5)


def test_gradientshap_converges_to_expected_gradients(small_net: SmallNet, images: Tensor) -> None:
    many = GradientSHAP(small_net, samples=3000, references=images[1:], chunk_size=1000)(images[:1]).heatmap
    same = ExpectedGradients(small_net, score="logit", samples=400, references=images[1:], chunk_size=400)(images[:1]).heatmap
    few = GradientSHAP(small_net, samples=30, references=images[1:])(images[:1]).heatmap
    assert float((many - same).norm() / same.norm()) < 0.1 < float((few - same).norm() / same.norm())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: LIME(m, cells=33), "cells are .33, 33.; give 1 to 32 rows"),
        (lambda m: LIME(m, kernel_width=0.0), "kernel_width is 0.0; give a number above 0"),
        (lambda m: LIME(m, penalty=-1.0), "penalty is -1.0; give a number of at least 0"),
        (lambda m: KernelSHAP(m, cells=1), "there are 1 parts for 1000 samples; give at least 2 parts"),
        (lambda m: KernelSHAP(m, cells=7, samples=50), "there are 49 parts for 50 samples"),
        (
            lambda m: LIME(m, segments=torch.zeros(3, 4, dtype=torch.long)),
            "segments have shape .3, 4. and dtype int64; give whole",
        ),
        (lambda m: LIME(m, segments=torch.zeros(32, 32)), "dtype float32; give whole numbers"),
        (lambda m: GradientSHAP(m, samples=0), "samples is 0; give a whole number of at least 1"),
        (lambda m: GradientSHAP(m, noise_std=-0.1), "noise_std is -0.1; give a number of at least 0"),
    ],
)
def test_settings_outside_their_range_are_refused(
    make: Callable[[nn.Module], Explainer], message: str, small_net: SmallNet, images: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        make(small_net)(images)


def test_the_global_random_generators_are_left_unchanged(small_net: SmallNet, images: Tensor) -> None:
    torch.manual_seed(8)
    np.random.seed(8)  # noqa: NPY002
    wanted = float(torch.rand(())), float(np.random.rand())  # noqa: NPY002
    torch.manual_seed(8)
    np.random.seed(8)  # noqa: NPY002
    for make in (LIME, KernelSHAP, GradientSHAP):
        explain = make(small_net, samples=60, references=images) if make is GradientSHAP else make(small_net, samples=60)
        explain(images[:1])

        def fails(output: Tensor) -> Tensor:
            if torch.is_grad_enabled() or len(output) > 1:
                raise RuntimeError("a score that fails")
            return output[:, 0]

        with pytest.raises(RuntimeError, match="a score that fails"):
            explain(images[:1], fails)
    assert (float(torch.rand(())), float(np.random.rand())) == wanted  # noqa: NPY002
