"""Threads give the maps of one call after the other, and leave the model and the process as they were."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from threading import Barrier, Thread
from typing import TypeVar

import numpy as np
import pytest
import torch
from method_tools import FEWEST, TinyNet, cheap, small_images
from oracles import Untouched
from torch import Tensor, nn

import faithmap as fm
from faithmap.capture import uncompiled
from faithmap.methods.base import Explainer
from faithmap.methods.registry import METHODS
from faithmap.model import undisturbed
from faithmap.seeds import seeded
from faithmap.warning_types import suppressed, warn

pytestmark = pytest.mark.sweep

THREADS, CALLS = 6, 36

R = TypeVar("R")


@pytest.fixture(autouse=True)
def often_switched(one_thread: None) -> Iterator[None]:
    """Threads take turns after 10 microseconds instead of 5 milliseconds, so that those that disturb each other do so."""
    del one_thread
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def at_once(calls: Sequence[Callable[[], R]], threads: int = THREADS) -> list[R]:
    """The results of calls that several threads make at the same time."""
    start = Barrier(threads, timeout=60)

    def worker(number: int) -> list[R]:
        start.wait()
        return [call() for call in calls[number::threads]]

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(worker, range(threads)))
    return [parts[i % threads][i // threads] for i in range(len(calls))]


def heatmap_of(explain: Explainer, image: Tensor) -> Tensor:
    return explain(image, 0).heatmap


class Normalised(TinyNet):
    """With batch normalisation and dropout, which a model in training mode changes and draws from."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(self.stem, nn.BatchNorm2d(6))  # type: ignore[assignment] # instead of the convolution
        self.head = nn.Sequential(nn.Dropout(0.5), self.head)  # type: ignore[assignment]


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.parametrize("name", METHODS)
def test_six_threads_on_one_model_in_training_mode_give_the_maps_of_one(name: str, untouched: Untouched) -> None:
    model, images = untouched(Normalised().train()), small_images(4)

    def call(i: int) -> Callable[[], Tensor]:
        explain = cheap(name, model, seed=i % 3, **FEWEST.get(name, {}))
        return lambda: explain(images[i % 4, None], i % 3).heatmap

    calls = [call(i) for i in range(CALLS)]
    expected = [one() for one in calls[:12]]  # the images, classes and seeds repeat
    for i, heatmap in enumerate(at_once(calls)):
        assert torch.equal(heatmap, expected[i % 12])


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.parametrize("name", ["lime", "kernelshap", "gradientshap"])
def test_threads_with_different_models_do_not_draw_each_other_s_random_numbers(name: str) -> None:
    pytest.importorskip("captum")
    explainers = [cheap(name, TinyNet(), seed=seed) for seed in (0, 1)]
    image = small_images(1)
    expected = [explain(image, 0).heatmap for explain in explainers]
    state, others = torch.get_rng_state(), str((random.getstate(), np.random.get_state()))  # noqa: NPY002
    found = at_once([partial(heatmap_of, explain, image) for _ in range(20) for explain in explainers], 2)
    for i, heatmap in enumerate(found):
        assert torch.equal(heatmap, expected[i % 2])
    assert torch.equal(torch.get_rng_state(), state)
    assert str((random.getstate(), np.random.get_state())) == others  # noqa: NPY002


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
def test_models_that_share_a_module_take_turns() -> None:
    shared = TinyNet()
    models = [nn.Sequential(shared), fm.Classifier(shared), shared]
    explainers = [fm.GradCAM(model) for model in models]
    image = small_images(1)
    expected = [explain(image, 0).heatmap for explain in explainers]
    found = at_once([partial(heatmap_of, explain, image) for _ in range(6) for explain in explainers], 3)
    for i, heatmap in enumerate(found):
        assert torch.equal(heatmap, expected[i % 3])


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
def test_a_call_that_fails_lets_the_next_thread_in(untouched: Untouched) -> None:
    model = untouched(Normalised().train())
    explain = fm.GradCAM(model)

    def failing() -> bool:
        with pytest.raises(ValueError, match="target names class 9"):
            explain(small_images(1), 9)
        return True

    assert at_once([failing, lambda: bool(explain(small_images(1), 0).heatmap.isfinite().all())], 2) == [True, True]


Block = Callable[[], AbstractContextManager[object]]


def models(count: int) -> list[Block]:
    return [partial(undisturbed, TinyNet()) for _ in range(count)]


@pytest.mark.parametrize("blocks", [models(2), models(3), [*models(1), partial(seeded, 0, torch.device("cpu"))]])
def test_of_threads_that_would_wait_for_each_other_for_ever_one_is_refused(blocks: list[Block]) -> None:
    """Each thread is in one block, and asks for the next one: the last to ask is refused, and the others continue."""
    all_are_in_one, outcomes = Barrier(len(blocks), timeout=60), list[str]()

    def nested(number: int) -> None:
        with blocks[number]():
            all_are_in_one.wait()
            try:
                with blocks[(number + 1) % len(blocks)]():
                    outcomes.append("both")
            except RuntimeError as refused:
                outcomes.append(str(refused))

    running = [Thread(target=nested, args=(number,), daemon=True) for number in range(len(blocks))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in running)
    assert outcomes.count("both") == len(blocks) - 1
    assert "each needs a model that another one is using" in max(outcomes)
    with ExitStack() as stack:  # nothing is left locked
        for block in blocks:
            stack.enter_context(block())


def test_suppressed_warnings_are_those_of_one_thread(recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    first, second, third = (Barrier(2, timeout=60) for _ in range(3))

    def suppressing() -> None:
        with suppressed():
            first.wait()
            second.wait()
            warn("not seen", fm.FaithmapWarning)
        third.wait()

    def warning() -> None:
        first.wait()
        with suppressed():
            second.wait()
            third.wait()
        warn("seen", fm.FaithmapWarning)

    at_once([suppressing, warning], 2)
    assert [str(warning.message) for warning in recwarn] == ["seen"]


def test_the_stance_of_the_compiler_is_restored_when_the_last_thread_is_done() -> None:
    from torch._dynamo import eval_frame

    first, second = (Barrier(2, timeout=60) for _ in range(2))

    def early() -> str:
        with uncompiled():
            first.wait()
        second.wait()
        return str(eval_frame._stance.stance)

    def late() -> str:
        first.wait()
        with uncompiled():
            second.wait()
            return str(eval_frame._stance.stance)

    initial = eval_frame._stance.stance
    at_once([early, late], 2)
    assert eval_frame._stance.stance == initial
