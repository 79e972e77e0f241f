"""Held-out infidelity of weightings: how well each predicts changes of the score for perturbations that it was not made from.

    python benchmarks/least_infidelity.py --photos ../shared/photos2 --part all --count 50
    python benchmarks/least_infidelity.py --photos ../shared/photos --part tune --count 12 --ridges 1 0.1 0.01 0.001 0.0001

The perturbations are those of ``Expected``: points of paths from random blurs of the photograph, with noise. Half of the draws
make the weights, the other half tests them. A weighting predicts the sum over channels and cells of weight times change of the
activation, times the factor that fits its own draws best; the table has the mean square of what is left, divided by that of the
changes. 1: the weights say nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from common import arguments, difference, load_photos, table, with_error
from jaxtyping import Float
from torch import Tensor

import faithmap as fm
from faithmap.layers import LayerContext, target_layers
from faithmap.methods.cams.least_infidelity import LeastInfidelity
from faithmap.methods.cams.weightings import WEIGHTINGS, Evidence
from faithmap.methods.sampling import Stream
from faithmap.model import undisturbed
from faithmap.score import ScoreKind


@dataclass
class Draws:
    """The passes of one estimator at a layer.

    Attributes:
        activation: A(x).
        perturbed: A(z) of each pass.
        gradient: g of each pass.
        change: r of each pass.
    """

    activation: Float[Tensor, "1 k h w"]
    perturbed: Float[Tensor, "s k h w"]
    gradient: Float[Tensor, "s k h w"]
    change: Float[Tensor, " s"]

    @property
    def cells(self) -> Float[Tensor, "s k h w"]:
        """The change of each cell of each channel."""
        return self.activation - self.perturbed

    def evidence(self) -> Evidence:
        """What a weighting is made of."""
        root = len(self.change) ** -0.5
        first, second, third = (self.gradient.pow(power).mean(dim=0, keepdim=True) for power in (1, 2, 3))
        channels = self.cells.sum(dim=(2, 3)) * root
        return Evidence(self.activation, first, second, third, channels[None], self.change[None] * root)

    def unexplained(self, weights: Float[Tensor, "1 k #h #w"], fitted: Draws) -> float:
        """The share of the changes that weights made from other draws leave."""
        own = (weights * fitted.cells).sum(dim=(1, 2, 3))
        factor = (own @ fitted.change) / own.square().sum().clamp_min(1e-30)
        left = factor * (weights * self.cells).sum(dim=(1, 2, 3)) - self.change
        return float(left.square().sum() / self.change.square().sum())


def draws(
    model: fm.Classifier, context: LayerContext, image: Tensor, gradient: fm.Estimator, kind: ScoreKind, seed: int
) -> Draws:
    """All passes of an estimator for one image."""
    stream = Stream(image, [gradient.draw(image, torch.Generator().manual_seed(seed))])
    with undisturbed(model):
        probe = context.probe(model, image, kind, chunk_size=20, autocast=None)
        _, _, clean = probe.clean(None, kind, gradient=False)
        parts = [
            probe.observe(stream.perturbed(rows), torch.zeros(len(rows), dtype=torch.long))
            for rows in torch.arange(len(stream)).split(20)
        ]
    (layer,) = context.layers
    return Draws(
        clean.activation[layer],
        torch.cat([part.activation[layer] for part in parts]),
        torch.cat([part.gradient[layer] for part in parts]),
        clean.score - torch.cat([part.score for part in parts]),
    )


def weights(train: Draws, plain: Draws, smooth: Draws, ridges: list[float]) -> Iterator[tuple[str, Tensor]]:
    """All rows of the table."""
    for name, of in (("plain", plain), ("smooth", smooth), ("expected", train)):
        for weighting in ("grad_cam", "grad_cam_plus_plus", "xgrad_cam", "layer_cam", "hires_cam"):
            yield f"{weighting}, {name}", WEIGHTINGS[weighting](of.evidence())
    for ridge in ridges:
        yield f"least_infidelity, ridge {ridge:g}", LeastInfidelity(ridge)(train.evidence())


def main() -> None:
    """One table for each layer and score."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=50)
    parser.add_argument("--samples", type=int, default=200, help="draws that make the weights, and as many that test them")
    parser.add_argument("--ridges", type=float, nargs="*", default=[LeastInfidelity().ridge])
    options = parser.parse_args()
    model = fm.load(options.model, device=options.device)
    names, images = load_photos(options, model)
    fine = "blocks.5.0.bn1"
    cases: list[tuple[str | None, ScoreKind]] = [(None, "probability"), (fine, "logit"), (fine, "probability")]
    for layer, kind in cases:
        found: dict[str, list[float]] = {}
        for image in images.split(1):
            for name, value in case(model, image, layer, kind, options):
                found.setdefault(name, []).append(value)
        best = next(reversed(found))
        rows = [[n, with_error(v), "" if n == best else difference(v, found[best])] for n, v in found.items()]
        photos = f"{len(names)} photographs ({options.part}), {options.samples} draws"
        print(f"\n{options.model}, {layer or 'the default layer'}, {kind}, {photos}\n")
        print(table(["weights", "unexplained", f"to {best}"], rows), flush=True)


def case(
    model: fm.Classifier, image: Tensor, layer: str | None, kind: ScoreKind, options: argparse.Namespace
) -> Iterator[tuple[str, float]]:
    """The unexplained share of each row, for one photograph."""
    context = target_layers(model, layer, None, image, 1, "strides")
    estimators: list[fm.Estimator] = [
        fm.Expected(samples=options.samples),
        fm.Expected(samples=options.samples),
        fm.Smooth(samples=1, noise_std=0.0),
        fm.Smooth(),
    ]
    made = (draws(model, context, image, e, kind, seed) for seed, e in enumerate(estimators, start=options.seed))
    train, test, plain, smooth = made
    for name, values in weights(train, plain, smooth, options.ridges):
        yield name, test.unexplained(values, train)


if __name__ == "__main__":
    main()
