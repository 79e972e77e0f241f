"""Candidates: methods that do not fit the model are left out with the reason, and wrong arguments are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import SmallNet
from selection_tools import (
    Timed,
    bright_images,
)
from torch import Tensor, nn

import faithmap as fm
from faithmap.methods.controls import RandomMap
from faithmap.methods.masks.masker import Masker
from faithmap.selection import choose, explainers_for

pytestmark = [pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"), pytest.mark.usefixtures("one_thread")]


def test_methods_that_do_not_fit_the_model_are_left_out(untouched: Callable[[nn.Module], nn.Module]) -> None:
    """A model without a spatial layer has no class activation maps; one without gradients neither those nor I-GOS."""
    flat = untouched(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3)))
    names = ["gradcam", "eigencam", "gradient", "igos"]
    pictures = [torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    choice = choose(flat, pictures, explainers=explainers_for(flat, names, resolution=4), resolution=4, budget=1000)
    reasons = {out.name: out.reason for out in choice.left_out}
    assert set(reasons) == {"gradcam", "eigencam"}
    assert all("does not fit the model: no layer of the model has a spatial output" in reason for reason in reasons.values())

    class Cut(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    blind = untouched(Cut().train())
    pictures = [torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    choice = choose(blind, pictures, explainers=explainers_for(blind, names, resolution=4), resolution=4, budget=1000)
    assert {out.name for out in choice.left_out} == {"gradcam", "gradient", "igos"}
    assert {method.name for method in choice.ranking} == {"eigencam", "random_map", "gaussian", "edges"}


def test_missing_requirements_are_reported_before_any_method_runs(small_net: SmallNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    names = ["learned_mask", "lime", "guided_backprop", "eigencam"]
    pictures = [torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    descriptions: list[str] = []
    choice = choose(
        small_net,
        pictures,
        explainers=explainers_for(small_net, names, resolution=4),
        resolution=4,
        budget=1000,
        progress=lambda _, description: descriptions.append(description),
    )
    reasons = {out.name: out.reason for out in choice.left_out}
    assert reasons.keys() == {"learned_mask", "lime", "guided_backprop"}
    assert reasons["lime"] == "cannot be run: this method is captum's; pip install 'faithmap[captum]'"
    assert reasons["learned_mask"].startswith("cannot be run: masker is None; train one")
    assert not any(name in description for name in reasons for description in descriptions)
    with pytest.raises(ValueError, match=r"no method could be run; lime: cannot be run: .*; and 1 more"):
        choose(small_net, pictures, explainers=explainers_for(small_net, ["lime", "kernelshap"], resolution=4), resolution=4)
    with pytest.raises(ValueError, match="'gradcamm' is no method; give some of igos"):
        explainers_for(small_net, ["gradcamm"])
    mexplained = explainers_for(small_net, ["learned_mask"], masker=Masker(5), resolution=4)
    assert choose(small_net, pictures, explainers=mexplained, resolution=4, budget=1000).best.name == "learned_mask"


def test_a_given_layer_is_used(small_net: SmallNet) -> None:
    explainers = {"mine": fm.GradCAM(small_net, target_layer="conv1"), "wrong": fm.ScoreCAM(small_net, target_layer="conv9")}
    choice = choose(small_net, [torch.rand(1, 3, 32, 32)], explainers=explainers, resolution=4, budget=1000)
    (out,) = choice.left_out
    assert out.name == "wrong"
    assert out.reason.startswith("cannot be run: ")
    assert "conv9" in out.reason


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": []}, "there are no images"),
        ({"images": [torch.rand(2, 3, 16, 16)]}, "an image has shape"),
        ({"resolution": 17}, "at most one cell per pixel"),
        ({"budget": 0.0}, "give seconds above 0"),
        ({"score": "area"}, "score 'area' and chunk_size 32; give seconds above 0, one of jury, insertion_minus_deletion"),
        ({"keys": [1]}, "1 keys for 3 images"),
        ({"budget": float("nan")}, "budget is nan"),
        ({"chunk_size": 0}, "at least 1 image"),
        ({"explainers": {}}, "has only controls"),
        ({"explainers": {"edges": RandomMap(Timed())}}, "has only controls"),
        ({"target": [0, 1]}, "target has 2 entries for 3 images"),
        ({"target": torch.tensor([0])}, "target has 1 entries for 3 images"),
    ],
)
def test_wrong_arguments_are_refused(settings: dict[str, Any], message: str) -> None:
    model = Timed()
    given = {"images": bright_images(3), "resolution": 8, **settings}
    with pytest.raises(ValueError, match=message):
        choose(model, given.pop("images"), **given)
