"""What result.json says: plain data about one image, its explanation and the proof."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jaxtyping import Float
from torch import Tensor

from faithmap._version import __version__
from faithmap.baselines import describe_baseline
from faithmap.cli.inputs import Photo
from faithmap.cli.results import COMPARISON, SCHEMA
from faithmap.explanation import Explanation
from faithmap.metrics import DeletionInsertion
from faithmap.model import Classifier, describe


@dataclass(frozen=True)
class Findings:
    """All that was found out about one image.

    Attributes:
        photo: what was explained.
        why: its explanation.
        proof: both games with its heatmap.
        chance: both games with a random map.
        probabilities: of all classes.
        seconds: of each part of the work.
    """

    photo: Photo
    why: Explanation
    proof: DeletionInsertion
    chance: DeletionInsertion
    probabilities: Float[Tensor, " classes"]
    seconds: Mapping[str, float]


def describe_comparison(
    photo: Photo,
    model: Classifier,
    seed: int,
    whys: Mapping[str, Explanation],
    proofs: Mapping[str, DeletionInsertion],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Everything that is needed to make the comparison again, and every method's scores."""
    first = next(iter(whys.values()))
    methods = {}
    for name, why in whys.items():
        diagnostics = dict(why.diagnostics[0]) if why.diagnostics else {}
        methods[name] = {
            "settings": why.settings,
            "resolution": why.resolution,
            "scores": areas_of(proofs[name]),
            "passes": {kind: diagnostics.get(f"{kind}_passes") for kind in ("forward", "backward")},
            "seconds": seconds.get(name),
        }
    warnings = [w for why in whys.values() for d in why.diagnostics for w in d.get("warnings", ())]
    index = None if first.target is None else int(first.target[0])
    record = {
        "schema": COMPARISON,
        **described_photo(photo, model, seed),
        "target": {"index": index, "label": None if index is None else model.label(index)},
        "protocol": _protocol(next(iter(proofs.values()))),
        "methods": methods,
        "warnings": [*photo.warnings, *dict.fromkeys(warnings)],
    }
    return document(record)


def describe_findings(found: Findings, model: Classifier, seed: int) -> dict[str, Any]:
    """Everything that is needed to make the result again, and everything that came out."""
    why, photo = found.why, found.photo
    diagnostics = dict(why.diagnostics[0])
    passes = {kind: diagnostics.pop(f"{kind}_passes", None) for kind in ("forward", "backward")}
    record = {
        "schema": SCHEMA,
        **described_photo(photo, model, seed),
        "window": model.geometry.window(photo.size)._asdict(),
        "method": {"name": why.method, "settings": why.settings},
        "target": _target(found, model),
        "predicted": _guesses(found.probabilities, model),
        "heatmap": {
            "file": "heatmap.npy",
            "resolution": why.resolution,
            "rows": _plain(why.rows),
            "columns": _plain(why.columns),
        },
        "protocol": _protocol(found.proof),
        "scores": {"heatmap": areas_of(found.proof), "random": areas_of(found.chance)},
        "curves": {"heatmap": _curves(found.proof), "random": _curves(found.chance)},
        "passes": passes,
        "seconds": found.seconds,
        "warnings": [*photo.warnings, *diagnostics.pop("warnings", ())],
        "diagnostics": diagnostics,
    }
    return document(record)


def described_photo(photo: Photo, model: Classifier, seed: int) -> dict[str, Any]:
    """What was asked about: versions, file, model and seeds."""
    size = (photo.image.shape[-2], photo.image.shape[-1])
    return {
        "versions": _versions(),
        "file": {"path": str(photo.job.file), "sha256": photo.digest, "bytes": len(photo.data), "size": photo.size},
        "model": {**describe(model), "device": str(model.device), "input_size": size},
        "seed": {"run": seed, "image": photo.index},
    }


def _versions() -> dict[str, str | None]:
    """Of what a result depends on."""
    return {"faithmap": __version__, "python": sys.version.split()[0], **{name: _version(name) for name in ("torch", "timm")}}


def _target(found: Findings, model: Classifier) -> dict[str, Any]:
    """The explained class, and how the model sees it."""
    classes, score = found.why.target, found.why.score
    assert classes is not None  # noqa: S101 - a class is what the command explains
    assert score is not None  # noqa: S101
    index = int(classes[0])
    return {**guess(index, found.probabilities, model), "score": float(score[0])}


def _guesses(probabilities: Float[Tensor, " classes"], model: Classifier, count: int = 5) -> list[dict[str, Any]]:
    """The classes that the model finds the most probable."""
    best = probabilities.topk(min(count, len(probabilities))).indices
    return [guess(index, probabilities, model) for index in best.tolist()]


def areas_of(games: DeletionInsertion) -> dict[str, float]:
    """Under both curves, and insertion minus deletion."""
    deletion, insertion = float(games.deletion.area[0]), float(games.insertion.area[0])
    return {"deletion": deletion, "insertion": insertion, "difference": float(games.difference[0])}


def _curves(games: DeletionInsertion) -> dict[str, list[float]]:
    """Both curves, over the same fractions."""
    fractions: list[float] = games.deletion.fractions.tolist()
    return {
        "fractions": fractions,
        "deletion": games.deletion.scores[0].tolist(),
        "insertion": games.insertion.scores[0].tolist(),
    }


def _protocol(games: DeletionInsertion) -> dict[str, Any]:
    """The rules of the games, and how finely they were played."""
    rules = games.protocol
    return {
        "name": rules.name,
        "unit": rules.unit,
        "resolution": games.resolution,
        "steps": len(games.deletion.fractions) - 1,
        "deletion_baseline": describe_baseline(rules.deletion_baseline),
        "insertion_baseline": describe_baseline(rules.insertion_baseline),
    }


def document(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON can say it."""
    return {key: _strict(value) for key, value in record.items()}


def _strict(value: Any) -> Any:
    """The same as JSON can say it: numbers that are not finite become null.

    >>> _strict({"step": (1.0, float("nan"))})
    {'step': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(centres: Float[Tensor, " r"] | None) -> list[float] | None:
    """Where cells stand, in pixels of what the model saw; None where the corners are aligned."""
    return None if centres is None else centres.tolist()


def guess(index: int, probabilities: Float[Tensor, " classes"], model: Classifier) -> dict[str, Any]:
    """A class, its name, and how probable the model finds it."""
    return {"index": index, "label": model.label(index), "probability": float(probabilities[index])}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
