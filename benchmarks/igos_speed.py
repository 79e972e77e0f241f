"""Seconds and passes of I-GOS, and the ratio to the same passes alone, in the same run.

    python benchmarks/igos_speed.py --photos ../shared/photos --repeat 5

"Bare" is the same number of forward passes, and of forward and backward passes to the input, in chunks of the same sizes, with
nothing around them. Runs of both alternate, and the ratio is the median over the pairs, since the speed of a machine changes.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from common import arguments, autocast, load_photos, table
from jaxtyping import Float
from torch import Tensor

import faithmap as fm
from faithmap.model import pass_autocast, undisturbed


class Recorder(torch.nn.Module):
    """Runs the model, and records the size of every pass and whether it has a backward pass."""

    def __init__(self, model: fm.Classifier) -> None:
        super().__init__()
        self.model = model
        self.passes: list[tuple[int, bool]] = []

    def forward(self, images: Float[Tensor, "n c h w"]) -> Tensor:
        """The model's own logits."""
        self.passes.append((len(images), images.requires_grad))
        logits: Tensor = self.model(images)
        return logits


def bare(
    model: fm.Classifier, passes: list[tuple[int, bool]], image: Float[Tensor, "1 c h w"], dtype: torch.dtype | None
) -> None:
    """The same passes with nothing around them."""
    largest = image.expand(max(size for size, _ in passes), -1, -1, -1).contiguous()
    with undisturbed(model):
        for size, backward in passes:
            leaf = largest[:size].detach().requires_grad_(backward)
            with torch.set_grad_enabled(backward), pass_autocast(image.device, dtype):
                score = model(leaf).softmax(dim=1)[:, 0].sum()
            if backward:
                torch.autograd.grad(score, leaf)


def seconds(work: Callable[[], object], device: str) -> float:
    """Wall time of one call, with the device's queue."""
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """One row for each number of images and chunk size."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=8)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[28])
    parser.add_argument("--chunks", type=int, nargs="+", default=None, help="chunk sizes, instead of --chunk")
    parser.add_argument("--memory", type=int, nargs="*", default=[1, 8, 32, 64], help="numbers of images to measure memory at")
    options = parser.parse_args()
    warnings.simplefilter("ignore", fm.FaithmapWarning)
    model = fm.load(options.model, device=options.device)
    _, images = load_photos(options, model)
    dtype, chunks = autocast(options), options.chunks or [options.chunk]
    cases = itertools.product(options.resolutions, chunks, (1, 8))
    rows = [row(model, images[:count], resolution, chunk, dtype, options.repeat) for resolution, chunk, count in cases]
    print(f"{options.model} on {options.device}, autocast {options.autocast}, {torch.get_num_threads()} threads\n")
    header = [
        "images",
        "resolution",
        "chunk",
        "iterations",
        "forward passes",
        "backward passes",
        "forward passes of the search per iteration",
    ]
    print(table([*header, "seconds per image", "bare seconds per image", "ratio"], rows))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        peaks = list(pool.map(peak_memory, [options] * len(options.memory), options.memory))
    print(f"\nPeak memory of two iterations, chunk {options.chunk}\n\n{table(['images', 'MB'], peaks)}")


def row(
    model: fm.Classifier, images: Float[Tensor, "n c h w"], resolution: int, chunk: int, dtype: torch.dtype | None, repeat: int
) -> list[str]:
    """Ours and the bare passes in turn; counts are means over the images, times the median over the repeats."""
    count, device = len(images), str(images.device)
    recorder = Recorder(model)
    explanation = fm.IGOS(recorder, resolution=resolution, chunk_size=chunk, autocast=dtype)(images)
    explain = fm.IGOS(model, resolution=resolution, chunk_size=chunk, autocast=dtype)
    bare(model, recorder.passes, images[:1], dtype)
    pairs = [
        (
            seconds(lambda: explain(images), device),
            seconds(lambda: bare(model, recorder.passes, images[:1], dtype), device),
        )
        for _ in range(repeat)
    ]
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    ours, theirs = (statistics.median(side) / count for side in zip(*pairs, strict=True))
    iterations = sum(len(d["step"]) for d in explanation.diagnostics) / count
    forward, backward = (sum(d[key] for d in explanation.diagnostics) / count for key in ("forward_passes", "backward_passes"))
    search = (forward - backward - 3) / iterations  # without the clean image, the baseline and the first objective
    cells = [f"{count}", f"{resolution}", f"{chunk}", f"{iterations:.1f}", f"{forward:.0f}", f"{backward:.0f}", f"{search:.1f}"]
    return [*cells, f"{ours:.2f}", f"{theirs:.2f}", f"{ratio:.3f}"]


def peak_memory(options: argparse.Namespace, count: int) -> list[str]:
    """Peak memory of a process that explains that number of images in one call: of the GPU, or of the whole process."""
    warnings.simplefilter("ignore", fm.FaithmapWarning)
    model = fm.load(options.model, device=options.device)
    size = model.geometry.crop or (224, 224)
    images = torch.rand(count, 3, *size, device=options.device)
    fm.IGOS(model, iterations=2, chunk_size=options.chunk, autocast=autocast(options))(images)
    if options.device.startswith("cuda"):
        return [f"{count}", f"{torch.cuda.max_memory_allocated() / 2**20:.0f}"]
    return [f"{count}", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}"]


if __name__ == "__main__":
    main()
