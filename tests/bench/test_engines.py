"""Engines: the same tables wherever the work is done, and Ray only where it is asked for."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bench.tiny_bench import Bench, Command, rows

from faithmap.bench.engines import Engine, LocalEngine, ShardEngine, assigned, device_here, shard_of
from faithmap.bench.errors import BenchError
from faithmap.bench.evaluate import BenchWorker, MethodRun
from faithmap.bench.load_spec import read_spec
from faithmap.bench.models import ModelCache
from faithmap.bench.planning import make_plan
from faithmap.bench.ray_engine import RayActor, RayEngine
from faithmap.bench.run import RunProgress, run
from faithmap.bench.run_folder import RunFolder, holding
from faithmap.cli.bench_arguments import BenchRunArguments
from faithmap.cli.bench_run import engine_of

Undisturbed = Callable[[], list[dict]]


def go(bench: Bench, engine: Engine) -> RunProgress:
    return run(read_spec(bench.spec), bench.home / "out", base=bench.home, engine=engine)


def test_three_shards_make_the_same_tables(bench: Bench, undisturbed: Undisturbed) -> None:
    states = [go(bench, ShardEngine(number, 3)) for number in (2, 0, 1)]
    assert [state.units for state in states] == [3, 3, 3]
    assert rows(bench.home / "out") == undisturbed()
    assert go(bench, LocalEngine()).done == 0, "the journals of all shards are known"


def test_two_processes_make_the_same_tables(bench: Bench, undisturbed: Undisturbed) -> None:
    assert go(bench, LocalEngine(("cpu", "cpu"), threads=1)).done == 9
    assert rows(bench.home / "out") == undisturbed()


def test_one_worker_has_as_many_threads_as_were_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    work, before, seen = BenchWorker.run, torch.get_num_threads(), []

    def watched(self, tasks):
        for finished in work(self, tasks):
            seen.append(torch.get_num_threads())
            yield finished

    monkeypatch.setattr(BenchWorker, "run", watched)
    go(bench, LocalEngine(("cpu",), threads=before + 1))
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 20])
def test_every_unit_is_of_one_shard(bench: Bench, count: int) -> None:
    plan = make_plan(read_spec(bench.spec), bench.home, ModelCache("cpu"))
    parts = [assigned(plan, (number, count)) for number in range(count)]
    assert sorted(unit.key for part in parts for unit in part) == sorted(unit.key for unit in plan.units())
    if count == 3:
        assert all(len({unit.shard for unit in part}) == 1 for part in parts), "a shard's images are read by one process"
    if count == 7:
        assert {len(part) for part in parts} == {1, 2}, "fewer shards of images than processes: no process is idle"


def test_shards_share_the_folder_and_a_whole_run_does_not(bench: Bench) -> None:
    go(bench, ShardEngine(0, 3))
    with holding(bench.home / "out", (0, 3)):
        assert go(bench, ShardEngine(1, 3)).done == 3
        with pytest.raises(BenchError, match=r"shard-0-of-3\.lock"):
            go(bench, ShardEngine(0, 3))
        with pytest.raises(BenchError, match=r"run\.lock"):
            go(bench, LocalEngine())


def test_a_shard_leaves_what_others_are_writing(bench: Bench) -> None:
    go(bench, ShardEngine(0, 3))
    theirs = bench.home / "out" / "units" / ".igos-8-00001-abc.parquet.1.ab.partial"
    theirs.touch()
    go(bench, ShardEngine(1, 3))
    assert theirs.exists()
    go(bench, LocalEngine())
    assert not theirs.exists()


def test_a_shard_tells_of_its_own_failures(bench: Bench) -> None:
    (bench.home / "photos" / "0.png").write_bytes(b"x")
    assert go(bench, ShardEngine(0, 3)).failed == 3
    assert go(bench, ShardEngine(1, 3)).failed_before == 0
    assert go(bench, ShardEngine(0, 3)).failed_before == 3


def test_where_a_shard_stands_is_read_from_the_scheduler() -> None:
    assert shard_of(None, {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "RANK": "0", "WORLD_SIZE": "1"}) == (3, 8)
    assert shard_of("0/2", {"RANK": "1", "WORLD_SIZE": "4"}) == (0, 2)
    node = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "TORCHELASTIC_RUN_ID": "none"}
    assert shard_of(None, {**node, "RANK": "11", "WORLD_SIZE": "16"}) == (11, 16), "torchrun, that srun started on each node"
    assert shard_of(None, {**node, "RANK": "11"}) == (1, 2)
    for wrong in ("2/2", "a/b", "1", "-1/2", "0/0"):
        with pytest.raises(BenchError, match="is no shard"):
            shard_of(wrong, {})
    with pytest.raises(BenchError, match="no shard is given"):
        shard_of(None, {"RANK": "1"})


def test_a_shard_takes_the_device_of_its_local_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert device_here({"SLURM_LOCALID": "2", "LOCAL_RANK": "1"}) == "cuda:2"
    assert device_here({"SLURM_LOCALID": "0", "LOCAL_RANK": "3", "TORCHELASTIC_RUN_ID": "none"}) == "cuda:3"
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
        go(bench, LocalEngine(("cpu", "cpu")))
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
    assert go(crew, LocalEngine(("cuda:0", "cuda:1", "cuda:1"), threads=1)).done == 21
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
    engine = engine_of(BenchRunArguments(**options))
    assert isinstance(engine, LocalEngine)
    assert list(engine.devices) == devices


def test_peak_memory_is_that_of_the_method_on_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for name, answer in {"synchronize": None, "reset_peak_memory_stats": None, "max_memory_allocated": 1234}.items():

        def note(device: torch.device, name: str = name, answer: int | None = answer) -> int | None:
            said.append(f"{name} {device}")
            return answer

        monkeypatch.setattr(torch.cuda, name, note)
    model: Any = SimpleNamespace(device=torch.device("cuda:1"))
    asked: Any = MethodRun(None, None, model, None)  # type: ignore[arg-type]
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


class StandIn:
    """As much of Ray and Ray Data as the engine uses, in this process; the actors take turns."""

    exceptions = SimpleNamespace(RayActorError=type("A", (Exception,), {}))

    def __init__(self) -> None:
        self.joined: dict[str, Any] = {}
        self.asked: dict[str, Any] = {}
        self.blocks: list[dict[str, str]] = []
        self.killed: list[Any] = []
        self.up = False
        self.context = SimpleNamespace()
        self.data = SimpleNamespace(
            DataContext=SimpleNamespace(get_current=lambda: self.context),
            ActorPoolStrategy=lambda **pool: pool,
            from_items=self.from_items,
        )

    def is_initialized(self) -> bool:
        return self.up

    def init(self, **settings: Any) -> None:
        self.joined, self.up = settings, True

    def shutdown(self) -> None:
        self.up = False

    def get(self, result: Any) -> Any:
        return result

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)

    def remote(self, **asked: Any) -> Callable[[type], Any]:
        assert asked == {"num_cpus": 0}, "what holds the data set takes no actor's place"
        return lambda kind: SimpleNamespace(remote=lambda *given: self.handle(kind(*given)))

    def handle(self, made: Any) -> Any:
        return SimpleNamespace(next=SimpleNamespace(remote=made.next))

    def from_items(self, items: list[dict[str, str]], override_num_blocks: int) -> Any:
        assert override_num_blocks == len(items), "a block each: a free actor takes the next"
        self.blocks = items
        return self

    def map_batches(self, kind: Any, **asked: Any) -> Any:
        self.asked = asked
        self.actors = [kind(**asked["fn_constructor_kwargs"]) for _ in range(asked["compute"]["size"])]
        return self

    def iter_batches(self, **asked: Any) -> Iterator[Any]:
        pyarrow = pytest.importorskip("pyarrow")
        for i, block in reversed(list(enumerate(self.blocks))):
            yield from self.actors[i % len(self.actors)](pyarrow.Table.from_pylist([block]))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    ray = StandIn()
    monkeypatch.setattr("faithmap.bench.ray_engine._ray", lambda: ray)
    paths = list(sys.path)
    yield ray
    sys.path[:] = paths


def test_a_cluster_is_joined_quietly(bench: Bench, stand_in: StandIn, undisturbed: Undisturbed) -> None:
    assert go(bench, RayEngine(actors=2)).done == 9
    assert stand_in.joined["include_dashboard"] is False
    assert stand_in.joined["log_to_driver"] is False
    assert (stand_in.asked["num_cpus"], stand_in.asked["num_gpus"]) == (1, None)
    assert stand_in.asked["max_restarts"] == stand_in.asked["max_task_retries"] == 3
    assert len(stand_in.blocks) == 9, "fewer shards of images than two for each actor: no actor is idle"
    assert stand_in.context.enable_progress_bars is False
    assert stand_in.context.execution_no_progress_timeout_s == -1
    assert len(stand_in.killed) == 1
    assert not stand_in.up, "it is left as it was found"
    assert rows(bench.home / "out") == undisturbed()


@pytest.mark.parametrize("token", [True, False])
def test_a_cluster_that_cannot_be_reached_says_what_to_do(
    bench: Bench, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, token: bool
) -> None:
    monkeypatch.setattr("faithmap.bench.ray_engine.knocked", lambda address: None)

    def refuse(**settings: Any) -> None:
        del settings
        raise ConnectionError("Failed to connect") from RuntimeError("InvalidAuthToken" if token else "timed out")

    stand_in.init = refuse  # type: ignore[method-assign]
    with pytest.raises(BenchError) as refused:
        go(bench, RayEngine(address="head:6379"))
    told = "no Ray cluster at head:6379 (Failed to connect"
    assert str(refused.value).startswith(told)
    assert ("set RAY_AUTH_MODE=token" in str(refused.value)) is token
    assert not stand_in.up


def test_an_address_at_which_nobody_is_ends_the_run_at_once(bench: Bench, stand_in: StandIn) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
        assert go(bench, RayEngine(f"ray://127.0.0.1:{port}")).done == 9
    assert stand_in.joined["address"] == f"ray://127.0.0.1:{port}"
    for path in (bench.home / "out" / "units").iterdir():
        path.unlink()
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "127.0.0.1:99999"):
        with pytest.raises(BenchError, match=rf"no Ray cluster at {address} .*; give the --address of one that runs"):
            go(bench, RayEngine(address))
    assert go(bench, RayEngine("auto")).done == 9


def test_an_actor_computes_where_it_was_told(bench: Bench, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert go(bench, RayEngine(actors=2)).failed == 0, "a GPU that was not asked for is not used"
    made: list[str | None] = []
    monkeypatch.setattr("faithmap.bench.ray_engine.BenchWorker", lambda setup, device: made.append(device))
    plan = make_plan(read_spec(bench.spec), bench.home, ModelCache("cpu"))
    RayActor(plan.setup, 1, [], gpu=True)._ready()
    assert made == ["cuda:0"], "Ray shows an actor its own GPUs alone"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    shutil.rmtree(bench.home / "out")
    with pytest.raises(BenchError, match="a GPU that torch cannot use; give --gpus 0"):
        go(bench, RayEngine(gpus=1))
    assert stand_in.asked["num_gpus"] == 1
    assert not stand_in.up


def test_an_actor_loads_the_models_once(bench: Bench, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(setup: Any, device: str) -> BenchWorker:
        made.append(device)
        return BenchWorker(setup, device)

    monkeypatch.setattr("faithmap.bench.ray_engine.BenchWorker", counted)
    assert go(bench, RayEngine(actors=2)).done == 9
    assert made == ["cpu", "cpu"]


def test_what_ends_a_worker_is_told_in_one_line(
    bench: Bench, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, undisturbed: Undisturbed
) -> None:
    run_it, done = BenchWorker.run, [0]

    def failing(self: BenchWorker, tasks: Any) -> Iterator[Any]:
        for finished in run_it(self, tasks):
            if done[0] == 4:
                raise AttributeError("nobody\nexpects \udce9")
            done[0] += 1
            yield finished

    monkeypatch.setattr(BenchWorker, "run", failing)
    with pytest.raises(BenchError, match=r"^a worker failed \(nobody\\nexpects \\udce9\)$"):
        go(bench, RayEngine(actors=2))
    assert (len(stand_in.killed), stand_in.up) == (1, False)
    monkeypatch.setattr(BenchWorker, "run", run_it)
    assert go(bench, RayEngine(actors=2)).present == 4, "what had come was written"
    assert rows(bench.home / "out") == undisturbed()


def test_a_cluster_that_is_joined_already_stays(bench: Bench, stand_in: StandIn) -> None:
    stand_in.up = True
    go(bench, RayEngine())
    assert stand_in.up
    assert stand_in.joined == {}


def test_ray_is_loaded_by_nothing_else(bench: Bench) -> None:
    code = "import sys, faithmap.bench.run, faithmap.bench.ray_engine, faithmap.cli.bench_run\nassert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_ray_says_what_to_install(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BenchError, match=r"ray is not installed.*pip install 'faithmap\[ray\]'"):
        go(bench, RayEngine())


RAY = """
import sys
from pathlib import Path
from faithmap.bench.ray_engine import Cluster
from faithmap.bench.errors import BenchError
from faithmap.bench.load_spec import read_spec
from faithmap.bench.run import run
home, address = Path(sys.argv[1]), sys.argv[2] or None
def go(out, gpus=0):
    return run(read_spec(home / "spec.toml"), home / out, base=home, engine=Cluster(address, actors=2, gpus=gpus), tell=said)
def said(state, finished):
    if finished:
        print("unit", flush=True)
if __name__ == "__main__":
    print("done", go("out").done)
    if address is None:
        try:
            go("gpus", gpus=1)
        except BenchError as error:
            print(error)
"""

DYING = """
import os
from pathlib import Path
from tiny_bench_model import Spots
import faithmap

class Dying(Spots):
    def forward(self, x):
        lives = Path("lives")
        if "RAY_JOB_ID" in os.environ and lives.exists() and (left := int(lives.read_text())):
            lives.write_text(str(left - 1))
            os._exit(9)
        return super().forward(x)

def make():
    return faithmap.Classifier(Dying(), labels=["cat", "dog", "cow"], geometry=faithmap.Geometry(16, (16, 16)), name="tiny")
"""
"""A model that ends its actor's process, so many times as a file says."""

real = pytest.mark.skipif("FAITHMAP_RAY" not in os.environ, reason="starts Ray, which takes 20 seconds: set FAITHMAP_RAY=1")


def with_ray(bench: Bench, address: str = "") -> subprocess.CompletedProcess[str]:
    pytest.importorskip("ray.data")
    return subprocess.run([sys.executable, "-c", RAY, str(bench.home), address], capture_output=True, text=True, check=False)


@real
def test_two_actors_of_ray_make_the_same_tables(bench: Bench, undisturbed: Undisturbed) -> None:
    done = with_ray(bench)
    assert done.returncode == 0, done.stderr[-2000:]
    told = done.stdout.splitlines()
    assert told[:10] == ["unit"] * 9 + ["done 9"], "and no word of Ray's"
    assert "a GPU that torch cannot use" in told[10] or torch.cuda.is_available()
    assert done.stderr == ""
    assert rows(bench.home / "out") == undisturbed()
    assert Path(bench.home / "out" / "run.lock").read_text() == ""


@real
@pytest.mark.parametrize("deaths", [2, 99])
def test_an_actor_of_ray_that_dies_is_started_again_a_few_times(bench: Bench, undisturbed: Undisturbed, deaths: int) -> None:
    bench.write("tiny_bench_model:make", "dying:make")
    (bench.home / "dying.py").write_text(DYING)
    (bench.home / "lives").write_text(str(deaths))
    done = with_ray(bench)
    if deaths == 2:
        told = [line for line in done.stdout.splitlines() if "raylet" not in line]  # what Ray says of a death, it says here
        assert told[:10] == ["unit"] * 9 + ["done 9"]
        assert rows(bench.home / "out") == undisturbed()
        assert (bench.home / "lives").read_text() == "0"
    else:
        assert "BenchError: actors die again and again" in done.stderr
    sys.modules.pop("dying", None)


@real
def test_a_cluster_is_reached_by_its_address(bench: Bench, undisturbed: Undisturbed) -> None:
    address = os.environ.get("FAITHMAP_RAY_ADDRESS")
    if not address:
        pytest.skip("needs a cluster: set FAITHMAP_RAY_ADDRESS")
    done = with_ray(bench, address)
    assert "done 9" in done.stdout, done.stderr[-2000:]
    assert rows(bench.home / "out") == undisturbed()
