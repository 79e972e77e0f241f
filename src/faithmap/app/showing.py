"""From findings to what the viewer shows: scenes, and pictures of curves."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

import faithmap as fm
from faithmap.app.viewer.scene import Areas, Shown, scene
from faithmap.app.work import Compared, Explained, Walked
from faithmap.baselines import make_baseline
from faithmap.cli.comparison import CHANCE
from faithmap.cli.inputs import Photo
from faithmap.viz import saturation_curves

Scene = dict[str, object]


def spoken_name(method: str) -> str:
    """A method's name as people say it.

    >>> spoken_name("rank_descent")
    'rank descent'
    """
    return method.replace("_", " ")


def spoken_names(methods: Iterable[str]) -> list[tuple[str, str]]:
    """As they are called, and by name: choices of a control."""
    return [(spoken_name(name), name) for name in methods]


class Stage:
    """One photograph as a model sees it, on which maps are shown.

    Args:
        photo: what was asked about.
        model: that was asked.
    """

    def __init__(self, photo: Photo, model: fm.Classifier) -> None:
        self._model = model
        self._picture = _picture(photo.decode())
        self._view = photo.image.cpu()
        self._blurred = make_baseline("blur", photo.image).cpu()

    def scene(self, shown: Sequence[Shown], **settings: Any) -> Scene:
        """With these maps."""
        return scene(self._picture, self._model.geometry, self._view, self._blurred, shown, **settings)

    def growing(self, method: str, grown: fm.Explanation) -> Scene:
        """With a map that is not finished."""
        target = "" if grown.target is None else self._model.label(int(grown.target[0]))
        return self.scene([Shown(spoken_name(method), target, grown.heatmap[0].float(), grown)])


def explained(result: Explained, stage: Stage) -> Scene:
    """One panel for each class; of two their difference, too."""
    shown = []
    for asked, found in zip(result.asked, result.found, strict=True):
        why = _plain(found.why)
        facts = {**_cost(why, found.seconds["explaining"]), "probability": f"{_probability(why, found.probabilities):.3f}"}
        warnings = [*found.photo.warnings, *_warnings(why)]
        name, target = spoken_name(asked.options.method), _label(why, asked.model)
        shown.append(Shown(name, target, why.heatmap[0], why, found.proof, Areas.of(found.chance), facts, warnings))
    return stage.scene(shown, difference=len(shown) == 2)


def compared(result: Compared, stage: Stage) -> Scene:
    """One panel for each method, at the resolution of the games, and how alike the maps are."""
    side, chance = result.options.resolution, Areas.of(result.proofs[CHANCE])
    shown = []
    for name, why in ((name, _plain(why)) for name, why in result.whys.items() if name != CHANCE):
        cells = why.cells if why.resolution == (side, side) else why.at((side, side))
        even = fm.Explanation(cells, why.image_size, target=why.target)
        facts = {**_cost(why, result.seconds[name]), "own cells": f"{why.resolution[0]} x {why.resolution[1]}"}
        label = _label(why, result.asked.model)
        shown.append(Shown(spoken_name(name), label, cells[0], even, result.proofs[name], chance, facts, _warnings(why)))
    return stage.scene(shown, agreement=result.agreement if len(shown) > 1 else None)


def walked(result: Walked, stage: Stage) -> Scene:
    """What each method's most important channels show."""
    shown = []
    for name, (top, proof) in result.features.items():
        why = _plain(top)
        title = f"top {result.options.channels} channels of {spoken_name(name)}"
        shown.append(Shown(title, _label(why, result.asked.model), why.heatmap[0], why, proof))
    return stage.scene(shown)


def walk_picture(result: Walked) -> tuple[str, str]:
    """The curves along the path as a picture in the page's text, and what they say in words."""
    figure: Any = saturation_curves(result.walk).figure.get_figure(root=True)
    made = BytesIO()
    figure.savefig(made, format="svg")
    share = 100 * float(result.walk.share()[0])
    words = (
        f"Saturated: {share:.0f} % of the path from the baseline to the photograph, at layer {result.walk.target_layer}. "
        f"On that part the score stays within 5 % of where it ends, and gradients say little of what made it rise."
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(made.getvalue()).decode()}", words


def _picture(photo: Float[Tensor, "1 3 h w"]) -> Image.Image:
    values = photo[0].mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous()
    return Image.fromarray(np.asarray(values))


def _plain(why: fm.Explanation) -> fm.Explanation:
    """On the processor, in single precision."""
    if why.heatmap.device.type == "cpu" and why.heatmap.dtype == torch.float32:
        return why
    return replace(why, heatmap=why.heatmap.detach().cpu().float())


def _cost(why: fm.Explanation, seconds: float) -> dict[str, str]:
    told = why.diagnostics[0] if why.diagnostics else {}
    passes = {kind: told.get(f"{kind}_passes") for kind in ("forward", "backward")}
    facts = {f"{kind} passes": str(count) for kind, count in passes.items() if count is not None}
    return {**facts, "seconds": f"{seconds:.1f}"}


def _warnings(why: fm.Explanation) -> list[str]:
    return [str(warning) for told in why.diagnostics for warning in told.get("warnings", ())]


def _label(why: fm.Explanation, model: fm.Classifier) -> str:
    return "" if why.target is None else model.label(int(why.target[0]))


def _probability(why: fm.Explanation, probabilities: Float[Tensor, " classes"]) -> float:
    return float("nan") if why.target is None else float(probabilities[int(why.target[0])])
