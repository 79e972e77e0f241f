"""From a name to its recipe, and which names there are."""

from __future__ import annotations

import difflib
from importlib import import_module

from faithmap.zoo import embedded
from faithmap.zoo.errors import ModelError, refusal
from faithmap.zoo.recipe import Recipe

_LIBRARIES = {
    "timm": "faithmap.zoo.timm_models",
    "torchvision": "faithmap.zoo.torchvision_models",
    "hf": "faithmap.zoo.huggingface",
}
_LISTED = ("torchvision", "timm")


def names() -> list[str]:
    """The models that need no network, the default first; of lite1 and lite2 the weights are in ``faithmap[zoo]``.

    >>> names()
    ['efficientnet_lite0', 'efficientnet_lite1', 'efficientnet_lite2']
    """
    return embedded.names()


def available(prefix: str | None = None) -> list[str]:
    """All names that start with the prefix; those of Hugging Face's hub are too many to list.

    >>> available("torchvision/vgg16")
    ['torchvision/vgg16', 'torchvision/vgg16_bn']
    """
    start = prefix or ""
    found = [name for name in names() if name.startswith(start)]
    for library in _LISTED:
        if f"{library}/".startswith(start) or start.startswith(f"{library}/"):
            listed = (f"{library}/{name}" for name in import_module(_LIBRARIES[library]).names())
            found += [name for name in listed if name.startswith(start)]
    return found


def recipe_of(name: str) -> Recipe:
    """What the name stands for.

    Raises:
        ModelError: if it stands for nothing; names the nearest.
    """
    library, _, rest = name.partition("/")
    if rest and library in _LIBRARIES:
        recipe: Recipe = import_module(_LIBRARIES[library]).recipe(rest)
        return recipe
    full = f"efficientnet_{name}" if name.startswith("lite") else name
    if full in names():
        return embedded.recipe(full)
    raise _unknown(name)


def _unknown(name: str) -> ModelError:
    elsewhere = [f"{library}/{name}" for library in _LISTED if name in _bare_names(library)]
    near = elsewhere or difflib.get_close_matches(name, [*names(), "lite0", "lite1", "lite2"], n=2)
    known = f"give {', '.join(names())}, timm/NAME, torchvision/NAME or hf/REPO"
    return refusal(repr(name), "is no model", f"did you mean {' or '.join(near)}?" if near else known)


def _bare_names(library: str) -> set[str]:
    """The library's names, also without the tags that timm puts behind a dot."""
    listed: list[str] = import_module(_LIBRARIES[library]).names()
    return {*listed, *(name.partition(".")[0] for name in listed)}
