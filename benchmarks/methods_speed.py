"""Seconds of RISE relative to the same forward passes alone, and peak memory for several numbers of masks.

    OMP_NUM_THREADS=1 python benchmarks/methods_speed.py --photos ../shared/photos --masks 4000 --repeat 3

"Bare" is the same number of forward passes in chunks of the same size, with nothing around them. Runs of both alternate, and
the ratio is the median over the pairs. Memory is measured in a separate process for each number of masks.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import torch
from common import arguments, autocast, load_photos, table
from igos_speed import bare, seconds

import faithmap as fm


def explainer(model: fm.Classifier, options: argparse.Namespace, masks: int) -> fm.RISE:
    """RISE with that number of masks."""
    return fm.RISE(model, masks=masks, chunk_size=options.chunk, autocast=autocast(options))


def chunks(count: int, size: int) -> list[int]:
    """The sizes of the chunks of that number of images."""
    return [min(size, count - start) for start in range(0, count, size)]


def peak_memory(options: argparse.Namespace, masks: int) -> list[str]:
    """Peak memory of the GPU, or of the whole process."""
    warnings.simplefilter("ignore", fm.FaithmapWarning)
    model = fm.load(options.model, device=options.device)
    size = model.geometry.crop or (224, 224)
    explainer(model, options, masks)(torch.rand(1, 3, *size, device=options.device))
    if options.device.startswith("cuda"):
        return [f"{masks}", f"{torch.cuda.max_memory_allocated() / 2**20:.0f}"]
    return [f"{masks}", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}"]


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--masks", type=int, default=4000)
    parser.add_argument(
        "--memory", type=int, nargs="*", default=[500, 1000, 4000], help="numbers of masks to measure memory at"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore", fm.FaithmapWarning)
    model = fm.load(options.model, device=options.device)
    _, images = load_photos(options, model)
    explain = explainer(model, options, options.masks)
    passes = [(size, False) for size in chunks(options.masks + 1, options.chunk)] * len(images)
    plain, whole = partial(bare, model, passes, images[:1], autocast(options)), partial(explain, images)
    explainer(model, options, 2 * options.chunk)(images)  # the first passes are slower
    pairs = [(seconds(whole, options.device), seconds(plain, options.device)) for _ in range(options.repeat)]
    ours, theirs = (statistics.median(side) / len(images) for side in zip(*pairs, strict=True))
    ratio = statistics.median(mine / other for mine, other in pairs)
    print(f"{options.model} on {options.device}, autocast {options.autocast}, {torch.get_num_threads()} threads\n")
    header = ["method", "masks", "chunk", "seconds per image", "bare seconds per image", "ratio"]
    print(table(header, [["RISE", f"{options.masks}", f"{options.chunk}", f"{ours:.2f}", f"{theirs:.2f}", f"{ratio:.3f}"]]))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        peaks = list(pool.map(peak_memory, [options] * len(options.memory), options.memory))
    print(f"\nPeak memory, chunk {options.chunk}\n\n{table(['masks', 'MB'], peaks)}")


if __name__ == "__main__":
    main()
