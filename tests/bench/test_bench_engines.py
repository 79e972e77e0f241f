"""Engines: the same tables wherever the work is done, and Ray only where it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bench_tools import Bench, Command, rows

from faithmap.bench.engines import Engine, Local, Shard
from faithmap.bench.engines.cluster import Actor, Cluster
from faithmap.bench.engines.shard import assigned, device_here, shard_of
from faithmap.bench.errors import BenchError
from faithmap.bench.folder import RunFolder
from faithmap.bench.locks import holding
from faithmap.bench.models import Models
from faithmap.bench.planning import make_plan
from faithmap.bench.question import Question
from faithmap.bench.reading import read_spec
from faithmap.bench.run import State, run
from faithmap.cli.bench import RunOptions
from faithmap.cli.bench_runs import engine_of

Undisturbed = Callable[[], list[dict]]


def go(bench: Bench, engine: Engine) -> State:
    return run(read_spec(bench.spec), bench.home / "out", base=bench.home, engine=engine)


def test_three_shards_make_the_same_tables(bench: Bench, undisturbed: Undisturbed) -> None:
    states = [go(bench, Shard(number, 3)) for number in (2, 0, 1)]
    assert [state.units for state in states] == [3, 3, 3]
    assert rows(bench.home / "out") == undisturbed()
    assert go(bench, Local()).done == 0, "the journals of all shards are known"


def test_two_processes_make_the_same_tables(bench: Bench, undisturbed: Undisturbed) -> None:
    assert go(bench, Local(("cpu", "cpu"), threads=1)).done == 9
    assert rows(bench.home / "out") == undisturbed()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 20])
def test_every_unit_is_of_one_shard(bench: Bench, count: int) -> None:
    plan = make_plan(read_spec(bench.spec), bench.home, Models("cpu"))
    parts = [assigned(plan, (number, count)) for number in range(count)]
    assert sorted(unit.key for part in parts for unit in part) == sorted(unit.key for unit in plan.units())
    if count == 3:
        assert all(len({unit.shard for unit in part}) == 1 for part in parts), "a shard's images are read by one process"
    if count == 7:
        assert {len(part) for part in parts} == {1, 2}, "fewer shards of images than processes: no process is idle"


def test_shards_share_the_folder_and_a_whole_run_does_not(bench: Bench) -> None:
    go(bench, Shard(0, 3))
    with holding(bench.home / "out", (0, 3)):
        assert go(bench, Shard(1, 3)).done == 3
        with pytest.raises(BenchError, match=r"shard-0-of-3\.lock"):
            go(bench, Shard(0, 3))
        with pytest.raises(BenchError, match=r"run\.lock"):
            go(bench, Local())


def test_a_shard_leaves_what_others_are_writing(bench: Bench) -> None:
    go(bench, Shard(0, 3))
    theirs = bench.home / "out" / "units" / ".igos-8-00001-abc.parquet.1.ab.partial"
    theirs.touch()
    go(bench, Shard(1, 3))
    assert theirs.exists()
    go(bench, Local())
    assert not theirs.exists()


def test_a_shard_tells_of_its_own_failures(bench: Bench) -> None:
    (bench.home / "photos" / "0.png").write_bytes(b"x")
    assert go(bench, Shard(0, 3)).failed == 3
    assert go(bench, Shard(1, 3)).failed_before == 0
    assert go(bench, Shard(0, 3)).failed_before == 3


def test_where_a_shard_stands_is_read_from_the_scheduler() -> None:
    assert shard_of(None, {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "RANK": "0", "WORLD_SIZE": "1"}) == (3, 8)
    assert shard_of("0/2", {"RANK": "1", "WORLD_SIZE": "4"}) == (0, 2)
    for wrong in ("2/2", "a/b", "1", "-1/2", "0/0"):
        with pytest.raises(BenchError, match="is no shard"):
            shard_of(wrong, {})
    with pytest.raises(BenchError, match="no shard is given"):
        shard_of(None, {"RANK": "1"})


def test_a_shard_takes_the_device_of_its_local_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert device_here({"SLURM_LOCALID": "2", "LOCAL_RANK": "1"}) == "cuda:2"
    assert device_here({"LOCAL_RANK": "5"}) == "cuda:1"
    assert device_here({}) == "cuda:0"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert device_here({"LOCAL_RANK": "5"}) == "cpu"


def test_a_worker_that_dies_ends_the_run_in_one_line(bench: Bench) -> None:
    bench.write("tiny_bench_model:make", "dying:make")
    (bench.home / "dying.py").write_text(
        "import multiprocessing, os\nfrom tiny_bench_model import make as made\n"
        "def make():\n"
        "    if multiprocessing.parent_process() is not None:\n        os._exit(9)\n"
        "    return made()\n"
    )
    with pytest.raises(BenchError, match="a worker died"):
        go(bench, Local(("cpu", "cpu")))
    sys.modules.pop("dying", None)
    assert RunFolder(bench.home / "out").record()


CREW = """
import os
import time
from pathlib import Path

import faithmap
from tiny_bench_model import Spots


class Waiting(Spots):
    def forward(self, x):
        if self.device.startswith("cuda"):
            (Path("met") / str(os.getpid())).touch()
            while len(os.listdir("met")) < 3 or os.path.exists("stay"):
                time.sleep(0.001)
        return super().forward(x)


class Placed(faithmap.Classifier):
    def to(self, device):
        self.module.device = str(device)
        self.labels = (f"{device} {os.getpid()}",) * 3
        return self


def make():
    return Placed(Waiting(), geometry=faithmap.Geometry(16, (16, 16)), name="tiny")
"""
"""A model that only believes to be on a GPU, and goes on when three processes have met; its labels say where it is."""


@pytest.fixture
def crew(bench: Bench) -> Iterator[Bench]:
    (bench.home / "crew.py").write_text(CREW)
    (bench.home / "met").mkdir()
    bench.write("tiny_bench_model:make", "crew:make", shard_size=1)
    yield bench
    sys.modules.pop("crew", None)


def test_every_device_has_a_process_of_its_own(crew: Bench, undisturbed: Undisturbed) -> None:
    assert go(crew, Local(("cuda:0", "cuda:1", "cuda:1"), threads=1)).done == 21
    found = rows(crew.home / "out")
    places = {tuple(row["label"].split()) for row in found}
    assert sorted(device for device, _ in places) == ["cuda:0", "cuda:1", "cuda:1"]
    assert len({process for _, process in places} - {str(os.getpid())}) == 3, "the one that was started computes nothing"
    alone = undisturbed()
    for row in (*found, *alone):
        row.pop("label")
    assert found == alone


def test_workers_do_not_outlive_a_run_that_was_killed(crew: Bench) -> None:
    (crew.home / "stay").touch()
    devices = [word for number in range(3) for word in ("--device", f"cuda:{number}")]
    command = Command.started(crew.home, "bench", "run", str(crew.spec), "--out", str(crew.home / "out"), *devices)
    patience = time.monotonic() + 60
    while len(workers := list((crew.home / "met").iterdir())) < 3 and time.monotonic() < patience:
        time.sleep(0.01)
    command.process.kill()
    command.ended()
    for worker in workers:
        while lives(int(worker.name)) and time.monotonic() < patience:
            time.sleep(0.01)
        assert not lives(int(worker.name))
    assert len(workers) == 3


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


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
    monkeypatch: pytest.MonkeyPatch, count: int, options: dict, devices: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    engine = engine_of(RunOptions(**options))
    assert isinstance(engine, Local)
    assert list(engine.devices) == devices


def test_peak_memory_is_that_of_the_method_on_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for name, answer in {"synchronize": None, "reset_peak_memory_stats": None, "max_memory_allocated": 1234}.items():

        def note(device: torch.device, name: str = name, answer: int | None = answer) -> int | None:
            said.append(f"{name} {device}")
            return answer

        monkeypatch.setattr(torch.cuda, name, note)
    model: Any = SimpleNamespace(device=torch.device("cuda:1"))
    asked: Any = Question(None, None, model, None)  # type: ignore[arg-type]
    result, seconds, memory = asked._timed(lambda: said.append("work") or 5)
    assert (result, memory) == (5, 1234)
    assert seconds > 0
    assert said == [
        "synchronize cuda:1",
        "reset_peak_memory_stats cuda:1",
        "work",
        "synchronize cuda:1",
        "max_memory_allocated cuda:1",
    ]


class Handle:
    """An actor of the stand-in: it works when it is asked to."""

    def __init__(self, made: Any) -> None:
        self.do = SimpleNamespace(remote=made.do)


class StandIn:
    """As much of Ray as the engine uses, in this process."""

    exceptions = SimpleNamespace(RayActorError=type("A", (Exception,), {}), RayTaskError=type("T", (Exception,), {}))

    def __init__(self) -> None:
        self.joined: dict[str, Any] = {}
        self.up = False

    def is_initialized(self) -> bool:
        return self.up

    def init(self, **settings: Any) -> None:
        self.joined, self.up = settings, True

    def shutdown(self) -> None:
        self.up = False

    def get(self, result: Any) -> Any:
        return list(result)

    def wait(self, running: Sequence[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return [running[-1]], list(running[:-1])

    def remote(self, **asked: Any) -> Callable[[type], Any]:
        self.asked = asked
        return lambda kind: SimpleNamespace(remote=lambda *a, **k: Handle(Wrapped(kind(*a, **k))))


class Wrapped:
    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def do(self, batch: Any) -> tuple[Any, ...]:
        return tuple(self.actor.do(batch))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    ray = StandIn()
    monkeypatch.setattr("faithmap.bench.engines.cluster._ray", lambda: ray)
    paths = list(sys.path)
    yield ray
    sys.path[:] = paths


def test_a_cluster_is_joined_quietly(bench: Bench, stand_in: StandIn, undisturbed: Undisturbed) -> None:
    assert go(bench, Cluster(actors=2)).done == 9
    assert stand_in.joined["include_dashboard"] is False
    assert stand_in.joined["log_to_driver"] is False
    assert stand_in.asked["num_cpus"] == 1
    assert not stand_in.up, "it is left as it was found"
    assert rows(bench.home / "out") == undisturbed()


def test_an_actor_computes_where_it_was_told(bench: Bench, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert go(bench, Cluster(actors=2)).failed == 0, "a GPU that was not asked for is not used"
    made: list[str | None] = []
    monkeypatch.setattr("faithmap.bench.engines.cluster.Worker", lambda setup, device: made.append(device))
    plan = make_plan(read_spec(bench.spec), bench.home, Models("cpu"))
    Actor(plan.setup, 1, [], gpu=True)
    assert made == ["cuda:0"], "Ray shows an actor its own GPUs alone"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BenchError, match="a GPU that torch cannot use; give --gpus 0"):
        Actor(plan.setup, 1, [], gpu=True)


def test_a_cluster_that_is_joined_already_stays(bench: Bench, stand_in: StandIn) -> None:
    stand_in.up = True
    go(bench, Cluster())
    assert stand_in.up
    assert stand_in.joined == {}


def test_ray_is_loaded_by_nothing_else(bench: Bench) -> None:
    code = (
        "import sys, faithmap.bench.run, faithmap.bench.engines.cluster, faithmap.cli.bench_runs\n"
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_ray_says_what_to_install(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BenchError, match=r"ray is not installed.*pip install 'faithmap\[ray\]'"):
        go(bench, Cluster())


RAY = """
import sys
from pathlib import Path
from faithmap.bench.engines.cluster import Cluster
from faithmap.bench.reading import read_spec
from faithmap.bench.run import run
home = Path(sys.argv[1])
state = run(read_spec(home / "spec.toml"), home / "out", base=home, engine=Cluster(actors=2))
print(state.done)
"""


@pytest.mark.skipif("FAITHMAP_RAY" not in os.environ, reason="starts Ray, which takes 20 seconds: set FAITHMAP_RAY=1")
def test_two_actors_of_ray_make_the_same_tables(bench: Bench, undisturbed: Undisturbed) -> None:
    pytest.importorskip("ray")
    done = subprocess.run([sys.executable, "-c", RAY, str(bench.home)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("9")
    assert rows(bench.home / "out") == undisturbed()
    assert Path(bench.home / "out" / "run.lock").read_text() == ""
