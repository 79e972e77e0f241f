"""Passes: every method estimates beforehand how many it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from oracles import SmallNet
from torch import Tensor, nn

import faithmap as fm
from faithmap.methods.base import Passes
from faithmap.methods.captum_methods import LRP, GradientSHAP
from faithmap.methods.controls import CentredGaussian
from faithmap.methods.gradients import SmoothGrad
from faithmap.methods.masks.masker import Masker
from faithmap.methods.registry import METHODS

pytestmark = [pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"), pytest.mark.usefixtures("one_thread")]


SETTINGS: dict[str, dict[str, Any]] = {
    "rise": {"masks": 9},
    "mask": {"iterations": 4},
    "occlusion": {"patch": 8, "stride": 8},
    "extremal": {"iterations": 3},
    "lime": {"samples": 60},
    "kernelshap": {"samples": 60},
    "learned_mask": {"masker": Masker(5)},
    "igos": {"iterations": 4, "patience": 9, "path_points": 3},
    "igos_plus": {"iterations": 4, "patience": 9, "path_points": 3},
    "igos_plus_plus": {"iterations": 4, "patience": 9, "path_points": 3},
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_take_their_estimated_passes(
    name: str, small_net: SmallNet, images: Tensor, untouched: Callable[[nn.Module], nn.Module]
) -> None:
    """Exact within two passes; a line search takes half to 1.5 times the estimate."""
    if "captum" in METHODS[name].needs:
        pytest.importorskip("captum")
    explain = METHODS[name].explainer(untouched(small_net), **SETTINGS.get(name, {}))
    estimate, image = explain.passes(images[:1]), images[:1]
    took = explain(image).diagnostics[0]
    assert estimate is not None
    if "igos" in name:
        assert estimate.forward / 2 < took["forward_passes"] < 1.5 * estimate.forward
    else:
        assert abs(estimate.forward - took["forward_passes"]) <= 2
    assert estimate.backward == took["backward_passes"]


def test_estimated_passes_depend_on_the_settings(small_net: SmallNet, images: Tensor) -> None:
    inner = fm.methods.gradients.IntegratedGradients(small_net, samples=5, completeness=False)
    cases = [
        (SmoothGrad(small_net, method=inner, samples=3), Passes(16, 15)),
        (fm.ExpectedFusedCAM(small_net, target_layer="conv2", gradient=fm.Expected(samples=6)), Passes(7, 6)),
        (fm.IGOS(small_net, iterations=2, path_points=3, step=1.0), Passes(2 + 1 + 2 * (3 + 1), 6)),
        (CentredGaussian(small_net), Passes(1, 0)),
        (fm.ScoreCAM(small_net, target_layer=["conv1", "conv2"]), Passes(25, 0)),
        (fm.ExtremalPerturbation(small_net, iterations=3, areas=(0.1, 0.3), variant="dual"), Passes(18, 12)),
        (GradientSHAP(small_net, samples=7, completeness=True), Passes(22, 7)),
        (LRP(small_net, rule="gamma"), Passes(9, 3)),
    ]
    for explain, expected in cases:
        assert explain.passes(images[:1]) == expected
