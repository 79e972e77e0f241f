"""Rules of LRP: by hand, and against captum's own on a net that it can hook."""

from __future__ import annotations

import pytest
import torch
from oracles import Linear
from torch import Tensor, nn

from faithmap import Classifier
from faithmap.methods.captum_methods import LRP
from faithmap.methods.captum_methods.lrp import Rule

attr = pytest.importorskip("captum.attr")
pytestmark = pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning")

PICTURES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(5)).double() + 0.01
WEIGHT = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(4)).double()


class Net(nn.Module):
    """Whose layers captum knows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.one, self.two, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(24, 4)
        self.relu1, self.relu2, self.pool = nn.ReLU(), nn.ReLU(), nn.AvgPool2d(2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.relu2(self.two(self.relu1(self.one(x))))).flatten(1))
        return logits


@pytest.mark.parametrize("rule", ["gamma", "alpha1_beta0"])
def test_a_rule_between_two_rectifiers_equals_that_of_captum(rule: Rule) -> None:
    lrp_rules = pytest.importorskip("captum.attr._utils.lrp_rules")
    model = Net()
    target = model(PICTURES).argmax(dim=1)
    ours = LRP(model, rule=rule, gamma=0.5)(PICTURES, target).heatmap
    model.two.rule = lrp_rules.GammaRule(0.5) if rule == "gamma" else lrp_rules.Alpha1_Beta0_Rule()
    expected = attr.LRP(model).attribute(PICTURES.clone().requires_grad_(), target).sum(dim=1).detach()
    assert torch.allclose(ours, expected, rtol=1e-5, atol=1e-8)
    assert not torch.allclose(ours, LRP(Net())(PICTURES, target).heatmap, rtol=0.01)


def test_rules_equal_their_values_by_hand() -> None:
    """Two pixels a, b; h = relu(2 a - b), relu(.): y = 3 h. Under gamma = 1 the weight of a counts double."""

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[2.0, -1.0]]).double())

        def forward(self, x: Tensor) -> Tensor:
            h = nn.functional.linear(torch.relu(x.flatten(1)), self.weight).relu()
            return torch.cat([3 * h, -h], dim=1)

    image = torch.tensor([[[[0.6, 0.4]]]]).double()
    shares: dict[Rule, tuple[float, float]] = {"epsilon": (1.2, -0.4), "gamma": (2.4, -0.4), "alpha1_beta0": (1.2, 0.0)}
    for rule, wanted in shares.items():
        share = torch.tensor(wanted).double()
        explanation = LRP(Tiny(), rule=rule, gamma=1.0)(image, 0)
        assert torch.allclose(explanation.heatmap[0, 0], 3 * 0.8 * share / share.sum()), rule
        assert explanation.diagnostics[0]["completeness_gap"] < 1e-6
    larger = LRP(Tiny(), epsilon=0.2)(image, 0).heatmap[0, 0]
    kept = 0.8 / (0.8 + 0.2)
    assert torch.allclose(larger, 2.4 * torch.tensor([1.2, -0.4]).double() / 0.8 * kept * (2.4 / 2.6), rtol=0.2)


def test_activations_pass_relevance_unchanged_and_biases_absorb_it() -> None:
    class Curved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = (WEIGHT * x).sum(dim=(1, 2, 3)) + 2
            return torch.stack([4 * torch.tanh(z / 9), nn.functional.silu(z)], dim=1)

    z = (WEIGHT * PICTURES).sum(dim=(1, 2, 3)) + 2
    for target, score in ((0, 4 * torch.tanh(z / 9)), (1, nn.functional.silu(z))):
        explanation = LRP(Curved())(PICTURES, target)
        assert torch.allclose(explanation.heatmap, (WEIGHT * PICTURES).sum(dim=1) * (score / z).view(-1, 1, 1), atol=1e-6)


def test_relevance_passes_through_additions_constant_factors_and_means() -> None:
    """With ReLU alone, relevance is the image times the gradient."""

    class Everything(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
            self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(6, 4)
            self.double().eval()

        def forward(self, x: Tensor) -> Tensor:
            x = (1 - x) / 0.5
            x = x + self.norm(self.one(x)).relu()
            y = 2 * x
            y -= self.two(x).relu_()
            pooled = torch.cat([y.mean(dim=(2, 3)), y.amax(dim=(2, 3))], dim=1)
            logits: Tensor = -self.head(pooled * 2.5)
            return logits

    model = Everything()
    images = PICTURES.clone().requires_grad_()
    scores = model(images)
    target = scores.argmax(dim=1)
    (slope,) = torch.autograd.grad(scores.gather(1, target.unsqueeze(1)).sum(), images)
    assert torch.allclose(LRP(model)(PICTURES).heatmap, (PICTURES * slope).sum(dim=1), atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm((3, 8, 8)), nn.Softmax(dim=1), nn.Sigmoid(), nn.GroupNorm(1, 3), nn.TransformerEncoderLayer(8, 2, 8, 0.0)],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_without_a_rule_are_refused(layer: nn.Module) -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer(x.flatten(1, 2)).view_as(x) if isinstance(self.layer, nn.TransformerEncoderLayer) else self.layer(x)
            logits: Tensor = Linear(WEIGHT)(x)
            return logits

    with pytest.raises(ValueError, match="captum's LRP does not hold on this model"):
        LRP(Around().double().eval())(PICTURES, 0)


def test_the_relevance_of_a_classifier_refers_to_normalised_pixels() -> None:
    model = Classifier(Linear(WEIGHT), mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7)).double()
    images = PICTURES.clamp(max=1)
    normalised = (images - model.mean) / model.std
    assert torch.allclose(LRP(model)(images, 0).heatmap, (WEIGHT * normalised).sum(dim=1), atol=1e-7)


def test_the_relevance_of_a_probability_is_shared_among_the_outputs() -> None:
    """Of two outputs z and -z it is the logistic function of 2 z, which grows by s(2 z) - 1/2 on the way from 0."""
    explanation = LRP(Linear(WEIGHT), score="probability")(PICTURES, 0)
    z = (WEIGHT * PICTURES).sum(dim=(1, 2, 3))
    change = (torch.sigmoid(2 * z) - 0.5).view(-1, 1, 1)
    assert torch.allclose(explanation.heatmap, (WEIGHT * PICTURES).sum(dim=1) / z.view(-1, 1, 1) * change, rtol=1e-2, atol=1e-5)
