"""Time of planning and resuming a run of many units: python benchmarks/bench_resume.py [--units 100000].

The units are placeholders of 16 rows each, written without a model. The run is resumed twice: with the journal, which knows
every file, and without it, so that the checksum of every file is verified. Memory is the peak of the process.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from faithmap.bench.dataset import DatasetIndex, DatasetItem, ShardedDataset
from faithmap.bench.evaluate import FinishedUnit, ModelCache
from faithmap.bench.plan import BenchPlan, PlannedMethod, PlannedModel, Setup, Task
from faithmap.bench.run import execute
from faithmap.bench.run_folder import ImageRow, RunFolder, StoredUnit, encode
from faithmap.bench.spec import DataSpec, MetricSpec, ModelSpec

METHODS = 10


class UnusedEngine:
    """An engine that must get no tasks."""

    shard = None

    def run(self, setup: Setup, tasks: Sequence[Task], models: ModelCache) -> Iterator[FinishedUnit]:
        """Fail if a unit is missing."""
        del setup, models
        raise AssertionError(f"{len(tasks)} tasks are left")


def planned(units: int, shard_size: int = 16) -> BenchPlan:
    """A plan of ten methods and as many images as the units need."""
    images = units // METHODS * shard_size
    listed = DatasetIndex(DatasetItem(i, f"val/n{i % 1000:08d}/image-{i:08d}.JPEG", 100_000 + i) for i in range(images))
    items = ShardedDataset(listed, shard_size)
    methods = [PlannedMethod(f"method-{i}", "igos", "IGOS", {}, {"resolution": i}) for i in range(METHODS)]
    setup = Setup(
        *(0, 32, None),
        [PlannedModel(ModelSpec(name="fake"), "f" * 64)],
        methods,
        [MetricSpec(name="deletion_insertion")],
        DataSpec(path=Path("/fake")),
    )
    return BenchPlan("fake", setup, items)


def placeholder_unit(key: str) -> bytes:
    """The file of a unit."""
    rows = [
        ImageRow(i, f"{i}.png", values={"deletion": 0.1, "insertion": 0.9}, heatmap=np.ones((7, 7), np.float32))
        for i in range(16)
    ]
    same = {"model": "fake", "method": "m", "shard": 0, "device": "cpu"}
    return encode(rows, same, {"unit": key, "failed": 0}, ["deletion", "insertion"])


def megabytes() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the files are written; without it, a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as home:
        folder = RunFolder(Path(home) / "run")
        initial = megabytes()
        began = time.perf_counter()
        folder.create()
        plan = planned(arguments.units)
        folder.record_plan(plan)
        units = list(plan.units())
        print(f"planned {len(units)} units in {time.perf_counter() - began:.2f} s, {megabytes() - initial:.0f} MB")
        for unit in units:  # no fsync: the disk is not what is measured
            path = folder.units / f"{unit.key}.parquet"
            path.write_bytes(placeholder_unit(unit.key))
            status = path.stat()
            folder.add_to_journal({unit.key: StoredUnit(status.st_size, status.st_mtime_ns, 0)})
        for name in ("with the journal", "without it"):
            began = time.perf_counter()
            again = planned(arguments.units)
            folder.record_plan(again)
            progress = execute(again, folder, UnusedEngine())
            print(
                f"resumed {progress.present} units {name} in {time.perf_counter() - began:.2f} s, "
                f"{megabytes() - initial:.0f} MB"
            )
            (folder.path / folder.journal).unlink()


if __name__ == "__main__":
    main()
