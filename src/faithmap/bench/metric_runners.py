"""Run the metrics of a specification on explained images: one value per image and column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.bench.dataset import LoadedImage
from faithmap.bench.errors import BenchError, BenchSettingError
from faithmap.bench.plan import canonical
from faithmap.explanation import Explanation
from faithmap.methods.base import Explainer
from faithmap.methods.cams.saturation import saturation
from faithmap.methods.settings import SettingError, arguments_of
from faithmap.metrics import functional
from faithmap.model import Classifier
from faithmap.seeds import derived

if TYPE_CHECKING:
    from faithmap.bench.spec import MetricSpec

Columns = Mapping[str, Sequence[Any]]
"""Column name to one value per image."""

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "deletion_insertion": functional.deletion_insertion,
    "infidelity": functional.infidelity,
    "sensitivity": functional.sensitivity,
    "confidence": functional.confidence,
    "road": functional.road,
    "saturation": saturation,
    "pointing_game": functional.pointing_game,
}
"""The function whose arguments are the settings of a metric, for metrics that have settings."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MetricInput:
    """Explained images of one shape, and how the model is run."""

    model: Classifier
    explainer: Explainer
    inputs: Float[Tensor, "n c h w"]
    images: Sequence[LoadedImage]
    explanation: Explanation
    seed: int
    chunk_size: int
    autocast: torch.dtype | None

    def generators(self, name: str) -> list[torch.Generator]:
        """One generator per image, for a metric with its settings: the same draws for every method."""
        seed = derived(self.seed, name)
        return [torch.Generator(self.inputs.device).manual_seed(derived(seed, image.seed)) for image in self.images]

    @property
    def passes(self) -> dict[str, Any]:
        """Keywords for the model passes."""
        return {"chunk_size": self.chunk_size, "autocast": self.autocast}


def run_metric(metric: MetricSpec, given: MetricInput) -> dict[str, Sequence[Any]]:
    """Compute the metric's columns, named as in the store, including those of curves.

    Raises:
        ValueError: if the metric cannot be computed for these heatmaps or with these settings.
    """
    columns = RUNNERS[metric.name](given, canonical([metric.name, metric.settings]), **checked_settings(metric))
    return {metric.column(name): values for name, values in columns.items()}


def checked_settings(metric: MetricSpec) -> dict[str, Any]:
    """The settings of a metric as its function takes them.

    Raises:
        BenchSettingError: for a value that the metric does not accept.
    """
    known = {**arguments_of(FUNCTIONS[metric.name]), **arguments_of(RUNNERS[metric.name])} if metric.settings else {}
    try:
        return {key: known[key].from_plain(value) for key, value in metric.settings.items()}
    except SettingError as error:
        raise BenchSettingError(error, error.setting) from error


def _deletion_insertion(given: MetricInput, name: str, *, resolution: int | None = None, **settings: Any) -> Columns:
    del name
    explanation = given.explanation
    maps = explanation if resolution is None else explanation.at((resolution, resolution)).to(given.inputs)
    found = functional.deletion_insertion(given.model, given.inputs, maps, explanation.explained, **settings, **given.passes)
    return {
        "deletion": found.deletion.area.tolist(),
        "insertion": found.insertion.area.tolist(),
        "deletion_curve": found.deletion.scores.tolist(),
        "insertion_curve": found.insertion.scores.tolist(),
        "curve_fractions": [found.deletion.fractions.tolist()] * len(explanation),
    }


def _infidelity(given: MetricInput, name: str, **settings: Any) -> Columns:
    found = functional.infidelity(
        given.model, given.inputs, given.explanation, generator=given.generators(name), **settings, **given.passes
    )
    return {"infidelity": found.value.tolist()}


def _sensitivity(given: MetricInput, name: str, **settings: Any) -> Columns:
    found = functional.sensitivity(
        given.explainer,
        given.inputs,
        given.explanation.explained,
        generator=given.generators(name),
        chunk_size=given.chunk_size,
        **settings,
    )
    return {"max_sensitivity": found.maximum.tolist(), "mean_sensitivity": found.mean.tolist()}


def _confidence(given: MetricInput, name: str, **settings: Any) -> Columns:
    del name
    found = functional.confidence(given.model, given.inputs, given.explanation, **settings, **given.passes)
    columns = {"average_drop": found.drop, "increase_in_confidence": found.increase, "average_gain": found.gain}
    return {column: values.tolist() for column, values in columns.items()}


def _road(given: MetricInput, name: str, **settings: Any) -> Columns:
    found = functional.road(
        given.model, given.inputs, given.explanation, generator=given.generators(name), **settings, **given.passes
    )
    return {"road": found.difference.tolist()}


def _complexity(given: MetricInput, name: str) -> Columns:
    del name
    heatmaps = given.explanation
    return {"complexity": functional.entropy(heatmaps).tolist(), "sparseness": functional.gini(heatmaps).tolist()}


def _objective(given: MetricInput, name: str) -> Columns:
    del name
    traces = [diagnostics.get("objective") for diagnostics in given.explanation.diagnostics]
    return {"objective": [float(trace[-1]) if isinstance(trace, list) and trace else None for trace in traces]}


def _saturation(given: MetricInput, name: str, *, tolerance: float = 0.05, **settings: Any) -> Columns:
    del name
    found = saturation(given.model, given.inputs, given.explanation.explained, **settings, **given.passes)
    return {"saturation": found.share(tolerance).tolist()}


def _localisation(column: str, function: Callable[..., Tensor]) -> Callable[..., Columns]:
    """The runner of a metric that compares heatmaps with the objects."""

    def run(given: MetricInput, name: str, **settings: Any) -> Columns:
        del name
        objects = [image.objects for image in given.images]
        if any(boxes is None for boxes in objects):
            raise BenchError("the image has no objects")
        sizes = [image.size for image in given.images]
        found = function(given.explanation, objects, image_sizes=sizes, geometry=given.model.geometry, **settings)
        return {column: found.double().tolist()}

    return run


RUNNERS: dict[str, Callable[..., Columns]] = {
    "deletion_insertion": _deletion_insertion,
    "infidelity": _infidelity,
    "sensitivity": _sensitivity,
    "confidence": _confidence,
    "road": _road,
    "complexity": _complexity,
    "objective": _objective,
    "saturation": _saturation,
    "pointing_game": _localisation("pointing_game", functional.pointing_game),
    "energy_pointing_game": _localisation("energy_pointing_game", functional.energy_pointing_game),
    "relevance_rank": _localisation("relevance_rank", functional.relevance_rank),
}
