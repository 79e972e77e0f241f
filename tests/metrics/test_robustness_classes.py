"""Infidelity, MaxSensitivity and MeanSensitivity as torchmetrics classes."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import SmallNet
from torch import Tensor
from torchmetrics import MetricCollection

from faithmap import Smooth, SmoothGradCAM
from faithmap.metrics import Deletion, Infidelity, MaxSensitivity, MeanSensitivity
from faithmap.metrics.functional import Square, infidelity, sensitivity

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.warning_types.LowConfidenceWarning")


@pytest.fixture
def maps() -> Tensor:
    return torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def explain(small_net: SmallNet) -> SmoothGradCAM:
    return SmoothGradCAM(small_net, target_layer="conv2", gradient=Smooth(samples=2))


def test_infidelity_equals_the_function_for_every_batching(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    other: dict[str, Any] = {"seed": 3, "perturbation": Square((30, 100)), "score": "logit", "scaled": False}
    for settings in ({}, other):
        wanted = infidelity(small_net, images, maps, draws=6, **settings).value
        metric = Infidelity(small_net, draws=6, **settings)
        metric.update(images[:2], maps[:2])
        assert torch.allclose(metric(images[2:], maps[2:]), wanted[2:].mean(), rtol=1e-4)
        assert torch.allclose(metric.per_image(), wanted, rtol=1e-4)
        assert torch.allclose(metric.compute(), wanted.mean(), rtol=1e-4)
        assert metric.higher_is_better is False


def test_infidelity_takes_attributions_of_every_channel(small_net: SmallNet, images: Tensor) -> None:
    metric = Infidelity(small_net, draws=3)
    metric.update(images, images, 1)
    assert torch.equal(metric.per_image(), infidelity(small_net, images, images, 1, draws=3).value)


def test_sensitivity_equals_the_function_for_every_batching(explain: SmoothGradCAM, images: Tensor) -> None:
    wanted = sensitivity(explain, images, [1, 2, 3], draws=2, radius=0.1, seed=4)
    for kind, values in ((MaxSensitivity, wanted.maximum), (MeanSensitivity, wanted.mean)):
        metric = kind(explain, draws=2, radius=0.1, seed=4)
        metric.update(images[:2], [1, 2])
        assert torch.allclose(metric(images[2:], torch.tensor([3])), values[2:].mean(), rtol=1e-4)
        assert torch.allclose(metric.per_image(), values, rtol=1e-4)
        assert metric.higher_is_better is False


def test_a_collection_passes_each_metric_its_arguments(
    small_net: SmallNet, explain: SmoothGradCAM, images: Tensor, maps: Tensor
) -> None:
    collection = MetricCollection(
        [
            Deletion(small_net, steps=4),
            Infidelity(small_net, draws=4),
            MaxSensitivity(explain, draws=2),
            MeanSensitivity(explain, draws=2),
        ]
    )
    for i in range(3):
        collection.update(images=images[i : i + 1], heatmaps=maps[i : i + 1], target=2)
    found = collection.compute()
    wanted = sensitivity(explain, images, 2, draws=2)
    assert torch.allclose(found["Infidelity"], infidelity(small_net, images, maps, 2, draws=4).value.mean(), rtol=1e-4)
    assert torch.allclose(found["MaxSensitivity"], wanted.maximum.mean(), rtol=1e-4)
    assert torch.allclose(found["MeanSensitivity"], wanted.mean.mean(), rtol=1e-4)


def test_the_explainer_is_no_part_of_the_metrics_state(small_net: SmallNet, images: Tensor) -> None:
    small_net.train()
    metric = MaxSensitivity(small_net, draws=2, limits=None, sync_on_compute=False).eval().to(torch.float64)
    assert small_net.training
    assert not list(metric.parameters())
    assert not metric.state_dict()
    assert MaxSensitivity(lambda x: x * 0 + 1, limits=None)(images * 4) == 0


def test_unknown_settings_are_refused_by_the_constructor(small_net: SmallNet) -> None:
    unknown: dict[str, Any] = {"generator": torch.Generator()}
    with pytest.raises(TypeError, match="no setting 'generator'"):
        Infidelity(small_net, **unknown)
    misspelt: dict[str, Any] = {"radios": 3}
    with pytest.raises((TypeError, ValueError), match="radios"):
        MaxSensitivity(small_net, **misspelt)


@pytest.mark.parametrize("page", ["infidelity", "sensitivity"])
def test_the_examples_of_the_docs_run(page: str) -> None:
    file = Path(__file__).parents[2] / "docs" / "metrics" / f"{page}.md"
    assert doctest.testfile(str(file), module_relative=False) == (0, 4 if page == "sensitivity" else 11)
