"""Seconds of the class activation maps, as ratios to the same number of bare forward passes, and those of other libraries.

    python benchmarks/cam_speed.py --photos ../shared/photos --repeat 5

The runs alternate, and a ratio is the median over the rounds, so that a change of the machine's speed affects all of them.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import torch
from common import arguments, autocast, load_photos, table
from igos_speed import seconds
from jaxtyping import Float
from torch import Tensor

import faithmap as fm
from faithmap.methods.cams import Expected
from faithmap.model import pass_autocast


def bare(model: fm.Classifier, images: Float[Tensor, "n c h w"], passes: int, chunk: int, dtype: torch.dtype | None) -> None:
    """That number of forward passes of every image, without gradients and with nothing around them."""
    stream = images.repeat_interleave(passes, dim=0)
    with torch.no_grad(), pass_autocast(images.device, dtype):
        for part in stream.split(chunk):
            model(part)


def libraries(model: fm.Classifier, layer: torch.nn.Module) -> dict[str, Callable[[Tensor], object]]:
    """Grad-CAM of grad-cam and torch-cam, if they are installed."""
    found: dict[str, Callable[[Tensor], object]] = {}
    if find_spec("pytorch_grad_cam"):
        targets = import_module("pytorch_grad_cam.utils.model_targets")
        theirs = import_module("pytorch_grad_cam").GradCAM(model=model, target_layers=[layer])
        found["grad-cam"] = lambda images: theirs(images, [targets.ClassifierOutputTarget(0)] * len(images))
    if find_spec("torchcam"):
        methods = import_module("torchcam.methods")

        def torch_cam(images: Tensor) -> object:
            with methods.GradCAM(model, target_layer=layer) as other:
                return other([0] * len(images), model(images))

        found["torch-cam"] = torch_cam
    return found


def against_bare(ours: Callable[[], object], theirs: Callable[[], object], options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of one call, and the ratio to the bare passes; the first call of each is not counted."""
    ours(), theirs()
    pairs = [(seconds(ours, options.device), seconds(theirs, options.device)) for _ in range(options.repeat)]
    return statistics.median(mine for mine, _ in pairs), statistics.median(mine / bare for mine, bare in pairs)


def main() -> None:
    """One row for each number of images and method."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=8)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--samples", type=int, default=24, help="of Expected Fused CAM")
    parser.add_argument("--layer", default="bn2")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    model = fm.load(options.model, device=options.device)
    layer = model.module.get_submodule(options.layer)
    _, images = load_photos(options, model)
    dtype, settings = autocast(options), {"target_layer": layer, "chunk_size": options.chunk, "autocast": autocast(options)}
    expected = fm.CAM(model, gradient=Expected(samples=options.samples), **settings)
    rows = []
    for count in (1, len(images)):
        batch = images[:count]
        rivals: dict[str, tuple[int, Callable[[Tensor], object]]] = {
            "Grad-CAM": (1, fm.GradCAM(model, **settings)),
            f"Expected, {options.samples} samples": (options.samples + 1, expected),
            **{name: (1, explain) for name, explain in libraries(model, layer).items()},
        }
        for name, (passes, explain) in rivals.items():
            ours, ratio = against_bare(
                partial(explain, batch), partial(bare, model, batch, passes, options.chunk, dtype), options
            )
            rows.append([name, f"{count}", f"{passes}", f"{ours / count:.4f}", f"{ratio:.2f}"])
    print(f"{options.model} on {options.device}, {options.layer}, {torch.get_num_threads()} threads\n")
    print(table(["method", "images", "bare forwards", "seconds per image", "ratio to the bare forwards"], rows))


if __name__ == "__main__":
    main()
