"""Engines: where the work is done. Each takes tasks and gives units, in whatever order; none knows of files or resumption."""

from faithmap.bench.engines.base import Engine, batches
from faithmap.bench.engines.local import Local
from faithmap.bench.engines.shard import Shard

__all__ = ["Engine", "Local", "Shard", "batches"]
