"""What ``faithmap bench run`` does; needs torch."""

from __future__ import annotations

from pathlib import Path

from faithmap.bench.engines import Engine, LocalEngine, ShardEngine, all_devices, shard_device, shard_of
from faithmap.bench.load_spec import LoadedSpec
from faithmap.bench.ray_engine import RayEngine
from faithmap.bench.run import run
from faithmap.cli.bench_arguments import BenchRunArguments
from faithmap.cli.bench_progress import show_progress
from faithmap.errors import UserError


def run_benchmark(request: LoadedSpec, arguments: BenchRunArguments) -> int:
    """Run the benchmark, and print its progress and a summary."""
    engine = engine_of(arguments)
    out = arguments.out or Path("faithmap-bench") / "".join(c if c.isalnum() or c in "-_." else "_" for c in request.spec.name)
    with show_progress(out, json_lines=arguments.json_lines) as on_progress:
        run(
            request.spec,
            out,
            base=request.base,
            engine=engine,
            source=request.source,
            published=request.published,
            accept_changes=arguments.accept_changes,
            retry_failed=arguments.retry_failed,
            verify=arguments.verify,
            on_progress=on_progress,
            locate=request.locate,
        )
    return 0


def engine_of(arguments: BenchRunArguments) -> Engine:
    """The engine that the arguments name.

    Raises:
        UserError: for an option of another engine.
    """
    for option, (given, engines) in _engine_options(arguments).items():
        if given and arguments.engine not in engines:
            raise UserError(f"--{option} belongs to --engine {' or '.join(engines)}; give that, too, or leave it out")
    if arguments.engine == "shard" and len(arguments.device) > 1:
        raise UserError("a shard works on one device; give one --device, and more shards for more devices")
    if arguments.engine == "ray":
        return RayEngine(arguments.address, arguments.workers or 2, arguments.gpus, arguments.cpus)
    if arguments.engine == "shard":
        number, count = shard_of(arguments.shard)
        return ShardEngine(number, count, arguments.device[0] if arguments.device else shard_device())
    devices = arguments.device or all_devices()
    workers = arguments.workers or len(devices)
    return LocalEngine(tuple(devices[i % len(devices)] for i in range(max(workers, len(devices)))), arguments.threads)


def _engine_options(arguments: BenchRunArguments) -> dict[str, tuple[bool, tuple[str, ...]]]:
    """For each option that only some engines have: whether it was given, and which engines have it."""
    return {
        "shard": (arguments.shard is not None, ("shard",)),
        "address": (arguments.address is not None, ("ray",)),
        "gpus": (arguments.gpus > 0, ("ray",)),
        "cpus": (arguments.cpus > 1, ("ray",)),
        "workers": (arguments.workers is not None, ("local", "ray")),
        "threads": (arguments.threads is not None, ("local",)),
        "device": (bool(arguments.device), ("local", "shard")),
    }
