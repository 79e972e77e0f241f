"""What is written above a picture: which class, how sure the model is of it, and how the map was made."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.metrics.functional import DeletionInsertion

_LONGEST = 90
"""Letters of a class's name, so that there is room for its probability."""

_TIMES = "\N{MULTIPLICATION SIGN}"


def named(target: Int[Tensor, " 1"] | None, labels: Sequence[str] | None) -> str | None:
    """The name of the explained class; None where a callable score was explained."""
    if target is None:
        return None
    index = int(target[0])
    return labels[index] if labels is not None and index < len(labels) else f"class {index}"


def answered(name: str | None, kind: str, value: float | None) -> str:
    """The class and the model's answer to the clean image.

    >>> answered("otter", "probability", 0.8912)
    'otter, probability 0.891'
    """
    name = name if name is None or len(name) <= _LONGEST else name[: _LONGEST - 2].rstrip(" ,;") + " …"
    if value is None:
        return name or "heatmap"
    return f"explained score {value:.3f}" if name is None else f"{name}, {kind} {value:.3f}"


def what(why: Explanation, proof: DeletionInsertion | None, labels: Sequence[str] | None) -> str:
    """The class and the answer as far as they are known: the probability from the proof, else what was explained."""
    name = named(why.target, labels)
    if proof is not None:
        return answered(name, "probability", float(proof.deletion.scores[0, 0]))
    kind = str(why.settings.get("score", "probability"))
    return answered(name, kind, None if why.score is None else float(why.score[0]))


def how(why: Explanation, proof: DeletionInsertion | None = None) -> str:
    """The method and the resolution, and the rules of the proof."""
    made = "given map" if why.method == "array" else why.method
    text = f"{made}, {why.resolution[0]} {_TIMES} {why.resolution[1]} cells"
    return text if proof is None else f"{text}; deletion and insertion by the {proof.protocol.name} protocol"
