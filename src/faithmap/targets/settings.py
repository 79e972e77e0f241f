"""Settings of targets: one value for all images, or one per image. They are checked, and selected for the rows of an output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias, get_args

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from faithmap.model import check_images, undisturbed, working_images
from faithmap.probe import run_model
from faithmap.score import at_least_single, tensor_in

Number: TypeAlias = int | Sequence[int] | Tensor
"""Number of a class, label or output: one for all images, or one per image."""


def check_choice(name: str, given: object, known: Any) -> None:
    """Raise ValueError if the value is not one of a Literal's."""
    if given not in get_args(known):
        raise ValueError(f"{name} is {given!r}; give one of {', '.join(map(str, get_args(known)))}")


def check_numbers(name: str, given: Number) -> None:
    """Raise ValueError unless the setting is an integer of at least 0, or one per image."""
    values = torch.as_tensor(given)
    whole = not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
    if not whole or values.ndim > 1 or values.numel() == 0 or int(values.min()) < 0:
        raise ValueError(f"{name} is {given!r}; give a number of at least 0, for all images or one for each")


def count_of(setting: Any) -> int | None:
    """Number of images that there are values for; None if one is for all images."""
    values = None if setting is None else torch.as_tensor(setting)
    return None if values is None or values.ndim == 0 else len(values)


def check_counts(one: tuple[str, int | None], other: tuple[str, int | None]) -> None:
    """Raise ValueError if two settings, each a name and a count, are for different numbers of images."""
    if None not in (one[1], other[1]) and one[1] != other[1]:
        raise ValueError(f"{one[0]} is given for {one[1]} images, {other[0]} for {other[1]}; give one of each for every image")


def rows_of(setting: Any, index: Int[Tensor, " m"]) -> Shaped[Tensor, " m"]:
    """The value for the image of each row."""
    values = torch.as_tensor(setting).to(index.device)
    return values.expand(len(index)) if values.ndim == 0 else values[index]


def columns_of(output: Any) -> Float[Tensor, "m k"]:
    """The numbers that a model returns for each image, one or several.

    Raises:
        TypeError: for an output of another shape.
    """
    values = at_least_single(tensor_in(output))
    if values.ndim not in (1, 2):
        raise TypeError(f"the model returned shape {tuple(values.shape)}, expected (images,) or (images, numbers)")
    return values.unsqueeze(1) if values.ndim == 1 else values


def picked(values: Float[Tensor, "m k ..."], numbers: Int[Tensor, " m"], name: str) -> Float[Tensor, "m ..."]:
    """The column of each row that its number selects.

    Raises:
        ValueError: for a number that is not less than the number of columns.
    """
    if int(numbers.max()) >= values.shape[1]:
        raise ValueError(f"{name} is {int(numbers.max())}, but the model returns 0 to {values.shape[1] - 1}; give one of these")
    return values[torch.arange(len(values), device=values.device), numbers]


@torch.no_grad()
def clean_outputs(
    model: nn.Module, images: Float[Tensor, "n c h w"], chunk_size: int
) -> Iterator[tuple[Any, Int[Tensor, " m"]]]:
    """The model's output for each chunk of clean images, and their indices."""
    check_images(model, images)
    images = working_images(model, images)
    for index in torch.arange(len(images), device=images.device).split(chunk_size):
        with undisturbed(model), torch.no_grad():
            output = run_model(model, images[index])
        yield output, index
