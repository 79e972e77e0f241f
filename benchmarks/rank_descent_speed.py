"""Seconds of rank descent to its first map and to its last, and the ratio to the same passes alone, in the same run.

    python benchmarks/rank_descent_speed.py --photos ../shared/photos --count 8 --resolutions 7 28 224

One photograph at a time, as the page does. "Bare" is the same number of forward passes, and of forward and backward passes to
the input, in chunks of the same sizes, with nothing around them; the two alternate, and the ratio is the median over the
pairs. The prior's backward passes end at the layers of its class activation map; bare, they are forward passes alone.
"""

from __future__ import annotations

import statistics
import time
import warnings
from dataclasses import dataclass
from functools import partial

import torch
from common import arguments, autocast, load_photos, table
from igos_speed import Recorder, bare, seconds
from jaxtyping import Float
from torch import Tensor

import faithmap as fm


@dataclass
class First:
    """A progress callback that measures the time to the first map."""

    start: float
    after: float | None = None

    def __call__(self, done: int, total: int) -> None:
        """Steps are ignored."""

    def maps(self, image: int, heatmap: Float[Tensor, "r c"]) -> None:
        """Store the time of the first map."""
        del image, heatmap
        self.after = self.after or time.perf_counter() - self.start


def row(model: fm.Classifier, images: Float[Tensor, "n 3 h w"], resolution: int, dtype: torch.dtype | None) -> list[str]:
    """Medians over the photographs, and the slowest of them."""
    device, recorder = str(images.device), Recorder(model)
    fm.RankDescent(recorder, resolution=resolution, autocast=dtype)(images[:1])
    explain = fm.RankDescent(model, resolution=resolution, autocast=dtype)
    firsts, wholes, ratios = [], [], []
    for image in images.split(1):
        first = First(time.perf_counter())
        explain(image, progress=first)
        ours = time.perf_counter() - first.start
        ratios.append(ours / seconds(partial(bare, model, recorder.passes, image, dtype), device))
        firsts.append(first.after or float("nan"))
        wholes.append(ours)
    backward = sum(size for size, has in recorder.passes if has)
    cells = [f"{resolution}", f"{sum(size for size, _ in recorder.passes)}", f"{backward}"]
    times = [f"{statistics.median(side):.2f} ({max(side):.2f})" for side in (firsts, wholes)]
    return [*cells, *times, f"{statistics.median(ratios):.2f}"]


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=8)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[7, 28, 224])
    options = parser.parse_args()
    warnings.simplefilter("ignore", fm.FaithmapWarning)
    model = fm.load(options.model, device=options.device)
    _, images = load_photos(options, model)
    rows = [row(model, images, resolution, autocast(options)) for resolution in options.resolutions]
    print(f"{options.model} on {options.device}, {len(images)} photographs, {torch.get_num_threads()} threads\n")
    print(
        table(
            [
                "resolution",
                "forward passes",
                "backward passes",
                "seconds to the first map",
                "to the last",
                "ratio to bare passes",
            ],
            rows,
        )
    )


if __name__ == "__main__":
    main()
