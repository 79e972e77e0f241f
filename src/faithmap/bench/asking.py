"""Asking: a specification by its file or its ready name, and what the command line changes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faithmap.bench import ready
from faithmap.bench.catalog import METRICS
from faithmap.bench.errors import BenchError
from faithmap.bench.reading import Field, Place, parse_spec, places, read_spec
from faithmap.text import one_line

if TYPE_CHECKING:
    from faithmap.bench.spec import Spec

TEMPLATE = """\
# A benchmark: every method explains every image with every model, and every metric judges every map.
#   faithmap bench plan FILE     what it will take
#   faithmap bench run FILE      run it; started again after whatever stopped it, it goes on where it was
#   faithmap bench report RUN    tables and pictures

name = "my-benchmark"
seed = 0              # of the sample and of all random numbers
shard_size = 16       # images in a unit of work, which is what a stopped run loses at the most
chunk_size = 32       # images in one pass of the model; fewer need less memory, and results do not depend on it
# autocast = "bfloat16"     # a lower precision for the model's passes

[[models]]
name = "efficientnet_lite0"       # see "faithmap models"; also torchvision/NAME, timm/NAME, hf/REPO
# weights = "my.safetensors"      # a checkpoint of your own
# factory = "my_module:load"      # or a function of your own that returns a faithmap.Classifier

[data]
kind = "folder"       # or csv (columns path and target), imagenet (a folder a class), voc, coco
path = "photographs"  # relative to this file
# sample = 500        # so many of them, drawn with the seed; without it, all
# target = "label"    # explain the image's own class; without it, what the model predicts
# split = "test"      # of voc
# annotations = "instances_val2014.json"     # of coco; of imagenet, its boxes

[[methods]]
name = "rank_descent" # the default of "faithmap explain"; see "faithmap methods" for all
resolution = [28, 14] # cells a side; a row of the table for each

[[methods]]
name = "igos"
resolution = [28, 14]
# settings = { iterations = 15 }

[[methods]]
name = "gradcam"

[[methods]]
name = "random_map"   # a control: what a map is worth that knows nothing
settings = { resolution = 28 }

[[metrics]]
name = "deletion_insertion"
settings = { protocol = "igos" }  # or "rise"

# [[metrics]]
# name = "infidelity"             # also sensitivity, confidence, road, complexity; with boxes pointing_game,
# settings = { draws = 200 }      # energy_pointing_game, relevance_rank
"""
"""What ``faithmap bench init`` writes."""


@dataclass(frozen=True)
class Asked:
    """A specification, where its relative paths begin, the file that a run keeps of it, and where its fields stand."""

    spec: Spec
    base: Path
    source: tuple[str, bytes]
    published: dict[str, Any] | None
    place: Place


def asked(
    name: str,
    *,
    models: Sequence[str] = (),
    images: Path | None = None,
    sample: int | None = None,
) -> Asked:
    """The specification that an argument stands for.

    Args:
        name: of a file, or of a ready specification.
        models: instead of those that it names.
        images: a folder or CSV file, instead of its data set.
        sample: images at the most, instead of its own number.

    Raises:
        BenchError: for what is neither, or cannot be read; for a ready one whose data set is not here, with what to get.
    """
    path = Path(name)
    if name in ready.names():
        text, base, suffix = ready.text_of(name), Path.cwd(), ".toml"
        spec = parse_spec(text, name)
    elif path.suffix.lower() in (".toml", ".yaml", ".yml"):
        spec = read_spec(path)
        text, base, suffix = path.read_text("utf-8-sig"), path.parent, path.suffix.lower()
    else:
        raise BenchError(f"{name!r} is no specification; give a .toml or .yaml file, or one of {', '.join(ready.names())}")
    if name in ready.names() and images is None and not (base / spec.data.path).exists():
        where = places(text, name)(("data", "path"))
        raise BenchError(f"{where}: {spec.data.path} is not here; put there {ready.data_of(text)}, or give --images FOLDER")
    changed = _changed(spec, models, images, sample)
    told = [f"--model {model}" for model in models] + ([f"--images {images}"] if images else [])
    told += [f"--sample {sample}"] if sample is not None else []
    head = f"# changed on the command line: {one_line(' '.join(told))}\n" if told else ""
    numbers = ready.published(spec.published) if spec.published in ready.names() and spec.published is not None else None
    read = places(text, name, yaml=suffix != ".toml")
    given = {"models": "--model", "data": "--images", "metrics": "--images"}
    others = {part: option for part, option in given.items() if getattr(changed, part) != getattr(spec, part)}

    def place(field: Field) -> str:
        return others.get(str(field[0])) or read(field)

    return Asked(changed, base, (f"spec{suffix}", (head + text).encode()), numbers, place)


def _changed(spec: Spec, models: Sequence[str], images: Path | None, sample: int | None) -> Spec:
    from faithmap.bench.spec import DataSpec, MetricSpec, ModelSpec  # noqa: PLC0415 - pydantic is an extra

    update: dict[str, Any] = {}
    if models:
        update["models"] = [ModelSpec(name=model) for model in models]
    if images is not None:
        kind = "csv" if images.suffix.lower() == ".csv" else "folder"
        update["data"] = DataSpec.model_validate(
            {"kind": kind, "path": images.absolute(), "sample": sample, "target": "predicted"}
        )
        metrics = [metric for metric in spec.metrics if not METRICS[metric.name].boxes]
        update["metrics"] = metrics if len(metrics) == len(spec.metrics) else [*metrics, MetricSpec(name="deletion_insertion")]
    elif sample is not None:
        update["data"] = spec.data.model_copy(update={"sample": sample})
    return spec.model_copy(update=update)
