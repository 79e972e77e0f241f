"""captum, loaded when a method of it is used, and what it does behind a caller's back undone.

captum draws some numbers from torch's generators and some from numpy's, both of them global, and warns of hooks that it sets.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

from faithmap.seeds import seeded


def captum(module: str = "captum.attr") -> Any:
    """A module of captum.

    Raises:
        ModuleNotFoundError: where captum is not installed; says how it is.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "captum":
            raise
        raise ModuleNotFoundError("this method is captum's; pip install 'faithmap[captum]'", name="captum") from error


@contextmanager
def silent() -> Iterator[None]:
    """Hide captum's own warnings: they are about hooks on modules that are not the user's."""
    with warnings.catch_warnings():
        for words in ("Setting backward hooks on ReLU", "Setting forward, backward hooks and attributes"):
            warnings.filterwarnings("ignore", message=rf"\s*{re.escape(words)}")
        yield


@contextmanager
def drawing(generator: torch.Generator) -> Iterator[None]:
    """The global generators of torch and numpy begin at a seed drawn from this one; afterwards both are as they were."""
    import numpy as np  # noqa: PLC0415 - captum needs it, the rest of the methods do not

    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    before = np.random.get_state()  # noqa: NPY002 - it is the global one that captum draws from
    try:
        np.random.seed(seed % 2**32)  # noqa: NPY002
        with seeded(seed, generator.device):
            yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
