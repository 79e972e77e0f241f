"""Means, intervals, paired tests, ranks, groups and costs equal numbers that were worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from bench.run_writer import RunWriter, failed, row, texts
from numpy.testing import assert_allclose

from faithmap.bench.report.analysis import mean_score, paired_tests, pareto_front
from faithmap.bench.report.results import MethodResults


def series(values: list[float], index: list[int] | None = None) -> MethodResults:
    at = range(len(values)) if index is None else index
    return MethodResults(pd.DataFrame({"m": values}, index=at))


def test_an_interval_contains_the_mean() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.9])
    found = mean_score(values)
    assert found is not None
    assert found.mean == pytest.approx(0.4)
    assert found.standard_error == pytest.approx(math.sqrt((0.09 + 0 + 0.04 + 0.25) / 3 / 4))
    assert 0.1 <= found.low < 0.4 < found.high <= 0.9
    assert mean_score(np.empty(0)) is None
    lone = mean_score(np.array([0.5]))
    assert lone is not None
    assert math.isnan(lone.low)


def test_many_images_use_the_normal_distribution() -> None:
    values = np.tile([0.0, 1.0], 1250)
    found = mean_score(values)
    assert found is not None
    reach = 1.959964 * 0.5 * math.sqrt(2500 / 2499) / math.sqrt(2500)
    assert_allclose((found.low, found.high), (0.5 - reach, 0.5 + reach), rtol=1e-6)
    differences = np.where(np.arange(2500) < 1300, 1.0, -1.0)  # sum 100 of steps of 1: 2 standard deviations
    (pair,) = paired_tests({"a": series(list(differences)), "b": series([0.0] * 2500)}, "m")
    assert pair.p == pytest.approx(0.0455, abs=1e-4)
    assert pair.difference == pytest.approx(0.04)


def test_pairs_are_tested_by_sign_flips_on_common_images() -> None:
    a, b, c = series([1.0, 2.0, 3.0, 9.0], [0, 1, 2, 3]), series([0.0, 0.0, 0.0], [0, 1, 2]), series([5.0], [7])
    (pair,) = paired_tests({"a": a, "b": b, "c": c}, "m")
    assert (pair.first, pair.second, pair.count) == ("a", "b", 3)
    assert pair.difference == pytest.approx(2)
    assert pair.p == 2 / 8


def test_p_values_are_corrected_for_all_pairs() -> None:
    methods = {"a": series([1.0, 2.0, 3.0]), "b": series([0.0, 0.0, 0.0]), "c": series([0.0, 0.0, 0.0])}
    found = {(pair.first, pair.second): (pair.p, pair.corrected_p) for pair in paired_tests(methods, "m")}
    assert found == {("a", "b"): (0.25, 0.75), ("a", "c"): (0.25, 0.75), ("b", "c"): (1.0, 1.0)}


def test_p_values_of_pairs_on_different_images_are_corrected() -> None:
    methods = {"a": series([1.0, 2.0, 3.0]), "b": series([0.0, 0.0, 0.0]), "c": series([1.0, 2.0], [0, 1])}
    found = {(pair.first, pair.second): (pair.p, pair.corrected_p, pair.count) for pair in paired_tests(methods, "m")}
    assert found == {("a", "b"): (0.25, 0.75, 3), ("a", "c"): (1.0, 1.0, 2), ("b", "c"): (0.5, 1.0, 2)}


def test_nan_and_infinity_are_left_out() -> None:
    (pair,) = paired_tests({"a": series([1.0, math.nan, 3.0]), "b": series([0.0, 5.0, math.inf])}, "m")
    assert (pair.count, pair.difference) == (1, 1.0)


def test_contradictions_between_metrics_are_found(writer: RunWriter) -> None:
    writer.start(["a", "b", "c"])
    scores = {"a": (0.1, 0.2, 3.0), "b": (0.2, 0.4, 2.0), "c": (0.3, 0.3, 1.0)}
    for name, (deletion, insertion, infidelity) in scores.items():
        rows = [row(name, i, deletion=deletion, insertion=insertion + 1e-3 * i, infidelity=infidelity) for i in range(10)]
        writer.unit(name, rows)
    found = writer.analysis()
    (group,) = found.sections[0].groups
    assert group.ranks == {
        "deletion": {"a": 1, "b": 2, "c": 3},
        "insertion": {"a": 3, "b": 1, "c": 2},
        "infidelity": {"a": 3, "b": 2, "c": 1},
    }
    assert group.mean_ranks == pytest.approx({"b": 5 / 3, "c": 2, "a": 7 / 3})
    taus = {("deletion", "insertion"): -1 / 3, ("deletion", "infidelity"): -1, ("insertion", "infidelity"): 1 / 3}
    assert group.agreement == pytest.approx(taus)
    found_pairs = {(c.method, c.other, c.better_by, c.worse_by) for c in group.contradictions}
    assert ("a", "b", "deletion", "insertion") in found_pairs
    assert ("b", "c", "insertion", "infidelity") in found_pairs
    assert len(found_pairs) == 2 + 3 + 1
    page = writer.page()
    assert page.models[0].groups[0].contradictions[0][0] == "deletion and infidelity: 3 of 3 pairs of methods"


def test_costs_and_their_pareto_front(writer: RunWriter) -> None:
    writer.start(["a", "b", "c"])
    for name, worth, forward, seconds in (("a", 0.3, 1, (1.0, 3.0)), ("b", 0.2, 10, (2.0, 2.0)), ("c", 0.7, 100, (8.0, 9.0))):
        rows = [
            row(
                name,
                i,
                deletion=0.1,
                insertion=0.1 + worth,
                forward=forward,
                backward=0,
                seconds=seconds[i],
                peak_memory=2**20 * (i + 1),
            )
            for i in range(2)
        ]
        writer.unit(name, rows)
    found = writer.analysis()
    cost = found.sections[0].entries[0].cost
    assert (cost.median, cost.mean, cost.passes, cost.memory, cost.count) == (2.0, 2.0, 1.0, 2**21, 2)
    assert cost.slow == pytest.approx(2.9)
    page = writer.page()
    assert page.models[0].groups[0].front_texts == [
        "Pareto front by passes, forward and backward: a, c.",
        "Pareto front by seconds per image: a, c.",
    ]
    assert texts(page.models[0].runtime)[0] == ["a", "4x4", "1", "0", "2 s", "2 s", "2.9 s", "0.1 s", "2 MiB", "2"]
    assert pareto_front({"a": (1, 1), "b": (1, 1), "c": (1, 0.5)}) == ["a", "b"]


@pytest.mark.parametrize(("given", "head"), [({"resolution": 28}, "28x28"), ({"resolution": None}, "4x4")])
def test_a_resolution_is_that_of_the_plan_or_of_the_heatmaps(
    writer: RunWriter, given: dict[str, int | None], head: str
) -> None:
    writer.start([{"id": "a", "name": "a", "label": "A", **given}])
    writer.unit("a", [failed("a", 1, "broken"), row("a", 0, deletion=0.5)])
    writer.unit("b", [failed("a", 2, "broken")])  # its map would have one cell
    assert writer.analysis().sections[0].groups[0].resolution == head


def test_tests_at_one_resolution_make_one_group(writer: RunWriter) -> None:
    methods = [{"id": f"a-{side}", "name": "a", "resolution": side} for side in (28, 14)]
    writer.start(methods)
    writer.plan["metrics"][0]["settings"] = {"resolution": 7}
    (writer.folder / "run.json").write_text(json.dumps(writer.plan))
    for side in (28, 14):
        writer.unit(str(side), [row(f"a-{side}", 0, deletion=0.5)])
    (group,) = writer.analysis().sections[0].groups
    assert (group.resolution, [entry.name for entry in group.entries]) == ("7x7", ["a-28", "a-14"])


def test_tests_at_different_resolutions_do_not_make_one_group(writer: RunWriter) -> None:
    writer.start([{"id": f"a-{side}", "name": "a", "resolution": side} for side in (28, 14)])
    one = writer.plan["metrics"][0]
    writer.plan["metrics"] += [{**one, "id": "rise_deletion", "settings": {"resolution": 7}}]
    (writer.folder / "run.json").write_text(json.dumps(writer.plan))
    for side in (28, 14):
        writer.unit(str(side), [row(f"a-{side}", 0, deletion=0.5, rise_deletion=0.4)])
    assert [group.resolution for group in writer.analysis().sections[0].groups] == ["28x28", "14x14"]


def test_a_label_that_is_the_id_of_another_method_is_not_used(writer: RunWriter) -> None:
    writer.start([{"id": "a", "label": "b"}, {"id": "b", "label": "twice"}, {"id": "c", "label": "twice"}])
    for name, deletion in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        writer.unit(name, [row(name, i, deletion=deletion + i / 100) for i in range(2)])
    (group,) = writer.analysis().sections[0].groups
    assert [entry.name for entry in group.entries] == ["a", "b", "c"]
    assert len(group.tests["deletion"]) == 3
