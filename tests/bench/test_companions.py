"""Benchmark metrics that need other images of the data set, and the one with a model that sees a quarter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import faithmap as fm
from faithmap.bench.companions import Companion, Companions, companion_items
from faithmap.bench.dataset import DatasetItem, LoadedImage
from faithmap.bench.evaluate import MetricInput, run_metric
from faithmap.bench.spec import MetricSpec
from faithmap.methods.base import Explainer
from faithmap.metrics.functional import leakage
from faithmap.metrics.known_truth import difull, region_of

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")


class Colours(nn.Module):
    """The logit of class k is how much of the image has the k-th of four colours; the features are the colours of the cells."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.Conv2d(3, 4, 1)
        self.colours.weight.data = torch.tensor(COLOURS).view(4, 3, 1, 1) * 2 - 1
        self.colours.bias = nn.Parameter(-torch.tensor([0.5, 0.5, 0.5, 1.5]))
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = 40 * self.pool(self.colours(x).relu()).mean(dim=(2, 3))
        return logits


COLOURS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0))
MODEL = fm.Classifier(Colours()).eval()


def plain(kind: int) -> Tensor:
    return torch.tensor(COLOURS[kind]).view(1, 3, 1, 1).expand(1, 3, 24, 24).contiguous()


def metric_input(explainer: Explainer, kinds: Sequence[int], companions: Companions) -> MetricInput:
    inputs = torch.cat([plain(kind) for kind in kinds])
    images = [LoadedImage(DatasetItem(i, f"{i}.png", 0), inputs[i : i + 1], f"{i:064x}"[::-1]) for i in range(len(kinds))]
    assert isinstance(explainer.model, fm.Classifier)
    return MetricInput(
        model=explainer.model,
        explainer=explainer,
        inputs=inputs,
        images=images,
        explanation=explainer(inputs, list(kinds)),
        companions=companions,
        seed=0,
        chunk_size=32,
        autocast=None,
    )


OTHERS = Companions([Companion(plain(kind), f"other {kind} {i}", kind, 1 - i / 10) for i in range(2) for kind in range(4)])


def test_companions_are_confident_and_of_different_other_classes() -> None:
    found = OTHERS.beside("other 2 0", 1, 0.5, 3)
    hashes = [companion.sha256 for companion in found]
    assert hashes == ["other 0 0", "other 3 0", "other 2 1"], "an image is not its own companion"
    assert OTHERS.beside("other 2 0", 1, 0.95, 3) == []
    assert Companions().beside(None, 1, 0.0, 3) == []


def test_companions_are_spread_over_the_data_set() -> None:
    items = [DatasetItem(i, f"{i}.png", 0) for i in range(600)]
    assert [item.number for item in companion_items(items)] == [*range(0, 600, 10)]
    assert companion_items(items[:5]) == tuple(items[:5])


def test_a_class_activation_map_finds_its_image_in_every_mosaic() -> None:
    explainer = fm.HiResCAM(MODEL, target_layer="colours", score="logit")
    columns = run_metric(MetricSpec(name="grid_pointing_game"), metric_input(explainer, [0, 1, 2, 3, 0], OTHERS))
    assert columns.keys() == {"grid_mass", "grid_top", "grid_peak"}
    assert [*columns["grid_mass"], *columns["grid_top"], *columns["grid_peak"]] == pytest.approx([1.0] * 15, abs=0.02)


def test_an_image_without_companions_has_no_value() -> None:
    explainer = fm.HiResCAM(MODEL, target_layer="colours", score="logit")
    columns = run_metric(MetricSpec(name="grid_pointing_game"), metric_input(explainer, [0, 1], Companions()))
    assert columns["grid_mass"] == [None, None]
    planted = run_metric(MetricSpec(name="planted_shortcut"), metric_input(explainer, [0, 1], OTHERS))
    assert planted == {"mark_found": [None, None], "mark_share": [None, None], "mark_rank": [None, None]}


def test_leakage_in_the_benchmark_is_that_of_the_function() -> None:
    explainer = fm.RISE(MODEL, masks=20, cells=4)
    given = metric_input(explainer, [0, 1, 2], Companions())
    metric = MetricSpec(name="difull")
    columns = run_metric(metric, given)
    generators = given.generators('["difull",{}]')
    for i, image in enumerate(given.images):
        quarter = image.seed % 4
        region = region_of((quarter % 2 * 12, quarter // 2 * 12, quarter % 2 * 12 + 12, quarter // 2 * 12 + 12), (24, 24))
        other = fm.RISE(difull(MODEL, region), masks=20, cells=4)
        expected = leakage(other(given.inputs[i : i + 1], i, generator=[generators[i]]), region)
        assert columns["difull_leakage"][i] == pytest.approx(float(expected), abs=1e-5)


def test_a_planted_mark_is_found_by_the_gradient() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 24, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4))
    explainer = fm.Gradient(fm.Classifier(network), score="logit")
    colours = torch.rand(36, 1, 3, 1, 1, generator=torch.Generator().manual_seed(1)).expand(36, 1, 3, 24, 24)
    companions = Companions([Companion(colour.contiguous(), str(i), 0, 1.0) for i, colour in enumerate(colours)])
    settings: dict[str, Any] = {"mark": "logo", "size": 0.4}
    columns = run_metric(MetricSpec(name="planted_shortcut", settings=settings), metric_input(explainer, [0, 1, 3], companions))
    assert companions.heads["logo", 0.4] is not None, "the head is kept for the next unit"
    assert [value for value in columns["mark_found"] if value is not None]
    assert all(value in (1.0, None) for value in columns["mark_found"])
