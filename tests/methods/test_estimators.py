"""Gradient estimators: the fast code is held to the equations, pass by pass."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
import torch
from oracles import SmallNet
from torch import Tensor, nn

from faithmap.methods.cams.cam import CAM
from faithmap.methods.cams.estimators import Difference, Estimator, Expected, Integrated, Plain, Pool, Smooth
from faithmap.methods.cams.weightings import WEIGHTINGS, Evidence, Weighting, WeightingName
from faithmap.methods.references import RandomConstants
from faithmap.methods.sampling import Samples

DIFFERENCES: tuple[Difference, ...] = get_args(Difference)
POOLS: list[tuple[Difference, Pool]] = [
    (difference, pool)
    for difference, pool in product(DIFFERENCES, get_args(Pool))
    if (difference != "none" or pool == "gradient") and (difference, pool) != ("increment", "gradient")
]
ESTIMATORS: list[Estimator] = [
    Plain(),
    Smooth(samples=5),
    *(Integrated(samples=5, difference=d, pool=p, relu_each=p == "map", baseline=0.3) for d, p in POOLS),
    *(Expected(samples=7, paths=3, difference=d, pool=p, references=RandomConstants(), noise_std=0.1) for d, p in POOLS),
]


def observed(model: nn.Module, layer: nn.Module, z: Tensor) -> tuple[Tensor, Tensor]:
    """A(z) and the gradient of the score of class 1 there."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    handle = layer.register_forward_hook(keep)
    score = model(z)[0, 1]
    handle.remove()
    return kept[0].detach(), torch.autograd.grad(score, kept[0])[0]


def perturbed(image: Tensor, samples: Samples, t: int) -> Tensor:
    """z = x' + a (x - x') + e of pass t."""
    reference = image if samples.references is None else samples.references[samples.path[t]].unsqueeze(0)
    noise = torch.empty(image.shape).normal_(generator=torch.Generator().manual_seed(int(samples.seed[t]))).to(image)
    return reference + float(samples.position[t]) * (image - reference) + float(samples.noise[t]) * noise


def literal(
    model: nn.Module, layer: nn.Module, image: Tensor, weighting: Weighting, estimator: Estimator, samples: Samples
) -> Tensor:
    """The map by the equations of the module, one pass after the other."""
    clean, _ = observed(model, layer, image)
    start = previous = previous_g = torch.zeros_like(clean)
    shares, gradients, deltas = [], [], []
    for t, share in enumerate(samples.share.tolist()):
        activation, g = observed(model, layer, perturbed(image, samples, t))
        if share == 0:
            start = activation
        else:
            choices = {
                "none": clean,
                "reference": clean - start,
                "path": activation - start,
                "increment": activation - previous,
            }
            shares.append(share)
            deltas.append(choices[estimator.difference])
            gradients.append((g + previous_g) / 2 if estimator.difference == "increment" else g)
        previous, previous_g = activation, g

    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum(dim=0)

    pairs = list(zip(gradients, deltas, strict=True))
    if estimator.pool == "gradient":
        factor = clean if estimator.difference == "none" else mean(deltas)
        moments = (mean([g**power for g in gradients]) for power in (1, 2, 3))
        return (weighting(Evidence(factor, *moments)) * factor).sum(dim=1)
    if estimator.pool == "map":
        maps = [(weighting(Evidence(delta, g)) * delta).sum(dim=1) for g, delta in pairs]
        return mean([one.relu() if estimator.relu_each else one for one in maps])
    contribution = mean([g * delta for g, delta in pairs]).sum(dim=(2, 3), keepdim=True)
    cells = mean(deltas).sum(dim=(2, 3), keepdim=True) if estimator.pool == "slope" else clean[0, 0].numel()
    return (weighting(Evidence(clean, (contribution / cells).expand_as(clean))) * clean).sum(dim=1)


@pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning")
@pytest.mark.parametrize("weighting", ["grad_cam", "grad_cam_plus_plus", "hires_cam"])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: f"{type(e).__name__}-{e.difference}-{e.pool}".lower())
@pytest.mark.parametrize("chunk_size", [4, 32])
def test_maps_are_those_of_the_equations(
    estimator: Estimator, weighting: WeightingName, chunk_size: int, small_net: SmallNet, images: Tensor
) -> None:
    model, pictures = small_net.double().eval(), images[:2].double()
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    cam = CAM(model, target_layer="conv2", weighting=weighting, gradient=estimator, relu=False, chunk_size=chunk_size)
    found = cam(pictures, 1, generator=generators).heatmap
    for i, seed in enumerate((3, 4)):
        image = pictures[i : i + 1]
        if estimator.is_plain:
            one = torch.ones(1)
            samples = Samples(None, torch.zeros(1, dtype=torch.long), one, one, torch.zeros(1, dtype=torch.long), 0 * one)
        else:
            samples = estimator.draw(image, torch.Generator().manual_seed(seed))
        expected = literal(model, model.conv2, image, WEIGHTINGS[weighting], estimator, samples)
        assert torch.allclose(found[i : i + 1], expected, rtol=1e-9, atol=1e-12)


def test_each_path_ends_with_its_share() -> None:
    """Sums over the increments of 3 paths: at the image each path's share is 1/3, at its reference 0."""
    image = torch.rand(1, 3, 8, 8)
    drawn = Expected(samples=6, paths=3, difference="increment", references=RandomConstants())
    samples = drawn.draw(image, torch.Generator().manual_seed(0))
    ends = {position: samples.share[samples.position == position].tolist() for position in (0.0, 1.0)}
    assert ends[0.0] == [0, 0, 0]
    assert ends[1.0] == pytest.approx([1 / 3] * 3)


def test_the_default_number_of_samples_is_that_of_the_documentation() -> None:
    assert (Smooth().samples, Integrated().samples, Expected().samples) == (24, 24, 24)


def test_an_estimator_is_described_with_the_settings_of_its_base() -> None:
    class Own(Estimator):
        """An estimator of one's own."""

    assert (Own.__doc__ or "").startswith("An estimator of one's own.")
    assert "relu_each:" in (Own.__doc__ or "")
