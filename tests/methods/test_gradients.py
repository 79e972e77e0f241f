"""Gradient methods: a linear and a quadratic model have closed forms, captum agrees where it has the same method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import Linear, SmallNet, Untouched
from torch import Tensor, nn

from faithmap import image_generators
from faithmap.methods.base import Explainer
from faithmap.methods.gradients import (
    ExpectedGradients,
    Gradient,
    GradientExplainer,
    GradientTimesInput,
    IntegratedGradients,
    SmoothGrad,
    VarGrad,
)
from faithmap.methods.gradients.gradient import Channels
from faithmap.methods.references import ImageSet, RandomNoise
from faithmap.methods.sampling import Quadrature

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning")

WRONG: dict[str, dict[str, Any]] = {"channels": {"channels": "mean"}, "quadrature": {"quadrature": "simpson"}}
WEIGHT = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(4))
PICTURES = torch.rand(3, 3, 8, 6, generator=torch.Generator().manual_seed(5))


class Quadratic(nn.Module):
    """y = sum w x^2, whose gradient is 2 w x."""

    def forward(self, x: Tensor) -> Tensor:
        y = (WEIGHT.to(x) * x.square()).sum(dim=(1, 2, 3))
        return torch.stack([y, -y], dim=1)


def test_the_gradient_of_a_linear_model_is_its_weight() -> None:
    reductions: tuple[tuple[Channels, Tensor], ...] = (
        ("largest", WEIGHT.abs().amax(dim=0)),
        ("sum", WEIGHT.sum(dim=0)),
        ("absolute_sum", WEIGHT.abs().sum(dim=0)),
    )
    for channels, wanted in reductions:
        explanation = Gradient(Linear(WEIGHT), channels=channels)(PICTURES, 0)
        assert torch.allclose(explanation.heatmap, wanted.expand(3, -1, -1))
        assert explanation.diagnostics[0]["backward_passes"] == 1


def test_gradient_times_input_counts_from_its_baseline() -> None:
    explanation = GradientTimesInput(Linear(WEIGHT))(PICTURES, 1)
    assert torch.allclose(explanation.heatmap, -(WEIGHT * PICTURES).sum(dim=1), atol=1e-6)
    explanation = GradientTimesInput(Linear(WEIGHT), baseline=0.5)(PICTURES, 0)
    assert torch.allclose(explanation.heatmap, (WEIGHT * (PICTURES - 0.5)).sum(dim=1), atol=1e-6)
    with pytest.warns(UserWarning, match="one value everywhere"):
        explanation = GradientTimesInput(Linear(WEIGHT))(PICTURES, 0, baseline=PICTURES)
    assert torch.equal(explanation.heatmap, torch.zeros(3, 8, 6))


@pytest.mark.parametrize("quadrature", ["midpoint", "trapezoid"])
def test_integrated_gradients_of_a_quadratic_are_exact(quadrature: Quadrature) -> None:
    """The gradient is linear on the path: both rules integrate it exactly, w (x^2 - b^2)."""
    explain = IntegratedGradients(Quadratic(), score="logit", samples=4, baseline=0.25, quadrature=quadrature)
    explanation = explain(PICTURES, 0)
    assert torch.allclose(explanation.heatmap, (WEIGHT * (PICTURES.square() - 0.0625)).sum(dim=1), atol=1e-5)
    assert max(d["completeness_gap"] for d in explanation.diagnostics) < 1e-5
    assert [(d["forward_passes"], d["backward_passes"]) for d in explanation.diagnostics] == [(6, 4)] * 3


def test_the_right_sum_errs_by_a_known_amount_that_falls_with_the_samples() -> None:
    """Right ends lie half a part too far: the error is w (x - b)^2 / S."""
    gaps = []
    for samples in (4, 8):
        explanation = IntegratedGradients(Quadratic(), score="logit", samples=samples, quadrature="right")(PICTURES, 0)
        error = explanation.heatmap - (WEIGHT * PICTURES.square()).sum(dim=1)
        assert torch.allclose(error, (WEIGHT * PICTURES.square()).sum(dim=1) / samples, atol=1e-5)
        gaps.append(explanation.diagnostics[0]["completeness_gap"])
    assert gaps == pytest.approx([1 / 4, 1 / 8], rel=1e-4)


def test_several_baselines_are_the_mean_of_each() -> None:
    baselines = torch.rand(4, 3, 8, 6, generator=torch.Generator().manual_seed(6))
    together = IntegratedGradients(Quadratic(), score="logit", samples=4, baseline=baselines)(PICTURES, 0)
    alone = [IntegratedGradients(Quadratic(), score="logit", samples=4, baseline=b)(PICTURES, 0).heatmap for b in baselines]
    assert torch.allclose(together.heatmap, torch.stack(alone).mean(dim=0), atol=1e-5)
    assert max(d["completeness_gap"] for d in together.diagnostics) < 1e-4


def test_expected_gradients_of_a_linear_model_are_exact() -> None:
    """w (x - E x'), whatever the positions; every reference of a finite set comes equally often."""
    references = torch.rand(5, 3, 8, 6, generator=torch.Generator().manual_seed(6))
    explain = ExpectedGradients(Linear(WEIGHT), score="logit", samples=10, references=references, completeness=True)
    explanation = explain(PICTURES, 0)
    assert torch.allclose(explanation.heatmap, (WEIGHT * (PICTURES - references.mean(dim=0))).sum(dim=1), atol=1e-5)
    assert max(d["completeness_gap"] for d in explanation.diagnostics) < 1e-4


def test_expected_gradients_come_to_be_complete() -> None:
    gaps = []
    for samples in (8, 512):
        explain = ExpectedGradients(
            Quadratic(), score="logit", samples=samples, references=ImageSet(PICTURES[:2]), completeness=True
        )
        gaps.append(max(d["completeness_gap"] for d in explain(PICTURES[2:], 0).diagnostics))
    assert gaps[1] < gaps[0] / 5


def test_antithetic_noise_leaves_the_gradient_of_a_quadratic_as_it_is() -> None:
    smooth = SmoothGrad(Quadratic(), samples=6, noise_std=0.2, channels="sum")(PICTURES, 0)
    assert torch.allclose(smooth.heatmap, (2 * WEIGHT * PICTURES).sum(dim=1), atol=1e-4)


def test_the_variance_of_the_gradient_of_a_quadratic_is_that_of_the_noise() -> None:
    """Var(2 w e) = 4 w^2 sigma^2; of a linear model's gradient it is 0."""
    found = VarGrad(Quadratic(), samples=4000, noise_std=0.1, channels="sum", chunk_size=500)(PICTURES[:1], 0)
    assert torch.allclose(found.heatmap[0], (4 * WEIGHT.square() * 0.01).sum(dim=0), rtol=0.15)
    with pytest.warns(UserWarning, match="one value everywhere"):
        still = VarGrad(Linear(WEIGHT), samples=4)(PICTURES, 0)
    assert torch.equal(still.heatmap, torch.zeros(3, 8, 6))


def test_smoothgrad_smooths_any_gradient_method() -> None:
    inner = IntegratedGradients(Quadratic(), score="logit", samples=4, baseline=0.25)
    explanation = SmoothGrad(Quadratic(), method=inner, samples=2, noise_std=0.1, channels="sum")(PICTURES, 0)
    single = SmoothGrad(Quadratic(), method=inner, samples=2, noise_std=0.0, channels="sum")(PICTURES, 0)
    assert torch.allclose(single.heatmap, inner(PICTURES, 0).heatmap, atol=1e-5)
    assert not torch.allclose(explanation.heatmap, single.heatmap, atol=1e-3)
    assert explanation.settings["method"]["name"] == "IntegratedGradients"
    assert explanation.diagnostics[0]["backward_passes"] == 8


EXPLAINERS: dict[str, Callable[..., GradientExplainer]] = {
    "gradient": Gradient,
    "times input": GradientTimesInput,
    "smooth": lambda model, **k: SmoothGrad(model, samples=5, **k),
    "variance": lambda model, **k: VarGrad(model, samples=5, **k),
    "smooth integrated": lambda model, **k: SmoothGrad(model, method=IntegratedGradients(model, samples=3), samples=2, **k),
    "smooth expected": lambda model, **k: SmoothGrad(model, method=ExpectedGradients(model, samples=3), samples=2, **k),
    "integrated": lambda model, **k: IntegratedGradients(model, samples=5, **k),
    "expected": lambda model, **k: ExpectedGradients(model, samples=5, references=RandomNoise(), noise_std=0.02, **k),
}


@pytest.mark.parametrize("name", EXPLAINERS)
def test_batch_chunk_and_order_do_not_matter(name: str, small_net: SmallNet, images: Tensor) -> None:
    small_net.double()
    images = images.double()
    whole = EXPLAINERS[name](small_net)(images).heatmap
    assert torch.allclose(EXPLAINERS[name](small_net, chunk_size=2)(images).heatmap, whole, rtol=1e-6, atol=1e-9)
    last = EXPLAINERS[name](small_net)(images[2:], generator=image_generators(0, [2])).heatmap
    assert torch.allclose(last, whole[2:], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_model_and_images_are_left_unchanged(name: str, small_net: SmallNet, images: Tensor, untouched: Untouched) -> None:
    small_net.train()
    untouched(small_net)
    with torch.no_grad():
        EXPLAINERS[name](small_net)(images)
    assert images.grad is None
    assert not images.requires_grad

    def fails(output: Tensor) -> Tensor:
        raise RuntimeError("a score that fails")

    with pytest.raises(RuntimeError, match="a score that fails"):
        EXPLAINERS[name](small_net)(images, fails)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Gradient(m, **WRONG["channels"]), "channels is 'mean'; give one of largest"),
        (lambda m: SmoothGrad(m, samples=0), "samples is 0; give a whole number of at least 1"),
        (lambda m: SmoothGrad(m, method=IntegratedGradients(m, samples=0)), "samples is 0"),
        (lambda m: IntegratedGradients(m, samples=1, quadrature="trapezoid"), "at least 2 for the trapezoid rule"),
        (lambda m: IntegratedGradients(m, **WRONG["quadrature"]), "quadrature is 'simpson'; give one of right"),
        (lambda m: ExpectedGradients(m, noise_std=-1.0), "noise_std is -1.0; give a number of at least 0"),
    ],
)
def test_settings_outside_their_range_are_refused(
    make: Callable[[nn.Module], Explainer], message: str, small_net: SmallNet, images: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        make(small_net)(images)


def test_parity_with_captum(small_net: SmallNet, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    small_net.eval()
    target = small_net(images).argmax(dim=1)
    saliency = attr.Saliency(small_net).attribute(images.clone().requires_grad_(), target)
    assert torch.allclose(Gradient(small_net)(images).heatmap, saliency.amax(dim=1), atol=1e-5)
    product = attr.InputXGradient(small_net).attribute(images.clone().requires_grad_(), target)
    assert torch.allclose(GradientTimesInput(small_net)(images).heatmap, product.sum(dim=1), atol=1e-5)
    base = torch.full_like(images, 0.5)
    theirs = attr.IntegratedGradients(small_net).attribute(images, base, target, n_steps=20, method="riemann_middle")
    ours = IntegratedGradients(small_net, score="logit", samples=20, baseline=0.5)(images)
    assert torch.allclose(ours.heatmap, theirs.sum(dim=1).to(ours.heatmap), atol=1e-4)


def test_parity_with_captum_on_gradient_shap_where_draws_do_not_matter() -> None:
    """Of a linear model they agree for one baseline, whatever is drawn."""
    attr = pytest.importorskip("captum.attr")
    base = torch.rand(1, 3, 8, 6, generator=torch.Generator().manual_seed(9))
    theirs = attr.GradientShap(Linear(WEIGHT)).attribute(PICTURES, base, target=0, n_samples=3)
    ours = ExpectedGradients(Linear(WEIGHT), score="logit", samples=3, references=base[0])(PICTURES, 0)
    assert torch.allclose(ours.heatmap, theirs.sum(dim=1).to(ours.heatmap), atol=1e-4)
