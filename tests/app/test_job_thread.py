"""The thread that runs all jobs: progress, results, and how jobs are cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from app_tools import LABELS, UPLOAD, small_model, small_settings
from torch import nn

import faithmap as fm
from faithmap.app.desk import AppState
from faithmap.app.showing import SceneMaker
from faithmap.app.words import CancelledError
from faithmap.app.work import Subject, explain
from faithmap.app.worker import JobProgress, JobReporter, JobResult, JobThread
from faithmap.studies.settings import ExplainSettings

LONG = 60.0
"""Seconds after which a test that waits gives up."""


class Gate:
    """A job that reports progress, waits until the gate is opened, and reports again."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.passed = False

    def __call__(self, report: JobReporter) -> None:
        report(0.1, "before the gate")
        self.opened.wait(LONG)
        report(0.2, "behind the gate")
        self.passed = True


def test_progress_is_yielded_while_the_job_runs_and_then_its_result() -> None:
    jobs, unfinished, reported = JobThread(), fm.Explanation.from_array([[0.0, 1.0]], (2, 2)), threading.Event()

    def job(report: JobReporter) -> int:
        report(0.5, "half", unfinished)
        reported.wait(LONG)
        return 7

    updates: list[JobProgress | JobResult[int]] = []
    for update in jobs.run(job):
        updates.append(update)
        if isinstance(update, JobProgress) and update.unfinished is unfinished:
            reported.set()
    progress, result = updates[-2:]
    assert isinstance(progress, JobProgress)
    assert (progress.share, progress.activity, progress.unfinished) == (0.5, "half", unfinished)
    assert isinstance(result, JobResult)
    assert result.value == 7
    jobs.close()


def test_a_cancelled_job_ends_when_it_next_reports_progress() -> None:
    jobs, gate, cancelled = JobThread(), Gate(), threading.Event()
    running = jobs.run(gate, cancelled)
    next(running)
    cancelled.set()
    gate.opened.set()
    with pytest.raises(CancelledError):
        list(running)
    assert result_of(jobs, lambda report: 1) == 1, "the thread runs further jobs"
    assert not gate.passed
    jobs.close()


def test_a_job_whose_iterator_is_closed_is_cancelled() -> None:
    jobs, gate = JobThread(), Gate()
    running: Any = jobs.run(gate)
    next(running)
    running.close()
    gate.opened.set()
    assert result_of(jobs, lambda report: 1) == 1
    assert not gate.passed
    jobs.close()


def test_a_waiting_job_that_is_cancelled_never_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, gate, later, cancelled = JobThread(), Gate(), Gate(), threading.Event()
    running = jobs.run(gate)
    next(running)
    submit, submitted = jobs._thread.submit, threading.Event()

    def submit_and_tell(*arguments: Any) -> Future[Any]:
        future = submit(*arguments)
        submitted.set()
        return future

    monkeypatch.setattr(jobs._thread, "submit", submit_and_tell)
    cancelled.set()
    with ThreadPoolExecutor(1) as visitor:
        waiting = visitor.submit(lambda: list(jobs.run(later, cancelled)))
        assert submitted.wait(LONG)
        gate.opened.set()
        with pytest.raises(CancelledError):
            waiting.result(LONG)
    list(running)
    assert gate.passed
    assert not later.opened.is_set()
    assert not later.passed
    jobs.close()


def result_of(jobs: JobThread, job: Callable[[JobReporter], int]) -> int:
    *_, result = jobs.run(job)
    assert isinstance(result, JobResult)
    return result.value


def test_an_unfinished_map_is_shown_and_cancelling_ends_the_explanation(state: AppState) -> None:
    subject, slow = Subject(UPLOAD, small_model()), replace(small_settings(), iterations=2000)
    cancelled = threading.Event()
    running = state.jobs.run(lambda report: explain(subject, [slow], report), cancelled)
    with_map: list[JobProgress] = []
    while len(with_map) < 2:
        update = next(running)
        assert isinstance(update, JobProgress)
        if update.unfinished is not None:
            with_map.append(update)
    cancelled.set()
    with pytest.raises(CancelledError):
        list(running)
    first, second = (update.unfinished for update in with_map)
    assert first is not None
    assert second is not None
    assert first.heatmap.shape == second.heatmap.shape == (1, 7, 7)
    assert 0 < with_map[0].share < with_map[1].share < 0.85
    assert first.target is not None
    assert int(first.target[0]) == 1
    scene: Any = SceneMaker(subject.image(), subject.model).unfinished("rank_descent", first)
    assert (scene["panels"][0]["target"], scene["panels"][0]["curves"]) == (LABELS[1], None)


class Long(nn.Module):
    """Twenty layers. A pass over more than 8 images waits at the fifth; ``calls`` counts the calls of all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(20))
        self.calls = 0
        self.reached, self.opened = threading.Event(), threading.Event()
        for layer in self.layers:
            layer.register_forward_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.calls += 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, layer in enumerate(self.layers):
            if i == 5 and len(x) > 8:
                self.reached.set()
                self.opened.wait(LONG)
            x = layer(x)
        return x.mean(dim=(2, 3))


def test_cancelling_ends_a_pass_over_many_images_at_its_next_layer(state: AppState) -> None:
    net = Long().eval()
    subject = Subject(UPLOAD, fm.Classifier(net, geometry=fm.Geometry(16, (16, 16))))
    settings = ExplainSettings(model="long", method="gradcam", target="1", target_layer="layers.3")
    cancelled, activity = threading.Event(), ""
    running = state.jobs.run(lambda report: explain(subject, [settings], report), cancelled)
    while "evaluating" not in activity:
        update = next(running)
        assert isinstance(update, JobProgress)
        activity = update.activity
    assert net.reached.wait(LONG), "deletion and insertion show many images in one pass"
    initial = net.calls
    cancelled.set()
    net.opened.set()
    with pytest.raises(CancelledError):
        list(running)
    assert state.jobs.ended(LONG)
    assert net.calls == initial
    assert not torch.nn.modules.module._global_forward_pre_hooks
    state.close()


def test_a_cancelled_job_leaves_the_model_unchanged(state: AppState, untouched: Callable[[nn.Module], nn.Module]) -> None:
    model = small_model()
    untouched(model)
    subject, settings = Subject(UPLOAD, model), ExplainSettings(model="small", target="1", iterations=500)
    running: Any = state.jobs.run(lambda report: explain(subject, [settings], report))
    next(running)
    running.close()
    assert result_of(state.jobs, lambda report: 1) == 1
    state.close()
