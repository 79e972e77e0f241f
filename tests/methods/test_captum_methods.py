"""What holds for all of captum's methods: batches, chunks, precision, what is left behind, and the embedded model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from oracles import SmallNet, Untouched
from torch import Tensor, nn

import faithmap as fm
from faithmap import image_generators
from faithmap.methods.captum_methods import LIME, LRP, DeconvNet, DeepLIFT, GradientSHAP, GuidedBackprop, KernelSHAP
from faithmap.methods.references import RandomNoise

pytest.importorskip("captum")
pytestmark = [pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning"), pytest.mark.usefixtures("one_thread")]

EXPLAINERS: dict[str, Callable[..., fm.Explainer]] = {
    "guided_backprop": GuidedBackprop,
    "deconvnet": DeconvNet,
    "deeplift": lambda m, **k: DeepLIFT(m, baseline="blur", **k),
    "deeplift_probability": lambda m, **k: DeepLIFT(m, score="probability", **k),
    "lrp": LRP,
    "lime": lambda m, **k: LIME(m, cells=3, samples=12, **k),
    "kernelshap": lambda m, **k: KernelSHAP(m, cells=3, samples=12, **k),
    "gradientshap": lambda m, **k: GradientSHAP(m, samples=4, references=RandomNoise(), noise_std=0.02, **k),
}

LRP_RULES: dict[str, Callable[..., fm.Explainer]] = {
    "gamma": lambda m, **k: LRP(m, rule="gamma", **k),
    "alpha1_beta0": lambda m, **k: LRP(m, rule="alpha1_beta0", **k),
}


@pytest.mark.parametrize("name", EXPLAINERS)
def test_batch_chunk_and_order_do_not_matter(name: str, small_net: SmallNet, images: Tensor) -> None:
    small_net.double()
    images = images.double()
    whole = EXPLAINERS[name](small_net)(images).heatmap
    assert whole.shape == (3, 32, 32)
    assert torch.allclose(EXPLAINERS[name](small_net, chunk_size=1)(images).heatmap, whole, rtol=1e-6, atol=1e-7)
    assert torch.allclose(EXPLAINERS[name](small_net, chunk_size=2)(images).heatmap, whole, rtol=1e-6, atol=1e-7)
    last = EXPLAINERS[name](small_net)(images[2:], generator=image_generators(0, [2])).heatmap
    assert torch.allclose(last, whole[2:], rtol=1e-6, atol=1e-7)


def everything(model: nn.Module) -> list[tuple[set[str], list[int], list[list[int]]]]:
    """Names of a module's attributes, where its weights lie in memory, and its hooks."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        (set(vars(m)), [p.data_ptr() for p in m.parameters()], [list(getattr(m, kind)) for kind in kinds])
        for m in model.modules()
    ]


@pytest.mark.parametrize("name", [*EXPLAINERS, "gamma"])
def test_the_model_is_left_unchanged(name: str, small_net: SmallNet, images: Tensor, untouched: Untouched) -> None:
    def alpha1_beta0(model: nn.Module) -> fm.Explainer:
        return LRP(fm.Classifier(model), rule="alpha1_beta0")

    make = EXPLAINERS.get(name, alpha1_beta0)
    if name == "gamma":
        small_net.set_submodule("norm", nn.Identity())
    small_net.train()
    small_net.relu.register_forward_hook(lambda module, inputs, output: None)
    untouched(small_net)
    initial = everything(small_net)
    loss = small_net.conv1(images).sum()
    with torch.no_grad():
        make(small_net)(images)
    assert everything(small_net) == initial
    assert images.grad is None
    assert not images.requires_grad
    torch.autograd.grad(loss, small_net.conv1.weight)  # a graph that was there before can still be gone through

    for failing in range(1, 3):
        calls = [0]

        def fails(output: Tensor, calls: list[int] = calls, failing: int = failing) -> Tensor:
            calls[0] += 1
            if calls[0] > failing:
                raise RuntimeError("a score that fails")
            return output[:, 0]

        with pytest.raises(RuntimeError, match="a score that fails"):
            make(small_net)(images, fails)
        assert everything(small_net) == initial


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet", "deeplift", "lrp"])
def test_a_model_that_fails_under_captums_hooks_is_left_unchanged(name: str, small_net: SmallNet, images: Tensor) -> None:
    """In its n-th pass, whichever that is: while it is watched, inside captum's forward pass, or later."""

    class Fails(nn.Module):
        def __init__(self, passes: int) -> None:
            super().__init__()
            self.left = passes

        def forward(self, x: Tensor) -> Tensor:
            self.left -= 1
            if self.left == 0:
                raise RuntimeError("a layer that fails")
            return x

    for n in (1, 2, 3):
        small_net.set_submodule("drop", Fails(n))
        initial = everything(small_net)
        with pytest.raises(RuntimeError, match="a layer that fails"):
            EXPLAINERS[name](small_net)(images[:1])
        assert everything(small_net) == initial


@pytest.mark.parametrize("name", ["guided_backprop", "deeplift", "lrp"])
def test_a_compiled_model_gets_the_map_of_the_plain_one(name: str, small_net: SmallNet, images: Tensor) -> None:
    plain = EXPLAINERS[name](small_net)(images[:1]).heatmap
    compiled = cast(nn.Module, torch.compile(small_net, backend="eager"))
    assert torch.allclose(EXPLAINERS[name](compiled)(images[:1]).heatmap, plain, rtol=1e-4, atol=1e-5)
    assert torch.allclose(EXPLAINERS[name](fm.Classifier(compiled))(images[:1]).heatmap, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["guided_backprop", "deeplift", "gradientshap", "lime"])
def test_lower_precision_stays_within_its_tolerance(name: str, small_net: SmallNet, images: Tensor) -> None:
    """Within a tenth of the map's length in bfloat16, by autocast or throughout; measured 0.006 to 0.09, guided the largest."""
    with torch.no_grad():
        small_net.conv1.weight *= 4  # so that scores differ by more than is rounded away
        small_net.conv2.weight *= 4
        images[:, :, 8:20, 10:24] *= 0.2
    settings: dict[str, Any] = {"cells": 3, "samples": 60, "score": "logit"} if name == "lime" else {}
    make: Callable[..., fm.Explainer] = LIME if name == "lime" else EXPLAINERS[name]
    single = make(fm.Classifier(small_net), **settings)(images, 0).heatmap
    lower = make(fm.Classifier(small_net), autocast=torch.bfloat16, **settings)(images, 0).heatmap
    assert float((lower - single).norm() / single.norm()) < 0.1
    throughout = make(fm.Classifier(small_net.bfloat16()), **settings)(images, 0).heatmap
    assert float((throughout - single).norm() / single.norm()) < 0.1


def test_a_score_that_depends_on_no_pixel_has_an_empty_map(small_net: SmallNet, images: Tensor) -> None:
    for name in ("guided_backprop", "deconvnet", "deeplift", "lrp"):
        with pytest.warns(fm.EmptyHeatmapWarning):
            explanation = EXPLAINERS[name](small_net)(images[:1], lambda output: torch.ones(len(output)))
        assert torch.equal(explanation.heatmap, torch.zeros(1, 32, 32))


@pytest.fixture(scope="module")
def lite0() -> fm.Classifier:
    return fm.load("efficientnet_lite0")


@pytest.mark.parametrize("name", [*sorted(set(EXPLAINERS) - {"deconvnet", "deeplift_probability"}), *LRP_RULES])
def test_the_embedded_model_is_explained(name: str, lite0: fm.Classifier, untouched: Untouched) -> None:
    """Its ReLU6 are functions' work, its additions in place, and its convolutions pad by themselves."""
    untouched(lite0)
    photo = lite0.read(fm.sample_photo())[:, :, 80:144, 80:144]
    make: Callable[..., fm.Explainer] = {**EXPLAINERS, **LRP_RULES}[name]
    explanation = make(lite0)(photo)
    assert bool(explanation.heatmap.isfinite().all())
    assert float(explanation.heatmap.min()) < 0 < float(explanation.heatmap.max())
    if name.startswith("deeplift") or name == "kernelshap":
        assert explanation.diagnostics[0]["completeness_gap"] < 1e-3
    if name in LRP_RULES:
        assert explanation.diagnostics[0]["completeness_gap"] < 10, "no division by something near 0"


def test_captum_is_loaded_only_when_it_is_used() -> None:
    report = "import faithmap.methods.registry, faithmap.methods.captum_methods, sys; print('captum' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_without_captum_one_line_says_what_to_install(
    small_net: SmallNet, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("captum", "captum.attr"):
        monkeypatch.setitem(sys.modules, name, None)
    for make in EXPLAINERS.values():
        with pytest.raises(ModuleNotFoundError, match=r"^this method is captum's; pip install 'faithmap\[captum\]'$"):
            make(small_net)(images)
