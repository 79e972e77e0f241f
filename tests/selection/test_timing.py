"""Timing: seconds per forward and backward pass, and what the model does not support."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import SmallNet
from selection_tools import (
    AREAS,
    EVALUATION_PASSES,
    Given,
    Timed,
    bright_images,
    left_out,
)
from torch import Tensor

import faithmap as fm
from faithmap.methods.base import Passes
from faithmap.methods.controls import RandomMap
from faithmap.selection import choose
from faithmap.selection.timing import PassTimes

pytestmark = [pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"), pytest.mark.usefixtures("one_thread")]


def test_a_method_with_a_given_layer_fits_a_model_without_a_default_layer(small_net: SmallNet) -> None:
    times, image = PassTimes(0.01, 0.01, {"layer": "no layer"}), torch.rand(1, 3, 32, 32)
    assert times.obstacle(fm.GradCAM(small_net), image) == "does not fit the model: no layer"
    assert times.obstacle(fm.GradCAM(small_net, target_layer="conv1"), image) is None
    assert times.obstacle(fm.methods.gradients.Gradient(small_net), image) is None
    assert PassTimes(0.01, None, {"gradient": "none"}).obstacle(fm.IGOS(small_net), image) == "does not fit the model: none"


class Steep(torch.autograd.Function):
    """Its backward pass takes 0.03 s per image."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, model: Timed) -> Tensor:
        ctx.model = model
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.model.now += 0.03 * len(gradient)
        return gradient, None


def test_forward_and_backward_passes_are_measured() -> None:
    class Uphill(Timed):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(Steep.apply(x, self))

    model = Uphill()
    for chunk_size in (1, 4, 32):
        times = PassTimes.measured(model, bright_images(1)[0], None, chunk_size, model.clock)
        assert times.forward == pytest.approx(0.01)
        assert times.backward == pytest.approx(0.03)
        assert times.seconds(Passes(10, 2)) == pytest.approx(0.16)
    explain = fm.methods.gradients.SmoothGrad(model, samples=20)
    explainers = {"good": Given(model), "smoothgrad": explain, "random_map": RandomMap(model, resolution=8)}
    choice = choose(model, bright_images(2), explainers=explainers, resolution=8, budget=7.0, clock=model.clock, score=AREAS)
    assert left_out(choice) == [
        ("smoothgrad", "would exceed the budget", pytest.approx(2 * (0.01 * (21 + EVALUATION_PASSES) + 0.6)))
    ]
