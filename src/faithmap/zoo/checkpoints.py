"""Read weights from a file that nobody has vouched for: no code in it is run, whatever it claims to be."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from faithmap.zoo.errors import ModelError, refusal, refusing
from faithmap.zoo.recipe import State

_REMEDY = "give an intact file of weights (.safetensors, or .pt, .pth, .bin that torch.save wrote)"
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


class Checkpoint(NamedTuple):
    """Weights by name, and the SHA-256 of the file that they were read from."""

    name: str
    digest: str
    state: State


def read_checkpoint(path: str | os.PathLike[str], *, sha256: str | None = None, remedy: str = _REMEDY) -> Checkpoint:
    """Read a safetensors file, or one that ``torch.save`` wrote, recognised by content.

    A state dict inside ``{"state_dict": ...}`` or ``{"model": ...}`` is unwrapped; the prefixes that DataParallel
    (``module.``) and ``torch.compile`` (``_orig_mod.``) put before every key are taken off.

    Args:
        path: of the file.
        sha256: what the digest must be; nothing is parsed if it is another.
        remedy: what the error for another digest tells the user to do.

    Raises:
        ModelError: if the file cannot be read, is another, holds code, damage, something else than tensors, or NaN.
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
    """Say what torch.load found; its own message goes on for a page."""
    if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
        remedy = "save only the weights: torch.save(model.state_dict(), ...)"
        return refusal(name, f"holds the Python object {named[1]}, and code in a checkpoint is never run", remedy)
    if "TorchScript" in str(error):
        return refusal(name, "is a TorchScript program", "save only the weights: torch.save(model.state_dict(), ...)")
    return refusal(name, "is damaged, or no file of weights", _REMEDY)


def _state_dict(name: str, content: Any) -> State:
    while isinstance(content, Mapping) and (inner := next((key for key in _WRAPPERS if _wraps(content, key)), None)):
        content = content[inner]
    if not isinstance(content, dict) or not content:
        what = "an empty dict" if content == {} else f"a {type(content).__name__}"
        raise refusal(name, f"holds {what} instead of a state dict", "save model.state_dict()")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            problem = f"holds a {type(value).__name__} under {key!r} where a state dict has tensors"
            raise refusal(name, problem, "save model.state_dict(), alone or under 'state_dict' or 'model'")
    return content


def _wraps(content: Mapping[str, Any], key: str) -> bool:
    return isinstance(content.get(key), Mapping)


def _unprefixed(state: State) -> State:
    for prefix in _PREFIXES * 2:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _check_finite(name: str, state: State) -> None:
    for key, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise refusal(name, f"{key} holds NaN or infinite values", "give weights of a training that converged")
