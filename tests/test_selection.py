"""Choosing a method: known scores are ranked, known times are kept to, and what is said follows from both."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from oracles import SmallNet
from torch import Tensor, nn

import faithmap as fm
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request
from faithmap.methods.captum_methods import LRP, GradientSHAP
from faithmap.methods.controls import CentredGaussian, RandomMap
from faithmap.methods.gradients import SmoothGrad
from faithmap.methods.masks.masker import Masker
from faithmap.methods.registry import METHODS
from faithmap.metrics.statistics import compare, holm
from faithmap.selection import Choice, LeftOut, Ranked, advice, choose, explainers_for
from faithmap.selection.budget import OVERRUN, Allowance, OutOfTimeError
from faithmap.selection.timing import Pace

pytestmark = [pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"), pytest.mark.usefixtures("one_thread")]

GAMES = 2 * 51 + 1
"""Forward passes that judge a map: 51 points of both curves, and the clean image."""


MEASURING = 0.01 * 4 * (3 + 2 * 3)
"""Of 4 images on the clock below: three times a forward pass, and three times the gradient's two."""


class Timed(nn.Module):
    """The middle of the image decides; each image takes a hundredth of a second of a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.now += 0.01 * len(x)
        z = 12 * (x[:, :, 6:10, 6:10].mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([z, -z], dim=1)

    def clock(self) -> float:
        return self.now


@dataclass(eq=False)
class Given(Explainer):
    """A map that is known: bright in the middle, to a degree; takes so many passes, of which it may tell."""

    degree: float = 1.0
    cost: int = 1
    told: int | None = 1
    fails: bool = False
    asked: list[int] = field(default_factory=list)

    def passes(self, image: Tensor) -> Passes | None:
        return None if self.told is None else Passes(self.told, 0)

    def _explain(self, request: Request) -> RawHeatmap:
        if self.fails and self.asked:
            raise ValueError("no second map")
        self.asked.append(len(request.images))
        for _ in range(self.cost - 1):
            self.model(request.images)
        heatmap = torch.rand(1, 16, 16, generator=request.generators[0]) * (1 - abs(self.degree))
        heatmap[:, 6:10, 6:10] += self.degree
        return RawHeatmap(heatmap, [{"forward_passes": self.cost, "backward_passes": 0}])


def photographs(count: int) -> list[Tensor]:
    noise = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.4
    noise[..., 6:10, 6:10] += 0.55
    return list(noise.split(1))


def run(model: Timed, explainers: dict[str, Explainer], count: int = 3, budget: float = 1000.0, **settings: object) -> Choice:
    entries = {**explainers, "random_map": RandomMap(model, resolution=8)}
    return choose(model, photographs(count), explainers=entries, budget=budget, resolution=8, clock=model.clock, **settings)


def test_methods_are_ranked_by_the_games_that_they_play() -> None:
    model = Timed()
    good, bad, fair = Given(model), Given(model, degree=-1.0, cost=5, told=5), Given(model, degree=0.1)
    choice = run(model, {"bad": bad, "good": good, "fair": fair})
    assert [method.name for method in choice.ranking] == ["good", "fair", "random_map", "bad"]
    assert [method.control for method in choice.ranking] == [False, False, True, False]
    for method, explainer in zip(choice.ranking, [good, fair, None, bad], strict=True):
        for i, image in enumerate(photographs(3)):
            if explainer is not None:
                why = explainer(image, generator=fm.image_generators(0, [i]))
                played = fm.deletion_insertion(model, image, why.at((8, 8)))
                assert float(method.scores[i]) == pytest.approx(float(played.difference), abs=1e-6)
    assert [method.passes for method in choice.ranking] == [Passes(1, 0), Passes(1, 0), Passes(1, 0), Passes(5, 0)]
    assert [method.seconds for method in choice.ranking] == pytest.approx([0.01, 0.01, 0.01, 0.05])
    assert choice.best.name == "good"
    assert len(choice) == 3


@pytest.mark.parametrize(("score", "best"), [("insertion", "good"), ("deletion", "good"), ("insertion_minus_deletion", "good")])
def test_a_low_deletion_is_a_good_one(score: str, best: str) -> None:
    model = Timed()
    good, bad = Given(model), Given(model, degree=-1.0)
    choice = run(model, {"bad": bad, "good": good}, count=2, score=score)
    assert choice.best.name == best
    why = good(photographs(2)[1], generator=fm.image_generators(0, [1]))
    played = fm.deletion_insertion(model, photographs(2)[1], why.at((8, 8)))
    value = played.difference if score == "insertion_minus_deletion" else getattr(played, score).area
    assert float(choice.ranking[0].scores[1]) == pytest.approx(float(value), abs=1e-6)


def test_what_would_break_the_budget_is_left_out_and_named_with_its_cost() -> None:
    model = Timed()
    dear, cheap = Given(model, cost=500, told=500), Given(model, degree=0.9)
    each = [3 * 0.01 * (passes + GAMES) for passes in (1, 500)]
    choice = run(model, {"dear": dear, "cheap": cheap}, budget=2 * each[0] + each[1] - 0.1)
    assert choice.left_out == (LeftOut("dear", "would break the budget", pytest.approx(each[1])),)
    assert dear.asked == []
    assert choice.seconds == pytest.approx(2 * each[0] + MEASURING, abs=0.05)
    model = Timed()
    dear, cheap = Given(model, cost=500, told=500), Given(model, degree=0.9)
    enough = run(model, {"dear": dear, "cheap": cheap}, budget=2 * each[0] + each[1] + MEASURING + 0.1)
    assert enough.left_out == ()


def test_what_is_spent_already_counts() -> None:
    each = 2 * 0.01 * (1 + GAMES)
    for spent, names in ((0.0, {"a", "b", "random_map"}), (20.0, {"a", "random_map"})):
        model = Timed()
        entries = {"a": Given(model), "b": Given(model, degree=0.5)}
        choice = run(model, entries, count=2, budget=3 * each + MEASURING + 19.0, spent=spent)
        assert {method.name for method in choice.ranking} == names
        assert choice.seconds == pytest.approx(len(names) * each + MEASURING + spent, abs=0.05)


def test_larger_photographs_count_for_more() -> None:
    """The clock goes by pixels; the second photograph has four times as many."""

    class ByPixels(Timed):
        def forward(self, x: Tensor) -> Tensor:
            self.now += 0.01 * len(x) * (x[0, 0].numel() / 256 - 1)
            return super().forward(x)

    large = torch.nn.functional.interpolate(photographs(2)[1], (32, 32))
    for budget, kept in (
        (30.0, False),
        (36.0, True),
    ):  # 5 GAMES of one pass of a hundredth for three methods, and 20 of explaining
        model = ByPixels()
        dear = fm.RISE(model, masks=400, chunk_size=4)
        entries = {"good": Given(model), "dear": dear, "random_map": RandomMap(model, resolution=8)}
        pictures = [photographs(1)[0], large]
        choice = choose(model, pictures, explainers=entries, budget=budget, resolution=8, clock=model.clock)
        assert ({m.name for m in choice.ranking} == set(entries)) == kept
        if not kept:
            assert choice.left_out == (LeftOut("dear", "would break the budget", pytest.approx(5 * 0.01 * (401 + GAMES))),)


def test_a_method_that_takes_longer_than_it_said_is_stopped_after_the_first_photograph() -> None:
    model = Timed()
    liar, unknown, last = Given(model, cost=900, told=2), Given(model, told=None, degree=0.9), Given(model, told=4, degree=0.8)
    choice = run(model, {"unknown": unknown, "liar": liar, "last": last}, budget=25.0)
    (out,) = choice.left_out
    assert (out.name, out.seconds) == ("liar", pytest.approx(3 * 0.01 * (900 + GAMES), rel=0.05))
    assert out.reason == "would break the budget, by its time for the first photograph"
    assert liar.asked == [1]
    assert {method.name for method in choice.ranking} == {"unknown", "last", "random_map"}
    assert choice.seconds <= 25.0 * OVERRUN


class Slow(Given):
    """Says how far it has come, a pass at a time, and grows slower with every photograph."""

    def _explain(self, request: Request) -> RawHeatmap:
        for step in range(self.cost * (1 + len(self.asked))):
            self.model(request.images)
            request.progress(step + 1, self.cost * (1 + len(self.asked)))
        return super()._explain(request)


def test_a_method_is_stopped_in_the_middle_of_a_photograph() -> None:
    """Of an unknown cost it gets a third of what is left for the first of three photographs."""
    model = Timed()
    slow, good = Slow(model, cost=10_000, told=None), Given(model)
    choice = run(model, {"slow": slow, "good": good}, budget=30.0)
    (out,) = choice.left_out
    assert (out.name, out.reason) == ("slow", "would break the budget; stopped at photograph 1")
    assert out.seconds == pytest.approx(3 * 0.01 * (10_000 + GAMES), rel=0.02)
    left = 30.0 * OVERRUN - 2 * 3 * 0.01 * (1 + GAMES) - MEASURING
    assert choice.seconds == pytest.approx(30.0 * OVERRUN - left * 2 / 3, abs=1.1)


def test_a_method_that_slows_down_is_stopped_later() -> None:
    model = Timed()
    slow, good = Slow(model, cost=320, told=640, degree=0.9), Given(model)
    choice = run(model, {"slow": slow, "good": good}, budget=30.5)
    (out,) = choice.left_out
    assert (out.name, len(slow.asked)) == ("slow", 2)
    assert out.reason == "would break the budget, by its time for 2 photographs"
    assert choice.seconds <= 30.5 * OVERRUN


@pytest.mark.parametrize("method", [fm.RISE, fm.IGOS, fm.methods.gradients.SmoothGrad])
def test_a_method_that_is_stopped_leaves_the_model_as_it_was(method: type, small_net: SmallNet, untouched: Callable) -> None:
    model, now = untouched(small_net.train()), [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    with pytest.raises(OutOfTimeError):
        method(model)(torch.rand(2, 3, 32, 32), progress=lambda *_: Allowance(10.0, clock, 11.0).watch(1.0, 0.0)(1, 2))


def test_what_is_foretold_follows_what_the_games_take() -> None:
    """The model is twice as slow as when it was timed: a method that would have fitted does not."""

    class Tired(Timed):
        def forward(self, x: Tensor) -> Tensor:
            self.now += 0.01 * len(x) * (self.now > MEASURING)
            return super().forward(x)

    model = Tired()
    entries = {"good": Given(model), "dear": Given(model, told=400, cost=400)}
    choice = run(model, entries, count=2, budget=22.0)
    assert choice.left_out == (LeftOut("dear", "would break the budget", pytest.approx(2 * 0.02 * (400 + GAMES), rel=0.01)),)
    model = Timed()
    entries = {"good": Given(model), "dear": Given(model, told=400, cost=400)}
    assert run(model, entries, count=2, budget=22.0).left_out == ()


def test_controls_that_take_more_than_a_third_come_last() -> None:
    controls = {"gaussian": CentredGaussian, "random_map": RandomMap}
    each = 3 * 0.01 * (1 + GAMES)
    cases = {
        2.9 * each: ["gaussian", "good"],
        5.9 * each: ["gaussian", "good", "random_map"],
        6.1 * each: ["gaussian", "random_map", "good"],
    }
    for budget, names in cases.items():
        model, told = Timed(), []
        made = {name: control(model, resolution=8) for name, control in controls.items()}
        choice = choose(
            model,
            photographs(3),
            explainers={**made, "good": Given(model)},
            resolution=8,
            budget=budget,
            clock=model.clock,
            progress=lambda _, what, told=told: told.append(what.split()[-1]),
        )
        assert list(dict.fromkeys(told[1:])) == names
        assert {method.name for method in choice.ranking} == set(names)
        left_out = {out.name: out.reason for out in choice.left_out}
        assert left_out == ({} if len(names) == 3 else {"random_map": "would break the budget"})


def test_a_map_that_ranks_alike_is_judged_once() -> None:
    model = Timed()
    choice = run(model, {"one": Given(model), "two": Given(model), "other": Given(model, degree=0.5)}, count=2)
    scores = {method.name: method.scores for method in choice.ranking}
    assert torch.equal(scores["one"], scores["two"])
    assert not torch.equal(scores["one"], scores["other"])
    assert choice.seconds == pytest.approx(2 * 0.01 * (3 * (1 + GAMES) + 1) + MEASURING, abs=0.05)


def test_a_budget_that_is_too_small_for_any_method_says_what_the_cheapest_takes() -> None:
    model = Timed()
    with pytest.raises(
        ValueError,
        match=(
            r"no method fits into 4 s: slow, the cheapest, would take about 6.1 s for 3 photographs, "
            r"and random_map as a control as much again; give 11 s or more, or 1 photograph$"
        ),
    ):
        run(model, {"slow": Given(model, cost=100, told=100), "slower": Given(model, told=200)}, budget=4.0)


def test_a_method_that_fails_is_left_out_with_its_words() -> None:
    model = Timed()
    choice = run(model, {"good": Given(model), "flaky": Given(model, fails=True)})
    assert choice.left_out == (LeftOut("flaky", "failed on photograph 2: no second map"),)
    with pytest.raises(ValueError, match="no method could be run; flaky: failed on photograph 2"):
        run(model, {"flaky": Given(model, fails=True)})


def test_what_does_not_fit_the_model_is_left_out(untouched: Callable) -> None:
    """A model without a picture inside has no class activation maps; one without gradients neither those nor I-GOS."""
    flat = untouched(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3)))
    names = ["gradcam", "eigencam", "gradient", "igos"]
    pictures = [torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    choice = choose(flat, pictures, explainers=explainers_for(flat, names, resolution=4), resolution=4, budget=1000)
    reasons = {out.name: out.reason for out in choice.left_out}
    assert set(reasons) == {"gradcam", "eigencam"}
    assert all("does not fit the model: no layer of the model has a spatial output" in reason for reason in reasons.values())

    class Cut(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    blind = untouched(Cut().train())
    pictures = [torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    choice = choose(blind, pictures, explainers=explainers_for(blind, names, resolution=4), resolution=4, budget=1000)
    assert {out.name for out in choice.left_out} == {"gradcam", "gradient", "igos"}
    assert {method.name for method in choice.ranking} == {"eigencam", "random_map", "gaussian", "edges"}


def test_what_is_missing_is_said_before_anything_is_run(small_net: SmallNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    names = ["learned_mask", "lime", "guided_backprop", "eigencam"]
    pictures = [torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    told: list[str] = []
    choice = choose(
        small_net,
        pictures,
        explainers=explainers_for(small_net, names, resolution=4),
        resolution=4,
        budget=1000,
        progress=lambda _, what: told.append(what),
    )
    reasons = {out.name: out.reason for out in choice.left_out}
    assert reasons.keys() == {"learned_mask", "lime", "guided_backprop"}
    assert reasons["lime"] == "cannot be run: this method is captum's; pip install 'faithmap[captum]'"
    assert reasons["learned_mask"].startswith("cannot be run: masker is None; train one")
    assert not any(name in what for name in reasons for what in told)
    with pytest.raises(ValueError, match=r"no method could be run; lime: cannot be run: .*; and 1 more"):
        choose(small_net, pictures, explainers=explainers_for(small_net, ["lime", "kernelshap"], resolution=4), resolution=4)
    with pytest.raises(ValueError, match="'gradcamm' is no method; give some of igos"):
        explainers_for(small_net, ["gradcamm"])
    masked = explainers_for(small_net, ["learned_mask"], masker=Masker(5), resolution=4)
    assert choose(small_net, pictures, explainers=masked, resolution=4, budget=1000).best.name == "learned_mask"


def test_a_layer_that_is_given_need_not_be_found(small_net: SmallNet) -> None:
    entries = {"mine": fm.GradCAM(small_net, target_layer="conv1"), "wrong": fm.ScoreCAM(small_net, target_layer="conv9")}
    choice = choose(small_net, [torch.rand(1, 3, 32, 32)], explainers=entries, resolution=4, budget=1000)
    (out,) = choice.left_out
    assert out.name == "wrong"
    assert out.reason.startswith("cannot be run: ")
    assert "conv9" in out.reason


def test_a_method_with_a_layer_of_its_own_fits_where_none_is_found(small_net: SmallNet) -> None:
    pace, image = Pace(0.01, 0.01, {"layer": "no layer"}), torch.rand(1, 3, 32, 32)
    assert pace.obstacle(fm.GradCAM(small_net), image) == "does not fit the model: no layer"
    assert pace.obstacle(fm.GradCAM(small_net, target_layer="conv1"), image) is None
    assert pace.obstacle(fm.methods.gradients.Gradient(small_net), image) is None
    assert Pace(0.01, None, {"gradient": "none"}).obstacle(fm.IGOS(small_net), image) == "does not fit the model: none"


def test_what_is_unknown_comes_last_and_the_dearest_before_it() -> None:
    model, told = Timed(), []
    entries = {"unknown": Given(model, told=None), "dear": Given(model, told=9), "cheap": Given(model)}
    run(model, entries, count=2, progress=lambda done, what: told.append((done, what)))
    assert told == [
        (0.0, "timing the model"),
        *(
            (i + part / 2, f"photograph {part + 1} of 2 by {name}")
            for i, name in enumerate(("random_map", "cheap", "dear", "unknown"))
            for part in (0, 1)
        ),
    ]


class Steep(torch.autograd.Function):
    """Its backward pass takes three hundredths of a second an image."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, model: Timed) -> Tensor:
        ctx.model = model
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.model.now += 0.03 * len(gradient)
        return gradient, None


def test_both_kinds_of_passes_are_measured() -> None:
    class Uphill(Timed):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(Steep.apply(x, self))

    model = Uphill()
    for chunk_size in (1, 4, 32):
        pace = Pace.measured(model, photographs(1)[0], None, chunk_size, model.clock)
        assert (pace.forward, pace.backward) == (pytest.approx(0.01), pytest.approx(0.03))
        assert pace.seconds(Passes(10, 2)) == pytest.approx(0.16)
    explain = fm.methods.gradients.SmoothGrad(model, samples=20)
    entries = {"good": Given(model), "smoothgrad": explain, "random_map": RandomMap(model, resolution=8)}
    choice = choose(model, photographs(2), explainers=entries, resolution=8, budget=7.0, clock=model.clock)
    assert choice.left_out == (LeftOut("smoothgrad", "would break the budget", pytest.approx(2 * (0.01 * (21 + GAMES) + 0.6))),)


def test_random_numbers_follow_the_photograph_and_not_its_place() -> None:
    model = Timed()
    straight = run(model, {"fair": Given(model, degree=0.1)}, keys=[7, 8, 9])
    turned = choose(
        model,
        photographs(3)[::-1],
        explainers={"fair": Given(model, degree=0.1), "random_map": RandomMap(model, resolution=8)},
        resolution=8,
        keys=[9, 8, 7],
        budget=1000,
        clock=model.clock,
    )
    scores = [{method.name: method.scores for method in choice.ranking} for choice in (straight, turned)]
    assert all(torch.equal(scores[0][name], scores[1][name].flip(0)) for name in scores[0])


def test_a_target_of_each_photograph() -> None:
    model = Timed()
    entries = {"good": Given(model), "random_map": RandomMap(model, resolution=8)}
    both = choose(model, photographs(2), [0, 1], explainers=entries, resolution=8, budget=1000, clock=model.clock)
    scores = next(method.scores for method in both.ranking if method.name == "good")
    for i in (0, 1):
        why = Given(model)(photographs(2)[i], i, generator=fm.image_generators(0, [i]))
        played = fm.deletion_insertion(model, photographs(2)[i], why.at((8, 8)), i)
        assert float(scores[i]) == pytest.approx(float(played.difference), abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"photographs": []}, "there are no photographs"),
        ({"photographs": [torch.rand(2, 3, 16, 16)]}, "a photograph has shape"),
        ({"resolution": 17}, "no more cells than pixels"),
        ({"budget": 0.0}, "give seconds above 0"),
        ({"score": "area"}, "score 'area' and chunk_size 32; give seconds above 0, one of insertion_minus_deletion"),
        ({"keys": [1]}, "1 keys for 3 photographs"),
        ({"budget": float("nan")}, "budget is nan"),
        ({"chunk_size": 0}, "at least 1 image"),
        ({"explainers": {}}, "no methods but controls"),
        ({"explainers": {"edges": RandomMap(Timed())}}, "no methods but controls"),
        ({"target": [0, 1]}, "target has 2 entries for 3 photographs"),
        ({"target": torch.tensor([0])}, "target has 1 entries for 3 photographs"),
    ],
)
def test_what_cannot_be_chosen_from(settings: dict, message: str) -> None:
    model = Timed()
    given = {"photographs": photographs(3), "resolution": 8, **settings}
    with pytest.raises(ValueError, match=message):
        choose(model, given.pop("photographs"), **given)


def made(**scores: list[float]) -> Choice:
    """A choice from scores; a name's last letter says what an image takes, c a control."""
    rows = [
        Ranked(name, name.endswith("c"), torch.tensor(values), Passes(1, 0), {"s": 10.0, "f": 1.0}.get(name[-1], 0.1))
        for name, values in scores.items()
    ]
    return Choice("insertion_minus_deletion", tuple(sorted(rows, key=lambda r: -r.mean)), (), 60.0, 10.0)


SPREAD = torch.linspace(-0.1, 0.1, 20)


def around(mean: float, seed: int, noise: float = 0.02) -> list[float]:
    return (mean + SPREAD + noise * torch.randn(20, generator=torch.Generator().manual_seed(seed))).tolist()


def test_what_differs_and_what_does_not() -> None:
    """Photographs differ more than methods: only pair by pair is the first told from the third."""
    choice = made(slow_s=around(0.5, 1), quick_f=around(0.495, 2), worse_f=around(0.45, 3), noise_c=around(0.1, 4))
    assert choice.best.name == "slow_s"
    assert [method.name for method in choice.alike] == ["quick_f"]
    assert choice.cheaper.name == "quick_f"
    assert choice.unbeaten == ()
    assert choice.differ("slow_s", "worse_f")
    pairs = {(c.first, c.second): c for c in choice.comparisons}
    assert len(pairs) == 6
    by_hand = compare({m.name: m.scores.double() for m in choice.ranking}, draws=20_000)
    assert [c.corrected_p for c in choice.comparisons] == holm(
        torch.tensor([c.paired.p for c in by_hand], dtype=torch.float64)
    ).tolist()
    interval = choice.ranking[2].to(choice.best)
    assert interval.low < choice.ranking[2].mean - choice.best.mean < interval.high < 0
    assert interval.high - interval.low < 0.3 * (choice.best.interval.high - choice.best.interval.low)
    said = list(advice(choice))
    ends = f"{choice.best.interval.low:.3f} to {choice.best.interval.high:.3f}"
    assert said[0] == f"use slow_s: insertion minus deletion {choice.best.mean:.3f} ({ends}), 1 forward pass, 10 s an image"
    p, needed = choice.p("slow_s", "quick_f"), choice.photographs_to_tell(choice.best, choice.cheaper)
    assert said[1:] == [
        f"it cannot be told from quick_f (p = {p:.2g}), which takes 1 forward pass, 1 s",
        f"photographs like these that would tell slow_s from others: about {needed} from quick_f",
    ]


def test_pairs_are_corrected_for_their_number() -> None:
    """Six photographs give p = 2 / 64 at the least: enough for one pair, not for three."""
    scores = {
        "a_s": [0.9, 0.8, 0.9, 0.8, 0.9, 0.8],
        "b_s": [0.1, 0.2, 0.1, 0.2, 0.1, 0.2],
        "c_s": [0.0, 0.1, 0.0, 0.1, 0.0, 0.1],
    }
    assert made(a_s=scores["a_s"], b_s=scores["b_s"]).differ("a_s", "b_s")
    assert made(a_s=scores["a_s"], b_s=scores["b_s"]).p("b_s", "a_s") == pytest.approx(2 / 64)
    assert not made(**scores).differ("a_s", "b_s")
    assert made(**scores).p("a_s", "b_s") == pytest.approx(6 / 64)
    assert made(**scores).p("a_s", "a_s") == 1.0


def test_the_cheapest_of_those_that_are_alike_and_no_control() -> None:
    base, signs = 0.5 + SPREAD, torch.tensor([1.0, -1.0]).repeat(10)
    choice = made(
        slow_s=base.tolist(),
        quick_f=(base - 0.001 + 0.05 * signs).tolist(),
        quicker_x=(base - 0.002 - 0.05 * signs).tolist(),
        edges_c=(base - 0.003 + 0.04 * signs).tolist(),
    )
    assert {method.name for method in choice.alike} == {"quick_f", "quicker_x"}
    assert choice.best.name == "slow_s"
    assert choice.cheaper.name == "quicker_x"
    said = list(advice(choice))
    assert said[1].startswith("it cannot be told from quicker_x")
    assert said[2] == "nor from quick_f"
    assert said[3] == "it is not shown to beat edges_c: a control, which knows nothing of the model"
    even = made(slow_s=base.tolist(), other_s=(base - 0.001 + 0.05 * signs).tolist())
    assert even.cheaper is None, "no cheaper than the best"
    assert list(advice(even))[1] == "it cannot be told from other_s"


def test_what_it_costs_is_said_in_both_kinds_of_passes() -> None:
    best = Ranked("best", False, torch.tensor(around(0.5, 1)), Passes(25, 24), 250.0)
    choice = Choice("insertion", (best,), (), 60.0, 10.0)
    assert next(advice(choice)).endswith("), 25 forward passes and 24 backward, 4.2 min an image")


def test_differences_can_be_told_between_many_methods() -> None:
    """50 methods make 1225 pairs: no p that is drawn may be so coarse that none of them could differ."""
    scores = {f"m{i}": around(0.9 - 0.015 * i, i, 0.001) for i in range(50)}
    choice = made(**scores)
    assert choice.enough
    assert choice.differ("m0", "m49")
    assert choice.p("m0", "m49") < 0.0101


def test_a_best_method_that_does_not_beat_a_control_is_not_praised() -> None:
    choice = made(edges_c=around(0.52, 1), method_s=around(0.5, 2, 0.3))
    assert choice.best.name == "method_s"
    assert [method.name for method in choice.unbeaten] == ["edges_c"]
    assert "it is not shown to beat edges_c: a control, which knows nothing of the model" in list(advice(choice))
    assert made(edges_c=around(0.9, 1), method_s=around(0.5, 2)).unbeaten[0].name == "edges_c", "nor one that is beaten by it"
    both = made(edges_c=around(0.52, 1), noise_c=around(0.53, 3), method_s=around(0.5, 2, 0.3))
    assert "it is not shown to beat noise_c and edges_c: controls, which know nothing of the model" in list(advice(both))


def test_too_few_photographs_are_said() -> None:
    """With n of them no p is below 2 / 2^n, and Holm takes the smallest times the number of pairs."""
    few = made(a_s=[0.9, 0.8, 0.9, 0.8, 0.9], b_s=[0.1, 0.2, 0.1, 0.2, 0.1], c_c=[0.0, 0.1, 0.0, 0.1, 0.0])
    assert few.photographs_needed == 7
    assert not few.differ("a_s", "b_s")
    assert list(advice(few))[1:] == [
        "5 photographs cannot show a difference between 3 methods: the order may be chance; give 7 or more",
        "photographs like these that would tell a_s from others: about 7 from c_c, about 7 from b_s",
    ]
    enough = made(**{name: (m.scores.tolist() * 2)[:7] for name, m in zip(("a_s", "b_s", "c_c"), few.ranking, strict=True)})
    assert enough.differ("a_s", "b_s")
    assert len(list(advice(enough))) == 1
    ahead = made(a_s=[0.1, 0.2], b_c=[0.3, 0.4])
    assert "it is not shown to beat b_c: a control, which knows nothing of the model" in list(advice(ahead))


def test_how_many_photographs_would_do() -> None:
    """One pair of mean difference 0.1 and standard deviation 0.2: (1.960 + 0.842)^2 * 4 is 31.4."""
    differences = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    differences = 0.1 + 0.2 * (differences - differences.mean()) / differences.std()
    choice = made(a_s=(0.5 + differences).tolist(), b_s=[0.5] * 12)
    assert choice.photographs_to_tell(*choice.ranking) == 32
    more = made(a_s=(0.5 + differences).tolist(), b_s=[0.5] * 12, c_s=[0.0] * 12)
    assert more.photographs_to_tell(*more.ranking[:2]) == 42, "(2.394 + 0.842)^2 * 4, for three pairs"
    same = made(a_s=[0.5] * 12, b_s=[0.5] * 12)
    assert same.photographs_to_tell(*same.ranking) is None
    assert not any("photographs like these" in line for line in advice(same))
    near = made(a_s=(0.45 + differences / 2 + 1e-3).tolist(), b_s=(0.5 * torch.ones(12)).tolist())
    assert "more than 1000 from a_s" in list(advice(near))[-1] or "more than 1000 from b_s" in list(advice(near))[-1]


def test_one_photograph_has_no_interval() -> None:
    one = made(a_s=[0.9], b_c=[0.1])
    assert one.best.interval is None
    assert one.ranking[1].to(one.best) is None
    assert list(advice(one)) == [
        "use a_s: insertion minus deletion 0.900, 1 forward pass, 10 s an image",
        "1 photograph cannot show a difference between 2 methods: the order may be chance; give 6 or more",
    ]


SETTINGS: dict[str, dict] = {
    "rise": {"masks": 9},
    "mask": {"iterations": 4},
    "occlusion": {"patch": 8, "stride": 8},
    "extremal": {"iterations": 3},
    "lime": {"samples": 60},
    "kernelshap": {"samples": 60},
    "learned_mask": {"masker": Masker(5)},
    "igos": {"iterations": 4, "patience": 9, "path_points": 3},
    "igos_plus": {"iterations": 4, "patience": 9, "path_points": 3},
    "igos_plus_plus": {"iterations": 4, "patience": 9, "path_points": 3},
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_take_the_passes_that_they_foretell(
    name: str, small_net: SmallNet, images: Tensor, untouched: Callable
) -> None:
    """To within two; a line search tries between half as many steps and twice as many."""
    if "captum" in METHODS[name].needs:
        pytest.importorskip("captum")
    explain = METHODS[name].explainer(untouched(small_net), **SETTINGS.get(name, {}))
    told, image = explain.passes(images[:1]), images[:1]
    took = explain(image).diagnostics[0]
    assert told is not None
    if "igos" in name:
        assert told.forward / 2 < took["forward_passes"] < 1.5 * told.forward
    else:
        assert abs(told.forward - took["forward_passes"]) <= 2
    assert told.backward == took["backward_passes"]


def test_foretold_passes_follow_the_settings(small_net: SmallNet, images: Tensor) -> None:
    inner = fm.methods.gradients.IntegratedGradients(small_net, samples=5, completeness=False)
    cases = [
        (SmoothGrad(small_net, method=inner, samples=3), Passes(16, 15)),
        (fm.ExpectedGradCAM(small_net, target_layer="conv2", gradient=fm.Expected(samples=6)), Passes(7, 6)),
        (fm.IGOS(small_net, iterations=2, path_points=3, step=1.0), Passes(2 + 1 + 2 * (3 + 1), 6)),
        (CentredGaussian(small_net), Passes(1, 0)),
        (fm.ScoreCAM(small_net, target_layer=["conv1", "conv2"]), Passes(25, 0)),
        (fm.ExtremalPerturbation(small_net, iterations=3, areas=(0.1, 0.3), variant="dual"), Passes(18, 12)),
        (GradientSHAP(small_net, samples=7, completeness=True), Passes(22, 7)),
        (LRP(small_net, rule="gamma"), Passes(9, 3)),
    ]
    for explain, expected in cases:
        assert explain.passes(images[:1]) == expected
