"""Files of maskers: safetensors, whose content is checked because another program may have written it.

A file has the network's weights, Adam's moments, which a resumed training needs, and one entry of JSON: the classifier's name
and digest, the settings of the training, and its steps so far. It cannot contain code. A file is written under another name
and then renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from faithmap.errors import one_line
from faithmap.files import write_whole
from faithmap.methods.masks.masker import Masker, check_fit
from faithmap.methods.masks.masker_training import MaskerSettings, Training

SCHEMA = "faithmap.masker/1"
MAX_BYTES = 2**30
"""Largest file that is read. A masker of 16 channels and 1,000 classes takes 5 million bytes."""

_KEY = "faithmap"
_REMEDY = "give a file that train_masker's masker was saved in"
_KINDS = ("weights", "first", "second")
_LARGEST = {"classes": 10**6, "channels": 1024, "colours": 64, "done": 10**12}


class MaskerError(ValueError):
    """A file of a masker is refused. The message is one line: the file, the problem, and a remedy."""


def save_masker(training: Training, path: str | os.PathLike[str]) -> None:
    """Write a masker, with all that is needed to resume its training.

    Equal trainings make files that are equal byte for byte.

    Args:
        training: from :func:`~faithmap.methods.masks.masker_training.train_masker`.
        path: of the file; an existing file is replaced.

    Raises:
        OSError: if the file cannot be written; an existing file is then unchanged.
    """
    from safetensors.torch import save  # noqa: PLC0415 - a masker itself needs only torch

    masker = training.masker
    state = {f"weights.{name}": value for name, value in masker.state_dict().items()}
    for name, (first, second) in training.moments.items():
        state |= {f"first.{name}": first, f"second.{name}": second}
    record = {
        "schema": SCHEMA,
        "model": dict(masker.trained_for or {}),
        "masker": {name: getattr(masker, name) for name in ("classes", "channels", "colours")},
        "settings": asdict(training.settings),
        "done": training.done,
        "photos": training.photos,
    }
    content = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_whole(Path(path), save(content, {_KEY: json.dumps(record, sort_keys=True)}))


def read_training(path: str | os.PathLike[str], model: nn.Module | None = None) -> Training:
    """Read a training, to resume it.

    Args:
        path: of a file that :func:`save_masker` wrote.
        model: the classifier that the masker has to be trained for, on whose device it is put; None for any classifier.

    Raises:
        MaskerError: if the file cannot be read, is damaged, is no masker, or was trained for another classifier.
    """
    name = os.fspath(path)
    data = _bytes(name)
    state, record = _parsed(name, data)
    training = _built(name, state, record)
    training.masker.digest = hashlib.sha256(data).hexdigest()
    if model is not None:
        try:
            check_fit(training.masker, model)
        except ValueError as error:
            raise _refusal(name, str(error), None) from error
        weight = next(model.parameters(), None)
        place = getattr(model, "device", None if weight is None else weight.device) or torch.device("cpu")
        training.masker.to(place)
        training.moments = {key: (a.to(place), b.to(place)) for key, (a, b) in training.moments.items()}
    return training


def read_masker(path: str | os.PathLike[str], model: nn.Module | None = None) -> Masker:
    """Read a trained masker.

    Args:
        path: of a file that :func:`save_masker` wrote.
        model: the classifier that the masker has to be trained for, on whose device it is put; None for any classifier.

    Raises:
        MaskerError: if the file cannot be read, is damaged, is no masker, or was trained for another classifier.

    >>> import tempfile
    >>> from faithmap.methods.masks.masker_training import MaskerSettings, train_masker
    >>> model, images = nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), torch.rand(4, 3, 16, 16)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     training = train_masker(model, images, steps=1, settings=MaskerSettings(channels=4, batch=2))
    ...     save_masker(training, f"{folder}/masker.safetensors")
    ...     read_masker(f"{folder}/masker.safetensors", model).classes
    2
    """
    return read_training(path, model).masker


def _bytes(name: str) -> bytes:
    try:
        status = Path(name).stat()
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(name, "cannot be read (it is no regular file)")
        if status.st_size > MAX_BYTES:
            raise _refusal(name, f"{status.st_size} bytes are more than {MAX_BYTES}")
        with Path(name).open("rb") as file:
            return file.read(MAX_BYTES)
    except (OSError, ValueError) as error:
        if isinstance(error, MaskerError):
            raise
        raise _refusal(name, f"cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _parsed(name: str, data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, and the entry of JSON."""
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load  # noqa: PLC0415

    try:
        state = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        record = json.loads(header["__metadata__"][_KEY])
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise _refusal(name, "is damaged, or no file of a masker") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise _refusal(name, f"is no file of a masker, whose schema is {SCHEMA}")
    return state, record


def _built(name: str, state: dict[str, Tensor], record: dict[str, Any]) -> Training:
    """The training of a file; nothing large is allocated before its tensors are checked."""
    sizes, model, photos = record.get("masker"), record.get("model"), record.get("photos")
    sizes = sizes if isinstance(sizes, dict) else {}
    numbers = {**sizes, "done": record.get("done")}
    if numbers.keys() != _LARGEST.keys() or not all(_whole(numbers[key], most) for key, most in _LARGEST.items()):
        raise _refusal(name, "holds sizes that no masker has")
    if not _is_identity(model) or not isinstance(photos, (str, type(None))):
        raise _refusal(name, "does not say which model it is for")
    try:
        given = record.get("settings")
        if not isinstance(given, dict) or any(type(given.get(f.name)) is not type(f.default) for f in fields(MaskerSettings)):
            raise TypeError("settings of another kind")  # noqa: TRY301
        settings = MaskerSettings(**given)
        with torch.device("meta"):
            masker = Masker(sizes["classes"], sizes["channels"], sizes["colours"])
    except (TypeError, ValueError) as error:
        raise _refusal(name, "holds settings that no training has") from error
    parts = {kind: {k.removeprefix(f"{kind}."): v for k, v in state.items() if k.startswith(f"{kind}.")} for kind in _KINDS}
    expected = masker.state_dict()
    for kind, part in parts.items():
        _check_tensors(name, part, expected if kind == "weights" or record["done"] else {})
    if any(bool((value < 0).any()) for value in parts["second"].values()):
        raise _refusal(name, "holds a second moment below 0")
    if sum(map(len, parts.values())) != len(state):
        raise _refusal(name, "holds tensors that no masker has")
    masker.load_state_dict(parts["weights"], assign=True)
    masker.requires_grad_()
    masker.trained_for, masker.steps = model, record["done"]
    moments = {key: (parts["first"][key], parts["second"][key]) for key in parts["first"]}
    return Training(masker, settings, record["done"], moments, photos=photos)


def _check_tensors(name: str, part: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    if part.keys() != expected.keys():
        raise _refusal(name, "lacks tensors of a masker, or holds others")
    for key, value in part.items():
        if value.shape != expected[key].shape or value.dtype != torch.float32:
            raise _refusal(name, f"{key} has shape {tuple(value.shape)} and is {value.dtype}, not what a masker has")
        if not bool(value.isfinite().all()):
            raise _refusal(name, f"{key} holds NaN or infinite values")


def _whole(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_identity(model: Any) -> bool:
    known = isinstance(model, dict) and model.keys() == {"name", "digest"}
    return known and isinstance(model["name"], str) and isinstance(model["digest"], (str, type(None)))


def _refusal(name: str, problem: str, remedy: str | None = _REMEDY) -> MaskerError:
    return MaskerError(one_line(f"{name}: {problem}; {remedy}" if remedy else f"{name}: {problem}"))
