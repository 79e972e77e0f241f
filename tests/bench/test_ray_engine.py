"""The Ray engine gives the same rows; Ray is loaded only when the engine runs, and its failures end the run with one line."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bench.tiny_bench import Bench, Rows, rows

from faithmap.bench.evaluate import BenchWorker, ModelCache
from faithmap.bench.planning import make_plan
from faithmap.bench.ray_engine import RayActor, RayEngine
from faithmap.bench.run import Engine, RunProgress, run
from faithmap.bench.spec import read_spec
from faithmap.errors import BenchError

Undisturbed = Callable[[], Rows]


def run_on(bench: Bench, engine: Engine) -> RunProgress:
    return run(read_spec(bench.spec), bench.out, base=bench.home, engine=engine)


class FakeRay:
    """The part of Ray and Ray Data that the engine uses, in this process; the actors take turns."""

    exceptions = SimpleNamespace(RayActorError=type("A", (Exception,), {}))

    def __init__(self) -> None:
        self.joined: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
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

    def remote(self, **options: Any) -> Callable[[type], Any]:
        assert options == {"num_cpus": 0}, "the process with the data set takes the place of no actor"
        return lambda kind: SimpleNamespace(remote=lambda *given: self.handle(kind(*given)))

    def handle(self, made: Any) -> Any:
        return SimpleNamespace(next=SimpleNamespace(remote=made.next))

    def from_items(self, items: list[dict[str, str]], override_num_blocks: int) -> Any:
        assert override_num_blocks == len(items), "one block per batch: a free actor takes the next"
        self.blocks = items
        return self

    def map_batches(self, kind: Any, **options: Any) -> Any:
        self.options = options
        self.actors = [kind(**options["fn_constructor_kwargs"]) for _ in range(options["compute"]["size"])]
        return self

    def iter_batches(self, **options: Any) -> Iterator[Any]:
        pyarrow = pytest.importorskip("pyarrow")
        for i, block in reversed(list(enumerate(self.blocks))):
            yield from self.actors[i % len(self.actors)](pyarrow.Table.from_pylist([block]))


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    ray = FakeRay()
    monkeypatch.setattr("faithmap.bench.ray_engine._ray", lambda: ray)
    paths = list(sys.path)
    yield ray
    sys.path[:] = paths


def test_a_cluster_is_joined_without_output(bench: Bench, fake_ray: FakeRay, undisturbed: Undisturbed) -> None:
    assert run_on(bench, RayEngine(actors=2)).done == 9
    assert fake_ray.joined["include_dashboard"] is False
    assert fake_ray.joined["log_to_driver"] is False
    assert (fake_ray.options["num_cpus"], fake_ray.options["num_gpus"]) == (1, None)
    assert fake_ray.options["max_restarts"] == fake_ray.options["max_task_retries"] == 3
    assert len(fake_ray.blocks) == 9, "fewer than two shards of images per actor: every actor has work"
    assert fake_ray.context.enable_progress_bars is False
    assert fake_ray.context.execution_no_progress_timeout_s == -1
    assert len(fake_ray.killed) == 1
    assert not fake_ray.up, "it is shut down again"
    assert rows(bench.out) == undisturbed()


@pytest.mark.parametrize("token", [True, False])
def test_a_cluster_that_cannot_be_reached_says_what_to_do(
    bench: Bench, fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch, token: bool
) -> None:
    monkeypatch.setattr("faithmap.bench.ray_engine.check_address", lambda address: None)

    def refuse(**settings: Any) -> None:
        del settings
        raise ConnectionError("Failed to connect") from RuntimeError("InvalidAuthToken" if token else "timed out")

    fake_ray.init = refuse  # type: ignore[method-assign]
    with pytest.raises(BenchError) as refused:
        run_on(bench, RayEngine(address="head:6379"))
    message = "no Ray cluster at head:6379 (Failed to connect"
    assert str(refused.value).startswith(message)
    assert ("set RAY_AUTH_MODE=token" in str(refused.value)) is token
    assert not fake_ray.up


def test_an_address_without_answer_ends_the_run_at_once(bench: Bench, fake_ray: FakeRay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
        assert run_on(bench, RayEngine(f"ray://127.0.0.1:{port}")).done == 9
    assert fake_ray.joined["address"] == f"ray://127.0.0.1:{port}"
    for path in (bench.out / "units").iterdir():
        path.unlink()
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "127.0.0.1:99999"):
        with pytest.raises(BenchError, match=rf"no Ray cluster at {address} .*; give the --address of a running one"):
            run_on(bench, RayEngine(address))
    assert run_on(bench, RayEngine("auto")).done == 9


def test_an_actor_uses_the_device_it_was_given(bench: Bench, fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert run_on(bench, RayEngine(actors=2)).failed == 0, "a GPU that was not reserved is not used"
    made: list[str | None] = []
    monkeypatch.setattr("faithmap.bench.ray_engine.BenchWorker", lambda setup, device: made.append(device))
    plan = make_plan(read_spec(bench.spec), bench.home, ModelCache("cpu"))
    RayActor(plan.setup, 1, [], gpu=True)._make_worker()
    assert made == ["cuda:0"], "Ray shows an actor only its own GPUs"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    shutil.rmtree(bench.out)
    with pytest.raises(BenchError, match="a GPU that torch cannot use; give --gpus 0"):
        run_on(bench, RayEngine(gpus=1))
    assert fake_ray.options["num_gpus"] == 1
    assert not fake_ray.up


def test_an_actor_loads_the_models_once(bench: Bench, fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counting_worker(setup: Any, device: str) -> BenchWorker:
        made.append(device)
        return BenchWorker(setup, device)

    monkeypatch.setattr("faithmap.bench.ray_engine.BenchWorker", counting_worker)
    assert run_on(bench, RayEngine(actors=2)).done == 9
    assert made == ["cpu", "cpu"]


def test_an_error_in_a_worker_is_one_line(
    bench: Bench, fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch, undisturbed: Undisturbed
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
        run_on(bench, RayEngine(actors=2))
    assert (len(fake_ray.killed), fake_ray.up) == (1, False)
    monkeypatch.setattr(BenchWorker, "run", run_it)
    assert run_on(bench, RayEngine(actors=2)).present == 4, "finished units were written"
    assert rows(bench.out) == undisturbed()


def test_a_cluster_that_was_joined_before_stays(bench: Bench, fake_ray: FakeRay) -> None:
    fake_ray.up = True
    run_on(bench, RayEngine())
    assert fake_ray.up
    assert fake_ray.joined == {}


def test_ray_is_loaded_only_by_its_engine(bench: Bench) -> None:
    code = "import sys, faithmap.bench.run, faithmap.bench.ray_engine, faithmap.cli.bench_run\nassert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_ray_says_what_to_install(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BenchError, match=r"ray is not installed.*pip install 'faithmap\[ray\]'"):
        run_on(bench, RayEngine())


RAY = """
import sys
from pathlib import Path
from faithmap.bench.ray_engine import RayEngine
from faithmap.errors import BenchError
from faithmap.bench.spec import read_spec
from faithmap.bench.run import run
home, address = Path(sys.argv[1]), sys.argv[2] or None
def go(out, gpus=0):
    return run(read_spec(home / "spec.toml"), home / out, base=home, engine=RayEngine(address, 2, gpus), on_progress=show)
def show(progress, finished):
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
"""A model that ends the process of its actor; a file holds how many times."""

real = pytest.mark.skipif("FAITHMAP_RAY" not in os.environ, reason="starts Ray, which takes 20 seconds: set FAITHMAP_RAY=1")


def with_ray(bench: Bench, address: str = "") -> subprocess.CompletedProcess[str]:
    pytest.importorskip("ray.data")
    return subprocess.run([sys.executable, "-c", RAY, str(bench.home), address], capture_output=True, text=True, check=False)


@real
def test_two_actors_of_ray_give_the_same_rows(bench: Bench, undisturbed: Undisturbed) -> None:
    done = with_ray(bench)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[:10] == ["unit"] * 9 + ["done 9"], "no output of Ray"
    assert "a GPU that torch cannot use" in lines[10] or torch.cuda.is_available()
    assert done.stderr == ""
    assert rows(bench.out) == undisturbed()
    assert not (bench.out / "run.lock.json").exists()


@real
@pytest.mark.parametrize("deaths", [2, 99])
def test_an_actor_of_ray_that_dies_is_restarted_a_few_times(bench: Bench, undisturbed: Undisturbed, deaths: int) -> None:
    bench.write("tiny_bench_model:make", "dying:make")
    (bench.home / "dying.py").write_text(DYING)
    (bench.home / "lives").write_text(str(deaths))
    done = with_ray(bench)
    if deaths == 2:
        lines = [line for line in done.stdout.splitlines() if "raylet" not in line]  # Ray itself reports a death here
        assert lines[:10] == ["unit"] * 9 + ["done 9"]
        assert rows(bench.out) == undisturbed()
        assert (bench.home / "lives").read_text() == "0"
    else:
        assert "BenchError: actors die repeatedly" in done.stderr
    sys.modules.pop("dying", None)


@real
def test_a_cluster_is_reached_by_its_address(bench: Bench, undisturbed: Undisturbed) -> None:
    address = os.environ.get("FAITHMAP_RAY_ADDRESS")
    if not address:
        pytest.skip("needs a cluster: set FAITHMAP_RAY_ADDRESS")
    done = with_ray(bench, address)
    assert "done 9" in done.stdout, done.stderr[-2000:]
    assert rows(bench.out) == undisturbed()
