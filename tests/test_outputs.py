"""What a model returns: logits, probabilities, sigmoids, random numbers; and the line that a warning names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import Patch, SmallNet, given
from torch import Tensor, nn
from torch.nn import functional as F

import faithmap as fm
from faithmap.metrics.functional import adversarial, deletion_insertion
from faithmap.probe import class_probabilities, outputs_of
from faithmap.warning_types import BaselineWarning, LowConfidenceWarning, OutputsWarning

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.warning_types.FaithmapWarning")
METHODS: dict[str, Callable[..., fm.Explainer]] = {
    "igos": lambda model: fm.IGOS(model, resolution=4, iterations=2),
    "rank descent": lambda model: fm.RankDescent(model, resolution=4, iterations=2),
    "occlusion": lambda model: fm.Occlusion(model, patch=8, stride=8),
    "integrated gradients": lambda model: fm.IntegratedGradients(model, samples=4),
    "expected grad-cam": lambda model: fm.ExpectedFusedCAM(model, gradient=fm.Expected(samples=4)),
}
BY_RULES: dict[str, Callable[..., fm.Explainer]] = {
    "deeplift": lambda model: fm.DeepLIFT(model, score="probability"),
    "excitation": lambda model: fm.ExcitationBackprop(model, score="probability"),
}


class Returning(nn.Module):
    """A model whose logits pass through a function."""

    def __init__(self, net: nn.Module, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.function = net, function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.net(x))


def softmax(z: Tensor) -> Tensor:
    return z.softmax(dim=1)


@pytest.mark.parametrize("name", METHODS | BY_RULES)
@pytest.mark.parametrize("stated", [None, "probabilities"])
def test_a_model_that_returns_probabilities_is_explained_as_the_one_that_returns_its_logits(
    small_net: SmallNet, images: Tensor, name: str, stated: Any
) -> None:
    """The score is the probability, not a second softmax of it; the maps agree, since their gradient is the same."""
    if name == "deeplift":
        pytest.importorskip("captum")
    method = (METHODS | BY_RULES)[name]
    logits = method(fm.Classifier(small_net))(images, 1)
    probabilities = method(fm.Classifier(Returning(small_net, softmax), outputs=stated))(images, 1)
    assert torch.allclose(given(probabilities.score), given(logits.score), atol=1e-6)
    assert torch.allclose(probabilities.heatmap, logits.heatmap, atol=1e-4 * float(logits.heatmap.abs().max()))


class Detector(nn.Module):
    """As the classifiers of a detection library: logits while it is trained, else (probabilities, logits)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        z = self.net(x)
        return z if self.training else (z.softmax(dim=1), z)


class Fitted(nn.Module):
    """A classifier of another library, with arrays in and ``predict_proba`` out."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def predict_proba(self, rows: Any) -> Any:
        return self.net(torch.from_numpy(rows)).softmax(dim=1).double().detach().numpy()

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.predict_proba(x.detach().numpy()))


@pytest.mark.parametrize("kind", [Detector, Fitted])
def test_other_libraries_that_return_probabilities_are_explained_as_their_logits(
    small_net: SmallNet, images: Tensor, kind: type[nn.Module]
) -> None:
    for name in ("occlusion", "rank descent") if kind is Detector else ("occlusion",):
        with pytest.warns(OutputsWarning, match="the model returns probabilities"):
            found = METHODS[name](fm.Classifier(kind(small_net.eval())))(images, 1)
        expected = METHODS[name](fm.Classifier(small_net.eval()))(images, 1)
        assert torch.allclose(given(found.score).float(), given(expected.score), atol=1e-6)
        assert torch.allclose(found.heatmap.float(), expected.heatmap, atol=1e-4 * float(expected.heatmap.abs().max()))
    if kind is Fitted:
        with pytest.raises(ValueError, match=r"no gradient to the model.*RISE, Occlusion, LIME"):
            fm.IntegratedGradients(fm.Classifier(Fitted(small_net)))(images, 1)


def test_deletion_and_insertion_read_probabilities_as_they_are(images: Tensor) -> None:
    net = Patch(slice(8, 16), slice(8, 16))
    maps = torch.rand(len(images), 4, 4, generator=torch.Generator().manual_seed(0))
    expected = deletion_insertion(net, images, maps, 0)
    found = deletion_insertion(Returning(net, softmax), images, maps, 0)
    assert torch.allclose(found.deletion.scores, expected.deletion.scores, atol=1e-6)
    assert torch.allclose(found.insertion.scores, expected.insertion.scores, atol=1e-6)


def test_an_attack_on_probabilities_is_the_attack_on_their_logits(small_net: SmallNet, images: Tensor) -> None:
    expected = adversarial.mi_fgsm(fm.Classifier(small_net), images.clamp(0, 1), steps=2)
    found = adversarial.mi_fgsm(fm.Classifier(Returning(small_net, softmax)), images.clamp(0, 1), steps=2)
    assert torch.allclose(found.images, expected.images, atol=1e-5)
    assert torch.allclose(found.adversarial_probabilities, expected.adversarial_probabilities, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (softmax, "probabilities"),
        (torch.sigmoid, "probabilities"),
        (lambda z: z, "logits"),
        (lambda z: z - z.amin(dim=1, keepdim=True), "logits"),
        (lambda z: 0.5 + 0.01 * z.tanh(), "logits"),
        (lambda z: {"logits": z.softmax(dim=1)}, "probabilities"),
        (lambda z: (z.softmax(dim=1).half(), z), "probabilities"),
    ],
)
def test_probabilities_are_recognised_and_nothing_else(
    small_net: SmallNet, images: Tensor, function: Callable[[Tensor], Any], expected: str
) -> None:
    model = Returning(small_net, function)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert outputs_of(model, images, model(images)) == expected
    assert [warning.category for warning in caught] == ([OutputsWarning] if expected == "probabilities" else [])


def test_logits_that_look_like_probabilities_for_one_image_are_logits(images: Tensor) -> None:
    """One of the changed images gives it away."""

    class Lucky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            level = x.mean(dim=(1, 2, 3)) / images[0].mean()
            return torch.stack([0.25 * level, 0.75 * level], dim=1)

    model = Lucky()
    assert torch.allclose(model(images[:1]).sum(), torch.tensor(1.0))
    assert outputs_of(model, images[:1], model(images[:1])) == "logits"


def test_a_statement_is_believed_without_a_warning(small_net: SmallNet, images: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutputsWarning)
        model = fm.Classifier(Returning(small_net.eval(), softmax), outputs="logits")
        assert torch.allclose(class_probabilities(model, images), model(images).softmax(dim=1))
        model = fm.Classifier(Returning(small_net, softmax), outputs="probabilities")
        assert torch.allclose(class_probabilities(model, images), model(images))


def test_a_model_with_several_labels_has_a_sigmoid_for_each(small_net: SmallNet, images: Tensor) -> None:
    """No label is improbable because another one is likelier."""
    net = Returning(small_net.eval(), lambda z: 0.1 * z)
    model, label = fm.Classifier(net, outputs="sigmoid"), net(images).argmin(dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LowConfidenceWarning)
        explanation = fm.Occlusion(model, patch=8, stride=8)(images, label)
    expected = net(images).sigmoid().gather(1, label.unsqueeze(1)).squeeze(1)
    assert torch.allclose(given(explanation.score), expected)
    assert explanation.settings["outputs"] == "sigmoid"


def test_a_single_logit_is_explained_by_its_sigmoid(images: Tensor) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 1))
    with pytest.raises(ValueError, match=r"single logit.* or give Classifier\(outputs='sigmoid'\)"):
        fm.Gradient(fm.Classifier(net), score="probability")(images)
    explanation = fm.Gradient(fm.Classifier(net, outputs="sigmoid"), score="probability")(images)
    assert torch.allclose(given(explanation.score), net(images).sigmoid().squeeze(1))


def test_unknown_outputs_are_refused() -> None:
    with pytest.raises(ValueError, match="outputs is 'softmax'; give 'logits', 'probabilities' or 'sigmoid', or None"):
        fm.Classifier(nn.Flatten(), outputs="softmax")  # type: ignore[arg-type]


def test_a_model_that_is_random_in_evaluation_mode_is_a_warning(images: Tensor) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 3))
    with pytest.warns(OutputsWarning, match="two passes of the same image differ"):
        fm.Gradient(Returning(net, F.dropout))(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutputsWarning)
        fm.Gradient(Returning(net, lambda z: (torch.rand(1), z)[1]))(images)


def test_what_a_model_returns_is_in_the_diagnostics_of_each_image_and_warned_of_once(
    small_net: SmallNet, images: Tensor
) -> None:
    with pytest.warns(OutputsWarning) as caught:
        explanation = fm.GradCAM(Returning(small_net, softmax))(images)
    (message,) = [str(warning.message) for warning in caught if warning.category is OutputsWarning]
    assert [image["warnings"][0] for image in explanation.diagnostics] == [message] * len(images)


def test_a_warning_names_the_class_and_the_users_line(small_net: SmallNet, images: Tensor) -> None:
    model = fm.Classifier(small_net, labels=[f"kind {i}" for i in range(10)])
    for name, method in METHODS.items():
        with pytest.warns(LowConfidenceWarning) as caught:
            method(model)(images[:1], int(small_net(images[:1]).argmin()))
        (warning,) = (w for w in caught if w.category is LowConfidenceWarning)
        assert "the explained class 'kind " in str(warning.message)
        assert "the model predicts 'kind " in str(warning.message)
        assert Path(warning.filename) == Path(__file__), name


@pytest.mark.parametrize("method", ["rank descent", "igos", "integrated gradients"])
def test_a_baseline_that_is_still_recognised_is_a_warning_with_the_best_alternative(images: Tensor, method: str) -> None:
    """The class is brightness: a blur keeps it, black removes it."""
    image = torch.full((1, 3, 32, 32), 0.9)
    model = fm.Classifier(Patch(slice(0, 32), slice(0, 32)))
    with pytest.warns(BaselineWarning, match=r"the baseline still scores 1.000 of the image's 1.000; .*'black' leaves 0.000"):
        METHODS[method](model)(image, 0, baseline="blur")


def test_curves_over_a_baseline_that_is_still_recognised_are_a_warning() -> None:
    image, model = torch.full((1, 3, 32, 32), 0.9), fm.Classifier(Patch(slice(0, 32), slice(0, 32)))
    with pytest.warns(BaselineWarning, match=r"image 0: the baseline still scores 1.000 of the image's 1.000"):
        deletion_insertion(model, image, torch.rand(1, 4, 4), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", BaselineWarning)
        deletion_insertion(model, image, torch.rand(1, 4, 4), 0, baseline="black")
