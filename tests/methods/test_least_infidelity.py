"""The weights of least infidelity: closed forms, their limits, and changes that they were not fitted to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import SmallNet
from torch import Tensor, nn

from faithmap.methods.cams.cam import CAM, GradCAM
from faithmap.methods.cams.estimators import Estimator, Expected, Integrated, Plain, Smooth
from faithmap.methods.cams.least_infidelity import LeastInfidelity
from faithmap.methods.cams.weightings import Evidence
from faithmap.methods.references import RandomConstants
from faithmap.methods.sampling import Stream

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning")

EXPECTED = Expected(samples=40, references=RandomConstants(), noise_std=0.1)


class Products(nn.Module):
    """The score of a class is a product of the means of three channels, curved between any two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.dirac_(self.layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer(x).mean(dim=(2, 3))
        logits: Tensor = torch.stack([a[:, 0] * a[:, 1] + a[:, 2] ** 2, -a[:, 2]], dim=1)
        return logits


def changes(model: nn.Module, image: Tensor, estimator: Estimator, seed: int, kind: str = "logit") -> tuple[Tensor, Tensor]:
    """D and r of each pass that an estimator draws, one pass after the other."""
    stream = Stream(image, [estimator.draw(image, torch.Generator().manual_seed(seed))])
    layer = model.get_submodule("conv2" if isinstance(model, SmallNet) else "layer")
    rows = []
    for z in [image, *stream.perturbed(torch.arange(len(stream))).split(1)]:
        kept: list[Tensor] = []
        handle = layer.register_forward_hook(lambda m, i, o, kept=kept: kept.append(o.detach().clone()))
        logits = model(z).detach()
        handle.remove()
        score = (logits.softmax(dim=1) if kind == "probability" else logits)[0, 0]
        rows.append((kept[0].sum(dim=(2, 3))[0], score))
    channels, scores = (torch.stack(values) for values in zip(*rows, strict=True))
    return channels[0] - channels[1:], scores[0] - scores[1:]


def weights_of(model: nn.Module, image: Tensor, **settings: Any) -> Tensor:
    """The weights that a map was made with, in a layer whose channels are independent pictures."""
    layer = "conv2" if isinstance(model, SmallNet) else "layer"
    found: list[Tensor] = []
    weighting = settings.pop("weighting", LeastInfidelity(1e-9))

    class Kept:
        needs_changes = getattr(weighting, "needs_changes", False)

        def __call__(self, evidence: Evidence) -> Tensor:
            found.append(weighting(evidence))
            return found[0]

    CAM(model, target_layer=layer, weighting=Kept(), **settings)(image, 0, generator=[torch.Generator().manual_seed(3)])
    return found[0].flatten()


@pytest.fixture
def image() -> Tensor:
    return torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_with_more_samples_than_channels_they_are_the_least_squares(image: Tensor) -> None:
    model = Products().double()
    channel, score = changes(model, image, EXPECTED, 3)
    expected = torch.linalg.lstsq(channel, score.unsqueeze(1)).solution.flatten()
    assert torch.allclose(weights_of(model, image, gradient=EXPECTED), expected, rtol=1e-5)


def test_where_the_score_is_linear_above_the_layer_they_are_its_weights(images: Tensor) -> None:
    """The gradient is the same everywhere, and complete: nothing is left for the changes to correct."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    settings: dict[str, Any] = {"target_layer": "1", "relu": False}
    plain = GradCAM(net, **settings)(images, 0).heatmap
    least = CAM(net, weighting="least_infidelity", gradient=Expected(samples=6), **settings)(images, 0).heatmap
    assert torch.allclose(least, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))


def test_with_fewer_samples_than_channels_they_are_complete_for_each(small_net: SmallNet, images: Tensor) -> None:
    model, image = small_net.double().eval(), images[:1].double()
    few = Expected(samples=5, references=RandomConstants())
    found = weights_of(model, image, gradient=few, score="probability", weighting=LeastInfidelity(1e-12))
    channel, score = changes(model, image, few, 3, "probability")
    assert torch.allclose(channel @ found, score, rtol=1e-6)


def test_a_large_ridge_leaves_the_expected_gradient(image: Tensor) -> None:
    model = Products().double()
    strong = weights_of(model, image, gradient=EXPECTED, weighting=LeastInfidelity(1e9))
    mean = weights_of(model, image, gradient=EXPECTED, weighting=lambda e: e.gradient.mean(dim=(2, 3), keepdim=True))
    assert torch.allclose(strong, mean)
    weak = weights_of(model, image, gradient=EXPECTED)
    assert not torch.allclose(weak, mean, rtol=0.01)


def test_a_narrow_kernel_around_the_image_gives_its_gradient(image: Tensor) -> None:
    model = Products().double()
    found = weights_of(model, image, gradient=Smooth(samples=20, noise_std=1e-4))
    a = image.mean(dim=(2, 3))[0]
    gradient = torch.stack([a[1], a[0], 2 * a[2]]) / image[0, 0].numel()
    assert torch.allclose(found, gradient, rtol=1e-3)


def test_the_mean_gradient_of_a_path_is_optimal_for_its_end(image: Tensor) -> None:
    """It is complete (the fundamental theorem of calculus): Integrated Grad-CAM's weights, if z is its baseline alone."""
    model = Products().double()
    path = Integrated(samples=3, baseline=0.2, quadrature="trapezoid", difference="none", pool="gradient")
    mean = weights_of(model, image, gradient=path, weighting=lambda e: e.gradient.mean(dim=(2, 3), keepdim=True))
    channel, score = (values[:1] for values in changes(model, image, path, 3))
    assert torch.allclose(channel @ mean, score, rtol=1e-12)
    start = mean.view(1, 3, 1, 1).expand_as(image)
    found = LeastInfidelity(1e-9)(Evidence(image, start, channel_changes=channel[None], score_changes=score[None]))
    assert torch.allclose(found.flatten(), mean)


def test_they_predict_changes_that_they_were_not_fitted_to(small_net: SmallNet, images: Tensor) -> None:
    """A probability, which no gradient predicts well; 16 channels, 300 samples, 200 others of the same distribution."""
    model, image = small_net.double().eval(), images[:1].double()
    drawn = Expected(samples=300, references=RandomConstants(), noise_std=0.1)
    channel, score = changes(model, image, Expected(samples=200, references=RandomConstants(), noise_std=0.1), 9, "probability")

    def unexplained(weighting: Any, gradient: Estimator) -> float:
        found = weights_of(model, image, gradient=gradient, weighting=weighting, score="probability")
        return float((channel @ found - score).square().mean() / score.square().mean())

    def mean(evidence: Evidence) -> Tensor:
        return evidence.gradient.mean(dim=(2, 3), keepdim=True)

    best = unexplained(LeastInfidelity(1e-4), drawn)
    others = [unexplained(mean, g) for g in (Plain(), Smooth(), drawn)]
    assert best < 0.8 * min(others)


@pytest.mark.parametrize("gradient", [Plain(), Integrated(), Expected(difference="reference", pool="map")])
def test_without_perturbed_images_or_with_differences_it_says_what_to_give(
    gradient: Estimator, small_net: SmallNet, images: Tensor
) -> None:
    cam = CAM(small_net, target_layer="conv2", weighting="least_infidelity", gradient=gradient)
    with pytest.raises(ValueError, match="weighting='least_infidelity' needs perturbed images; give gradient=Smooth"):
        cam(images)


def test_the_ridge_is_positive() -> None:
    with pytest.raises(ValueError, match="ridge"):
        LeastInfidelity(ridge=0)
