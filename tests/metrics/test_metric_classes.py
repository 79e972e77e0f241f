"""The torchmetrics classes: per-image states, collections, processes, intervals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import SmallNet
from torch import Tensor
from torchmetrics import MetricCollection

from faithmap.metrics import (
    Deletion,
    HeatmapMetric,
    Insertion,
    InsertionMinusDeletion,
    MoRFMinusLeRF,
    deletion_insertion,
)


class Given(HeatmapMetric):
    """Values that the test makes up."""

    higher_is_better = True

    def update(self, values: Tensor) -> None:
        self.values.append(values)


@pytest.fixture
def maps() -> Tensor:
    return torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(2))


def test_areas_equal_those_of_the_function_for_every_batching(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    curves = deletion_insertion(small_net, images, maps)
    for metric, wanted in (
        (Deletion(small_net), curves.deletion.area),
        (Insertion(small_net), curves.insertion.area),
        (InsertionMinusDeletion(small_net), curves.difference),
    ):
        for i in range(3):
            metric.update(images[i : i + 1], maps[i : i + 1])
        assert torch.allclose(metric.per_image(), wanted, atol=1e-6)
        assert torch.allclose(metric.compute(), wanted.mean(), atol=1e-6)


def test_forward_returns_the_batch_and_compute_the_whole(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    wanted = deletion_insertion(small_net, images, maps).deletion.area
    metric = Deletion(small_net)
    first, rest = metric(images[:1], maps[:1]), metric(images[1:], maps[1:])
    assert torch.allclose(first, wanted[:1].mean(), atol=1e-6)
    assert torch.allclose(rest, wanted[1:].mean(), atol=1e-6)
    assert torch.allclose(metric.per_image(), wanted, atol=1e-6)
    metric.reset()
    with pytest.raises(ValueError, match="call update first"):
        metric.per_image()


def test_most_and_least_of_a_constant_map_are_one(small_net: SmallNet, images: Tensor) -> None:
    metric = MoRFMinusLeRF(small_net)
    metric.update(images, torch.ones(3, 4, 4))
    assert torch.equal(metric.per_image(), torch.zeros(3))


def test_a_collection_does_not_merge_metrics_that_agree_on_a_batch() -> None:
    """They agree on the first batch, and torchmetrics merges metrics whose states agree there."""
    one = Given()
    collection = MetricCollection({"one": one, "other": Given()})
    collection.update(values=torch.zeros(2))
    one.values.append(torch.ones(2))
    collection.update(values=torch.zeros(1))
    assert {name: float(value) for name, value in collection.compute().items()} == pytest.approx({"one": 0.4, "other": 0.0})


def test_a_collection_passes_arguments_by_keyword(small_net: SmallNet, images: Tensor, maps: Tensor) -> None:
    collection = MetricCollection([Deletion(small_net), Insertion(small_net, steps=8)])
    collection.update(images=images, heatmaps=maps)
    found = collection.compute()
    assert float(found["Insertion"]) == pytest.approx(
        float(deletion_insertion(small_net, images, maps, steps=8).insertion.area.mean()), abs=1e-6
    )
    assert [collection[name].higher_is_better for name in ("Deletion", "Insertion")] == [False, True]


def test_unknown_settings_are_refused_by_the_constructor(small_net: SmallNet) -> None:
    misspelt: dict[str, Any] = {"stepz": 3}
    with pytest.raises(TypeError, match=r"no setting 'stepz'; its settings are .*steps"):
        Deletion(small_net, **misspelt)


def test_the_model_is_no_part_of_the_metrics_state(small_net: SmallNet) -> None:
    small_net.train()
    metric = Deletion(small_net, sync_on_compute=False).eval().to(torch.float64)
    assert small_net.training
    assert next(small_net.parameters()).dtype == torch.float32
    assert not list(metric.parameters())
    assert not metric.state_dict()


def test_interval_and_paired_difference() -> None:
    one, other = Given(), Given()
    one.update(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    other.update(torch.tensor([0.0, 1.0, 2.0, 3.0]))
    interval = one.interval()
    assert 1.0 < interval.low < 2.5 < interval.high < 4.0
    paired = one.paired_with(other)
    assert (paired.mean, paired.standard_error, paired.count) == (1.0, 0.0, 4)
    assert paired.p == pytest.approx(2 / 16), "of 16 sign patterns two are as far from 0"


def test_plot_draws_the_value() -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    metric = Given()
    metric.update(torch.tensor([1.0, 3.0]))
    figure, axes = metric.plot()
    assert axes.lines[0].get_ydata()[0] == 2.0
    import matplotlib.pyplot as plt

    plt.close(figure)


ONE_OF_TWO = """
import sys
import torch
from faithmap.metrics import HeatmapMetric

class Given(HeatmapMetric):
    def update(self, values):
        self.values.append(values)

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
metric = Given()
metric.update([torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0])][rank])
interval = metric.interval()
torch.save((metric.per_image(), metric.compute(), interval.high, metric.values), f"{folder}/{rank}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.sweep
def test_values_of_several_processes_are_gathered(tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", ONE_OF_TWO, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    for rank, own in enumerate(([1.0, 2.0, 3.0], [10.0])):
        values, mean, high, kept = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert values.tolist() == [1.0, 2.0, 3.0, 10.0]
        assert float(mean) == 4.0
        assert high > 4.0
        assert torch.cat(kept).tolist() == own, "each goes on with its own"
