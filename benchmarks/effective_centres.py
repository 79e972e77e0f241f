"""Centres of a network's cells by their gradients on photographs, and the centres of their windows.

    python benchmarks/effective_centres.py --photos ../shared/photos --count 12 --part report

For each layer: the centroid of the squared gradient of the cells on the middle third of the diagonal, less jump times j.
"""

from __future__ import annotations

import torch
from common import arguments, load_photos, table, with_error
from torch import Tensor

import faithmap as fm
from faithmap.capture import Capture
from faithmap.model import undisturbed


def centroids(gradient: Tensor) -> tuple[float, float]:
    """Down and across, in pixels."""
    weight = gradient[0].square().sum(dim=0)
    rows, columns = (torch.arange(n, dtype=weight.dtype) for n in weight.shape)
    return float(weight.sum(dim=1) @ rows / weight.sum()), float(weight.sum(dim=0) @ columns / weight.sum())


def main() -> None:
    """One row per layer."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=12)
    parser.add_argument("--layers", nargs="+", default=["blocks.3.0.bn1", "blocks.5.0.bn1", "bn2"])
    options = parser.parse_args()
    model = fm.load(options.model, device=options.device)
    _, images = load_photos(options, model)
    layers = {name: model.module.get_submodule(name) for name in options.layers}
    windows = {name: fm.GradCAM(model, target_layer=name)(images[:1]).rows for name in layers}
    down: dict[str, list[float]] = {name: [] for name in layers}
    across: dict[str, list[float]] = {name: [] for name in layers}
    with undisturbed(model):
        for image in images.split(1):
            pixels = image.clone().requires_grad_()
            capture = Capture(layers)
            with capture.watch():
                model(pixels)
            for name, activation in capture.activations.items():
                cells = activation.shape[-1]
                for j in range(cells // 3, cells - cells // 3):
                    score = activation[0, :, j, j].sum()
                    (gradient,) = torch.autograd.grad(score, pixels, retain_graph=True)
                    row, column = centroids(gradient)
                    down[name].append(row - j * image.shape[-2] / cells)
                    across[name].append(column - j * image.shape[-1] / cells)
    rows = []
    for name, centres in windows.items():
        assert centres is not None
        rows.append([name, f"{float(centres[0]):.1f}", with_error(down[name]), with_error(across[name])])
    print(f"{options.model}, {len(images)} photographs ({options.part}): pixels behind jump times j\n")
    print(table(["layer", "window", "gradients down", "gradients across"], rows))


if __name__ == "__main__":
    main()
