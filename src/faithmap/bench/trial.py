"""Trial: what can be found wrong before the first unit, found by asking.

Each method begins to explain a photograph, and is stopped after a few passes; each metric begins to judge a map. Most methods
look at a setting when they need it: without this, one that is wrong would be an error in every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.bench.errors import BenchError, SettingError, blamed
from faithmap.bench.explainers import make_explainer
from faithmap.bench.items import Item
from faithmap.bench.measures import Case, measured
from faithmap.bench.models import Models
from faithmap.bench.photos import Photo
from faithmap.bench.plan import Plan
from faithmap.bench.planning import readable
from faithmap.bench.question import FAILURES, refuse
from faithmap.bench.reading import Place, placed, shown
from faithmap.bench.sources import open_source
from faithmap.methods.controls import RandomMap
from faithmap.model import Classifier
from faithmap.warning_types import suppressed

if TYPE_CHECKING:
    from faithmap.bench.spec import MethodSpec, MetricSpec, Spec

PASSES = 32
"""Images that the model is shown for each method, at the most: all of a class activation map, the beginning of the others."""

PHOTOS = 3
"""Photographs that are tried: what fails on the first may be that photograph's fault."""


class _Enough(Exception):  # noqa: N818 - it is no error
    """A method has shown that it works."""


def try_out(spec: Spec, plan: Plan, models: Models, place: Place = shown) -> None:
    """See that every method and metric works with every model.

    Args:
        spec: what was asked for.
        plan: made of it.
        models: loads them.
        place: where a field stands.

    Raises:
        BenchError: for a method or metric that does not; names the field.
    """
    source = open_source(plan.setup.data)
    for planned in plan.setup.models:
        model, _ = models.get(planned.spec)
        images = list(islice(readable(source, plan.items, model), PHOTOS))
        for i, method in enumerate(spec.methods):
            with placed(place, "methods", i, resolution=method.resolution is not None):
                _on_any(images, partial(_begin, spec, method, model), method.settings, planned.id)
        for i, metric in enumerate(spec.metrics):
            with placed(place, "metrics", i):
                _on_any(images[:1], partial(_judge, metric, model, planned.classes or 1), metric.settings, planned.id)


def _on_any(images: list[Tensor], begin: Callable[[Tensor], None], settings: Any, model: str) -> None:
    """One photograph on which it works will do.

    Raises:
        SettingError: where there is none; names the setting that the first complaint does.
    """
    problem: Exception | None = None
    for image in images:
        try:
            with suppressed():
                begin(image)
        except BenchError:
            raise
        except FAILURES as error:
            refuse(error, PASSES)
            problem = problem or error
        else:
            return
    if problem is not None:
        words = str(problem) or type(problem).__name__
        raise SettingError(f"{words} (tried with {model})", blamed(words, settings)) from problem


def _begin(spec: Spec, method: MethodSpec, model: Classifier, image: Float[Tensor, "1 c h w"]) -> None:
    explainer = make_explainer(
        *(model, method.name, method.settings),
        resolution=method.resolutions[0],
        chunk_size=min(PASSES, spec.chunk_size),
        autocast=spec.autocast,
    )
    with _stopped_early(model):
        explainer(image)


def _judge(metric: MetricSpec, model: Classifier, classes: int, image: Float[Tensor, "1 c h w"]) -> None:
    """A random map of a stand-in that costs nothing; where the metric looks into the model, of the model."""
    asked = model if metric.name == "saturation" else Classifier(_Brightness(classes)).to(image.device)
    explainer = RandomMap(asked, resolution=min(7, *image.shape[-2:]))
    size = (image.shape[-2], image.shape[-1])
    box = torch.tensor([[0.0, 0.0, size[1], size[0]]])
    photo = Photo(Item(0, "", 0), image, size=size, objects=box)
    with _stopped_early(asked):
        measured(metric, Case(asked, explainer, image, [photo], explainer(image), 0, PASSES, None))


@contextmanager
def _stopped_early(model: nn.Module) -> Iterator[None]:
    """Ends the block when the model has been shown a few images."""
    count = [0]

    def watch(module: nn.Module, given: tuple[Any, ...]) -> None:
        del module
        count[0] += len(given[0])
        if count[0] > PASSES:
            raise _Enough

    hook = model.register_forward_pre_hook(watch)
    try:
        yield
    except _Enough:
        pass
    finally:
        hook.remove()


class _Brightness(nn.Module):
    """Logits that follow the images' brightness."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.linspace(0, 1, classes))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """One for each class."""
        return images.mean(dim=(1, 2, 3)).unsqueeze(1) * self.weights
