"""Ranking: order of the methods, scores, random numbers and targets."""

from __future__ import annotations

import pytest
import torch
from selection_tools import (
    AREAS,
    EVALUATION_PASSES,
    TIMING_SECONDS,
    Given,
    Timed,
    bright_images,
    left_out,
    run,
)

import faithmap as fm
from faithmap.methods.base import Passes
from faithmap.methods.controls import RandomMap
from faithmap.selection import choose

pytestmark = [pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"), pytest.mark.usefixtures("one_thread")]


def test_methods_are_ranked_by_deletion_and_insertion() -> None:
    model = Timed()
    good, bad, fair = Given(model), Given(model, degree=-1.0, cost=5, estimate=5), Given(model, degree=0.1)
    choice = run(model, {"bad": bad, "good": good, "fair": fair})
    assert [method.name for method in choice.ranking] == ["good", "fair", "random_map", "bad"]
    assert [method.control for method in choice.ranking] == [False, False, True, False]
    for method, explainer in zip(choice.ranking, [good, fair, None, bad], strict=True):
        for i, image in enumerate(bright_images(3)):
            if explainer is not None:
                explanation = explainer(image, generator=fm.image_generators(0, [i]))
                curves = fm.deletion_insertion(model, image, explanation.at((8, 8)))
                assert float(method.scores[i]) == pytest.approx(float(curves.difference), abs=1e-6)
    assert [method.passes for method in choice.ranking] == [Passes(1, 0), Passes(1, 0), Passes(1, 0), Passes(5, 0)]
    assert [method.seconds for method in choice.ranking] == pytest.approx([0.01, 0.01, 0.01, 0.05])
    assert choice.best.name == "good"
    assert len(choice) == 3


@pytest.mark.parametrize(("score", "best"), [("insertion", "good"), ("deletion", "good"), ("insertion_minus_deletion", "good")])
def test_a_low_deletion_area_is_good(score: str, best: str) -> None:
    model = Timed()
    good, bad = Given(model), Given(model, degree=-1.0)
    choice = run(model, {"bad": bad, "good": good}, count=2, score=score)
    assert choice.best.name == best
    explanation = good(bright_images(2)[1], generator=fm.image_generators(0, [1]))
    curves = fm.deletion_insertion(model, bright_images(2)[1], explanation.at((8, 8)))
    value = curves.difference if score == "insertion_minus_deletion" else getattr(curves, score).area
    assert float(choice.ranking[0].scores[1]) == pytest.approx(float(value), abs=1e-6)


def test_the_jury_is_that_which_no_method_optimised() -> None:
    model = Timed()
    good, bad, blurs = Given(model), Given(model, degree=-1.0), fm.Mask(model, resolution=8, iterations=1)
    choice = run(model, {"bad": bad, "good": good, "blurs": blurs}, score="jury")
    assert choice.jurors == ("grey", "noise", "another photograph", "shuffled patches", "mirrored image")
    assert next(method.name for method in choice.ranking if method.name != "blurs") == "good"
    score = next(method.scores[1] for method in choice.ranking if method.name == "good")
    image = bright_images(2)[1]
    cells = good(image, generator=fm.image_generators(0, [1])).at((8, 8))
    result = fm.evidence(model, image, fm.Explanation(cells, (16, 16), optimises=("blur",)))
    free = [i for i, name in enumerate(result.jurors) if name in choice.jurors and bool(result.vote[i, 0])]
    assert float(score) == pytest.approx(float(result.values[free, 0, 0].mean()), abs=1e-6)


def test_the_jury_is_the_default_and_its_passes_are_estimated() -> None:
    model = Timed()
    explainers = {"good": Given(model), "control": RandomMap(model, resolution=8)}
    choice = choose(model, bright_images(1), explainers=explainers, budget=1000.0, resolution=8, clock=model.clock)
    assert choice.score == "jury"
    assert len(choice.jurors) == 6


def test_equal_rankings_are_evaluated_once() -> None:
    model = Timed()
    choice = run(model, {"one": Given(model), "two": Given(model), "other": Given(model, degree=0.5)}, count=2)
    scores = {method.name: method.scores for method in choice.ranking}
    assert torch.equal(scores["one"], scores["two"])
    assert not torch.equal(scores["one"], scores["other"])
    assert choice.seconds == pytest.approx(2 * 0.01 * (3 * (1 + EVALUATION_PASSES) + 1) + TIMING_SECONDS, abs=0.05)


def test_methods_of_unknown_time_come_last() -> None:
    model, calls = Timed(), list[tuple[float, str]]()
    explainers = {"unknown": Given(model, estimate=None), "dear": Given(model, estimate=9), "cheap": Given(model)}
    run(model, explainers, count=2, progress=lambda done, what: calls.append((done, what)))
    assert calls == [
        (0.0, "timing the model"),
        *(
            (i + part / 2, f"image {part + 1} of 2 by {name}")
            for i, name in enumerate(("random_map", "cheap", "dear", "unknown"))
            for part in (0, 1)
        ),
    ]


def test_random_numbers_depend_on_the_key_of_an_image() -> None:
    model = Timed()
    straight = run(model, {"fair": Given(model, degree=0.1)}, keys=[7, 8, 9])
    turned = choose(
        model,
        bright_images(3)[::-1],
        explainers={"fair": Given(model, degree=0.1), "random_map": RandomMap(model, resolution=8)},
        resolution=8,
        keys=[9, 8, 7],
        budget=1000,
        clock=model.clock,
        score=AREAS,
    )
    scores = [{method.name: method.scores for method in choice.ranking} for choice in (straight, turned)]
    assert all(torch.equal(scores[0][name], scores[1][name].flip(0)) for name in scores[0])


def test_one_target_per_image() -> None:
    model = Timed()
    explainers = {"good": Given(model), "random_map": RandomMap(model, resolution=8)}
    both = choose(
        model, bright_images(2), [0, 1], explainers=explainers, resolution=8, budget=1000, clock=model.clock, score=AREAS
    )
    scores = next(method.scores for method in both.ranking if method.name == "good")
    for i in (0, 1):
        explanation = Given(model)(bright_images(2)[i], i, generator=fm.image_generators(0, [i]))
        curves = fm.deletion_insertion(model, bright_images(2)[i], explanation.at((8, 8)), i)
        assert float(scores[i]) == pytest.approx(float(curves.difference), abs=1e-6)


def test_a_method_that_fails_is_left_out_with_its_message() -> None:
    model = Timed()
    choice = run(model, {"good": Given(model), "flaky": Given(model, fails=True)})
    assert left_out(choice) == [("flaky", "failed on image 2: no second map", None)]
    with pytest.raises(ValueError, match="no method could be run; flaky: failed on image 2"):
        run(model, {"flaky": Given(model, fails=True)})
