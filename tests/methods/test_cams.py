"""The grid of weightings and estimators: closed forms, its limits, and all that must not matter."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from oracles import SmallNet, Untouched, given
from torch import Tensor, nn

from faithmap.methods.cams.cam import (
    CAM,
    ExpectedGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    IntegratedGradCAM,
    LayerCAM,
    SmoothGradCAM,
    SmoothGradCAMPlusPlus,
    XGradCAM,
)
from faithmap.methods.cams.estimators import Difference, Estimator, Expected, Integrated, Plain, Smooth
from faithmap.methods.cams.fused import ExpectedFusedCAM, FusedCAM
from faithmap.methods.cams.weightings import WEIGHTINGS, WeightingName
from faithmap.methods.references import RandomConstants, RandomNoise
from faithmap.methods.sampling import Quadrature, quadrature
from faithmap.warning_types import EmptyHeatmapWarning

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning")

NAMED = [
    GradCAM,
    GradCAMPlusPlus,
    XGradCAM,
    LayerCAM,
    HiResCAM,
    SmoothGradCAM,
    SmoothGradCAMPlusPlus,
    IntegratedGradCAM,
    ExpectedGradCAM,
    FusedCAM,
    ExpectedFusedCAM,
]
ESTIMATORS = {
    "plain": Plain(),
    "smooth": Smooth(samples=5),
    "integrated": Integrated(samples=5),
    "trapezoid": Integrated(samples=5, quadrature="trapezoid"),
    "expected": Expected(samples=6, references=RandomNoise()),
    "contribution": Expected(samples=6, references=RandomNoise(), difference="reference", pool="contribution"),
    "slope": Expected(samples=6, paths=2, references=RandomNoise(), difference="path", pool="slope"),
    "local": Expected(samples=6, paths=3, references=RandomNoise(), difference="reference", pool="map"),
    "steps": Expected(samples=6, paths=2, references=RandomNoise(), difference="increment", pool="map"),
}

WRONG: dict[str, Any] = {"quadrature": "left"}


class Quadratic(nn.Module):
    """The layer doubles the image; the score is the weighted sum of the squares of what it returns."""

    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.dirac_(self.layer.weight)
        self.layer.weight.data *= 2

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer(x)
        weights = torch.arange(1, a.shape[1] + 1).to(a).view(-1, 1, 1)
        logits: Tensor = (weights * a.square()).sum(dim=(1, 2, 3)).unsqueeze(1) * torch.tensor([1.0, -1.0]).to(a)
        return logits


@pytest.fixture
def quadratic() -> Quadratic:
    return Quadratic().double()


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(2, 2, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


CELLS = 12


def test_grad_cam_of_a_quadratic(quadratic: Quadratic, pictures: Tensor) -> None:
    """y = sum_k c_k |A_k|^2: the gradient is 2 c_k A_k, its mean the channel's weight."""
    explanation = GradCAM(quadratic, target_layer="layer")(pictures, 0)
    a, c = 2 * pictures, torch.tensor([1.0, 2.0]).view(2, 1, 1)
    assert torch.allclose(explanation.heatmap, ((2 * c * a).mean(dim=(2, 3), keepdim=True) * a).sum(dim=1))
    assert torch.allclose(given(explanation.score), (c * a.square()).sum(dim=(1, 2, 3)))
    assert torch.allclose(GradCAM(quadratic, target_layer="layer", relu=False)(pictures, 1).heatmap, -explanation.heatmap)
    assert not GradCAM(quadratic, target_layer="layer")(pictures[:1] + 1, 0).heatmap.eq(0).any()


@pytest.mark.parametrize(("rule", "mean"), [("right", 0.6), ("midpoint", 0.5), ("trapezoid", 0.5)])
def test_integrated_gradients_of_a_quadratic(quadratic: Quadratic, pictures: Tensor, rule: Quadrature, mean: float) -> None:
    """From black, A and its gradient grow with a: the gradient's mean is that of the positions, here five."""
    positions, shares = quadrature(rule, 5)
    assert (positions * shares).sum().item() == pytest.approx(mean)
    pooled = Integrated(samples=5, quadrature=rule, difference="none", pool="gradient")
    explanation = CAM(quadratic, target_layer="layer", weighting="hires_cam", gradient=pooled)(pictures, 0)
    plain = HiResCAM(quadratic, target_layer="layer")(pictures, 0)
    assert torch.allclose(explanation.heatmap, mean * plain.heatmap)


def test_integrated_grad_cam_is_its_papers_sum(small_net: SmallNet, images: Tensor) -> None:
    explanation = IntegratedGradCAM(small_net, target_layer="conv2", gradient=Integrated(samples=7, baseline="grey"))(images, 2)
    small_net.eval()
    expected = torch.zeros_like(explanation.heatmap)
    with torch.enable_grad():
        for step in range(1, 8):
            z = 0.5 + step / 7 * (images - 0.5)
            start = small_net.conv2(small_net.relu(small_net.norm(small_net.conv1(torch.full_like(images, 0.5)))))
            a = small_net.conv2(small_net.relu(small_net.norm(small_net.conv1(z)))).detach().requires_grad_()
            y = 20 * small_net.head(a.relu().mean(dim=(2, 3)))[:, 2]
            (g,) = torch.autograd.grad(y.sum(), a)
            expected += (g.mean(dim=(2, 3), keepdim=True) * (a - start)).sum(dim=1).relu().detach() / 7
    assert torch.allclose(explanation.heatmap, expected, atol=1e-5)


def test_steps_along_a_path_are_complete_where_the_score_is_quadratic(quadratic: Quadratic, pictures: Tensor) -> None:
    """The trapezoid rule is exact for a gradient that is linear on the path, however few the positions."""
    steps = Expected(samples=3, paths=1, noise_std=0.0, references="black", difference="increment", pool="contribution")
    explanation = CAM(quadratic, target_layer="layer", gradient=steps)(pictures, 0)
    assert [d["completeness_gap"] for d in explanation.diagnostics] == pytest.approx([0, 0], abs=1e-7)
    contributions = torch.tensor([1.0, 2.0]) * (2 * pictures).square().sum(dim=(2, 3))
    weights = (contributions / CELLS).view(2, 2, 1, 1)
    assert torch.allclose(explanation.heatmap, (weights * 2 * pictures).sum(dim=1))


@pytest.mark.parametrize("difference", ["reference", "increment"])
def test_the_completeness_gap_falls_as_samples_grow(small_net: SmallNet, images: Tensor, difference: Difference) -> None:
    """At a layer that is linear in the image, A(x) - A(x') is as good as steps; and y is the logit, nothing else."""
    gaps = []
    for samples in (2, 8, 32, 128):
        expected = Expected(
            samples=samples, paths=2, noise_std=0.0, references="black", difference=difference, pool="contribution"
        )
        explanation = CAM(small_net, target_layer="conv1", gradient=expected)(images, 1)
        gaps.append(sum(d["completeness_gap"] for d in explanation.diagnostics) / 3)
    assert gaps[-1] < 0.02
    assert gaps[-1] < gaps[1] < gaps[0]


def test_slopes_explain_the_whole_change(quadratic: Quadratic, pictures: Tensor) -> None:
    """Channel by channel the slope is C / (A(x) - A(x')): times A it gives the contribution back, from black."""
    expected = Expected(samples=4, paths=1, noise_std=0.0, references="black", difference="increment", pool="slope")
    slope = CAM(quadratic, target_layer="layer", gradient=expected)(pictures, 0).heatmap.sum(dim=(1, 2))
    assert torch.allclose(slope, (torch.tensor([1.0, 2.0]) * (2 * pictures).square().sum(dim=(2, 3))).sum(dim=1))


def test_contributions_are_channel_weights(quadratic: Quadratic, pictures: Tensor) -> None:
    """E[g (A(x) - A(x'))] of a quadratic from black is C_k = 2 c_k E[a] |A_k|^2; its mean weighs A(x)."""
    expected = Expected(samples=5, paths=5, noise_std=0.0, references="black", difference="reference", pool="contribution")
    explanation = CAM(quadratic, target_layer="layer", gradient=expected)(pictures[:1], 0)
    a = 2 * pictures[:1]
    position = expected.draw(pictures[:1], torch.Generator().manual_seed(0)).position
    ratio = explanation.heatmap / (
        (torch.tensor([1.0, 2.0]).view(2, 1, 1) * a.square()).mean(dim=(2, 3), keepdim=True) * a
    ).sum(dim=1)
    assert ratio.std() < 1e-6
    assert ratio.mean().item() == pytest.approx(1, abs=0.2)
    assert sorted(position.tolist())[:5] == [0] * 5


def test_expected_grad_cam_is_grad_cam_with_complete_contributions(quadratic: Quadratic, pictures: Tensor) -> None:
    """y = sum_k c_k |A_k|^2: from black, channel k contributes c_k |A_k|^2, whose mean over the cells is its weight."""
    default = ExpectedGradCAM(quadratic).gradient
    assert isinstance(default, Expected)
    silent = replace(default, references="black", noise_std=0.0)
    explanation = ExpectedGradCAM(quadratic, target_layer="layer", gradient=silent)(pictures, 0)
    a, c = 2 * pictures, torch.tensor([1.0, 2.0]).view(2, 1, 1)
    weights = (c * a.square()).mean(dim=(2, 3), keepdim=True)
    assert torch.allclose(explanation.heatmap, (weights * a).sum(dim=1))
    assert all(d["completeness_gap"] < 1e-6 for d in explanation.diagnostics)


class Saturated(nn.Module):
    """The score is 1 as soon as either of two channels has a mean of 0.2: both together change nothing any more."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer(x * 1).mean(dim=(2, 3)) / 0.2
        score = a.sum(dim=1).clamp(max=1)
        return torch.stack([score, -score], dim=1)


def test_the_expected_gradient_sees_what_is_saturated_at_the_image() -> None:
    """Two features, top left and bottom right; the gradient at the image is 0, and so is Grad-CAM's map."""
    image = torch.zeros(1, 2, 4, 4)
    image[0, 0, :2, :2], image[0, 1, 2:, 2:] = 0.9, 0.8
    model = Saturated()
    with pytest.warns(EmptyHeatmapWarning):
        assert GradCAM(model, target_layer="layer")(image, 0).heatmap.eq(0).all()
    heatmap = ExpectedGradCAM(model, target_layer="layer", seed=1)(image, 0, baseline="black").heatmap[0]
    assert heatmap[:2, :2].gt(0.01).all()
    assert heatmap[2:, 2:].gt(0.01).all()
    assert heatmap[:2, 2:].eq(0).all()


def test_fused_cam_is_the_mean_of_hires_cams_of_the_probability(small_net: SmallNet, images: Tensor) -> None:
    """Each divided by its largest value, its cells on equal parts of the image; with plain or expected gradients."""
    settings: dict[str, Any] = {"target_layer": ["conv1", "conv2"], "placement": "tiles", "score": "probability", "relu": False}
    fused = FusedCAM(small_net, target_layer=settings["target_layer"], relu=False)(images, 1)
    assert torch.equal(fused.heatmap, HiResCAM(small_net, **settings)(images, 1).heatmap)
    gradient = Expected(samples=4)
    expected = ExpectedFusedCAM(small_net, target_layer=settings["target_layer"], relu=False, gradient=gradient)(images, 1)
    assert torch.equal(expected.heatmap, HiResCAM(small_net, gradient=gradient, **settings)(images, 1).heatmap)
    assert not torch.equal(expected.heatmap, fused.heatmap)


def test_expected_with_one_reference_and_dense_positions_is_integrated(small_net: SmallNet, images: Tensor) -> None:
    expected = Expected(samples=600, paths=1, references="grey", noise_std=0.0, difference="path", pool="map", relu_each=True)
    integrated = Integrated(samples=600, baseline="grey", quadrature="midpoint")
    first = CAM(small_net, target_layer="conv2", gradient=expected)(images[:1], 0).heatmap
    second = CAM(small_net, target_layer="conv2", gradient=integrated)(images[:1], 0).heatmap
    assert (first - second).abs().max() < 2e-3 * second.max()


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_smooth_without_noise_is_plain(small_net: SmallNet, images: Tensor, weighting: WeightingName) -> None:
    first = CAM(small_net, target_layer="conv2", weighting=weighting, gradient=Smooth(samples=4, noise_std=0.0))(images)
    second = CAM(small_net, target_layer="conv2", weighting=weighting)(images)
    assert torch.allclose(first.heatmap, second.heatmap, rtol=1e-4, atol=1e-5 * float(second.heatmap.max()))


def test_the_image_as_its_own_reference_makes_no_difference(small_net: SmallNet, images: Tensor) -> None:
    expected = Expected(samples=4, references=lambda image: image, noise_std=0.0, difference="reference", pool="map")
    with pytest.warns(UserWarning, match="one value everywhere"):
        explanation = CAM(small_net, target_layer="conv2", gradient=expected)(images)
    assert not explanation.heatmap.any()
    assert [d["completeness_gap"] for d in explanation.diagnostics] == [None] * 3


def test_antithetic_noise_cancels_where_the_gradient_is_linear(quadratic: Quadratic, pictures: Tensor) -> None:
    explanation = CAM(quadratic, target_layer="layer", gradient=Smooth(samples=2, noise_std=0.5))(pictures, 0)
    assert torch.allclose(explanation.heatmap, GradCAM(quadratic, target_layer="layer")(pictures, 0).heatmap)
    free = CAM(quadratic, target_layer="layer", gradient=Smooth(samples=2, noise_std=0.5, antithetic=False))(pictures, 0)
    assert not torch.allclose(explanation.heatmap, free.heatmap, rtol=0.01)


def test_positions_are_stratified() -> None:
    samples = Expected(samples=10, references="black").draw(torch.rand(1, 3, 4, 4), torch.Generator().manual_seed(0))
    assert sorted((10 * samples.position).long().tolist()) == list(range(10))
    assert samples.share.sum().item() == pytest.approx(1)
    paths = Expected(samples=10, paths=3, references="black").draw(torch.rand(1, 3, 4, 4), torch.Generator())
    assert paths.path.bincount().tolist() == [4, 3, 3]
    assert all(paths.position[paths.path == p].diff().gt(0).all() for p in range(3))


@pytest.mark.parametrize(
    ("name", "weighting"), [*product(ESTIMATORS, WEIGHTINGS), ("smooth", "least_infidelity"), ("expected", "least_infidelity")]
)
def test_batch_chunk_and_order_do_not_matter(name: str, weighting: WeightingName, small_net: SmallNet, images: Tensor) -> None:
    """Every weighting takes every estimator; an image's map is its own."""
    settings: dict[str, Any] = {"target_layer": "conv2", "weighting": weighting, "gradient": ESTIMATORS[name], "relu": False}
    whole = CAM(small_net, chunk_size=64, **settings)(images, [0, 1, 2])
    small = CAM(small_net, chunk_size=3, **settings)(images, [0, 1, 2])
    scale = float(whole.heatmap.abs().max()) + 1e-12
    assert (whole.heatmap - small.heatmap).abs().max() < 1e-4 * scale
    assert whole.diagnostics[0].keys() == small.diagnostics[0].keys()
    generators = [torch.Generator().manual_seed(s) for s in (5, 6, 7)]
    alone = CAM(small_net, **settings)(images[1:2], 1, generator=generators[1:2])
    generators = [torch.Generator().manual_seed(s) for s in (7, 6, 5)]
    turned = CAM(small_net, chunk_size=4, **settings)(images.flip(0), [2, 1, 0], generator=generators)
    assert (turned.heatmap[1] - alone.heatmap[0]).abs().max() < 1e-4 * scale


def test_the_seed_decides(small_net: SmallNet, images: Tensor) -> None:
    def maps(seed: int) -> Tensor:
        expected = Expected(samples=4, references=RandomConstants())
        return CAM(small_net, target_layer="conv2", gradient=expected, seed=seed)(images).heatmap

    assert torch.equal(maps(0), maps(0))
    assert not torch.equal(maps(0), maps(1))


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [("plain", 1, 1), ("smooth", 6, 5), ("integrated", 7, 6), ("expected", 7, 6), ("contribution", 13, 12), ("steps", 11, 10)],
)
def test_passes(name: str, forward: int, backward: int, small_net: SmallNet, images: Tensor) -> None:
    explanation = CAM(small_net, target_layer="conv2", gradient=ESTIMATORS[name], chunk_size=4)(images)
    assert {(d["forward_passes"], d["backward_passes"]) for d in explanation.diagnostics} == {(forward, backward)}


@pytest.mark.parametrize("method", NAMED)
def test_model_and_images_are_left_unchanged(
    method: type[CAM], small_net: SmallNet, images: Tensor, untouched: Untouched
) -> None:
    small_net.conv1.weight.requires_grad_(False)
    untouched(small_net.train())
    images.requires_grad_()
    with torch.no_grad():
        explanation = method(small_net, target_layer="conv2")(images)
    assert explanation.heatmap.shape == (3, 8, 8)
    assert not explanation.heatmap.requires_grad
    assert images.grad is None


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_model_and_images_are_left_unchanged_after_an_error(
    fails_at: int, small_net: SmallNet, images: Tensor, untouched: Untouched
) -> None:
    untouched(small_net)
    calls = []

    def score(logits: Tensor) -> Tensor:
        calls.append(len(logits))
        if len(calls) == fails_at:
            raise ZeroDivisionError
        return logits[:, 0]

    with pytest.raises(ZeroDivisionError):
        CAM(small_net, target_layer="conv2", gradient=Smooth(samples=4), chunk_size=3)(images, score)
    assert len(calls) == fails_at


def test_a_callable_score(small_net: SmallNet, images: Tensor) -> None:
    explanation = GradCAM(small_net, target_layer="conv2")(images, lambda logits: logits[:, 1])
    assert explanation.target is None
    assert torch.allclose(explanation.heatmap, GradCAM(small_net, target_layer="conv2")(images, 1).heatmap)


def test_the_models_own_choice_is_made_on_the_clean_image(small_net: SmallNet, images: Tensor) -> None:
    explanation = SmoothGradCAM(small_net, target_layer="conv2", chunk_size=2)(images)
    assert torch.equal(given(explanation.target), small_net.eval()(images).argmax(dim=1))
    again = SmoothGradCAM(small_net, target_layer="conv2")(images, explanation.target)
    assert torch.allclose(explanation.heatmap, again.heatmap, atol=1e-5)


def test_the_explanation_has_the_cells_positions_and_the_layer(small_net: SmallNet, images: Tensor) -> None:
    """The last layer that runs once: the shared relu behind it does not count. Its cells stand four pixels apart."""
    explanation = GradCAM(small_net)(images)
    assert explanation.settings["target_layer"] == explanation.diagnostics[0]["target_layer"] == ["conv2"]
    assert given(explanation.rows).tolist() == given(explanation.columns).tolist() == [4.0 * j for j in range(8)]


def test_signed_maps_on_request(small_net: SmallNet, images: Tensor) -> None:
    signed = GradCAM(small_net, target_layer="conv2", relu=False)(images).heatmap
    assert signed.min() < 0
    assert torch.equal(signed.relu(), GradCAM(small_net, target_layer="conv2")(images).heatmap)


def test_several_layers_are_fused_at_the_finest(small_net: SmallNet, images: Tensor) -> None:
    layers = {name: GradCAM(small_net, target_layer=name, relu=False)(images) for name in ("conv1", "conv2")}
    both = GradCAM(small_net, target_layer=["conv2", small_net.conv1], relu=False)(images)
    scaled = [explanation.heatmap / explanation.heatmap.abs().amax(dim=(1, 2), keepdim=True) for explanation in layers.values()]
    coarse = replace(layers["conv2"], heatmap=scaled[1]).at()[:, ::2, ::2]
    assert both.heatmap.shape == (3, 16, 16)
    assert torch.allclose(both.heatmap, (scaled[0] + coarse) / 2, atol=1e-5)
    assert both.diagnostics[0]["target_layer"] == ["conv2", "conv1"]


def test_half_precision(images: Tensor, small_net: SmallNet) -> None:
    exact = GradCAM(small_net, target_layer="conv2")(images, 0).heatmap
    cast = GradCAM(small_net, target_layer="conv2", autocast=torch.bfloat16)(images, 0).heatmap
    assert cast.dtype == torch.float32
    assert (cast - exact).abs().max() < 0.05 * exact.max()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weighting": "grad"}, "weighting is 'grad'; give one of grad_cam"),
        ({"gradient": Expected(difference="increment")}, "increments are factors of single gradients"),
        ({"gradient": Expected(pool="slope")}, "pool='slope' multiplies by a difference"),
        ({"gradient": Smooth(difference="path", pool="map")}, "needs a reference"),
        ({"gradient": Smooth(samples=0)}, "samples is 0; give a whole number of at least 1"),
        ({"gradient": Integrated(samples=1, quadrature="trapezoid")}, "at least 2 for the trapezoid rule"),
        ({"gradient": Integrated(**WRONG)}, "quadrature is 'left'; give one of right"),
        ({"gradient": Expected(samples=2, paths=3)}, "at most as many paths as samples"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str, small_net: SmallNet, images: Tensor) -> None:
    with pytest.raises(ValueError, match=message):
        CAM(small_net, target_layer="conv2", **settings)(images)


def test_progress_counts_images(small_net: SmallNet, images: Tensor) -> None:
    updates: list[tuple[int, int]] = []
    CAM(small_net, target_layer="conv2", gradient=Smooth(samples=3), chunk_size=2)(
        images, progress=lambda done, total: updates.append((done, total))
    )
    assert updates == [(2, 3), (3, 3)]


@pytest.mark.parametrize("gradient", [Integrated(samples=3), Expected(samples=3, difference="path", pool="map")])
def test_a_baseline_of_the_call_replaces_the_setting_image_by_image(
    gradient: Estimator, small_net: SmallNet, images: Tensor
) -> None:
    """One tensor for each image, or one baseline for all; the estimator's own is not asked."""
    cam = CAM(small_net, target_layer="conv2", gradient=gradient, relu=False)
    starts = torch.stack([torch.full_like(image, level) for image, level in zip(images, (0.1, 0.5, 0.9), strict=True)])
    together = cam(images, 1, baseline=starts).heatmap
    for i, level in enumerate((0.1, 0.5, 0.9)):
        first, second = (
            cam(images[i : i + 1], 1, baseline=baseline, generator=[torch.Generator().manual_seed(i)]).heatmap[0]
            for baseline in (level, starts[i])
        )
        assert torch.allclose(first, second, atol=1e-5)
        if isinstance(gradient, Integrated):
            assert torch.allclose(together[i], first, atol=1e-5)
    assert not torch.allclose(together, cam(images, 1).heatmap, atol=1e-4)


def test_the_settings_name_the_layer_that_was_given(small_net: SmallNet, images: Tensor) -> None:
    explainer = GradCAM(small_net)
    layers = [explainer.settings["target_layer"], *(explainer(images).settings["target_layer"])]
    assert layers == [None, "conv2"]
    assert GradCAM(small_net, target_layer="conv1").settings["target_layer"] == "conv1"


def test_images_of_another_width_have_cells_of_their_own(small_net: SmallNet) -> None:
    wide, square = torch.rand(1, 3, 32, 48), torch.rand(1, 3, 32, 32)
    explainer = GradCAM(small_net, target_layer="conv2")
    explainer(square)
    assert torch.equal(given(explainer(wide).columns), given(GradCAM(small_net, target_layer="conv2")(wide).columns))
    assert explainer(wide).heatmap.shape[-1] > explainer(square).heatmap.shape[-1]
