"""One generator for each image."""

from __future__ import annotations

import pytest
import torch

from faithmap.seeds import image_generators, resolve_generators


def test_every_image_of_every_run_has_its_own_numbers() -> None:
    seeds = {g.initial_seed() for run in range(5) for g in image_generators(run, range(20))}
    assert len(seeds) == 100


def test_a_part_of_a_run_has_the_numbers_of_the_whole() -> None:
    whole = resolve_generators(None, 3, 8, torch.device("cpu"))
    assert [g.initial_seed() for g in image_generators(3, [5, 2])] == [whole[i].initial_seed() for i in (5, 2)]


def test_a_given_generator_decides_the_numbers_and_advances() -> None:
    def drawn(generator: torch.Generator) -> int:
        return resolve_generators(generator, 0, 1, torch.device("cpu"))[0].initial_seed()

    mine = torch.Generator().manual_seed(1)
    first, second = drawn(mine), drawn(mine)
    assert first != second
    assert first == drawn(torch.Generator().manual_seed(1))


def test_a_wrong_number_of_generators_raises() -> None:
    with pytest.raises(ValueError, match="2 entries for 3 images"):
        resolve_generators(image_generators(0, range(2)), 0, 3, torch.device("cpu"))
