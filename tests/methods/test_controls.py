"""Control maps: random, a centred Gaussian, and edges."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracles import Patch, SmallNet
from torch import Tensor, nn

from faithmap import image_generators
from faithmap.methods.base import Explainer
from faithmap.methods.controls import CentredGaussian, Edges, RandomMap

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning")


def test_each_control_is_its_definition(small_net: SmallNet, images: Tensor) -> None:
    first, again = (RandomMap(small_net, resolution=(4, 5))(images).heatmap for _ in range(2))
    assert torch.equal(first, again)
    (generator,) = image_generators(0, [2])
    assert torch.equal(first[2], torch.rand(4, 5, generator=generator))
    bump = CentredGaussian(small_net, sigma=0.25, resolution=3)(images).heatmap[0]
    side = torch.exp(torch.tensor(-0.5 * (15.5 / 8) ** 2))
    assert torch.allclose(
        bump, torch.stack([side, torch.tensor(1.0), side]).outer(torch.stack([side, torch.tensor(1.0), side]))
    )
    ramp = torch.arange(8.0).expand(1, 3, 8, 8) / 10
    edges = Edges(Patch(slice(0, 8), slice(0, 8)))(ramp, 0).heatmap[0]
    assert torch.allclose(edges[:, 1:-1], torch.full((8, 6), 0.1), atol=1e-6)
    assert torch.allclose(edges[:, 0], torch.full((8,), 0.05), atol=1e-6), "a repeated border halves the slope"


@pytest.mark.parametrize("control", [RandomMap, CentredGaussian, Edges])
def test_a_map_depends_neither_on_the_chunks_nor_on_the_other_images(
    control: type[Explainer], small_net: SmallNet, images: Tensor, untouched: Callable[[nn.Module], nn.Module]
) -> None:
    """The model is left unchanged."""
    untouched(small_net.train())
    whole = control(small_net)(images).heatmap
    assert torch.allclose(control(small_net, chunk_size=3)(images).heatmap, whole, atol=1e-5)
    last = control(small_net)(images[2:], generator=image_generators(0, [2])).heatmap
    assert torch.allclose(last, whole[2:], atol=1e-5)


def test_a_sigma_that_is_not_above_zero_is_refused(small_net: SmallNet, images: Tensor) -> None:
    with pytest.raises(ValueError, match="sigma is 0"):
        CentredGaussian(small_net, sigma=0.0)(images)
