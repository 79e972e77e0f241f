"""Random numbers: one generator per image, so that no draw depends on the batch or the chunk of an image.

The seed of image i under the run's seed s is the first eight bytes of SHA-256 of "s:i": the seeds of neighbouring runs and
neighbouring images are unrelated. A metric that needs many draws per image makes a separate call to the image's generator for
each draw, because numbers drawn by one call depend on how many are drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

from faithmap.locks import locked

Generators: TypeAlias = torch.Generator | Sequence[torch.Generator] | None


def image_generators(seed: int, indices: Iterable[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """The generators of these images of a run; pass them to explain a part of a run as the whole run would.

    >>> image_generators(0, [7])[0].initial_seed() == image_generators(0, range(10))[7].initial_seed()
    True

    Args:
        seed: seed of the run.
        indices: indices of the images in the run.
        device: device of the generators.
    """
    return [torch.Generator(device).manual_seed(derived(seed, index)) for index in indices]


def resolve_generators(generator: Generators, seed: int, count: int, device: torch.device) -> list[torch.Generator]:
    """One generator per image: the given ones, or made from a seed that the given one draws, or made from ``seed``.

    Raises:
        ValueError: if the number of generators is not the number of images.
    """
    if isinstance(generator, torch.Generator):
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    elif generator is not None:
        if len(generator) != count:
            raise ValueError(f"generator has {len(generator)} entries for {count} images; give one per image, or one for all")
        return list(generator)
    return image_generators(seed, range(count), device)


def derived(seed: int, key: int | str) -> int:
    """The seed of one image (by its index) or of one named thing, under the run's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big", signed=True)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators (CPU and CUDA device) inside the block; afterwards restore their state.

    One thread at a time, because all threads of a process draw from these generators.
    """
    accelerators = [device] if device.type == "cuda" else []
    with locked(["the global generators of torch and numpy"]), torch.random.fork_rng(accelerators):
        torch.default_generator.manual_seed(seed)
        for accelerator in accelerators:
            with torch.cuda.device(accelerator):
                torch.cuda.manual_seed(seed)
        yield


def chunked_draws(images: int, draws: int, chunk_size: int) -> Iterator[list[tuple[int, int]]]:
    """All draws of all images in full chunks; each chunk is a list of (image, number of draws).

    >>> list(chunked_draws(images=2, draws=3, chunk_size=4))
    [[(0, 3), (1, 1)], [(1, 2)]]
    """
    for start in range(0, images * draws, chunk_size):
        stop = min(start + chunk_size, images * draws)
        chunk = range(start // draws, (stop - 1) // draws + 1)
        yield [(i, min(stop, (i + 1) * draws) - max(start, i * draws)) for i in chunk]


def normal_draws(count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard normal numbers, (count, *shape), on the generator's device; one call to the generator per draw."""
    return _draws(count, shape, lambda value: value.normal_(generator=generator), torch.float32, generator.device)


def uniform_draws(count: int, shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform numbers in [0, 1), (count, *shape), on the generator's device; one call to the generator per draw."""
    return _draws(count, shape, lambda value: value.uniform_(generator=generator), dtype, generator.device)


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1) of that shape, in single precision whatever the default dtype is, on the generator's device.

    >>> uniform((2, 3), torch.Generator().manual_seed(0)).dtype
    torch.float32
    """
    return torch.rand(tuple(shape), generator=generator, device=generator.device, dtype=torch.float32)


def _draws(
    count: int, shape: Sequence[int], fill: Callable[[Tensor], object], dtype: torch.dtype, device: torch.device
) -> Tensor:
    values = torch.empty((count, *shape), dtype=dtype, device=device)
    for value in values:
        fill(value)
    return values
