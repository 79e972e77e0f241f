"""Put a checkpoint into a module, all of it or nothing; tell one set of weights from another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import nn

from faithmap.zoo.checkpoints import Checkpoint
from faithmap.zoo.errors import refusal, refusing
from faithmap.zoo.recipe import Recipe, State, Trained

_SHOWN = 3


def fill(recipe: Recipe, checkpoint: Checkpoint) -> Trained:
    """The recipe's module with the checkpoint's weights, with as many classes as the checkpoint has.

    Classes of another number than the published are others: they have no names.

    Raises:
        ModelError: unless every weight of the module is in the checkpoint, in its shape, and no other.
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
    return Trained(module, checkpoint.digest, labels)


def state_digest(module: nn.Module) -> str:
    """SHA-256 of a module's weights and buffers: names, dtypes, shapes and bytes, in the order of the names.

    Neither device nor memory format counts.
    """
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _other_classes(expected: State, given: State) -> int | None:
    """The checkpoint's number of classes, if it is in the first dimension of some tensors that the two differ."""
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
    """The first few keys, and how many more there are."""
    listed = list(keys)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
