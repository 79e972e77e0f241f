"""Statistics against closed forms, and against scipy where it is installed."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from faithmap.metrics.statistics import bootstrap, compare, holm, paired, per_class, summarise


def test_summary_of_known_numbers() -> None:
    found = summarise(torch.tensor([1.0, 2.0, 3.0]))
    assert (found.mean, found.count) == (2.0, 3)
    assert found.standard_error == pytest.approx(1 / math.sqrt(3))
    assert str(found) == "2.000 (0.577)"
    assert math.isnan(summarise(torch.tensor([1.0])).standard_error)


@pytest.mark.parametrize("values", [torch.empty(0), torch.tensor([float("nan")]), torch.zeros(2, 2)])
def test_values_that_are_no_sample_are_refused(values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="one finite number for each image"):
        summarise(values)


def test_per_class_keeps_classes_apart() -> None:
    found = per_class(torch.tensor([1.0, 3.0, 10.0]), torch.tensor([7, 7, 2]))
    assert list(found) == [2, 7]
    assert (found[7].mean, found[2].mean) == (2.0, 10.0)
    with pytest.raises(ValueError, match="one class per value"):
        per_class(torch.ones(2), torch.ones(3))


def test_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(300, 40, generator=generator)
    inside = [(i := bootstrap(s, level=0.9, resamples=500)).low <= 0 <= i.high for s in samples]
    assert 0.84 < sum(inside) / 300 < 0.94


def test_bootstrap_is_as_wide_as_the_normal_interval() -> None:
    values = torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, summary = bootstrap(values), summarise(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 * summary.standard_error, rel=0.05)
    assert bootstrap(values) == found
    assert bootstrap(values, seed=1) != found


def test_bootstrap_does_not_depend_on_how_much_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from faithmap.metrics import statistics

    values = torch.arange(10.0)
    whole = bootstrap(values, resamples=999)
    monkeypatch.setattr(statistics, "CHUNK", 70)
    assert bootstrap(values, resamples=999) == whole


@pytest.mark.parametrize("settings", [{"level": 1.0}, {"level": 0.0}, {"resamples": 0}])
def test_bootstrap_refuses_a_level_outside_0_to_1_and_no_resamples(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give a level between 0 and 1"):
        bootstrap(torch.ones(3), **settings)


def test_sign_flips_are_counted_literally() -> None:
    first, second = torch.randn(2, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    differences = (first - second).tolist()
    patterns = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in itertools.product((-1, 1), repeat=9)]
    wanted = sum(abs(p) >= abs(sum(differences)) - 1e-9 for p in patterns) / len(patterns)
    assert paired(first, second).p == pytest.approx(wanted)


def test_drawn_sign_flips_agree_with_the_t_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = torch.randn(2, 60, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for shift in (0.0, 0.3, 0.5):
        wanted = stats.ttest_rel((first + shift).numpy(), second.numpy()).pvalue
        assert paired(first + shift, second).p == pytest.approx(wanted, rel=0.1, abs=2e-3)


def test_methods_that_never_differ_are_alike() -> None:
    found = paired(torch.ones(4), torch.ones(4))
    assert (found.mean, found.p) == (0.0, 1.0)
    with pytest.raises(ValueError, match="same images"):
        paired(torch.ones(4), torch.ones(1))


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.9 times 4, 3, 2, 1, and never falling."""
    found = holm(torch.tensor([0.02, 0.9, 0.01, 0.03], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm(torch.tensor([0.6, 0.7])).tolist() == [1.0, 1.0]
    assert holm(torch.empty(0)).tolist() == []


def test_compare_corrects_over_all_pairs() -> None:
    values = torch.arange(12.0)
    found = compare({"a": values, "b": values - 1, "c": values})
    assert [(c.first, c.second) for c in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [c.paired.mean for c in found] == [1.0, 0.0, -1.0]
    assert found[0].paired.p == pytest.approx(2 / 2**12)
    assert [c.corrected_p for c in found] == pytest.approx([3 * 2 / 2**12, 1.0, 3 * 2 / 2**12])
