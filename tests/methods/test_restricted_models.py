"""Models without gradients or without layers that can be observed: a method works, or says in one line which others do."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager

import pytest
import torch
from method_tools import FEWEST, TinyNet, cheap, small_images
from torch import Tensor, nn

import faithmap as fm
from faithmap.methods.registry import METHODS

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"),
    pytest.mark.filterwarnings("ignore:.*autograd kernel was not registered:UserWarning"),
    pytest.mark.usefixtures("one_thread"),
]

SETTINGS = {**FEWEST, "occlusion": {"patch": 8, "stride": 8}, "rank_descent": {**FEWEST["rank_descent"], "prior": None}}

BY_CALLS = {"guided_backprop", "deconvnet", "deeplift", "lrp"}
"""Methods that intercept the calls of a model."""

EXCITATION = {"excitation_backprop", "contrastive_excitation_backprop"}

NO_GRADIENT = {name for name, method in METHODS.items() if "gradient" not in method.needs}
NO_LAYER = {name for name, method in METHODS.items() if "layer" not in method.needs} - BY_CALLS


def plain() -> nn.Sequential:
    net = TinyNet()
    return nn.Sequential(net.stem, nn.ReLU(), net.body, nn.ReLU(), net.pool, nn.Flatten(), net.head).eval()


class Inside(nn.Module):
    """Switches gradients off by itself."""

    def __init__(self, mode: Callable[[], AbstractContextManager[object]]) -> None:
        super().__init__()
        self.net, self.mode = plain(), mode

    def forward(self, x: Tensor) -> Tensor:
        with self.mode():
            logits: Tensor = self.net(x)
            return logits


def dynamic_int8() -> nn.Module:
    model: nn.Module = torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear})
    return model


def static_int8() -> nn.Module:
    model = torch.ao.quantization.QuantWrapper(plain()).eval()
    model.qconfig = torch.ao.quantization.get_default_qconfig(torch.backends.quantized.engine)
    torch.ao.quantization.prepare(model, inplace=True)
    model(small_images(2))
    quantised: nn.Module = torch.ao.quantization.convert(model)
    return quantised


def made(build: Callable[[], nn.Module]) -> nn.Module:
    """A model, without the advice that TorchScript and quantisation have successors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build()


MODELS: dict[str, tuple[Callable[[], nn.Module], Collection[str]]] = {
    "no_grad": (lambda: Inside(torch.no_grad), NO_GRADIENT),
    "inference_mode": (lambda: Inside(torch.inference_mode), NO_GRADIENT),
    "script": (lambda: torch.jit.script(plain()), NO_LAYER),
    "trace": (lambda: torch.jit.trace(plain(), small_images(1)), NO_LAYER),
    "frozen": (lambda: torch.jit.freeze(torch.jit.script(plain()).eval()), NO_LAYER),
    "dynamic_int8": (dynamic_int8, NO_GRADIENT - EXCITATION),
    "static_int8": (static_int8, NO_GRADIENT & NO_LAYER),
}
"""Models, and the methods that work on them."""


@pytest.mark.parametrize("kind", MODELS)
def test_a_method_works_on_a_restricted_model_or_names_others(kind: str) -> None:
    pytest.importorskip("captum")
    build, works = MODELS[kind]
    model, image = made(build), small_images(1)
    for name in METHODS:
        explain = cheap(name, model, **SETTINGS.get(name, {}))
        if name not in works:
            with pytest.raises(ValueError, match=r"RISE, Occlusion|excitation backprop cannot pass quantized") as refused:
                explain(image, 0)
            assert "\n" not in str(refused.value)
            continue
        heatmap, expected = explain(image, 0).heatmap, cheap(name, plain(), **SETTINGS.get(name, {}))(image, 0).heatmap
        if "int8" in kind:
            assert torch.corrcoef(torch.stack([heatmap.flatten(), expected.flatten()]))[0, 1] > 0.9, name
        else:
            torch.testing.assert_close(heatmap, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["script", "trace"])
def test_rank_descent_continues_without_its_prior_with_a_warning(kind: str) -> None:
    explain = cheap("rank_descent", made(MODELS[kind][0]), prior_samples=1, iterations=1)
    with pytest.warns(fm.FaithmapWarning, match="rank descent starts without its prior, and depends more on noise: module ''"):
        explanation = explain(small_images(1), 0)
    assert explanation.diagnostics[0]["prior"].startswith("none: module '' is TorchScript")
    assert any("without its prior" in message for message in explanation.diagnostics[0]["warnings"])


def test_a_map_in_inference_mode_is_drawn_where_it_is_without() -> None:
    explanations = [
        fm.EigenCAM(model)(small_images(1), 0) for model in (Inside(torch.inference_mode), Inside(torch.enable_grad))
    ]
    assert torch.equal(explanations[0].heatmap, explanations[1].heatmap)
    assert torch.equal(explanations[0].centres[0], explanations[1].centres[0])
