"""Loading: the names of all models, and from a name to a Classifier."""

from __future__ import annotations

import difflib
import os
from importlib import import_module

import torch

from faithmap.geometry import Geometry
from faithmap.model import Classifier
from faithmap.score import OutputKind
from faithmap.zoo import embedded
from faithmap.zoo.folding import fold_batch_norm as folded
from faithmap.zoo.recipe import ModelError, Recipe, fill, read_checkpoint, refusal

_LIBRARIES = {
    "timm": "faithmap.zoo.timm_models",
    "torchvision": "faithmap.zoo.torchvision_models",
    "hf": "faithmap.zoo.huggingface",
}
_LISTABLE = ("torchvision", "timm")


def load(
    name: str = "efficientnet_lite0",
    *,
    weights: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
    channels_last: bool = True,
    fold_batch_norm: bool = True,
    outputs: OutputKind | None = None,
) -> Classifier:
    """A trained classifier, in evaluation mode, with its preprocessing and class labels.

    >>> model = load("lite0")
    >>> model.name, model.geometry.crop, model.label(282)
    ('efficientnet_lite0', (224, 224), 'tiger cat')

    Args:
        name: ``efficientnet_lite0``, ``1`` or ``2`` (also ``lite0``), which are installed with pip; ``timm/NAME``,
            ``torchvision/NAME`` and ``hf/REPO``, which are downloaded on first use.
        weights: a file with the weights in place of the published ones: safetensors, or a state dict that ``torch.save``
            wrote. It determines the number of classes; if that is not the published number, the labels are unknown.
        device: device of the classifier; None for the CPU.
        channels_last: store weights with the channels last, which is fastest for convolutions.
        fold_batch_norm: merge normalisations into the convolutions before them (`fold_batch_norm`): logits change by rounding,
            and passes are faster.
        outputs: what the model returns for its classes: ``logits``, ``probabilities``, or ``sigmoid`` for a model with several
            labels or a single logit (`Classifier`). None for what its configuration says.

    Raises:
        ModelError: if there is no such model, or its weights are not available or do not fit.
    """
    checked_device = _checked_device(device or "cpu")
    recipe = recipe_of(name)
    # building a module draws random weights: with a generator of its own, on the CPU, whatever the default device
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.inference_mode(False):
        module, digest, labels = recipe.publish() if weights is None else fill(recipe, read_checkpoint(weights))
        module.eval()
        mean, std, geometry = recipe.preprocessing
        if fold_batch_norm:
            module = folded(module, (len(mean), *_input_size(geometry)))
        if channels_last:
            module = module.to(memory_format=torch.channels_last)
        classifier = Classifier(
            module,
            mean=mean,
            std=std,
            labels=labels,
            geometry=geometry,
            name=recipe.name,
            digest=digest,
            outputs=outputs or recipe.outputs,
        )
    return classifier.to(checked_device).eval()


def _checked_device(device: torch.device | str) -> torch.device:
    """The device if it is available; a short error in place of torch's long message."""
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:
        raise refusal(f"device {str(device)!r}", "is not available on this computer", "give another, such as 'cpu'") from error
    return torch.device(device)


def _input_size(geometry: Geometry) -> tuple[int, int]:
    return geometry.crop or geometry.resized((224, 224))


def names() -> list[str]:
    """The models that need no network, the default first; the weights of lite1 and lite2 are in ``faithmap[zoo]``.

    >>> names()
    ['efficientnet_lite0', 'efficientnet_lite1', 'efficientnet_lite2']
    """
    return embedded.names()


def available(prefix: str | None = None) -> list[str]:
    """All names that start with the prefix, without those of the Hugging Face hub.

    Args:
        prefix: start of the names, such as ``timm/resnet``; None for all names.

    >>> available("torchvision/vgg16")
    ['torchvision/vgg16', 'torchvision/vgg16_bn']
    """
    start = prefix or ""
    matching = [name for name in names() if name.startswith(start)]
    for library in _LISTABLE:
        if f"{library}/".startswith(start) or start.startswith(f"{library}/"):
            listed = (f"{library}/{name}" for name in import_module(_LIBRARIES[library]).names())
            matching += [name for name in listed if name.startswith(start)]
    return matching


def recipe_of(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ModelError: for an unknown name; suggests similar ones.
    """
    library, _, rest = name.partition("/")
    if rest and library in _LIBRARIES:
        recipe: Recipe = import_module(_LIBRARIES[library]).recipe(rest)
        return recipe
    full = f"efficientnet_{name}" if name.startswith("lite") else name
    if full in names():
        return embedded.recipe(full)
    raise _unknown_name(name)


def _unknown_name(name: str) -> ModelError:
    elsewhere = [f"{library}/{name}" for library in _LISTABLE if name in _bare_names(library)]
    near = elsewhere or difflib.get_close_matches(name, [*names(), "lite0", "lite1", "lite2"], n=2)
    known = f"give {', '.join(names())}, timm/NAME, torchvision/NAME or hf/REPO"
    return refusal(repr(name), "is no model", f"did you mean {' or '.join(near)}?" if near else known)


def _bare_names(library: str) -> set[str]:
    """The library's names, also without timm's tags behind a dot."""
    listed: list[str] = import_module(_LIBRARIES[library]).names()
    return {*listed, *(name.partition(".")[0] for name in listed)}
