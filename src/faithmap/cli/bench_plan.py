"""The output of ``faithmap bench plan``; needs torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from faithmap.bench.dataset import open_source
from faithmap.bench.estimate import Estimate, MethodEstimate, estimate, given_pace, measured_pace
from faithmap.bench.evaluate import ModelCache
from faithmap.bench.planning import dry_run, first_image, make_plan
from faithmap.bench.spec import LoadedSpec
from faithmap.cli.bench_arguments import BenchPlanArguments
from faithmap.cli.report import make_console, print_line
from faithmap.errors import duration, quantity


def show_plan(request: LoadedSpec, arguments: BenchPlanArguments) -> int:
    """Plan the benchmark, and print the estimate."""
    models = ModelCache(arguments.device[0] if arguments.device else None)
    plan = make_plan(request.spec, request.base, models, request.published, request.locate)
    dry_run(request.spec, plan, models, request.locate)
    source = open_source(plan.setup.data)
    paces, size = {}, (224, 224)
    for planned in plan.setup.models:
        model, _ = models.get(planned.spec)
        image, _ = first_image(source, plan.dataset, model)
        size = (image.shape[-2], image.shape[-1])
        pace = arguments.passes_per_second
        paces[planned.id] = measured_pace(model, image, plan.setup.chunk_size) if pace is None else given_pace(pace)
    found = estimate(plan, size, paces)
    if arguments.json and sys.stdout is not None:
        sys.stdout.write(json.dumps(_document(found, arguments.devices), indent=2) + "\n")
        return 0
    for line in _lines(found, arguments.devices):
        print_line(make_console(), line)
    return 0


def _document(found: Estimate, devices: int) -> dict[str, Any]:
    return {
        "schema": "faithmap.bench_plan/1",
        "units": found.units,
        "images": found.images,
        "passes": found.passes,
        "seconds": None if found.seconds is None else found.seconds / devices,
        "bytes": found.size,
        "methods": [
            {
                "id": part.method,
                "passes": None if part.passes is None else part.passes._asdict(),
                "metric_passes": part.metric_passes._asdict(),
                "seconds": None if part.seconds is None else part.seconds / devices,
                "bytes": part.size,
            }
            for part in found.methods
        ],
    }


def _lines(found: Estimate, devices: int) -> Iterator[str]:
    """A table of the methods, and their sum."""
    width = max(map(len, (part.method for part in found.methods)), default=6) + 2
    yield f"{'method':<{width}}  passes per image      of the metrics       time      disk"
    for part in found.methods:
        yield f"{part.method:<{width}}{_row(part, devices)}"
    whole = "" if found.seconds is None else f", {duration(found.seconds / devices)} on {quantity(devices, 'device')}"
    parts = (quantity(found.units, "unit"), quantity(found.images, "image"))
    yield f"{', '.join(parts)}, {found.passes:,} passes{whole}, {_bytes(found.size)}"
    if any(part.passes is None for part in found.methods):
        yield "methods with ? have no estimate of their passes; their passes are not included"


def _row(part: MethodEstimate, devices: int) -> str:
    own = "?" if part.passes is None else f"{part.passes.forward} + {part.passes.backward}"
    metric_passes = f"{part.metric_passes.forward} + {part.metric_passes.backward}"
    seconds = "" if part.seconds is None else duration(part.seconds / devices)
    return f"{own:>17}  {metric_passes:>18}  {seconds:>9}  {_bytes(part.size):>8}"


def _bytes(size: float) -> str:
    """A size to two digits.

    >>> _bytes(512), _bytes(1.5e9)
    ('512 B', '1.5 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
