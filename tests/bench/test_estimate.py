"""Estimated passes, time and disk space are those that a run takes."""

from __future__ import annotations

import pytest
from bench.tiny_bench import ALL_METRICS, Bench, rows

from faithmap.bench.estimate import estimate, given_pace
from faithmap.bench.evaluate import ModelCache
from faithmap.bench.planning import make_plan
from faithmap.bench.run import run
from faithmap.bench.spec import parse_spec, read_spec


def test_passes_and_disk_are_estimated(bench: Bench) -> None:
    plan = make_plan(parse_spec(ALL_METRICS, "all"), bench.home, ModelCache("cpu"))
    found = estimate(plan, (16, 16), {"tiny": given_pace(100.0)})
    igos = found.methods[0]
    curves, rise, infidelity, confidence, road, saturation = 2 * 5 + 1, 2 * 17 + 1, 6 + 1, 2, 2 * 2 + 1, 5 + 2
    top, jury, saco = 2 * 17 + 2, 205, 5
    assert igos.passes is not None
    repeated = 4 * igos.passes.forward + 1  # three times for sensitivity, once for a quarter of the image
    one_by_one = curves + rise + infidelity + confidence + road + saturation + top + jury + saco
    assert igos.metric_passes.forward == one_by_one + repeated
    assert igos.metric_passes.backward == 4 * igos.passes.backward + 5
    small = estimate(make_plan(read_spec(bench.spec), bench.home, ModelCache("cpu")), (16, 16), {"tiny": given_pace(100.0)})
    assert small.methods[0].metric_passes == (2 * 6 + 1 + 4 + 1, 0)
    assert small.passes == 7 * sum(sum(part.passes or ()) + sum(part.metric_passes) for part in small.methods)
    assert small.seconds == pytest.approx(small.passes / 100)
    run(read_spec(bench.spec), bench.out, base=bench.home)
    written = sum(path.stat().st_size for path in bench.units)
    assert small.size == pytest.approx(written, rel=0.4)
    forward = sum(row["forward"] for row in rows(bench.out) if row["method"] == "gradcam")
    assert small.methods[2].passes is not None
    assert forward == 7 * small.methods[2].passes.forward
