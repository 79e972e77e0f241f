"""Seconds of the metrics that take many passes of the model, as ratios to the same number of bare forward passes.

    python benchmarks/metric_speed.py --photos ../shared/photos --repeat 5

"Bare" is the same number of forward passes in chunks of the same sizes, with nothing around them. The two runs alternate, and a
ratio is the median over the rounds, so that a change of the machine's speed affects both. Quantus, if it is installed, is timed
with about the same number of passes. Its infidelity does not draw random perturbations: only the amount of work is comparable.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from common import arguments, autocast, load_photos, table
from igos_speed import Recorder, bare, seconds
from jaxtyping import Float
from torch import Tensor

import faithmap as fm
from faithmap.metrics.functional import infidelity

Work = Callable[[torch.nn.Module], object]
"""Evaluates the metric for a model; all other arguments are fixed."""

GRID = 7
"""Cells per side that Quantus removes one after the other in its infidelity."""

STEPS = 96
"""Steps of Quantus's deletion: nearly as many as deletion and insertion together, and a divisor of the number of values."""


def ours(images: Float[Tensor, "n 3 h w"], maps: Tensor, options: argparse.Namespace) -> dict[str, Work]:
    """The metrics of this library."""
    shared: dict[str, Any] = {"chunk_size": options.chunk, "autocast": autocast(options)}
    perturbed = {"draws": options.draws, **shared}
    return {
        "deletion and insertion": lambda model: fm.deletion_insertion(model, images, maps, **shared),
        "deletion and insertion, rise": lambda model: fm.deletion_insertion(model, images, maps, protocol="rise", **shared),
        "infidelity, gaussian": lambda model: infidelity(model, images, maps, perturbation="gaussian", **perturbed),
        "infidelity, square": lambda model: infidelity(model, images, maps, perturbation="square", **perturbed),
        "infidelity, region": lambda model: infidelity(model, images, maps, perturbation="region", **perturbed),
    }


def quantus(images: Float[Tensor, "n 3 h w"], maps: Tensor, target: Tensor, options: argparse.Namespace) -> dict[str, Work]:
    """Quantus's deletion (pixel flipping) and infidelity, with about the same number of passes."""
    if not find_spec("quantus"):
        return {}
    library = import_module("quantus")
    side = images.shape[-1] // GRID
    quiet = {"disable_warnings": True, "display_progressbar": False}
    flipping = library.PixelFlipping(features_in_step=images[0].numel() // STEPS, perturb_baseline="black", **quiet)
    patches = library.Infidelity(
        perturb_patch_sizes=[side], n_perturb_samples=max(1, options.draws // GRID**2), perturb_baseline="black", **quiet
    )
    pixels = torch.nn.functional.interpolate(maps.unsqueeze(1), images.shape[-2:], mode="bilinear", align_corners=True)
    data = {"x_batch": images.cpu().numpy(), "y_batch": target.cpu().numpy(), "a_batch": pixels.cpu().numpy()}

    def evaluate(metric: Callable[..., object], model: torch.nn.Module) -> object:
        return metric(model=model, **data, device=options.device, batch_size=options.chunk, softmax=True)

    return {"quantus, pixel flipping": partial(evaluate, flipping), "quantus, infidelity": partial(evaluate, patches)}


def row(
    name: str, work: Work, model: fm.Classifier, images: Float[Tensor, "n 3 h w"], options: argparse.Namespace
) -> list[str]:
    """A metric and its bare passes alternately; the first run of each is not counted."""
    recorder = Recorder(model).eval()
    try:
        work(recorder)
    except Exception as error:  # noqa: BLE001 - another library may fail in any way, and the failure is the result
        reason = " ".join(str(error).split()) or "no reason given"
        return [name, f"{len(images)}", "failed", f"{type(error).__name__}: {reason[:80]}", ""]
    passes = [(size, False) for size, _ in recorder.passes]
    alone = partial(bare, model, passes, images[:1], autocast(options))
    alone()
    pairs = [(seconds(lambda: work(model), options.device), seconds(alone, options.device)) for _ in range(options.repeat)]
    mine, ratio = statistics.median(m for m, _ in pairs), statistics.median(m / b for m, b in pairs)
    count = sum(size for size, _ in passes)
    return [name, f"{len(images)}", f"{count / len(images):.0f}", f"{mine / len(images):.3f}", f"{ratio:.3f}"]


def main() -> None:
    """One row for each number of images and metric."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=8)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--draws", type=int, default=1000, help="of infidelity, for each image")
    parser.add_argument("--only", default="", help="only metrics whose name contains this")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    model = fm.load(options.model, device=options.device).eval()
    _, photos = load_photos(options, model)
    rows = []
    for count in sorted({1, len(photos)}):
        images = photos[:count]
        explanation = fm.GradCAM(model)(images)
        assert explanation.target is not None
        works = {
            **ours(images, explanation.heatmap, options),
            **quantus(images, explanation.heatmap, explanation.target, options),
        }
        rows += [row(name, work, model, images, options) for name, work in works.items() if options.only in name]
    print(f"{options.model} on {options.device}, autocast {options.autocast}, {torch.get_num_threads()} threads\n")
    print(table(["metric", "images", "forwards per image", "seconds per image", "ratio to the bare forwards"], rows))


if __name__ == "__main__":
    main()
