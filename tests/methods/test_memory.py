"""No call of a method keeps memory: neither tensors nor cycles that wait for Python's garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from method_tools import FEWEST, TinyNet, cheap, live, small_images

from faithmap.methods.registry import METHODS

pytestmark = pytest.mark.sweep

CALLS = 50


@pytest.fixture(scope="module", autouse=True)
def only_new_objects() -> Iterator[None]:
    """What lived before these tests is neither counted nor searched, which would take most of their time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", METHODS)
def test_fifty_calls_leave_no_tensor(name: str) -> None:
    image, model, more = small_images(1), TinyNet(), FEWEST.get(name, {})
    explain = cheap(name, model, **more)
    explain(image, 0)  # layers are found in the first call, and kept
    gc.collect()
    gc.disable()
    try:
        first = live()
        for _ in range(CALLS):
            explain(image, 0)
        assert live() == first
    finally:
        gc.enable()
    for _ in range(3):  # an explainer that was made for one call has its layers, but does not outlive it
        cheap(name, model, **more)(image, 0)
    gc.collect()
    assert live() == first
