"""Expected gradients under saturation: small trained networks, images whose path is saturated and images whose path is not.

After Figures 2 and 5 of Expected Grad-CAM. Each network learns in seconds which of four textures an image shows; an image shows
its texture one to six times, so that the score is sure of some images early on the path. The networks differ behind their last
convolution: average pooling and one linear layer, where the gradient of the logit is the same everywhere and no estimator can
matter; fully connected layers; attention pooling; and pooled channels through tanh, which saturates by construction. The score
is the logit or the probability. Images are divided at the median of the share of the path on which the score stays the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

import torch
from common import difference, table, with_error
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

import faithmap as fm
from faithmap.methods.cams import saturation, top_features
from faithmap.methods.registry import explainer_from
from faithmap.score import ScoreKind
from faithmap.viz import compare, save_figure

METHODS = ("gradcam", "gradcam_plus_plus", "smooth_gradcam_plus_plus", "integrated_gradcam", "expected_gradcam")
SIZE, CLASSES, PATCH = 32, 4, 6


def pictures(count: int, generator: torch.Generator) -> tuple[Float[Tensor, "n 3 h w"], Int[Tensor, " n"]]:
    """Noise with one to six patches of the class's texture: stripes of two directions, checks, or a bright square."""
    images = torch.rand(count, 3, SIZE, SIZE, generator=generator) * 0.5
    rows, columns = torch.meshgrid(torch.arange(PATCH), torch.arange(PATCH), indexing="ij")
    textures = torch.stack([rows % 2, columns % 2, (rows + columns) % 2, torch.ones_like(rows)]).float()
    classes = torch.randint(CLASSES, (count,), generator=generator)
    for image, texture in zip(images, textures[classes], strict=True):
        for _ in range(int(torch.randint(1, 7, (1,), generator=generator))):
            top, left = torch.randint(SIZE - PATCH, (2,), generator=generator).tolist()
            image[:, top : top + PATCH, left : left + PATCH] = texture
    return images, classes


class AttentionPooling(nn.Module):
    """The mean over the cells, weighted by a softmax of a score of each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k"]:
        """One value for each channel."""
        weights: Tensor = self.score(x).flatten(1).softmax(dim=1).unsqueeze(1)
        return (x.flatten(2) * weights).sum(dim=2)


def head(kind: str) -> nn.Module:
    """What follows the 16 channels of 8 x 8 cells."""
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    linear = nn.Linear(16, CLASSES)
    fully = nn.Sequential(nn.Flatten(), nn.Linear(16 * 64, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    heads: Mapping[str, nn.Module] = {
        "average pooling, linear": nn.Sequential(pooled, linear),
        "fully connected": fully,
        "attention pooling": nn.Sequential(AttentionPooling(16), linear),
        "tanh of pooled channels": nn.Sequential(pooled, Scale(8.0), nn.Tanh(), linear),
    }
    return heads[kind]


HEADS = ("average pooling, linear", "fully connected", "attention pooling", "tanh of pooled channels")


class Scale(nn.Module):
    """A fixed factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """The product."""
        return x * self.factor


def trained(kind: str, seed: int, steps: int) -> tuple[nn.Module, float]:
    """A network, and its accuracy on images that it was not trained on."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    body = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    last = [nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*body, *last, head(kind))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        images, classes = pictures(64, generator)
        optimiser.zero_grad()
        F.cross_entropy(model(images), classes).backward()
        optimiser.step()
    images, classes = pictures(256, generator)
    with torch.no_grad():
        return model.eval(), float((model(images).argmax(dim=1) == classes).float().mean())


Measured = dict[str, tuple[list[float], list[float]]]
"""Insertion of the map and of its four most important channels, for each image, by method."""


def measured(model: nn.Module, images: Tensor, score: ScoreKind, seed: int) -> Measured:
    """Both insertion areas of every method."""
    found: Measured = {}
    for name in METHODS:
        explanation = explainer_from(name, model, {"score": score, "target_layer": "7", "seed": seed})(images)
        top = top_features(model, images, explanation)
        areas = (fm.deletion_insertion(model, images, one).insertion.area.tolist() for one in (explanation, top))
        found[name] = (next(areas), next(areas))
    return found


def rows(found: Measured, chosen: list[int]) -> list[list[str]]:
    """One row for each method, over some of the images; differences are paired to Grad-CAM."""
    pick: Callable[[list[float]], list[float]] = lambda values: [values[i] for i in chosen]  # noqa: E731
    plain = [pick(values) for values in found[METHODS[0]]]
    made = []
    for name, (whole, top) in found.items():
        areas = [pick(whole), pick(top)]
        pairs = ["" if name == METHODS[0] else difference(a, b) for a, b in zip(areas, plain, strict=True)]
        made.append([name, with_error(areas[0]), pairs[0], with_error(areas[1]), pairs[1]])
    return made


def figure(model: nn.Module, image: Tensor, score: ScoreKind, path: Path) -> None:
    """The maps of one image beside each other, and below them their four most important channels."""
    entries = {}
    for name in METHODS:
        explanation = explainer_from(name, model, {"score": score, "target_layer": "7"})(image)
        for one in (explanation, top_features(model, image, explanation)):
            entries[one.title] = (one, fm.deletion_insertion(model, image, one))
    ordered = sorted(entries, key=lambda title: title.startswith("top"))
    save_figure(compare(image, {title: entries[title] for title in ordered}), path)


def main() -> None:
    """One table for each network, score and half of the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="images, half of each kind")
    parser.add_argument("--steps", type=int, default=200, help="of the training, 64 images each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figures", type=Path, default=None, help="folder of a picture for each network, score and half")
    options = parser.parse_args()
    images, _ = pictures(options.count, torch.Generator().manual_seed(1000 + options.seed))
    for kind in HEADS:
        model, accuracy = trained(kind, options.seed, options.steps)
        for score in get_args(ScoreKind):
            with fm.warning_types.suppressed():
                shares = saturation(model, images, target_layer="7", score=score, positions=51).share()
                found = measured(model, images, score, options.seed)
                order = shares.argsort(stable=True).tolist()
                halves = {"less saturated": order[: len(order) // 2], "more saturated": order[len(order) // 2 :]}
                for half, chosen in halves.items():
                    share = with_error(shares[chosen].tolist())
                    print(f"\n{kind}, accuracy {accuracy:.2f}, {score}; {half}: {len(chosen)} images, {share} of the path\n")
                    print(
                        table(["method", "insertion", "to Grad-CAM", "top 4", "to Grad-CAM"], rows(found, chosen)), flush=True
                    )
                    if options.figures is not None:
                        options.figures.mkdir(parents=True, exist_ok=True)
                        name = "-".join([*kind.replace(",", "").split(), score, half.split()[0]])
                        figure(model, images[chosen[-1:]], score, options.figures / f"{name}.png")


if __name__ == "__main__":
    main()
