"""The toy landscape of Figure 2 of the I-GOS paper: a function of two cells, and the paths of both gradients on it.

    python benchmarks/figure_landscape.py --out landscape.png

A mask of two cells is a point of the plane: the image is (1, 1), the baseline (0, 0). The score of the toy model is low at
the baseline, and has a shallower optimum near the image. I-GOS follows the integrated gradient, and with one point of the
path, without noise, the plain gradient. Both take the same fixed steps under the same weight of the mask's size, which stands
for the paper's constraint. The dashed line is where masks have the size of the integrated gradient's last one.

Prints the score and the objective at the end of both paths.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common import table
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

import faithmap as fm
from faithmap.viz import save_figure

SIZE_WEIGHT = 0.2
"""lambda1, the weight of the mask's size."""

COLOURS = {"plain gradient": "#7b3294", "integrated gradient": "#e66101"}


class Landscape(nn.Module):
    """One score of an image of two pixels: a wide valley at (0, 0), and a small one near (1, 1)."""

    def forward(self, images: Float[Tensor, "n 1 1 2"]) -> Float[Tensor, "n 1"]:
        """1 minus both valleys."""
        point = images.flatten(1)
        wide = 0.9 * torch.exp(-point.square().sum(dim=1) / 0.5)
        small = 0.25 * torch.exp(-((point - point.new_tensor([0.95, 0.55])).square().sum(dim=1)) / 0.05)
        return (1 - wide - small).unsqueeze(1)


def path(points: int, steps: int, size: float) -> tuple[Float[Tensor, "k 2"], list[float]]:
    """The masks from the start to the last step, and the objective at each."""
    masks, values = [torch.ones(2)], []
    for taken in range(1, steps + 1):
        explainer = fm.IGOS(
            Landscape(),
            resolution=(1, 2),
            path_points=points,
            noise_std=0.0,
            step=fm.FixedStep(size),
            iterations=taken,
            lambda1=SIZE_WEIGHT,
            lambda2=0.0,
            average=False,
            score="logit",
            baseline="black",
        )
        explanation = explainer(torch.ones(1, 1, 1, 2), 0)
        masks.append(1 - explanation.heatmap.flatten())
        values = explanation.diagnostics[0]["objective"]
    return torch.stack(masks), values


def draw(paths: dict[str, Float[Tensor, "k 2"]]) -> Figure:
    """The landscape with both paths, the image, the baseline, and the mask size that both may have."""
    cells = torch.linspace(-0.1, 1.1, 121)
    grid = torch.stack(torch.meshgrid(cells, cells, indexing="xy"), dim=-1)
    heights = Landscape()(grid.view(-1, 1, 1, 2)).view(121, 121)
    figure = Figure(figsize=(5.6, 5.4), layout="constrained")
    ax = figure.add_subplot()
    shades = ax.contourf(cells.numpy(), cells.numpy(), heights.numpy(), levels=20, cmap="Greys_r")
    ax.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0], color="0.3", linewidth=0.8)
    kept = float(paths["integrated gradient"][-1].sum())
    ax.plot([kept - 1, 1], [1, kept - 1], "k--", linewidth=1.2, label="size of the last mask")
    for name, masks in paths.items():
        ax.plot(*masks.T.numpy(), "o-", color=COLOURS[name], markersize=3, linewidth=1.8, label=name)
    for at, name in (((1, 1), "image"), ((0, 0), "baseline")):
        ax.plot(*at, "s", color="white", markeredgecolor="black", markersize=8)
        ax.annotate(name, at, xytext=(8, 8), textcoords="offset points", color="black", backgroundcolor="white", size=9)
    ax.set(xlim=(-0.1, 1.1), ylim=(-0.1, 1.1), aspect="equal", xlabel="first cell of the mask", ylabel="second cell")
    ax.legend(fontsize=8, loc="upper left")
    figure.colorbar(shades, label="score", shrink=0.8)
    return figure


def main() -> None:
    """Follow both paths, print their ends and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("landscape.png"), help="PNG file for the figure")
    parser.add_argument("--steps", type=int, default=40, help="steps of both paths")
    parser.add_argument("--size", type=float, default=0.15, help="step size")
    options = parser.parse_args()
    paths, rows = {}, []
    for name, points in (("plain gradient", 1), ("integrated gradient", 20)):
        paths[name], objective = path(points, options.steps, options.size)
        end = paths[name][-1]
        score = float(Landscape()(end.view(1, 1, 1, 2)))
        rows.append([name, f"({end[0]:.2f}, {end[1]:.2f})", f"{score:.3f}", f"{objective[-1]:.3f}"])
    print(table(["path", "last mask", "score", "objective"], rows))
    save_figure(draw(paths), options.out)


if __name__ == "__main__":
    main()
