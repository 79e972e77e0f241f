"""What ``faithmap bench run`` does: the part that needs torch."""

from __future__ import annotations

from pathlib import Path

from faithmap.bench.engines import Engine, LocalEngine, ShardEngine, all_devices, device_here, shard_of
from faithmap.bench.load_spec import LoadedSpec
from faithmap.bench.ray_engine import RayEngine
from faithmap.bench.run import run
from faithmap.cli.bench import RunOptions
from faithmap.cli.bench_progress import progress
from faithmap.cli.errors import UserError


def run_benchmark(request: LoadedSpec, options: RunOptions) -> int:
    """Run it, and say how it went."""
    engine = engine_of(options)
    out = options.out or Path("faithmap-bench") / "".join(c if c.isalnum() or c in "-_." else "_" for c in request.spec.name)
    with progress(out, json_lines=options.json_lines) as tell:
        run(
            request.spec,
            out,
            base=request.base,
            engine=engine,
            source=request.source,
            published=request.published,
            accept_changes=options.accept_changes,
            retry_failed=options.retry_failed,
            verify=options.verify,
            tell=tell,
            place=request.place,
        )
    return 0


def engine_of(options: RunOptions) -> Engine:
    """The engine that the options ask for.

    Raises:
        UserError: for options that belong to another.
    """
    for option, (given, engines) in _belonging(options).items():
        if given and options.engine not in engines:
            raise UserError(f"--{option} belongs to --engine {' or '.join(engines)}; give that, too, or leave it out")
    if options.engine == "shard" and len(options.device) > 1:
        raise UserError("a shard works on one device; give one --device, and more shards for more devices")
    if options.engine == "ray":
        return RayEngine(options.address, options.workers or 2, options.gpus, options.cpus)
    if options.engine == "shard":
        number, count = shard_of(options.shard)
        return ShardEngine(number, count, options.device[0] if options.device else device_here())
    devices = options.device or all_devices()
    workers = options.workers or len(devices)
    return LocalEngine(tuple(devices[i % len(devices)] for i in range(max(workers, len(devices)))), options.threads)


def _belonging(options: RunOptions) -> dict[str, tuple[bool, tuple[str, ...]]]:
    """Whether each option that not every engine has was given, and which have it."""
    return {
        "shard": (options.shard is not None, ("shard",)),
        "address": (options.address is not None, ("ray",)),
        "gpus": (options.gpus > 0, ("ray",)),
        "cpus": (options.cpus > 1, ("ray",)),
        "workers": (options.workers is not None, ("local", "ray")),
        "threads": (options.threads is not None, ("local",)),
        "device": (bool(options.device), ("local", "shard")),
    }
