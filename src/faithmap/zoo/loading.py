"""load: a name becomes a Classifier."""

from __future__ import annotations

import os

import torch

from faithmap.geometry import Geometry
from faithmap.model import Classifier
from faithmap.zoo.catalog import recipe_of
from faithmap.zoo.checkpoints import read_checkpoint
from faithmap.zoo.errors import refusal
from faithmap.zoo.folding import fold_batch_norm as folded
from faithmap.zoo.weights import fill


def load(
    name: str = "efficientnet_lite0",
    *,
    weights: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
    channels_last: bool = True,
    fold_batch_norm: bool = True,
) -> Classifier:
    """A trained classifier, in evaluation mode, with the preprocessing and class names that belong to it.

    >>> model = load("lite0")
    >>> model.name, model.geometry.crop, model.label(282)
    ('efficientnet_lite0', (224, 224), 'tiger cat')

    Args:
        name: ``efficientnet_lite0``, ``1`` or ``2`` (also ``lite0``), which are installed with pip; ``timm/NAME``,
            ``torchvision/NAME`` and ``hf/REPO``, which are downloaded when first used.
        weights: a file to take the weights from instead of the published: safetensors, or a state dict that
            ``torch.save`` wrote. It decides the number of classes; if that is not the published number, the classes
            are others, and have no names.
        device: where the classifier is put; the CPU if None.
        channels_last: put the channels of weights last in memory, which convolutions are fastest with.
        fold_batch_norm: merge normalisations into the convolutions before them (`fold_batch_norm`): logits differ by
            rounding, passes take a fraction of the time.

    Raises:
        ModelError: if there is no such model, or its weights cannot be had or do not fit; one line, which says what
            to do.
    """
    place = _place(device or "cpu")
    recipe = recipe_of(name)
    # An untrained module draws random weights first: from a generator of its own, on the CPU, whatever the defaults.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.inference_mode(False):
        module, digest, labels = recipe.publish() if weights is None else fill(recipe, read_checkpoint(weights))
        module.eval()
        mean, std, geometry = recipe.shown
        if fold_batch_norm:
            module = folded(module, (len(mean), *_input_size(geometry)))
        if channels_last:
            module = module.to(memory_format=torch.channels_last)
        classifier = Classifier(module, mean=mean, std=std, labels=labels, geometry=geometry, name=recipe.name, digest=digest)
    return classifier.to(place).eval()


def _place(device: torch.device | str) -> torch.device:
    """The device, if numbers can be kept there; what torch says of one that it does not know goes on for lines."""
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:
        raise refusal(f"device {str(device)!r}", "is not one that this computer has", "give another, such as 'cpu'") from error
    return torch.device(device)


def _input_size(geometry: Geometry) -> tuple[int, int]:
    return geometry.crop or geometry.resized((224, 224))
