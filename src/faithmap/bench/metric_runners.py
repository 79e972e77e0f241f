"""Measures: each metric of the catalogue on a few explained images, one value an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.bench.errors import BenchError, SettingError
from faithmap.bench.images import LoadedImage
from faithmap.bench.plan import canonical
from faithmap.explanation import Explanation
from faithmap.methods.base import Explainer
from faithmap.methods.cams.saturation import saturation
from faithmap.methods.settings import SettingError as MethodSettingError, arguments_of
from faithmap.metrics import functional
from faithmap.model import Classifier
from faithmap.seeds import derived

if TYPE_CHECKING:
    from faithmap.bench.spec import MetricSpec


Values = Mapping[str, Sequence[Any]]
"""Of each column, one entry an image."""

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "deletion_insertion": functional.deletion_insertion,
    "infidelity": functional.infidelity,
    "sensitivity": functional.sensitivity,
    "confidence": functional.confidence,
    "road": functional.road,
    "saturation": saturation,
    "pointing_game": functional.pointing_game,
}
"""Those that take settings: what each metric of the catalogue asks."""


@dataclass(frozen=True, eq=False)
class MetricInput:
    """Explained images of one size."""

    model: Classifier
    explainer: Explainer
    images: Float[Tensor, "n c h w"]
    photos: Sequence[LoadedImage]
    why: Explanation
    seed: int
    chunk_size: int
    autocast: torch.dtype | None

    def generators(self, name: str) -> list[torch.Generator]:
        """Of each image, for a metric with these settings: the same draws for every method."""
        seed = derived(self.seed, name)
        return [torch.Generator(self.images.device).manual_seed(derived(seed, photo.key)) for photo in self.photos]

    @property
    def passes(self) -> dict[str, Any]:
        """How the model is asked."""
        return {"chunk_size": self.chunk_size, "autocast": self.autocast}


def run_metric(metric: MetricSpec, case: MetricInput) -> dict[str, Sequence[Any]]:
    """The metric's columns, named as in the store; those of curves among them.

    Raises:
        ValueError: where it cannot be measured with these maps or settings.
    """
    settings = _values(metric)
    found = _MEASURES[metric.name](case, canonical([metric.name, metric.settings]), **settings)
    return {metric.column(name): values for name, values in found.items()}


def check_settings(metric: MetricSpec) -> None:
    """Raise SettingError for a setting whose value the metric does not accept."""
    _values(metric)


def _values(metric: MetricSpec) -> dict[str, Any]:
    """The settings of a metric, from their plain form."""
    known = {**arguments_of(FUNCTIONS[metric.name]), **arguments_of(_MEASURES[metric.name])} if metric.settings else {}
    try:
        return {key: known[key].from_plain(value) for key, value in metric.settings.items()}
    except MethodSettingError as error:
        raise SettingError(error, error.setting) from error


def _games(case: MetricInput, name: str, *, resolution: int | None = None, **settings: Any) -> Values:
    del name
    why = case.why
    maps = why if resolution is None else why.at((resolution, resolution)).to(case.images)
    found = functional.deletion_insertion(case.model, case.images, maps, why.explained, **settings, **case.passes)
    fractions = found.deletion.fractions.tolist()
    return {
        "deletion": found.deletion.area.tolist(),
        "insertion": found.insertion.area.tolist(),
        "deletion_curve": found.deletion.scores.tolist(),
        "insertion_curve": found.insertion.scores.tolist(),
        "curve_fractions": [fractions] * len(why),
    }


def _infidelity(case: MetricInput, name: str, **settings: Any) -> Values:
    drawn = case.generators(name)
    found = functional.infidelity(case.model, case.images, case.why, generator=drawn, **settings, **case.passes)
    return {"infidelity": found.value.tolist()}


def _sensitivity(case: MetricInput, name: str, **settings: Any) -> Values:
    drawn = case.generators(name)
    found = functional.sensitivity(
        case.explainer, case.images, case.why.explained, generator=drawn, chunk_size=case.chunk_size, **settings
    )
    return {"max_sensitivity": found.maximum.tolist(), "mean_sensitivity": found.mean.tolist()}


def _confidence(case: MetricInput, name: str, **settings: Any) -> Values:
    del name
    found = functional.confidence(case.model, case.images, case.why, **settings, **case.passes)
    columns = {"average_drop": found.drop, "increase_in_confidence": found.increase, "average_gain": found.gain}
    return {column: values.tolist() for column, values in columns.items()}


def _road(case: MetricInput, name: str, **settings: Any) -> Values:
    drawn = case.generators(name)
    found = functional.road(case.model, case.images, case.why, generator=drawn, **settings, **case.passes)
    return {"road": found.difference.tolist()}


def _complexity(case: MetricInput, name: str) -> Values:
    del name
    return {"complexity": functional.entropy(case.why).tolist(), "sparseness": functional.gini(case.why).tolist()}


def _objective(case: MetricInput, name: str) -> Values:
    del name
    last = [diagnostics.get("objective") for diagnostics in case.why.diagnostics]
    return {"objective": [float(values[-1]) if isinstance(values, list) and values else None for values in last]}


def _saturation(case: MetricInput, name: str, *, tolerance: float = 0.05, **settings: Any) -> Values:
    del name
    found = saturation(case.model, case.images, case.why.explained, **settings, **case.passes)
    return {"saturation": found.share(tolerance).tolist()}


def _located(column: str, function: Callable[..., Tensor]) -> Callable[..., Values]:
    def measure(case: MetricInput, name: str, **settings: Any) -> Values:
        del name
        objects = [photo.objects for photo in case.photos]
        if any(boxes is None for boxes in objects):
            raise BenchError("the image has no objects")
        sizes = [photo.size for photo in case.photos]
        found = function(case.why, objects, image_sizes=sizes, geometry=case.model.geometry, **settings)
        return {column: found.double().tolist()}

    return measure


_MEASURES: dict[str, Callable[..., Values]] = {
    "deletion_insertion": _games,
    "infidelity": _infidelity,
    "sensitivity": _sensitivity,
    "confidence": _confidence,
    "road": _road,
    "complexity": _complexity,
    "objective": _objective,
    "saturation": _saturation,
    "pointing_game": _located("pointing_game", functional.pointing_game),
    "energy_pointing_game": _located("energy_pointing_game", functional.energy_pointing_game),
    "relevance_rank": _located("relevance_rank", functional.relevance_rank),
}
