"""One generator for each image, so that the batch that an image came in cannot matter.

The seed of image i under the run's seed s is the first eight bytes of SHA-256 of "s:i": neighbouring seeds and
neighbouring images have nothing in common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch

Generators: TypeAlias = torch.Generator | Sequence[torch.Generator] | None


def image_generators(seed: int, indices: Iterable[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """The generators of these images of a run; pass them to explain part of a run as the whole run would.

    >>> image_generators(0, [7])[0].initial_seed() == image_generators(0, range(10))[7].initial_seed()
    True
    """
    return [torch.Generator(device).manual_seed(_seed(seed, index)) for index in indices]


def resolve_generators(generator: Generators, seed: int, count: int, device: torch.device) -> list[torch.Generator]:
    """One generator an image: from the user's list, from a seed drawn off the user's generator, or from ``seed``.

    Raises:
        ValueError: for a list of another length than there are images.
    """
    if isinstance(generator, torch.Generator):
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    elif generator is not None:
        if len(generator) != count:
            raise ValueError(f"generator has {len(generator)} entries for {count} images; give one per image, or one for all")
        return list(generator)
    return image_generators(seed, range(count), device)


def _seed(seed: int, index: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{index}".encode()).digest()[:8], "big", signed=True)
