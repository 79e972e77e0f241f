"""Forward and backward passes per image of every method at its default settings, counted while it explains photographs.

    python benchmarks/method_costs.py
    python benchmarks/method_costs.py --methods igos,igos_plus --photos ../shared/photos --count 20

Without ``--photos``, the photograph that comes with faithmap is explained. All passes of an explanation are counted, also the
one that finds the explained class; a backward pass comes with a forward pass that is counted as well. The search for a target
layer, once for each model and size of image, is not counted. The table compares the counts with the registry
(``faithmap.methods.registry``) and with the estimate of ``Explainer.passes``.

I-GOS and I-GOS+ take a number of passes that depends on the image: the registry has the mean over the photographs of the
quality benchmarks at 28x28 cells (:func:`measured`).
"""

from __future__ import annotations

import argparse
import csv
import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from common import table
from jaxtyping import Float
from torch import Tensor

import faithmap as fm
from faithmap.methods.masks.masker import Masker
from faithmap.methods.registry import METHODS

RESULTS = Path(__file__).parent / "results"

MEASURED = {"igos": ("igos_quality.csv", "I-GOS"), "igos_plus": ("methods_quality.csv", "igos_plus, igos, own")}
"""The results of methods whose number of passes depends on the image: file, and name in it."""


def measured(method: str) -> tuple[int, int]:
    """Mean forward and backward passes of a method in the results of a quality benchmark, at 28x28 cells."""
    file, name = MEASURED[method]
    with (RESULTS / file).open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if (row["method"], row["resolution"]) == (name, "28")]
    forward, backward = (statistics.mean(float(row[kind]) for row in rows) for kind in ("forward", "backward"))
    return round(forward), round(backward)


def costs(method: str, model: fm.Classifier, images: Sequence[Float[Tensor, "1 3 h w"]], chunk: int) -> list[str]:
    """The row of one method: mean and range of its counts, and what is known of them beforehand."""
    settings: dict[str, Any] = {"masker": Masker(1000)} if "masker" in METHODS[method].needs else {}
    explain = METHODS[method].explainer(model, chunk_size=chunk, **settings)
    diagnostics = [explain(image).diagnostics[0] for image in images]
    counts = [[each[f"{kind}_passes"] for each in diagnostics] for kind in ("forward", "backward")]
    forward, backward = (f"{statistics.mean(values):.0f}" for values in counts)
    ranges = " + ".join(f"{min(values)}-{max(values)}" if min(values) < max(values) else "same" for values in counts)
    estimate = explain.passes(images[0])
    known = "-" if estimate is None else f"{estimate.forward} + {estimate.backward}"
    return [method, f"{forward} + {backward}", ranges, METHODS[method].passes, known]


def main() -> None:
    """Print the table, one row after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of photographs")
    parser.add_argument("--count", type=int, help="number of photographs, evenly spread over the folder")
    parser.add_argument("--methods", default=",".join(METHODS), help="names, with commas between them")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--chunk", type=int, default=32, help="images in one pass")
    options = parser.parse_args()
    warnings.simplefilter("ignore", fm.FaithmapWarning)
    torch.manual_seed(0)
    model = fm.load(options.model, device=options.device)
    files = sorted(fm.image_files([options.photos])) if options.photos else [fm.sample_photo()]
    count = min(options.count or len(files), len(files))
    images = [model.read(files[i * len(files) // count]) for i in range(count)]
    header = ["method", "forward + backward, mean", "range", "registry", "estimate"]
    print(f"{options.model}, {count} photograph{'s' * (count != 1)}\n")
    for i, method in enumerate(options.methods.split(",")):
        row = table(header, [costs(method, model, images, options.chunk)])
        print(row if i == 0 else row.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
