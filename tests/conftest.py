"""Checks that everything comes back as it went in, and the small network that most tests disturb."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from oracles import SmallNet
from torch import Tensor, nn

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

HARDWARE = "hardware: "
"""The reason of a skip that no package can cure begins with it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails, unless its reason is missing hardware")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sweeps over all methods take minutes: they run with ``--no-skips``, or if their file is named."""
    named = {Path(argument.partition("::")[0]).name for argument in config.args}
    left_out = [item for item in items if item.get_closest_marker("sweep") and item.path.name not in named]
    if left_out and not config.getoption("--no-skips"):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return failed_if_skipped(item.config, report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return failed_if_skipped(collector.config, report)


def failed_if_skipped(config: pytest.Config, report: Report) -> Report:
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    expected = hasattr(report, "wasxfail") or reason.removeprefix("Skipped: ").startswith(HARDWARE)
    if config.getoption("--no-skips") and report.skipped and not expected:
        report.outcome = "failed"
        report.longrepr = f"skipped although --no-skips was given: {reason}"
    return report


@pytest.fixture
def small_net() -> SmallNet:
    torch.manual_seed(0)
    return SmallNet()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For models and images so small that two are no faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def untouched() -> Iterator[Callable[[nn.Module], nn.Module]]:
    """Register a model; when the test is over, it must be bit for bit and flag for flag what it was."""
    watched: list[tuple[nn.Module, dict[str, Tensor], list[bool], list[bool], list[tuple[int, ...]]]] = []

    def hooks(model: nn.Module) -> list[tuple[int, ...]]:
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return [tuple(len(getattr(module, kind)) for kind in kinds) for module in model.modules()]

    def flags(model: nn.Module) -> tuple[list[bool], list[bool]]:
        return [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]

    def watch(model: nn.Module) -> nn.Module:
        state = {name: value.clone() for name, value in model.state_dict().items()}
        watched.append((model, state, *flags(model), hooks(model)))
        return model

    yield watch
    for model, state, modes, trainable, hooked in watched:
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert (modes, trainable) == flags(model)
        assert hooked == hooks(model)
        assert all(p.grad is None for p in model.parameters())


@pytest.fixture(autouse=True)
def same_numbers_every_time() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    assert torch.is_grad_enabled()
