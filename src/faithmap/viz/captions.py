"""Captions: the explained class with its score, the method, the resolution and the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor

from faithmap.explanation import Explanation

if TYPE_CHECKING:
    from faithmap.metrics.functional import DeletionInsertion

_LONGEST = 90
"""Maximum number of characters of a class name, so that there is room for its probability."""

_TIMES = "\N{MULTIPLICATION SIGN}"


def class_name(target: Int[Tensor, " 1"] | None, labels: Sequence[str] | None) -> str | None:
    """Name of the explained class; None for a callable target."""
    if target is None:
        return None
    index = int(target[0])
    return labels[index] if labels is not None and index < len(labels) else f"class {index}"


def class_and_score(name: str | None, kind: str, value: float | None) -> str:
    """The class and its score on the clean image.

    >>> class_and_score("otter", "probability", 0.8912)
    'otter, probability 0.891'
    """
    name = name if name is None or len(name) <= _LONGEST else name[: _LONGEST - 2].rstrip(" ,;") + " …"
    if value is None:
        return name or "heatmap"
    return f"explained score {value:.3f}" if name is None else f"{name}, {kind} {value:.3f}"


def title_of(explanation: Explanation, evidence: DeletionInsertion | None, labels: Sequence[str] | None) -> str:
    """The class and its score, if known: the probability of the evidence, or else the explained score."""
    name = class_name(explanation.target, labels)
    if evidence is not None:
        return class_and_score(name, "probability", float(evidence.deletion.scores[0, 0]))
    kind = str(explanation.settings.get("score", "probability"))
    return class_and_score(name, kind, None if explanation.score is None else float(explanation.score[0]))


def subtitle_of(explanation: Explanation, evidence: DeletionInsertion | None = None) -> str:
    """The method and the resolution, and the protocol of the evidence."""
    method = "given map" if explanation.method == "array" else explanation.method
    text = f"{method}, {explanation.resolution[0]} {_TIMES} {explanation.resolution[1]} cells"
    return text if evidence is None else f"{text}; deletion and insertion by the {evidence.protocol.name} protocol"
