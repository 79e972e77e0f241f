"""Stored values are those of the library's own functions, with seeds that follow from image and settings."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench.tiny_bench import ALL_METRICS, Bench, Rows, rows, tiny_model
from method_tools import live

import faithmap as fm
from faithmap.bench.dataset import DatasetItem, LoadedImage, grouped_by_shape
from faithmap.bench.evaluate import RUNNERS, FinishedUnit, ModelCache, make_explainer, timed
from faithmap.bench.plan import canonical
from faithmap.bench.planning import make_plan
from faithmap.bench.run import LocalEngine, RunProgress, execute, run
from faithmap.bench.run_folder import RunFolder
from faithmap.bench.spec import METRICS, parse_spec, read_spec
from faithmap.methods.cams import top_features
from faithmap.metrics import functional
from faithmap.seeds import derived


@pytest.fixture
def everything(bench: Bench) -> Rows:
    run(parse_spec(ALL_METRICS, "all"), bench.out, base=bench.home)
    return rows(bench.out)


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
def test_every_column_is_the_value_of_its_function(bench: Bench, everything: Rows) -> None:
    model = tiny_model()
    plan = make_plan(parse_spec(ALL_METRICS, "all"), bench.home, ModelCache("cpu"))
    for row in everything:
        assert row["error"] is None
        method = next(m for m in plan.setup.methods if m.id == row["method"])
        explainer = make_explainer(model, method.name, method.given, resolution=method.resolution)
        image = model.read(bench.home / "photos" / row["image"])
        key = int(row["sha256"][:16], 16)
        seed = derived(derived(5, method.digest), key)
        explanation = explainer(image, generator=[torch.Generator().manual_seed(seed)])
        raw = np.array(row["heatmap"], np.float32).reshape(row["heatmap_shape"]) * row["heatmap_scale"]
        assert raw == pytest.approx(explanation.heatmap[0].numpy(), abs=6e-4 * row["heatmap_scale"])
        assert explanation.target is not None
        assert explanation.score is not None
        probabilities = model(image).softmax(dim=1)[0].detach()
        assert (row["target"], row["predicted"]) == (int(explanation.target[0]), int(probabilities.argmax()))
        assert row["label"] == model.label(row["target"])
        assert row["probability"] == pytest.approx(float(probabilities[row["target"]]), rel=1e-5)
        assert row["score"] == pytest.approx(float(explanation.score[0]), rel=1e-5)
        assert row["forward"] == explanation.diagnostics[0]["forward_passes"]
        curves = functional.deletion_insertion(model, image, explanation, steps=4)
        assert row["deletion"] == pytest.approx(float(curves.deletion.area[0]), abs=1e-5)
        assert row["insertion_curve"] == pytest.approx(curves.insertion.scores[0].tolist(), abs=1e-5)
        assert row["curve_fractions"] == pytest.approx(curves.deletion.fractions.tolist())
        rise = functional.deletion_insertion(model, image, explanation.at((8, 8)), explanation.target, protocol="rise")
        assert row["rise_deletion"] == pytest.approx(float(rise.deletion.area[0]), abs=1e-5)
        assert len(row["rise_curve_fractions"]) == len(rise.deletion.fractions)
        drawn = torch.Generator().manual_seed(derived(derived(5, canonical(["infidelity", {"draws": 6}])), key))
        infidelity = functional.infidelity(model, image, explanation, draws=6, generator=[drawn])
        assert row["infidelity"] == pytest.approx(float(infidelity.value[0]), rel=1e-3, abs=1e-10)
        confidence = functional.confidence(model, image, explanation)
        assert row["average_drop"] == pytest.approx(float(confidence.drop[0]), abs=1e-3)
        assert row["complexity"] == pytest.approx(float(functional.entropy(explanation)[0]), abs=1e-5)
        assert row["sparseness"] == pytest.approx(float(functional.gini(explanation)[0]), abs=1e-5)
        if row["method"] == "igos-4":
            assert row["objective"] == pytest.approx(explanation.diagnostics[0]["objective"][-1], rel=1e-4)
        else:
            assert row["objective"] is None
        if len(explanation.diagnostics[0].get("top_channels", {})) == 1:
            top = functional.deletion_insertion(model, image, top_features(model, image, explanation, 2))
            assert row["top_insertion"] == pytest.approx(float(top.insertion.area[0]), abs=1e-5)
            assert row["top_deletion"] == pytest.approx(float(top.deletion.area[0]), abs=1e-5)
        else:
            assert row["top_insertion"] is row["top_deletion"] is None
        assert 0 <= row["saturation"] <= 1
        assert 0 <= row["mean_sensitivity"] <= row["max_sensitivity"]
        assert 0 <= row["difull_leakage"] <= 1


def test_every_metric_has_a_runner() -> None:
    assert METRICS.keys() == RUNNERS.keys()


def test_the_seed_of_the_run_changes_the_draws(bench: Bench, everything: Rows) -> None:
    run(parse_spec(ALL_METRICS.replace("seed = 5", "seed = 6"), "all"), bench.home / "other", base=bench.home)
    ours = {(row["method"], row["sha256"]): row for row in everything}
    theirs = {(row["method"], row["sha256"]): row for row in rows(bench.home / "other")}
    both = [pair for pair in ours.keys() & theirs.keys() if pair[0] == "igos-4"]
    assert all(ours[pair]["infidelity"] != theirs[pair]["infidelity"] for pair in both)


def test_images_are_grouped_by_shape() -> None:
    item = DatasetItem(0, "a.png", 10)
    images = [LoadedImage(item, torch.zeros(1, 3, h, 4)) for h in (4, 5, 4)]
    groups = grouped_by_shape([*images, LoadedImage(item, error="x")])
    assert groups == [[images[0], images[2]], [images[1]]]


def test_settings_become_arguments_of_the_method() -> None:
    model = tiny_model()
    igos = make_explainer(
        model, "igos", {"step": {"kind": "nesterov"}, "baseline": {"kind": "blur", "sigma": 3.0}}, resolution=4
    )
    assert isinstance(igos, fm.IGOS)
    assert (igos.step, igos.baseline) == (fm.Nesterov(), fm.Blur(sigma=3.0))
    expected = make_explainer(model, "expected_fusedcam", {"samples": 3, "scales": 1})
    assert isinstance(expected, fm.ExpectedFusedCAM)
    assert isinstance(expected.gradient, fm.Expected)
    assert (expected.gradient.samples, expected.scales) == (3, 1)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"chunk_size": 3}, "has no setting 'chunk_size'"),
        ({"step": {"kind": "magic"}}, "a table of kind 'magic'; give one of the kinds line_search, nesterov"),
        ({"step": {"kind": ["nesterov"]}}, r"a table of kind \['nesterov'\]; give one of the kinds line_search, nesterov"),
        ({"step": {"kind": "line_search", "up": 1}}, "line_search has no setting 'up'; its settings are beta"),
        ({"iterations": "many"}, "iterations is 'many'; give a whole number"),
        ({"average": 1}, "average is 1; give true or false"),
    ]
    for settings, message in refused:
        with pytest.raises(ValueError, match=message):
            make_explainer(model, "igos", settings)


def test_memory_does_not_grow_with_the_number_of_images(bench: Bench) -> None:
    text = ALL_METRICS.partition("[[methods]]")[0].replace("sample = 3", "") + '[[methods]]\nname = "gradcam"\n'
    text = text.replace('{name = "sensitivity", settings = {draws = 2}},', "").replace("shard_size = 2", "shard_size = 4")
    peaks = []
    for count in (8, 40):
        for i in range(count):
            bench.photo(f"{i}.png", i)
        models = ModelCache("cpu")
        plan = make_plan(parse_spec(text, "m"), bench.home, models)
        folder = RunFolder(bench.home / f"out{count}")
        folder.create()
        execute(plan, folder, LocalEngine(), models=models)  # a first run allocates what later ones reuse
        for path in folder.units.iterdir():
            path.unlink()
        tracemalloc.start()
        execute(plan, folder, LocalEngine(), models=models)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0] + 50_000, peaks
    assert len(rows(Path(bench.home / "out40"))) == 40


def test_peak_memory_is_that_of_the_work_on_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name, answer in {"synchronize": None, "reset_peak_memory_stats": None, "max_memory_allocated": 1234}.items():

        def note(device: torch.device, name: str = name, answer: int | None = answer) -> int | None:
            calls.append(f"{name} {device}")
            return answer

        monkeypatch.setattr(torch.cuda, name, note)

    def work() -> int:
        calls.append("work")
        return 5

    result, seconds, memory = timed(torch.device("cuda:1"), work)
    assert (result, memory) == (5, 1234)
    assert seconds > 0
    assert calls == [
        "synchronize cuda:1",
        "reset_peak_memory_stats cuda:1",
        "work",
        "synchronize cuda:1",
        "max_memory_allocated cuda:1",
    ]


@pytest.mark.sweep
@pytest.mark.parametrize("method", ["gradcam", "deeplift"])
def test_a_benchmark_keeps_no_tensors_of_the_images_that_are_done(bench: Bench, method: str) -> None:
    """After each shard of two of the eight images, as many are alive."""
    if method == "deeplift":
        pytest.importorskip("captum")
    bench.photo("7.png", 7)
    igos = '[[methods]]\nname = "igos"\nresolution = [8, 4]\nsettings = { iterations = 2, path_points = 3 }\n'
    spec = bench.write(igos, shard_size=2)
    spec.write_text(spec.read_text().replace("gradcam", method))
    counts: dict[int, tuple[int, int]] = {}

    def count(progress: RunProgress, unit: FinishedUnit | None) -> None:
        del unit
        gc.collect()
        counts[progress.done] = live()

    run(read_spec(spec), bench.out, base=bench.home, on_progress=count)
    assert len(counts) >= 4
    assert counts[3] == counts[2]
