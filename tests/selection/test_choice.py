"""Choice: tests of differences, intervals, and the number of images that would distinguish two methods."""

from __future__ import annotations

import pytest
import torch
from selection_tools import (
    SPREAD,
    around,
    choice_of,
)

from faithmap.methods.base import Passes
from faithmap.metrics.statistics import compare, holm
from faithmap.selection import Choice, Ranked, advice

pytestmark = [pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"), pytest.mark.usefixtures("one_thread")]


def test_paired_differences_decide_which_methods_differ() -> None:
    """Images differ more than methods: only the paired test distinguishes the first method from the third."""
    choice = choice_of(slow_s=around(0.5, 1), quick_f=around(0.495, 2), worse_f=around(0.45, 3), noise_c=around(0.1, 4))
    assert choice.best.name == "slow_s"
    assert [method.name for method in choice.indistinguishable] == ["quick_f"]
    assert choice.cheaper is not None
    assert choice.cheaper.name == "quick_f"
    assert choice.unbeaten == ()
    assert choice.differ("slow_s", "worse_f")
    pairs = {(c.first, c.second): c for c in choice.comparisons}
    assert len(pairs) == 6
    by_hand = compare({m.name: m.scores.double() for m in choice.ranking}, draws=20_000)
    assert [c.corrected_p for c in choice.comparisons] == holm(
        torch.tensor([c.paired.p for c in by_hand], dtype=torch.float64)
    ).tolist()
    interval, best = choice.ranking[2].to(choice.best), choice.best.interval
    assert interval is not None
    assert best is not None
    assert interval.low < choice.ranking[2].mean - choice.best.mean < interval.high < 0
    assert interval.high - interval.low < 0.3 * (best.high - best.low)
    sentences = list(advice(choice))
    ends = f"{best.low:.3f} to {best.high:.3f}"
    assert (
        sentences[0] == f"use slow_s: insertion minus deletion {choice.best.mean:.3f} ({ends}), 1 forward pass, 10 s per image"
    )
    p, needed = choice.p("slow_s", "quick_f"), choice.images_to_distinguish(choice.best, choice.cheaper)
    assert sentences[1:] == [
        f"it is indistinguishable from quick_f (p = {p:.2g}), which takes 1 forward pass, 1 s",
        f"similar images that would distinguish slow_s: about {needed} from quick_f",
    ]


def test_p_values_are_corrected_for_the_number_of_pairs() -> None:
    """With six images the smallest p is 2 / 64: significant for one pair, not for three."""
    scores = {
        "a_s": [0.9, 0.8, 0.9, 0.8, 0.9, 0.8],
        "b_s": [0.1, 0.2, 0.1, 0.2, 0.1, 0.2],
        "c_s": [0.0, 0.1, 0.0, 0.1, 0.0, 0.1],
    }
    assert choice_of(a_s=scores["a_s"], b_s=scores["b_s"]).differ("a_s", "b_s")
    assert choice_of(a_s=scores["a_s"], b_s=scores["b_s"]).p("b_s", "a_s") == pytest.approx(2 / 64)
    assert not choice_of(**scores).differ("a_s", "b_s")
    assert choice_of(**scores).p("a_s", "b_s") == pytest.approx(6 / 64)
    assert choice_of(**scores).p("a_s", "a_s") == 1.0


def test_the_cheapest_indistinguishable_method_is_no_control() -> None:
    base, signs = 0.5 + SPREAD, torch.tensor([1.0, -1.0]).repeat(10)
    choice = choice_of(
        slow_s=base.tolist(),
        quick_f=(base - 0.001 + 0.05 * signs).tolist(),
        quicker_x=(base - 0.002 - 0.05 * signs).tolist(),
        edges_c=(base - 0.003 + 0.04 * signs).tolist(),
    )
    assert {method.name for method in choice.indistinguishable} == {"quick_f", "quicker_x"}
    assert choice.best.name == "slow_s"
    assert choice.cheaper is not None
    assert choice.cheaper.name == "quicker_x"
    sentences = list(advice(choice))
    assert sentences[1].startswith("it is indistinguishable from quicker_x")
    assert sentences[2] == "and from quick_f"
    assert sentences[3] == "it is not significantly better than edges_c: a control, which ignores the model"
    even = choice_of(slow_s=base.tolist(), other_s=(base - 0.001 + 0.05 * signs).tolist())
    assert even.cheaper is None, "no cheaper than the best"
    assert list(advice(even))[1] == "it is indistinguishable from other_s"


def test_differences_between_many_methods_can_be_significant() -> None:
    """50 methods make 1225 pairs: the sampled p must be fine enough for a significant difference."""
    scores = {f"m{i}": around(0.9 - 0.015 * i, i, 0.001) for i in range(50)}
    choice = choice_of(**scores)
    assert choice.enough
    assert choice.differ("m0", "m49")
    assert choice.p("m0", "m49") < 0.0101


def test_advice_states_controls_that_the_best_method_does_not_beat() -> None:
    choice = choice_of(edges_c=around(0.52, 1), method_s=around(0.5, 2, 0.3))
    assert choice.best.name == "method_s"
    assert [method.name for method in choice.unbeaten] == ["edges_c"]
    assert "it is not significantly better than edges_c: a control, which ignores the model" in list(advice(choice))
    better_control = choice_of(edges_c=around(0.9, 1), method_s=around(0.5, 2))
    assert better_control.unbeaten[0].name == "edges_c"
    both = choice_of(edges_c=around(0.52, 1), noise_c=around(0.53, 3), method_s=around(0.5, 2, 0.3))
    assert "it is not significantly better than noise_c and edges_c: controls, which ignore the model" in list(advice(both))


def test_advice_states_too_few_images() -> None:
    """With n images no p is below 2 / 2^n, and Holm multiplies the smallest by the number of pairs."""
    few = choice_of(a_s=[0.9, 0.8, 0.9, 0.8, 0.9], b_s=[0.1, 0.2, 0.1, 0.2, 0.1], c_c=[0.0, 0.1, 0.0, 0.1, 0.0])
    assert few.images_needed == 7
    assert not few.differ("a_s", "b_s")
    assert list(advice(few))[1:] == [
        "5 images cannot show a difference between 3 methods: the order may be random; give 7 or more",
        "similar images that would distinguish a_s: about 7 from c_c, about 7 from b_s",
    ]
    names = zip(("a_s", "b_s", "c_c"), few.ranking, strict=True)
    enough = choice_of(**{name: (method.scores.tolist() * 2)[:7] for name, method in names})
    assert enough.differ("a_s", "b_s")
    assert len(list(advice(enough))) == 1
    ahead = choice_of(a_s=[0.1, 0.2], b_c=[0.3, 0.4])
    assert "it is not significantly better than b_c: a control, which ignores the model" in list(advice(ahead))


def test_number_of_images_that_would_distinguish_two_methods() -> None:
    """One pair of mean difference 0.1 and standard deviation 0.2: (1.960 + 0.842)^2 * 4 is 31.4."""
    differences = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    differences = 0.1 + 0.2 * (differences - differences.mean()) / differences.std()
    choice = choice_of(a_s=(0.5 + differences).tolist(), b_s=[0.5] * 12)
    assert choice.images_to_distinguish(*choice.ranking) == 32
    more = choice_of(a_s=(0.5 + differences).tolist(), b_s=[0.5] * 12, c_s=[0.0] * 12)
    assert more.images_to_distinguish(*more.ranking[:2]) == 42, "(2.394 + 0.842)^2 * 4, for three pairs"
    same = choice_of(a_s=[0.5] * 12, b_s=[0.5] * 12)
    assert same.images_to_distinguish(*same.ranking) is None
    assert not any("similar images" in line for line in advice(same))
    near = choice_of(a_s=(0.45 + differences / 2 + 1e-3).tolist(), b_s=(0.5 * torch.ones(12)).tolist())
    assert "more than 1000 from a_s" in list(advice(near))[-1] or "more than 1000 from b_s" in list(advice(near))[-1]


def test_a_single_image_has_no_interval() -> None:
    one = choice_of(a_s=[0.9], b_c=[0.1])
    assert one.best.interval is None
    assert one.ranking[1].to(one.best) is None
    assert list(advice(one)) == [
        "use a_s: insertion minus deletion 0.900, 1 forward pass, 10 s per image",
        "1 image cannot show a difference between 2 methods: the order may be random; give 6 or more",
    ]


def test_advice_states_forward_and_backward_passes() -> None:
    best = Ranked("best", False, torch.tensor(around(0.5, 1)), Passes(25, 24), 250.0)
    choice = Choice("insertion", (best,), (), 60.0, 10.0)
    assert next(advice(choice)).endswith("), 25 forward passes and 24 backward passes, 4.2 min per image")
