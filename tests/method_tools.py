"""Settings with which every method of the registry takes milliseconds, and a network on which every method works."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from faithmap.methods.base import Explainer
from faithmap.methods.cams import Expected, Integrated, Smooth
from faithmap.methods.masks.masker import Masker
from faithmap.methods.registry import METHODS

CLASSES = 3

CHEAP: dict[str, dict[str, Any]] = {
    "igos": {"resolution": 7, "iterations": 2, "path_points": 4},
    "igos_plus": {"resolution": 7, "iterations": 2, "path_points": 4},
    "igos_plus_plus": {"resolution": 7, "iterations": 2, "path_points": 4},
    "mask": {"resolution": 7, "iterations": 3},
    "extremal": {"iterations": 4, "areas": (0.1, 0.2), "step": 32.0},
    "rank_descent": {"resolution": 7, "iterations": 3, "prior_samples": 4, "softness": 0.2},
    "expected_fusedcam": {"gradient": Expected(samples=5)},
    "expected_gradcam": {"gradient": Expected(samples=5, difference="increment", pool="contribution")},
    "smooth_gradcam": {"gradient": Smooth(samples=5)},
    "smooth_gradcam_plus_plus": {"gradient": Smooth(samples=5)},
    "integrated_gradcam": {"gradient": Integrated(samples=5)},
    "smoothgrad": {"samples": 5},
    "vargrad": {"samples": 5},
    "integrated_gradients": {"samples": 5},
    "expected_gradients": {"samples": 5},
    "gradientshap": {"samples": 5},
    "occlusion": {"patch": 8, "stride": 4},
    "rise": {"masks": 40, "cells": 4},
    "lime": {"cells": 3, "samples": 40},
    "kernelshap": {"cells": 3, "samples": 40},
}


FEWEST: dict[str, dict[str, Any]] = {
    **{key: {"iterations": 1, "path_points": 2} for key in ("igos", "igos_plus", "igos_plus_plus")},
    "mask": {"iterations": 1},
    "extremal": {"iterations": 1, "areas": (0.1,)},
    "rank_descent": {"iterations": 1, "prior_samples": 1},
    "expected_fusedcam": {"gradient": Expected(samples=2)},
    "expected_gradcam": {"gradient": Expected(samples=2, difference="increment", pool="contribution")},
    "integrated_gradcam": {"gradient": Integrated(samples=2)},
    **{key: {"gradient": Smooth(samples=2)} for key in ("smooth_gradcam", "smooth_gradcam_plus_plus")},
    **{key: {"samples": 2} for key in ("smoothgrad", "vargrad", "gradientshap")},
    **{key: {"samples": 2} for key in ("integrated_gradients", "expected_gradients")},
    "occlusion": {"patch": 16, "stride": 16},
    "rise": {"masks": 2},
    **{key: {"cells": (1, 2), "samples": 4} for key in ("lime", "kernelshap")},
}
"""The fewest passes with which every part of a method runs."""


class TinyNet(nn.Module):
    """Convolutions, rectifiers and a linear layer, on images of 16x16 pixels.

    Args:
        in_place: normalise the images in place.
        probabilities: return the softmax of the logits.
    """

    def __init__(self, *, in_place: bool = False, probabilities: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.in_place, self.probabilities = in_place, probabilities
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.body = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(8 * 16, CLASSES)
        for name, parameter in self.named_parameters():
            scale = 0.1 if name.endswith("bias") else (2 / parameter[0].numel()) ** 0.5
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float32).to(parameter) * scale

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(0.5).mul_(4.0) if self.in_place else (x - 0.5) * 4.0
        x = torch.relu(self.stem(x))
        x = torch.relu(self.body(x))
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return logits.softmax(dim=1) if self.probabilities else logits


def cheap(name: str, model: nn.Module, **settings: Any) -> Explainer:
    """A method of the registry with cheap settings; skips the test if it needs captum, which is not installed."""
    if "captum" in METHODS[name].needs:
        pytest.importorskip("captum")
    torch.manual_seed(0)
    more: dict[str, Any] = {"masker": Masker(CLASSES, channels=4).to(torch.float32)} if "masker" in METHODS[name].needs else {}
    return METHODS[name].explainer(model, **{**CHEAP.get(name, {}), **more, **settings})


def small_images(count: int = 2) -> Tensor:
    """Images of 16x16 pixels with a bright part in each."""
    images = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float32)
    images[:, :, 3:9, 4:10] = images[:, :, 3:9, 4:10] / 2 + 0.5
    return images


def live() -> tuple[int, int]:
    """Number of the tensors that are alive, and the bytes of their memory."""
    tensors = [value for value in gc.get_objects() if issubclass(type(value), Tensor)]
    memory = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return len(tensors), sum(memory.values())
