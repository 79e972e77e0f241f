"""Expected gradients under saturation: small trained networks, images whose path is saturated and images whose path is not.

After Figures 2 and 5 of Expected Grad-CAM. Each network learns in seconds which of four textures an image shows; an image shows
its texture one to six times, so that the score is sure of some images early on the path. The networks differ behind their last
convolution: average pooling and one linear layer, where the gradient of the logit is the same everywhere and no estimator can
matter; fully connected layers; attention pooling; and pooled channels through tanh, which saturates by construction. The score
is the logit or the probability. Images are divided at the median of the share of the path on which the score stays the same.

With ``--photos`` the network is that of ``photo_heads.py``: feature maps of photographs, and fully connected layers as in VGG,
trained on crops of other photographs.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from common import difference, table, with_error
from jaxtyping import Float, Int
from photo_heads import GROUPS, PIXEL_STD, Backbone, imitating
from torch import Tensor, nn
from torch.nn import functional as F

import faithmap as fm
from faithmap.methods.cams import saturation, top_features
from faithmap.methods.references import ImageSet
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


@dataclass(frozen=True)
class PathStart:
    """What the paths to some images start from, and what insertion starts from.

    Attributes:
        baselines: of saturation, Integrated Grad-CAM and insertion, one for each image.
        references: of Expected Grad-CAM, several for each image.
    """

    baselines: Float[Tensor, "n c h w"]
    references: Float[Tensor, "n m c h w"]

    def settings(self, method: str) -> dict[str, object]:
        """The settings of a method for one image."""
        own: dict[str, dict[str, object]] = {
            "integrated_gradcam": {"baseline": self.baselines},
            "expected_gradcam": {"references": ImageSet(self.references[0])},
        }
        return own.get(method, {})

    def of(self, image: int) -> PathStart:
        """That of one image alone."""
        one = slice(image, image + 1)
        return PathStart(self.baselines[one], self.references[one])


@dataclass(frozen=True)
class Subject:
    """A network, images, the layer whose maps are compared, and what paths start from; None for the methods' defaults."""

    model: nn.Module
    layer: str
    images: Float[Tensor, "n c h w"]
    start: PathStart | None = None

    def explained(self, method: str, score: ScoreKind, seed: int) -> tuple[fm.Explanation, fm.Explanation]:
        """The map of a method, and that of its four most important channels."""
        own = {} if self.start is None else self.start.settings(method)
        settings = {"score": score, "target_layer": self.layer, "seed": seed, **own}
        explanation = explainer_from(method, self.model, settings)(self.images)
        return explanation, top_features(self.model, self.images, explanation)

    def curves(self, explanation: fm.Explanation) -> fm.DeletionInsertion:
        """Deletion and insertion of a map."""
        baseline = None if self.start is None else self.start.baselines
        return fm.deletion_insertion(self.model, self.images, explanation, baseline=baseline)

    def of(self, image: int) -> Subject:
        """The same with one image alone."""
        return replace(self, images=self.images[image : image + 1], start=self.start and self.start.of(image))

    def shares(self, score: ScoreKind) -> Float[Tensor, " n"]:
        """The share of the path to each image on which the score stays the same."""
        baseline = "blur" if self.start is None else self.start.baselines
        path = saturation(self.model, self.images, target_layer=self.layer, baseline=baseline, score=score, positions=51)
        return path.share()


def measured(subject: Subject, score: ScoreKind, seed: int) -> Measured:
    """Both insertion areas of every method; images with references of their own one after the other."""
    parts = [subject] if subject.start is None else [subject.of(i) for i in range(len(subject.images))]
    found: Measured = {name: ([], []) for name in METHODS}
    for part in parts:
        for name, areas in found.items():
            for kept, one in zip(areas, part.explained(name, score, seed), strict=True):
                kept.extend(part.curves(one).insertion.area.tolist())
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


def figure(subject: Subject, score: ScoreKind, seed: int, path: Path, photo: Float[Tensor, "1 3 h w"] | None = None) -> None:
    """The maps of one image beside each other, and below them their four most important channels."""
    image, entries = subject.images if photo is None else photo, {}
    for name in METHODS:
        for one in subject.explained(name, score, seed):
            entries[one.title] = (one if photo is None else over(photo, one), subject.curves(one))
    ordered = sorted(entries, key=lambda title: title.startswith("top"))
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = None if photo is None else list(GROUPS)
    save_figure(compare(image, {title: entries[title] for title in ordered}, labels=labels), path)


def over(photo: Float[Tensor, "1 3 h w"], explanation: fm.Explanation) -> fm.Explanation:
    """The map of a feature map over its photograph: each cell in the middle of its part."""
    height, width = photo.shape[-2:]
    rows, columns = explanation.resolution
    centres = ((torch.arange(n) + 0.5) * size / n - 0.5 for n, size in ((rows, height), (columns, width)))
    return replace(explanation, image_size=(height, width), rows=next(centres), columns=next(centres))


def report(subject: Subject, title: str, options: argparse.Namespace, photos: Sequence[Tensor] = ()) -> None:
    """One table for each score and half of the images; the pictures show the last image of a half."""
    for score in get_args(ScoreKind):
        with fm.warning_types.suppressed():
            shares = subject.shares(score)
            found = measured(subject, score, options.seed)
            order = shares.argsort(stable=True).tolist()
            halves = {"less saturated": order[: len(order) // 2], "more saturated": order[len(order) // 2 :]}
            for half, chosen in halves.items():
                share = with_error(shares[chosen].tolist())
                print(f"\n{title}, {score}; {half}: {len(chosen)} images, {share} of the path\n")
                print(table(["method", "insertion", "to Grad-CAM", "top 4", "to Grad-CAM"], rows(found, chosen)), flush=True)
                if options.figures is not None:
                    name = "-".join([*re.findall(r"\w+", title.split(":", maxsplit=1)[0]), score, half.split()[0]])
                    last = chosen[-1]
                    photo = photos[last] if photos else None
                    figure(subject.of(last), score, options.seed, options.figures / f"{name}.png", photo)


def report_photographs(options: argparse.Namespace) -> None:
    """The network of :mod:`photo_heads`, trained on crops of some photographs, and explained on others."""
    generator = torch.Generator().manual_seed(options.seed)
    backbone = Backbone(fm.load("efficientnet_lite0").to(memory_format=torch.channels_last))
    maps = backbone.crops(sorted(fm.image_files([options.tuning])), options.crops, generator)
    files = sorted(fm.image_files([options.photos]))
    files = [files[i * len(files) // options.count] for i in range(min(options.count, len(files)))]
    photos = backbone.photographs(files, generator).scaled(factor := PIXEL_STD / float(maps.std()))
    backbone = replace(backbone, scale=factor)
    network = imitating(backbone, maps * factor, options.steps, options.seed)
    with torch.no_grad():
        same = backbone.groups(photos.images).argmax(dim=1) == network(photos.images).argmax(dim=1)
    title = f"photographs, fully connected: {100 * float(same.float().mean()):.0f} % of the predictions are the backbone's"
    subject = Subject(network, "1", photos.images, PathStart(photos.baselines, photos.references))
    report(subject, title, options, [backbone.model.read(file) for file in files])


def main() -> None:
    """Tables of small networks on made images, or of a network on photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="images, half of each kind")
    parser.add_argument("--steps", type=int, default=200, help="of the training, 64 images each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", type=Path, default=None, help="folder of photographs, in place of made images")
    parser.add_argument("--tuning", type=Path, default=Path("../shared/photos"), help="photographs to train on")
    parser.add_argument("--crops", type=int, default=6, help="of every photograph to train on")
    parser.add_argument("--figures", type=Path, default=None, help="folder of a picture for each network, score and half")
    options = parser.parse_args()
    if options.photos is not None:
        report_photographs(options)
        return
    images, _ = pictures(options.count, torch.Generator().manual_seed(1000 + options.seed))
    for kind in HEADS:
        model, accuracy = trained(kind, options.seed, options.steps)
        report(Subject(model, "7", images), f"{kind}: accuracy {accuracy:.2f}", options)


if __name__ == "__main__":
    main()
