"""The failure case of Figure 7 of the I-GOS paper: a photograph whose class the model does not recognise.

    python benchmarks/figure_failure.py --photos ../shared/photos --part all --out failure.png

Takes the photograph whose own class has the lowest probability, explains this class by I-GOS at 28 and at 224 cells per side
with the paper's settings, and draws both maps with their deletion and insertion curves. In the paper insertion rises only at
the end. The folder of photographs needs ``labels.csv`` with the columns ``file`` and ``imagenet_index``.

Prints the photograph and the probability of its class.
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from common import arguments, load_photos

import faithmap as fm
from faithmap.metrics import deletion_insertion
from faithmap.viz import compare, save_figure


def main() -> None:
    """Find the photograph, explain it, and draw the figure."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[28, 224], help="cells per side")
    parser.add_argument("--out", type=Path, default=Path("failure.png"), help="PNG file for the figure")
    options = parser.parse_args()
    model = fm.load(options.model, device=options.device)
    names, images = load_photos(options, model)
    with (options.photos / "labels.csv").open(newline="") as file:
        labels = {Path(row["file"]).stem: int(row["imagenet_index"]) for row in csv.DictReader(file)}
    classes = torch.tensor([labels[name] for name in names], device=images.device)
    with torch.no_grad():
        logits = torch.cat([model(chunk) for chunk in images.split(options.chunk)])
    probabilities = logits.softmax(dim=1).gather(1, classes[:, None])[:, 0]
    lowest = int(probabilities.argmin())
    image, target = images[lowest : lowest + 1], int(classes[lowest])
    print(f"{names[lowest]}: {model.label(target)} has the probability {float(probabilities[lowest]):.4f}")
    methods = {}
    for resolution in options.resolutions:
        explainer = fm.IGOS(model, **fm.IGOS.paper(resolution), chunk_size=options.chunk, seed=options.seed)
        explanation = explainer(image, target)
        methods[f"I-GOS, {resolution} cells per side"] = (explanation, deletion_insertion(model, image, explanation))
    save_figure(compare(image, methods, labels=model.labels), options.out)


if __name__ == "__main__":
    main()
