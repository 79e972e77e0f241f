"""Scenes and pictures of the results of studies."""

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

from faithmap.app.viewer.scene import MapPanel, PanelAreas, scene
from faithmap.app.work import Compared, Explained, Saturated
from faithmap.baselines import make_baseline
from faithmap.explanation import Explanation
from faithmap.methods.registry import METHODS
from faithmap.model import Classifier
from faithmap.studies.base import InputImage
from faithmap.studies.compare import entry_title
from faithmap.viz import saturation_curves

Scene = dict[str, object]


def title_of(method: str) -> str:
    """The title of a method of the registry.

    >>> title_of("gradcam_plus_plus")
    'Grad-CAM++'
    """
    return METHODS[method].explainer.title


def titles_of(methods: Iterable[str]) -> list[tuple[str, str]]:
    """Titles and names of methods: the choices of a control."""
    return [(title_of(name), name) for name in methods]


class SceneMaker:
    """Makes scenes of one photograph.

    Args:
        image: the photograph.
        model: the model.
    """

    def __init__(self, image: InputImage, model: Classifier) -> None:
        self._model = model
        self._picture = _picture(image.original())
        self._view = image.image.cpu()
        self._blurred = make_baseline("blur", image.image).cpu()

    def scene(self, panels: Sequence[MapPanel], **settings: Any) -> Scene:
        """The scene of these maps."""
        return scene(self._picture, self._model.geometry, self._view, self._blurred, panels, **settings)

    def unfinished(self, method: str, unfinished: Explanation) -> Scene:
        """The scene of a map that is not finished."""
        target = "" if unfinished.target is None else self._model.label(int(unfinished.target[0]))
        return self.scene([MapPanel(title_of(method), target, unfinished.heatmap[0].float(), unfinished)])


def explained(result: Explained, scenes: SceneMaker) -> Scene:
    """One panel for each class; for two classes their difference, too."""
    panels = []
    for study, found in zip(result.studies, result.results, strict=True):
        explanation = _on_cpu(found.explanation)
        probability = f"{_probability(explanation, found.probabilities):.3f}"
        facts = {**_cost(explanation, found.seconds["explaining"]), "probability": probability}
        warnings = [*found.image.warnings, *_warnings(explanation)]
        name, target = title_of(study.settings.method), _label(explanation, study.model)
        areas = PanelAreas.of(found.random_curves)
        judged = None if found.evidence is None else found.evidence.verdicts[0]
        verdict = None if judged is None else (judged.level, judged.sentence)
        panel = MapPanel(name, target, explanation.heatmap[0], explanation, found.curves, areas, facts, warnings, verdict)
        panels.append(panel)
    return scenes.scene(panels, difference=len(panels) == 2)


def compared(result: Compared, scenes: SceneMaker) -> Scene:
    """One panel for each entry, at its own resolution or that of the comparison, and the agreement of the maps."""
    study, found = result.study, result.result
    panels = []
    for name, entry in study.entries.items():
        explanation = _on_cpu(found.explanations[name])
        random = PanelAreas.of(found.curves[study.random_name(entry.resolution)])
        cells = study.ranked_cells(explanation, entry.resolution)
        even = Explanation(cells, explanation.image_size, target=explanation.target)
        rows, columns = explanation.resolution
        facts = {**_cost(explanation, found.seconds[name]), "own cells": f"{rows} x {columns}"}
        label, warnings = _label(explanation, study.model), _warnings(explanation)
        title = entry_title(entry, explanation).replace("\n", ", ")
        panels.append(MapPanel(title, label, cells[0], even, found.curves[name], random, facts, warnings))
    return scenes.scene(panels, agreement=result.agreement if len(panels) > 1 else None)


def saturated(result: Saturated, scenes: SceneMaker) -> Scene:
    """One panel for each method, with its most important channels."""
    settings, panels = result.study.settings, []
    for name, (top, curves) in result.result.features.items():
        explanation = _on_cpu(top)
        title = f"top {settings.channels} channels of {title_of(name)}"
        label = _label(explanation, result.study.model)
        panels.append(MapPanel(title, label, explanation.heatmap[0], explanation, curves))
    return scenes.scene(panels)


def path_picture(result: Saturated) -> tuple[str, str]:
    """The curves along the path, as a data URI, and a description of them."""
    path = result.result.path
    figure: Any = saturation_curves(path).figure.get_figure(root=True)
    made = BytesIO()
    figure.savefig(made, format="svg")
    description = (
        f"Saturated: {100 * float(path.share()[0]):.0f} % of the path from the baseline to the photograph, at layer "
        f"{path.target_layer}. On that part the score stays within 5 % of its final value, and gradients do not show "
        f"what made it rise."
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(made.getvalue()).decode()}", description


def _picture(photo: Float[Tensor, "1 3 h w"]) -> Image.Image:
    values = photo[0].mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous()
    return Image.fromarray(np.asarray(values))


def _on_cpu(explanation: Explanation) -> Explanation:
    """On the CPU, in single precision."""
    if explanation.heatmap.device.type == "cpu" and explanation.heatmap.dtype == torch.float32:
        return explanation
    return replace(explanation, heatmap=explanation.heatmap.detach().cpu().float())


def _cost(explanation: Explanation, seconds: float) -> dict[str, str]:
    diagnostics = explanation.diagnostics[0] if explanation.diagnostics else {}
    passes = {kind: diagnostics.get(f"{kind}_passes") for kind in ("forward", "backward")}
    facts = {f"{kind} passes": str(count) for kind, count in passes.items() if count is not None}
    return {**facts, "seconds": f"{seconds:.1f}"}


def _warnings(explanation: Explanation) -> list[str]:
    return [str(warning) for diagnostics in explanation.diagnostics for warning in diagnostics.get("warnings", ())]


def _label(explanation: Explanation, model: Classifier) -> str:
    return "" if explanation.target is None else model.label(int(explanation.target[0]))


def _probability(explanation: Explanation, probabilities: Float[Tensor, " classes"]) -> float:
    return float("nan") if explanation.target is None else float(probabilities[int(explanation.target[0])])
