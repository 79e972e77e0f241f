"""captum's methods that end in a backward pass: closed forms, captum on a net that it can hook, and nets that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import Linear, given
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap import CompletenessWarning, Explainer
from faithmap.methods.captum_methods import LRP, DeconvNet, DeepLIFT, GuidedBackprop
from faithmap.score import ScoreKind

attr = pytest.importorskip("captum.attr")
pytestmark = [
    pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning"),
    pytest.mark.filterwarnings("ignore:Setting (backward|forward)"),
]

WEIGHT = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(4)).double()
PICTURES = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(5)).double() + 0.01


class Hookable(nn.Module):
    """What captum can hook: each activation a module that runs once, and no two of them side by side."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.one, self.two, self.three = (nn.Conv2d(c, 6, 3, padding=1) for c in (3, 6, 6))
        self.relu1, self.relu2, self.pool = nn.ReLU(), nn.ReLU(), nn.MaxPool2d(2)
        self.head = nn.Linear(6 * 36, 4)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.two(self.relu1(self.one(x))))
        logits: Tensor = self.head(self.relu2(self.three(x)).flatten(1))
        return logits


class Unhookable(Hookable):
    """The same function; one ReLU that runs twice, in place and as no module, and a pooling that is none either."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.two(F.relu(self.one(x), inplace=True)), 2)
        logits: Tensor = self.head(torch.flatten(self.three(x).relu_(), 1))
        return logits


class Residual(nn.Module):
    """What a ResNet does: batch norm, one in-place ReLU for all, overlapping max pooling, additions, a mean."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.one, self.two, self.three = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.norm, self.act, self.head = nn.BatchNorm2d(6), activation, nn.Linear(6, 4)
        nn.init.normal_(given(self.norm.running_mean), std=0.1)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.act(self.norm(self.one(x))), 3, 2, 1)
        x = self.act(self.two(x) + x)
        y = self.three(x)
        y += x
        logits: Tensor = self.head(self.act(y).mean(dim=(2, 3))) * 20
        return logits


class Gated(Residual):
    """Activations multiplied with each other, as in squeeze and excitation."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.one(x))
        logits: Tensor = self.head((x * torch.sigmoid(4 * self.two(x))).mean(dim=(2, 3))) * 20
        return logits


def test_maps_of_a_linear_model_equal_their_closed_forms() -> None:
    """Behind a ReLU of pixels, which does nothing."""
    model = nn.Sequential(nn.ReLU(), Linear(WEIGHT))
    for method in (GuidedBackprop, DeconvNet):
        assert torch.allclose(method(model)(PICTURES, 0).heatmap, WEIGHT.clamp(min=0).sum(dim=0))
        assert torch.allclose(method(model)(PICTURES, 1).heatmap, (-WEIGHT).clamp(min=0).sum(dim=0))
    largest = GuidedBackprop(model, channels="largest")(PICTURES, 0).heatmap
    assert torch.allclose(largest, WEIGHT.clamp(min=0).amax(dim=0))
    assert torch.allclose(GuidedBackprop(model, channels="sum")(PICTURES, 0).heatmap, WEIGHT.clamp(min=0).sum(dim=0))
    explanation = DeepLIFT(model, baseline=0.25)(PICTURES, 1)
    assert torch.allclose(explanation.heatmap, -(WEIGHT * (PICTURES - 0.25)).sum(dim=1))
    assert torch.allclose(DeepLIFT(model)(PICTURES, 0, baseline=0.5).heatmap, (WEIGHT * (PICTURES - 0.5)).sum(dim=1))
    assert torch.allclose(LRP(model)(PICTURES, 0).heatmap, (WEIGHT * PICTURES).sum(dim=1), atol=1e-7)


def test_relu6_passes_no_gradient_above_its_limit() -> None:
    """y = w relu6(8 x): above 6 / 8 neither method has a gradient; where w is negative neither passes any."""

    class Ceiling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = (WEIGHT * F.relu6(8 * x)).sum(dim=(1, 2, 3))
            return torch.stack([y, -y], dim=1)

    wanted = (8 * WEIGHT.clamp(min=0) * (PICTURES < 0.75)).sum(dim=1)
    assert torch.allclose(GuidedBackprop(Ceiling())(PICTURES, 0).heatmap, wanted)
    assert torch.allclose(DeconvNet(Ceiling())(PICTURES, 0).heatmap, wanted)
    lifted = DeepLIFT(Ceiling())(PICTURES, 0)
    assert torch.allclose(lifted.heatmap, (WEIGHT * (8 * PICTURES).clamp(max=6)).sum(dim=1))


CAPTUM: dict[str, tuple[Callable[[nn.Module], Explainer], Callable[[nn.Module, Tensor, Tensor], Tensor]]] = {
    "guided": (GuidedBackprop, lambda m, x, t: attr.GuidedBackprop(m).attribute(x, t)),
    "deconv": (DeconvNet, lambda m, x, t: attr.Deconvolution(m).attribute(x, t)),
    "deeplift": (
        lambda m: DeepLIFT(m, baseline=0.25),
        lambda m, x, t: torch.cat(
            [attr.DeepLift(m).attribute(one, torch.full_like(one, 0.25), int(c)) for one, c in zip(x.split(1), t, strict=True)]
        ),
    ),
    "lrp": (LRP, lambda m, x, t: attr.LRP(m).attribute(x, t)),
}


@pytest.mark.parametrize("name", CAPTUM)
def test_maps_equal_those_of_captum_on_a_net_that_it_can_hook(name: str) -> None:
    """And on the same function, written so that it cannot."""
    ours, theirs = CAPTUM[name]
    model = Hookable()
    target = model(PICTURES).argmax(dim=1)
    expected = theirs(model, PICTURES.clone().requires_grad_(), target).sum(dim=1).detach()
    assert torch.allclose(ours(model)(PICTURES, target).heatmap, expected, atol=1e-7)
    assert torch.allclose(ours(Unhookable())(PICTURES, target).heatmap, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("activation", "score"),
    [
        (nn.ReLU(inplace=True), "logit"),
        (nn.ReLU6(), "probability"),
        (nn.SiLU(), "logit"),
        (nn.GELU(), "logit"),
        (nn.PReLU(), "logit"),
    ],
)
def test_deeplift_is_complete(activation: nn.Module, score: ScoreKind) -> None:
    explanation = DeepLIFT(Residual(activation), score=score, baseline="blur")(PICTURES)
    assert max(d["completeness_gap"] for d in explanation.diagnostics) < (1e-9 if score == "logit" else 1e-3)
    model = Residual(activation)
    blurred = DeepLIFT(model, score=score)(PICTURES, baseline=PICTURES.flip(-1))
    outputs = model(PICTURES.flip(-1)).detach()
    outputs = outputs if score == "logit" else outputs.softmax(dim=1)
    start = outputs.gather(1, given(blurred.target).unsqueeze(1)).squeeze(1)
    assert torch.allclose(blurred.heatmap.sum(dim=(1, 2)), given(blurred.score) - start, atol=1e-4)


def test_deeplift_follows_a_callable_score_that_is_not_linear() -> None:
    model = Residual(nn.ReLU())
    explanation = DeepLIFT(model, baseline=0.0)(PICTURES, lambda output: output[:, 0].square() - output[:, 1])
    end, start = (model(x)[:, 0].square() - model(x)[:, 1] for x in (PICTURES, torch.zeros_like(PICTURES)))
    assert torch.allclose(explanation.heatmap.sum(dim=(1, 2)), (end - start).detach())


def test_deeplift_warns_if_it_is_not_complete() -> None:
    model = Gated(nn.ReLU())
    with pytest.warns(CompletenessWarning, match="DeepLIFT has no rule for a part of this model"):
        explanation = DeepLIFT(model, baseline=0.0)(PICTURES)
    change = given(explanation.score) - model(torch.zeros_like(PICTURES)).gather(
        1, given(explanation.target).unsqueeze(1)
    ).squeeze(1)
    gap = (explanation.heatmap.sum(dim=(1, 2)) - change).abs() / change.abs()
    assert [d["completeness_gap"] for d in explanation.diagnostics] == pytest.approx(gap.tolist())
    assert any("no rule" in words for d in explanation.diagnostics for words in d["warnings"])


def test_overlapping_windows_of_max_pooling_add_up() -> None:
    """One pixel is the maximum of three windows: what captum's own rule overwrites."""

    class Pool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = F.max_pool2d(x, (1, 3), 1).sum(dim=(1, 2, 3))
            return torch.stack([y, -y], dim=1)

    image = torch.zeros(1, 1, 1, 5).double()
    image[..., 2] = 0.7
    explanation = DeepLIFT(Pool(), baseline=0.0)(image, 0)
    assert torch.allclose(explanation.heatmap, 3 * image[:, 0])
    fallen = DeepLIFT(Pool())(torch.zeros_like(image), 0, baseline=image)
    assert torch.allclose(fallen.heatmap, -3 * image[:, 0])


@pytest.mark.parametrize(
    ("make", "model", "message"),
    [
        (GuidedBackprop, Residual(nn.SiLU()), "the model has silu where this method needs ReLU"),
        (DeconvNet, Residual(nn.GELU()), "the model has gelu"),
        (GuidedBackprop, Linear(WEIGHT), "the model has no ReLU"),
        (LRP, Gated(nn.ReLU()), "captum's LRP does not hold on this model"),
        (lambda m: LRP(m, rule="gamma"), Residual(nn.ReLU()), "no layer with weights between two rectifiers"),
    ],
)
def test_models_that_a_method_does_not_support_are_refused(
    make: Callable[[nn.Module], Explainer], model: nn.Module, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(model.double().eval())(PICTURES)


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_models_whose_calls_cannot_be_intercepted_are_refused() -> None:
    scripted = torch.jit.trace(Residual(nn.ReLU()), PICTURES)
    with pytest.raises(ValueError, match="is TorchScript, whose layers and calls cannot be intercepted"):
        GuidedBackprop(scripted)(PICTURES)

    class Drops(Hookable):
        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            x.relu_()
            logits: Tensor = self.head(self.pool(x).flatten(1))
            return logits

    with pytest.raises(ValueError, match="returns other scores when its calls are intercepted"):
        DeepLIFT(Drops())(PICTURES)

    class Names(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Hookable()

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.model(x)}

    with pytest.raises(TypeError, match="the model returns dict"):
        DeepLIFT(Names())(PICTURES, lambda output: output["logits"][:, 0])
    guided = GuidedBackprop(Names())(PICTURES, lambda output: output["logits"][:, 0])
    assert torch.allclose(guided.heatmap, GuidedBackprop(Hookable())(PICTURES, 0).heatmap)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (DeepLIFT, {"eps": 0.0}, "eps is 0.0"),
        (LRP, {"rule": "flat"}, "rule is 'flat'; give one of epsilon, gamma"),
        (LRP, {"epsilon": 0.0}, "epsilon is .*; give a number above 0"),
        (LRP, {"gamma": -1.0}, "gamma is .*; give a number of at least 0"),
        (GuidedBackprop, {"channels": "mean"}, "channels is 'mean'"),
    ],
)
def test_settings_outside_their_range_are_refused(method: type[Explainer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(Hookable(), **settings)(PICTURES)
