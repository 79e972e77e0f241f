"""Random draws in a stream: many for each image, a chunk at a time, the same however they are chunked.

Each draw is made by a call of its own on its image's generator. Numbers drawn together would depend on how many are drawn,
which no seed could repair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor


def streamed(images: int, draws: int, chunk_size: int) -> Iterator[list[tuple[int, int]]]:
    """All draws of all images in full chunks: of each chunk, which image has how many.

    >>> list(streamed(images=2, draws=3, chunk_size=4))
    [[(0, 3), (1, 1)], [(1, 2)]]
    """
    for start in range(0, images * draws, chunk_size):
        stop = min(start + chunk_size, images * draws)
        owners = range(start // draws, (stop - 1) // draws + 1)
        yield [(i, min(stop, (i + 1) * draws) - max(start, i * draws)) for i in owners]


def drawn(
    count: int, shape: Sequence[int], generator: torch.Generator, fill: Callable[[Tensor], object], dtype: torch.dtype
) -> Tensor:
    """So many draws of that shape, (count, *shape), on the generator's device; ``fill`` writes one in place."""
    values = torch.empty((count, *shape), dtype=dtype, device=generator.device)
    for value in values:
        fill(value)
    return values


def normal(count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard normal numbers."""
    return drawn(count, shape, generator, lambda value: value.normal_(generator=generator), torch.float32)


def uniform(count: int, shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers in [0, 1)."""
    return drawn(count, shape, generator, lambda value: value.uniform_(generator=generator), dtype)
