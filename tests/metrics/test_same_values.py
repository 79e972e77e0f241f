"""A metric depends on values: not on the dtype of a map, the memory layout of images, or a model that writes into its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import SmallNet
from torch import Tensor, nn

import faithmap as fm
from faithmap.metrics import functional
from faithmap.score import Target

BOXES = [torch.tensor([[3.0, 3.0, 20.0, 20.0]])] * 3


def placed(model: nn.Module, images: Tensor, heatmap: Tensor) -> fm.Explanation:
    """The map with cells that are not where a mask's are: metrics have to resample it."""
    del model
    rows = torch.linspace(2, 29, heatmap.shape[1])
    return fm.Explanation(
        heatmap, (images.shape[-2], images.shape[-1]), target=torch.tensor([0, 1, 2]), rows=rows, columns=rows
    )


def area(model: nn.Module, images: Tensor, heatmap: Tensor, target: Target = 0) -> list[Tensor]:
    curves = functional.deletion_insertion(model, images, placed(model, images, heatmap), target)
    return [curves.deletion.area, curves.insertion.area]


METRICS: dict[str, Callable[[nn.Module, Tensor, Tensor], Any]] = {
    "deletion_insertion": area,
    "most_least": lambda m, x, h: functional.most_least(m, x, placed(m, x, h), 0).difference,
    "saco": lambda m, x, h: functional.saco(m, x, placed(m, x, h), 0),
    "evidence": lambda m, x, h: functional.evidence(m, x, placed(m, x, h), 0).values,
    "road": lambda m, x, h: functional.road(m, x, placed(m, x, h), 0).difference,
    "confidence": lambda m, x, h: functional.confidence(m, x, placed(m, x, h), 0).masked,
    "infidelity": lambda m, x, h: functional.infidelity(m, x, placed(m, x, h), 0, draws=4).value,
    "pointing_game": lambda m, x, h: functional.pointing_game(placed(m, x, h), BOXES),
    "energy_pointing_game": lambda m, x, h: functional.energy_pointing_game(placed(m, x, h), BOXES),
    "relevance_rank": lambda m, x, h: functional.relevance_rank(placed(m, x, h), BOXES),
    "entropy": lambda m, x, h: functional.entropy(placed(m, x, h)),
    "gini": lambda m, x, h: functional.gini(placed(m, x, h)),
    "spearman": lambda m, x, h: functional.spearman(placed(m, x, h), placed(m, x, x[:, 0, :7, :7])),
    "top_k_overlap": lambda m, x, h: functional.top_k_overlap(placed(m, x, h), placed(m, x, x[:, 0, :7, :7])),
    "ssim": lambda m, x, h: functional.ssim(placed(m, x, h), placed(m, x, x[:, 0, :7, :7])),
    "at": lambda m, x, h: placed(m, x, h).at((9, 9)),
}


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.float16])
@pytest.mark.parametrize("name", METRICS)
def test_a_metric_of_whole_numbers_is_that_of_their_values(
    name: str, dtype: torch.dtype, small_net: SmallNet, images: Tensor
) -> None:
    values = torch.randint(256, (3, 7, 7), generator=torch.Generator().manual_seed(0))
    heatmap = values > 128 if dtype == torch.bool else values.to(dtype)
    found, expected = (METRICS[name](small_net.eval(), images, one) for one in (heatmap, heatmap.float()))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


class Shifted(nn.Module):
    """Subtracts a mean from its input, in the input's memory or in new memory."""

    def __init__(self, net: nn.Module, *, in_place: bool) -> None:
        super().__init__()
        self.net, self.in_place = net, in_place

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.sub_(0.4) if self.in_place else x - 0.4)
        return logits


def changes(model: nn.Module, images: Tensor, heatmap: Tensor) -> Tensor:
    del heatmap
    return functional.sensitivity(fm.Gradient(model), images, 0, draws=2).changes


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.parametrize("name", [*METRICS, "sensitivity"])
def test_a_model_that_writes_into_its_input_and_the_memory_layout_do_not_change_a_metric(
    name: str, small_net: SmallNet, images: Tensor
) -> None:
    heatmap = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0))
    metric = METRICS.get(name, changes)
    expected = metric(Shifted(small_net.eval(), in_place=False), images, heatmap)
    given = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(metric(Shifted(small_net, in_place=True), given, heatmap), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(given, images)


def test_whole_numbers_are_resampled_between_cells() -> None:
    explanation = fm.Explanation(torch.tensor([[[0, 255]]], dtype=torch.uint8), (1, 3))
    assert explanation.at().tolist() == [[[0.0, 127.5, 255.0]]]
