"""Budget: methods that exceed it are left out or stopped, and estimates are corrected by measured times."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracles import SmallNet
from selection_tools import (
    AREAS,
    EVALUATION_PASSES,
    TIMING_SECONDS,
    Given,
    Slow,
    Timed,
    bright_images,
    left_out,
    run,
)
from torch import Tensor, nn

import faithmap as fm
from faithmap.methods.controls import CentredGaussian, RandomMap
from faithmap.selection import choose
from faithmap.selection.budget import OVERRUN, OutOfTimeError, TimeBudget

pytestmark = [pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"), pytest.mark.usefixtures("one_thread")]


def test_a_method_beyond_the_budget_is_left_out_with_its_cost() -> None:
    model = Timed()
    dear, cheap = Given(model, cost=500, estimate=500), Given(model, degree=0.9)
    each = [3 * 0.01 * (passes + EVALUATION_PASSES) for passes in (1, 500)]
    choice = run(model, {"dear": dear, "cheap": cheap}, budget=2 * each[0] + each[1] - 0.1)
    assert left_out(choice) == [("dear", "would exceed the budget", pytest.approx(each[1]))]
    assert dear.explained == []
    assert choice.seconds == pytest.approx(2 * each[0] + TIMING_SECONDS, abs=0.05)
    model = Timed()
    dear, cheap = Given(model, cost=500, estimate=500), Given(model, degree=0.9)
    enough = run(model, {"dear": dear, "cheap": cheap}, budget=2 * each[0] + each[1] + TIMING_SECONDS + 0.1)
    assert enough.left_out == ()


def test_time_that_is_already_spent_counts() -> None:
    each = 2 * 0.01 * (1 + EVALUATION_PASSES)
    for spent, names in ((0.0, {"a", "b", "random_map"}), (20.0, {"a", "random_map"})):
        model = Timed()
        explainers = {"a": Given(model), "b": Given(model, degree=0.5)}
        choice = run(model, explainers, count=2, budget=3 * each + TIMING_SECONDS + 19.0, spent=spent)
        assert {method.name for method in choice.ranking} == names
        assert choice.seconds == pytest.approx(len(names) * each + TIMING_SECONDS + spent, abs=0.05)


def test_estimates_scale_with_the_size_of_the_image() -> None:
    """The simulated time depends on the pixels; the second image has four times as many."""

    class ByPixels(Timed):
        def forward(self, x: Tensor) -> Tensor:
            self.now += 0.01 * len(x) * (x[0, 0].numel() / 256 - 1)
            return super().forward(x)

    large = torch.nn.functional.interpolate(bright_images(2)[1], (32, 32))
    for budget, kept in (
        (30.0, False),
        (36.2, True),
    ):  # 5 EVALUATION_PASSES of one pass of a hundredth for three methods, and 20 of explaining
        model = ByPixels()
        dear = fm.RISE(model, masks=400, chunk_size=4)
        explainers = {"good": Given(model), "dear": dear, "random_map": RandomMap(model, resolution=8)}
        pictures = [bright_images(1)[0], large]
        choice = choose(model, pictures, explainers=explainers, budget=budget, resolution=8, clock=model.clock, score=AREAS)
        assert ({m.name for m in choice.ranking} == set(explainers)) == kept
        if not kept:
            assert left_out(choice) == [
                ("dear", "would exceed the budget", pytest.approx(5 * 0.01 * (401 + EVALUATION_PASSES)))
            ]


def test_a_method_slower_than_its_estimate_is_stopped_after_the_first_image() -> None:
    model = Timed()
    slower, unknown, last = (
        Given(model, cost=900, estimate=2),
        Given(model, estimate=None, degree=0.9),
        Given(model, estimate=4, degree=0.8),
    )
    choice = run(model, {"unknown": unknown, "slower": slower, "last": last}, budget=25.0)
    (out,) = choice.left_out
    assert out.name == "slower"
    assert out.seconds == pytest.approx(3 * 0.01 * (900 + EVALUATION_PASSES), rel=0.05)
    assert out.reason == "would exceed the budget, by its time for the first image"
    assert slower.explained == [1]
    assert {method.name for method in choice.ranking} == {"unknown", "last", "random_map"}
    assert choice.seconds <= 25.0 * OVERRUN


def test_a_method_is_stopped_while_it_explains_an_image() -> None:
    """A method of unknown cost gets a third of the remaining time for the first of three images."""
    model = Timed()
    slow, good = Slow(model, cost=10_000, estimate=None), Given(model)
    choice = run(model, {"slow": slow, "good": good}, budget=30.0)
    (out,) = choice.left_out
    assert (out.name, out.reason) == ("slow", "would exceed the budget; stopped at image 1")
    assert out.seconds == pytest.approx(3 * 0.01 * (10_000 + EVALUATION_PASSES), rel=0.02)
    left = 30.0 * OVERRUN - 2 * 3 * 0.01 * (1 + EVALUATION_PASSES) - TIMING_SECONDS
    assert choice.seconds == pytest.approx(30.0 * OVERRUN - left * 2 / 3, abs=1.1)


def test_a_method_that_slows_down_is_stopped_later() -> None:
    model = Timed()
    slow, good = Slow(model, cost=320, estimate=640, degree=0.9), Given(model)
    choice = run(model, {"slow": slow, "good": good}, budget=30.5)
    (out,) = choice.left_out
    assert (out.name, len(slow.explained)) == ("slow", 2)
    assert out.reason == "would exceed the budget, by its time for 2 images"
    assert choice.seconds <= 30.5 * OVERRUN


@pytest.mark.parametrize("method", [fm.RISE, fm.IGOS, fm.methods.gradients.SmoothGrad])
def test_a_stopped_method_leaves_the_model_unchanged(
    method: type, small_net: SmallNet, untouched: Callable[[nn.Module], nn.Module]
) -> None:
    model, now = untouched(small_net.train()), [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    with pytest.raises(OutOfTimeError):
        method(model)(torch.rand(2, 3, 32, 32), progress=lambda *_: TimeBudget(10.0, clock, 11.0).limit(1.0, 0.0)(1, 2))


def test_estimates_are_corrected_by_the_measured_evaluations() -> None:
    """The model is half as fast as when it was timed: a method that would have fitted does not."""

    class Tired(Timed):
        def forward(self, x: Tensor) -> Tensor:
            self.now += 0.01 * len(x) * (self.now > TIMING_SECONDS)
            return super().forward(x)

    model: Timed = Tired()
    explainers = {"good": Given(model), "dear": Given(model, estimate=400, cost=400)}
    choice = run(model, explainers, count=2, budget=22.0)
    assert left_out(choice) == [
        ("dear", "would exceed the budget", pytest.approx(2 * 0.02 * (400 + EVALUATION_PASSES), rel=0.01))
    ]
    model = Timed()
    explainers = {"good": Given(model), "dear": Given(model, estimate=400, cost=400)}
    assert run(model, explainers, count=2, budget=22.0).left_out == ()


def test_controls_beyond_a_third_of_the_budget_come_last() -> None:
    controls = {"gaussian": CentredGaussian, "random_map": RandomMap}
    each = 3 * 0.01 * (1 + EVALUATION_PASSES)
    cases = {
        2.9 * each: ["gaussian", "good"],
        5.9 * each: ["gaussian", "good", "random_map"],
        6.1 * each: ["gaussian", "random_map", "good"],
    }
    for budget, names in cases.items():
        model, names_run = Timed(), list[str]()
        made = {name: control(model, resolution=8) for name, control in controls.items()}
        choice = choose(
            model,
            bright_images(3),
            explainers={**made, "good": Given(model)},
            resolution=8,
            budget=budget,
            clock=model.clock,
            score=AREAS,
            progress=lambda _, description: names_run.append(description.split()[-1]),  # noqa: B023 - called before the next loop
        )
        assert list(dict.fromkeys(names_run[1:])) == names
        assert {method.name for method in choice.ranking} == set(names)
        reasons = {out.name: out.reason for out in choice.left_out}
        assert reasons == ({} if len(names) == 3 else {"random_map": "would exceed the budget"})


def test_a_budget_too_small_for_any_method_is_refused_with_the_time_of_the_cheapest() -> None:
    model = Timed()
    with pytest.raises(
        ValueError,
        match=(
            r"no method fits into 4 s: slow, the cheapest, would take about 6.1 s for 3 images, "
            r"and random_map as a control about the same; give 11 s or more, or 1 image$"
        ),
    ):
        run(model, {"slow": Given(model, cost=100, estimate=100), "slower": Given(model, estimate=200)}, budget=4.0)
