"""Every method that removes pixels says so if the model still recognises the class in what they become."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from method_tools import TinyNet, cheap, small_images
from torch import Tensor, nn

import faithmap as fm
from faithmap.baselines import make_baseline
from faithmap.methods.cams import CAM, Expected, Integrated
from faithmap.methods.registry import METHODS
from faithmap.metrics.functional import deletion_insertion
from faithmap.warning_types import BaselineWarning

pytestmark = [
    pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"),
    pytest.mark.filterwarnings("always::faithmap.warning_types.BaselineWarning"),
    pytest.mark.usefixtures("one_thread"),
]

NEVER_SHOWN = "gradient_times_input"
"""The method that multiplies by the difference from a baseline, and never shows the baseline to the model."""


def shows_a_baseline(explain: fm.Explainer) -> bool:
    settings = {setting.name for setting in fields(explain)}
    path = isinstance(explain, CAM) and isinstance(explain.gradient, (Expected, Integrated))
    return path or bool(settings & {"baseline", "references"})


@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_warns_once_for_each_image_of_a_baseline_that_is_still_recognised(name: str, score: str) -> None:
    images = small_images()
    explain = cheap(name, TinyNet(), score=score)
    with warnings.catch_warnings(record=True) as caught:
        explanation = explain(images, 1, baseline=0.97 * images)
    messages = [str(warning.message) for warning in caught if warning.category is BaselineWarning]
    if name == NEVER_SHOWN or not shows_a_baseline(explain):
        assert messages == []
        return
    assert [message.partition(";")[0] for message in messages] == [
        "image 0: the baseline still scores 0.868 of the image's 0.878",
        "image 1: the baseline still scores 0.798 of the image's 0.803",
    ]
    for image, message in zip(explanation.diagnostics, messages, strict=True):
        assert message.partition(": ")[2] in image["warnings"]
        assert image["advice_passes"] >= len(fm.BASELINES)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_does_not_warn_of_a_baseline_without_the_class(name: str) -> None:
    """Class 1 of this network is that of bright parts; a test takes one pass at most."""
    images = small_images()
    with warnings.catch_warnings():
        warnings.simplefilter("error", BaselineWarning)
        prior = {"prior": None} if name == "rank_descent" else {}  # its references are blurs, which show the class
        explanation = cheap(name, TinyNet(), **prior)(images, 1, baseline="grey")
    assert all(image.get("advice_passes", 0) <= 1 for image in explanation.diagnostics)


def test_rank_descent_says_that_the_references_of_its_prior_show_the_class() -> None:
    with pytest.warns(BaselineWarning, match="image 0: in the prior, the baseline still scores"):
        cheap("rank_descent", TinyNet())(small_images(1), 1, baseline="grey")


class Contrast(nn.Module):
    """Class 0 of ten is the likelier the lower the contrast: 0.387 at a contrast of 0.1, 0.94 at 0.078, 0.004 at 0.2."""

    def forward(self, x: Tensor) -> Tensor:
        contrast = x.flatten(1).std(dim=1, unbiased=False) / 0.1
        more, less = (contrast - 1).relu(), (1 - contrast).relu()
        logit = -0.46 - 5 * more + 2.28 * less + 14.1 * (0.97 - contrast).relu()
        return torch.cat([logit.unsqueeze(1) + math.log(9), x.new_zeros(len(x), 9)], dim=1)


WAVE = (0.5 + 0.1 * 2**0.5 * torch.cos(math.pi * (torch.arange(56) + 0.5) / 56)).expand(1, 3, 56, 56).contiguous()
"""An image of one wave, which the default blur hardly changes, and the strong one only makes fainter."""

REMOVING: dict[str, Callable[..., object]] = {
    "rank descent": lambda **more: fm.RankDescent(Contrast(), resolution=4, iterations=1, prior=None)(WAVE, 0, **more),
    "I-GOS": lambda **more: fm.IGOS(Contrast(), resolution=4, iterations=1)(WAVE, 0, **more),
    "Integrated Gradients": lambda **more: fm.IntegratedGradients(Contrast(), samples=2, baseline="blur")(WAVE, 0, **more),
    "deletion and insertion": lambda **more: deletion_insertion(Contrast(), WAVE, torch.rand(1, 4, 4), 0, **more),
}


@pytest.mark.parametrize("name", REMOVING)
def test_the_alternatives_are_measured_before_one_is_advised(name: str) -> None:
    """The strong blur would be worse; of all named baselines, noise alone removes the class."""
    scores = {kind: Contrast()(make_baseline(kind, WAVE)).softmax(dim=1)[0, 0].item() for kind in fm.BASELINES}
    assert scores["blur"] == pytest.approx(0.399, abs=1e-3)
    assert scores["strong_blur"] == pytest.approx(0.94, abs=5e-3)
    assert min(scores[kind] for kind in scores if kind != "noise") > 0.39
    with pytest.warns(BaselineWarning, match=r"scores 0.399 of the image's 0.387; for this image baseline='noise' leaves 0.00"):
        REMOVING[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error", BaselineWarning)
        REMOVING[name](baseline="noise")


def start_of(explain: fm.Explainer) -> str | None:
    """The setting of a method that is a baseline or references; None without one."""
    if isinstance(explain, fm.CAM):
        return None if explain.gradient.origin is None else "gradient"
    return next((setting.name for setting in fields(explain) if setting.name in ("baseline", "references")), None)


@pytest.mark.filterwarnings("ignore::faithmap.warning_types.BaselineWarning")
@pytest.mark.parametrize("name", METHODS)
def test_zero_is_the_colour_that_the_model_normalises_to_0(name: str) -> None:
    """As a setting, and given to the call: the map of the constant colour, with every method that has a baseline."""
    colour = (0.4, 0.45, 0.5)
    model, images = fm.Classifier(TinyNet(), mean=colour, std=(0.2, 0.2, 0.2)), small_images(1)
    explain = cheap(name, model)
    setting = start_of(explain)
    if setting is None:
        return
    own = explain.gradient.starting_from("zero") if isinstance(explain, fm.CAM) else "zero"

    def heatmap(call: Any, **settings: Any) -> Tensor:
        return cheap(name, model, **settings)(images, 1, baseline=call, generator=[torch.Generator().manual_seed(2)]).heatmap

    expected = heatmap(fm.Constant(colour))
    assert torch.allclose(heatmap("zero"), expected, atol=1e-6)
    assert torch.allclose(heatmap(None, **{setting: own}), expected, atol=1e-6)
