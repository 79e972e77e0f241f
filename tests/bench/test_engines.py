"""Every engine gives the same rows: one process, several processes, shards of a run."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from bench.tiny_bench import Bench, Command, Rows, rows

from faithmap.bench.evaluate import BenchWorker, FinishedUnit, ModelCache
from faithmap.bench.plan import Task
from faithmap.bench.planning import make_plan
from faithmap.bench.run import Engine, LocalEngine, RunProgress, ShardEngine, assigned_units, run, shard_device, shard_of
from faithmap.bench.run_folder import RunFolder, write_access
from faithmap.bench.spec import read_spec
from faithmap.cli.bench_arguments import BenchRunArguments
from faithmap.cli.bench_run import engine_of
from faithmap.errors import BenchError

Undisturbed = Callable[[], Rows]


def run_on(bench: Bench, engine: Engine) -> RunProgress:
    return run(read_spec(bench.spec), bench.out, base=bench.home, engine=engine)


def test_three_shards_give_the_same_rows(bench: Bench, undisturbed: Undisturbed) -> None:
    states = [run_on(bench, ShardEngine(number, 3)) for number in (2, 0, 1)]
    assert [state.units for state in states] == [3, 3, 3]
    assert rows(bench.out) == undisturbed()
    assert run_on(bench, LocalEngine()).done == 0, "the journals of all shards are known"


@pytest.mark.sweep
def test_two_processes_give_the_same_rows(bench: Bench, undisturbed: Undisturbed) -> None:
    assert run_on(bench, LocalEngine(("cpu", "cpu"), threads=1)).done == 9
    assert rows(bench.out) == undisturbed()


def test_a_single_worker_uses_the_given_number_of_threads(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run_tasks, initial, threads = BenchWorker.run, torch.get_num_threads(), set()

    def run_and_note(self: BenchWorker, tasks: Iterable[Task]) -> Iterator[FinishedUnit]:
        for finished in run_tasks(self, tasks):
            threads.add(torch.get_num_threads())
            yield finished

    monkeypatch.setattr(BenchWorker, "run", run_and_note)
    run_on(bench, LocalEngine(("cpu",), threads=initial + 1))
    assert threads == {initial + 1}
    assert torch.get_num_threads() == initial


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 20])
def test_every_unit_belongs_to_one_shard(bench: Bench, count: int) -> None:
    plan = make_plan(read_spec(bench.spec), bench.home, ModelCache("cpu"))
    parts = [assigned_units(plan, (number, count)) for number in range(count)]
    assert sorted(unit.key for part in parts for unit in part) == sorted(unit.key for unit in plan.units())
    if count == 3:
        assert all(len({unit.shard for unit in part}) == 1 for part in parts), "a shard's images are read by one process"
    if count == 7:
        assert {len(part) for part in parts} == {1, 2}, "fewer shards of images than processes: every process has work"


def test_shards_share_the_folder_and_a_whole_run_does_not(bench: Bench) -> None:
    run_on(bench, ShardEngine(0, 3))
    with write_access(bench.out, (0, 3)):
        assert run_on(bench, ShardEngine(1, 3)).done == 3
        with pytest.raises(BenchError, match=rf"process {os.getpid()} on .* is writing this run \(shard-0-of-3\.lock\)"):
            run_on(bench, ShardEngine(0, 3))
        with pytest.raises(BenchError, match=rf"process {os.getpid()} on .* is writing this run \(shard-0-of-3\.lock\)"):
            run_on(bench, LocalEngine())


def test_a_shard_keeps_the_temporary_files_of_others(bench: Bench) -> None:
    run_on(bench, ShardEngine(0, 3))
    theirs = bench.out / "units" / ".igos-8-00001-abc.parquet.1.ab.partial"
    theirs.touch()
    run_on(bench, ShardEngine(1, 3))
    assert theirs.exists()
    run_on(bench, LocalEngine())
    assert not theirs.exists()


def test_a_shard_reports_its_own_failures(bench: Bench) -> None:
    (bench.home / "photos" / "0.png").write_bytes(b"x")
    assert run_on(bench, ShardEngine(0, 3)).failed == 3
    assert run_on(bench, ShardEngine(1, 3)).failed_before == 0
    assert run_on(bench, ShardEngine(0, 3)).failed_before == 3


def test_the_number_of_a_shard_is_read_from_the_scheduler() -> None:
    assert shard_of(None, {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "RANK": "0", "WORLD_SIZE": "1"}) == (3, 8)
    assert shard_of("0/2", {"RANK": "1", "WORLD_SIZE": "4"}) == (0, 2)
    node = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "TORCHELASTIC_RUN_ID": "none"}
    assert shard_of(None, {**node, "RANK": "11", "WORLD_SIZE": "16"}) == (11, 16), "torchrun, started by srun on each node"
    assert shard_of(None, {**node, "RANK": "11"}) == (1, 2)
    for wrong in ("2/2", "a/b", "1", "-1/2", "0/0"):
        with pytest.raises(BenchError, match="is no shard"):
            shard_of(wrong, {})
    with pytest.raises(BenchError, match="no shard is given"):
        shard_of(None, {"RANK": "1"})


def test_a_shard_uses_the_device_of_its_local_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert shard_device({"SLURM_LOCALID": "2", "LOCAL_RANK": "1"}) == "cuda:2"
    assert shard_device({"SLURM_LOCALID": "0", "LOCAL_RANK": "3", "TORCHELASTIC_RUN_ID": "none"}) == "cuda:3"
    assert shard_device({"LOCAL_RANK": "5"}) == "cuda:1"
    assert shard_device({}) == "cuda:0"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert shard_device({"LOCAL_RANK": "5"}) == "cpu"


def test_a_worker_that_dies_ends_the_run_with_one_line(bench: Bench) -> None:
    bench.write("tiny_bench_model:make", "dying:make")
    (bench.home / "dying.py").write_text(
        "import multiprocessing, os\nfrom tiny_bench_model import make as made\n"
        "def make():\n"
        "    if multiprocessing.parent_process() is not None:\n        os._exit(9)\n"
        "    return made()\n"
    )
    with pytest.raises(BenchError, match="a worker process died"):
        run_on(bench, LocalEngine(("cpu", "cpu")))
    sys.modules.pop("dying", None)
    assert RunFolder(bench.out).record()


CREW = """
import os

import faithmap
from tiny_bench_model import Spots


class Waiting(Spots):
    waited = False

    def forward(self, x):
        if self.device.startswith("cuda") and not self.waited:
            self.waited = True
            with open("arrived", "w") as pipe:
                pipe.write(f"{os.getpid()}\\n")
            open("proceed").close()
        return super().forward(x)


class Placed(faithmap.Classifier):
    def to(self, device):
        self.module.device = str(device)
        self.labels = (f"{device} {os.getpid()}",) * 3
        return self


def make():
    return Placed(Waiting(), geometry=faithmap.Geometry(16, (16, 16)), name="tiny")
"""
"""A model that computes on the CPU, whatever its device; its labels name device and process. A process that uses it writes its
number to one pipe and waits until another pipe is opened for writing."""


@pytest.fixture
def crew(bench: Bench) -> Iterator[Bench]:
    (bench.home / "crew.py").write_text(CREW)
    for name in ("arrived", "proceed"):
        os.mkfifo(bench.home / name)
    bench.write("tiny_bench_model:make", "crew:make", shard_size=1)
    yield bench
    sys.modules.pop("crew", None)


def wait_for(crew: Bench, count: int) -> list[int]:
    """Wait until so many processes have arrived; their numbers."""
    with os.fdopen(os.open(crew.home / "arrived", os.O_RDWR)) as pipe:
        return [int(pipe.readline()) for _ in range(count)]


def test_every_device_has_its_own_process(crew: Bench, undisturbed: Undisturbed) -> None:
    arrived: list[int] = []
    finished = threading.Event()

    def let_proceed() -> None:
        arrived.extend(wait_for(crew, 3))
        with (crew.home / "proceed").open("w"):
            finished.wait()

    meeting = threading.Thread(target=let_proceed, daemon=True)
    meeting.start()
    assert run_on(crew, LocalEngine(("cuda:0", "cuda:1", "cuda:1"), threads=1)).done == 21
    finished.set()
    meeting.join()
    found = rows(crew.out)
    places = {tuple(row["label"].split()) for row in found}
    assert sorted(device for device, _ in places) == ["cuda:0", "cuda:1", "cuda:1"]
    assert {int(process) for _, process in places} == set(arrived)
    assert len(set(arrived) - {os.getpid()}) == 3, "the process that was started evaluates nothing"
    alone = undisturbed()
    for row in (*found, *alone):
        row.pop("label")
    assert found == alone


@pytest.mark.sweep
def test_workers_end_when_their_run_is_killed(crew: Bench) -> None:
    devices = [word for number in range(3) for word in ("--device", f"cuda:{number}")]
    command = Command.started(crew.home, "bench", "run", str(crew.spec), "--out", str(crew.out), *devices)
    workers = [os.pidfd_open(process) for process in wait_for(crew, 3)]
    command.process.kill()
    command.exit_code()
    for worker in workers:
        select.select([worker], [], [])  # readable when the process has ended
        os.close(worker)


@pytest.mark.parametrize(
    ("count", "options", "devices"),
    [
        (3, {}, ["cuda:0", "cuda:1", "cuda:2"]),
        (0, {}, ["cpu"]),
        (0, {"workers": 2}, ["cpu", "cpu"]),
        (2, {"workers": 5}, ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]),
        (4, {"device": ("cuda:1", "cuda:3")}, ["cuda:1", "cuda:3"]),
        (4, {"device": ("cuda:2",), "workers": 2}, ["cuda:2", "cuda:2"]),
        (4, {"device": ("cpu",)}, ["cpu"]),
    ],
)
def test_all_gpus_are_used_unless_some_are_named(
    monkeypatch: pytest.MonkeyPatch, count: int, options: dict[str, Any], devices: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    engine = engine_of(BenchRunArguments(**options))
    assert isinstance(engine, LocalEngine)
    assert list(engine.devices) == devices
