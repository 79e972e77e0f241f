"""Recipe: the architecture and preprocessing of a model name, and its weights, which are read from an untrusted file.

A checkpoint's code is never run: safetensors, or ``torch.load`` with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import safetensors.torch
import torch
from torch import Tensor, nn

from faithmap.errors import one_line
from faithmap.model import Geometry
from faithmap.score import OutputKind

ModelState: TypeAlias = dict[str, Tensor]


class Preprocessing(NamedTuple):
    """From an image to a model's input: its geometry, then (x - mean) / std of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    geometry: Geometry


class TrainedModule(NamedTuple):
    """A module with weights, their digest, and the labels of its classes."""

    module: nn.Module
    digest: str
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class Recipe:
    """How to build a model.

    Args:
        name: the full name for `load`.
        preprocessing: of images.
        labels: of the published weights' classes.
        build: returns an untrained module with a number of classes; None for the published number.
        publish: returns the module with its published weights, which it may download.
        rename: maps the keys of a published file to those of the built module.
        outputs: what the module returns for its classes, if its configuration says so.
    """

    name: str
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    build: Callable[[int | None], nn.Module]
    publish: Callable[[], TrainedModule]
    rename: Callable[[ModelState], ModelState] = lambda state: state
    outputs: OutputKind | None = None


class ModelError(ValueError):
    """A model cannot be loaded. The message is one line: the model or file, what is wrong with it, what to do.

    >>> from faithmap import load
    >>> load("efficientnet_lite9")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    faithmap.zoo.recipe.ModelError: 'efficientnet_lite9': is no model; ...
    """


def refusal(name: str, problem: object, remedy: str) -> ModelError:
    """The error to raise, with control characters escaped, because names and messages come from files and servers."""
    return ModelError(one_line(f"{name}: {problem}; {remedy}"))


@contextmanager
def refusing(name: str, problem: str, remedy: str) -> Iterator[None]:
    """Turn any exception inside into a ModelError that ends with the first line of its message."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise refusal(name, f"{problem} ({_first_line(error)})", remedy) from error


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].removesuffix(".")[:160] if lines else type(error).__name__


def imagenet_labels() -> tuple[str, ...]:
    """Short and unique labels of ImageNet-1k, in the usual order of its classes.

    These are torchvision's, which distinguish ``crane`` from ``crane bird`` and ``maillot`` from ``maillot tank suit``. The
    first WordNet lemma, which timm has, is the same for both.

    >>> imagenet_labels()[282], len(set(imagenet_labels()))
    ('tiger cat', 1000)
    """
    from torchvision.models import ResNet18_Weights  # noqa: PLC0415 - takes a second

    return tuple(ResNet18_Weights.DEFAULT.meta["categories"])


def short_labels(names: Sequence[str]) -> tuple[str, ...]:
    """The first synonym of each class, or all synonyms if the first is that of two classes.

    >>> short_labels(["tench, Tinca tinca", "crane", "crane, bird"])
    ('tench', 'crane', 'crane, bird')
    """
    firsts = [name.split(",")[0].strip() for name in names]
    count = Counter(firsts)
    return tuple(first if count[first] == 1 else name for first, name in zip(firsts, names, strict=True))


_REMEDY = "give an intact file of weights (.safetensors, or .pt, .pth, .bin that torch.save wrote)"
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_MAX_KEYS = 3


class Checkpoint(NamedTuple):
    """Weights by name, and the SHA-256 of their file."""

    name: str
    digest: str
    state: ModelState


def read_checkpoint(path: str | os.PathLike[str], *, sha256: str | None = None, remedy: str = _REMEDY) -> Checkpoint:
    """Read a safetensors file, or one that ``torch.save`` wrote, recognised by content.

    A state dict inside ``{"state_dict": ...}`` or ``{"model": ...}`` is unwrapped; the prefixes of DataParallel (``module.``)
    and ``torch.compile`` (``_orig_mod.``) are removed.

    Args:
        path: of the file.
        sha256: the expected digest; a file with another digest is not parsed.
        remedy: the advice of the error for another digest.

    Raises:
        ModelError: if the file cannot be read, has another digest, contains code, other objects than tensors, or NaN, or is
            damaged.
    """
    name = os.fspath(path)
    with refusing(name, "cannot be read", _REMEDY):
        _check_regular(Path(path))
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 not in (None, digest):
                raise refusal(name, f"is not the published file (SHA-256 {digest[:12]}, published {sha256[:12]})", remedy)
            file.seek(0)
            content = _parse(name, file)
    state = _unprefixed(_state_dict(name, content))
    _check_finite(name, state)
    return Checkpoint(name, digest, state)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_regular(path: Path) -> None:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError("it is a folder")
    if not stat.S_ISREG(mode):
        raise OSError("it is a pipe, socket or device")


def _parse(name: str, file: BinaryIO) -> Any:
    start = file.read(9)
    file.seek(0)
    if start[8:] == b"{":  # safetensors: the length of the header in 8 bytes, then JSON
        return safetensors.torch.load_file(name)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unloadable(name, error) from error


def _unloadable(name: str, error: Exception) -> ModelError:
    """A short error in place of the long message of torch.load."""
    if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
        remedy = "save only the weights: torch.save(model.state_dict(), ...)"
        return refusal(name, f"contains the Python object {named[1]}, and code in a checkpoint is never run", remedy)
    if "TorchScript" in str(error):
        return refusal(name, "is a TorchScript program", "save only the weights: torch.save(model.state_dict(), ...)")
    return refusal(name, "is damaged, or no file of weights", _REMEDY)


def _state_dict(name: str, content: Any) -> ModelState:
    while isinstance(content, Mapping) and (inner := next((key for key in _WRAPPERS if _wraps(content, key)), None)):
        content = content[inner]
    if not isinstance(content, dict) or not content:
        what = "an empty dict" if content == {} else f"a {type(content).__name__}"
        raise refusal(name, f"contains {what} instead of a state dict", "save model.state_dict()")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            problem = f"contains a {type(value).__name__} under {key!r} where a state dict has tensors"
            raise refusal(name, problem, "save model.state_dict(), alone or under 'state_dict' or 'model'")
    return content


def _wraps(content: Mapping[str, Any], key: str) -> bool:
    return isinstance(content.get(key), Mapping)


def _unprefixed(state: ModelState) -> ModelState:
    for prefix in _PREFIXES * 2:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _check_finite(name: str, state: ModelState) -> None:
    for key, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise refusal(name, f"{key} contains NaN or infinite values", "give weights of a training that converged")


def fill(recipe: Recipe, checkpoint: Checkpoint) -> TrainedModule:
    """The recipe's module with the checkpoint's weights and number of classes.

    If the number of classes is not the published one, the labels are unknown.

    Raises:
        ModelError: unless the checkpoint has exactly the weights of the module, in the same shapes.
    """
    state = recipe.rename(checkpoint.state)
    module = recipe.build(None)
    labels = recipe.labels
    classes = _other_classes(module.state_dict(), state)
    if classes is not None:
        with refusing(recipe.name, f"cannot be built with {classes} classes", "give weights of this architecture"):
            module = recipe.build(classes)
        labels = None
    _install(recipe.name, module, checkpoint._replace(state=state))
    return TrainedModule(module, checkpoint.digest, labels)


def state_digest(module: nn.Module) -> str:
    """SHA-256 of a module's weights and buffers: names, dtypes, shapes and bytes, in the order of the names.

    It does not depend on the device and the memory format.

    Args:
        module: the module, on any device.

    >>> state_digest(nn.Flatten()) == state_digest(nn.ReLU())
    True
    """
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _other_classes(expected: ModelState, given: ModelState) -> int | None:
    """The checkpoint's number of classes, if only the first dimension of some tensors differs; else None."""
    pairs = [(expected[key].shape, given[key].shape) for key in expected.keys() & given.keys()]
    different = [(ours, theirs) for ours, theirs in pairs if ours != theirs]
    if not different or any(not ours or not theirs or ours[1:] != theirs[1:] for ours, theirs in different):
        return None
    from_to = {(ours[0], theirs[0]) for ours, theirs in different}
    return from_to.pop()[1] if len(from_to) == 1 else None


def _install(name: str, module: nn.Module, checkpoint: Checkpoint) -> None:
    remedy = f"give weights of {name}, or the name of the model that these belong to"
    expected = module.state_dict()
    for key in expected.keys() & checkpoint.state.keys():
        ours, theirs = tuple(expected[key].shape), tuple(checkpoint.state[key].shape)
        if ours != theirs:
            raise refusal(checkpoint.name, f"{key} has shape {theirs}, {ours} in {name}", remedy)
    with refusing(checkpoint.name, f"does not fit {name}", remedy):
        missing, unexpected = module.load_state_dict(checkpoint.state, strict=False)
    if missing or unexpected:
        problems = [f"lacks {_some(missing)}"] if missing else []
        problems += [f"has {_some(unexpected)}, which {name} does not"] if unexpected else []
        raise refusal(checkpoint.name, " and ".join(problems), remedy)


def _some(keys: Iterable[str]) -> str:
    """The first few keys, and the number of the others."""
    listed = list(keys)
    more = f" and {len(listed) - _MAX_KEYS} more" if len(listed) > _MAX_KEYS else ""
    return ", ".join(listed[:_MAX_KEYS]) + more
