"""One generator for each image, so that the batch that an image came in cannot matter.

The seed of image i under the run's seed s is the first eight bytes of SHA-256 of "s:i": neighbouring seeds and
neighbouring images have nothing in common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch

Generators: TypeAlias = torch.Generator | Sequence[torch.Generator] | None


def image_generators(seed: int, indices: Iterable[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """The generators of these images of a run; pass them to explain part of a run as the whole run would.

    >>> image_generators(0, [7])[0].initial_seed() == image_generators(0, range(10))[7].initial_seed()
    True
    """
    return [torch.Generator(device).manual_seed(derived(seed, index)) for index in indices]


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


def derived(seed: int, key: int | str) -> int:
    """The seed of one image, by its index, or of one thing, by its name, under the run's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big", signed=True)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The generators of torch itself, of processor and CUDA device, begin at that seed; afterwards all is as it was."""
    accelerators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(accelerators):
        torch.default_generator.manual_seed(seed)
        for accelerator in accelerators:
            with torch.cuda.device(accelerator):
                torch.cuda.manual_seed(seed)
        yield
