"""Rows: what the store says is what the library's own functions say, drawn from seeds that the image and the settings give."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from bench.tiny_bench import Bench, rows, tiny_model

import faithmap as fm
from faithmap.bench.engines import LocalEngine
from faithmap.bench.estimate import estimate, given_pace
from faithmap.bench.explainers import make_explainer
from faithmap.bench.images import LoadedImage, grouped_by_shape
from faithmap.bench.load_spec import parse_spec, read_spec
from faithmap.bench.metric_runners import _MEASURES
from faithmap.bench.models import ModelCache
from faithmap.bench.plan import canonical, method_digest
from faithmap.bench.planning import make_plan
from faithmap.bench.run import execute, run
from faithmap.bench.run_folder import RunFolder
from faithmap.bench.spec import METRICS
from faithmap.metrics import functional
from faithmap.seeds import derived

ALL = """
models = [{name = "tiny", factory = "tiny_bench_model:make"}]
seed = 5
shard_size = 2
metrics = [
    {name = "deletion_insertion", settings = {steps = 4}},
    {name = "deletion_insertion", id = "rise", settings = {protocol = "rise", resolution = 8}},
    {name = "infidelity", settings = {draws = 6}},
    {name = "sensitivity", settings = {draws = 2}},
    {name = "confidence"},
    {name = "road", settings = {fractions = [0.2, 0.6]}},
    {name = "complexity"},
    {name = "objective"},
    {name = "saturation", settings = {positions = 5}},
]
[data]
path = "photos"
sample = 3
[[methods]]
name = "igos"
resolution = 4
settings = {iterations = 2, path_points = 3, step = {kind = "line_search", wave = 2}}
[[methods]]
name = "gradcam"
"""


@pytest.fixture
def everything(bench: Bench) -> list[dict]:
    run(parse_spec(ALL, "all"), bench.home / "out", base=bench.home)
    return rows(bench.home / "out")


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
def test_every_column_is_what_the_function_says(bench: Bench, everything: list[dict]) -> None:
    model = tiny_model()
    plan = make_plan(parse_spec(ALL, "all"), bench.home, ModelCache("cpu"))
    for row in everything:
        assert row["error"] is None
        method = next(m for m in plan.setup.methods if m.id == row["method"])
        explainer = make_explainer(model, method.name, method.given, resolution=method.resolution)
        image = model.read(bench.home / "photos" / row["image"])
        key = int(row["sha256"][:16], 16)
        seed = derived(derived(5, method_digest(method)), key)
        why = explainer(image, generator=[torch.Generator().manual_seed(seed)])
        raw = np.array(row["heatmap"], np.float32).reshape(row["heatmap_shape"]) * row["heatmap_scale"]
        assert raw == pytest.approx(why.heatmap[0].numpy(), abs=6e-4 * row["heatmap_scale"])
        probabilities = model(image).softmax(dim=1)[0].detach()
        assert (row["target"], row["predicted"]) == (int(why.target[0]), int(probabilities.argmax()))
        assert row["label"] == model.label(row["target"])
        assert row["probability"] == pytest.approx(float(probabilities[row["target"]]), rel=1e-5)
        assert row["score"] == pytest.approx(float(why.score[0]), rel=1e-5)
        assert row["forward"] == why.diagnostics[0]["forward_passes"]
        games = functional.deletion_insertion(model, image, why, steps=4)
        assert row["deletion"] == pytest.approx(float(games.deletion.area[0]), abs=1e-5)
        assert row["insertion_curve"] == pytest.approx(games.insertion.scores[0].tolist(), abs=1e-5)
        assert row["curve_fractions"] == pytest.approx(games.deletion.fractions.tolist())
        rise = functional.deletion_insertion(model, image, why.at((8, 8)), why.target, protocol="rise")
        assert row["rise_deletion"] == pytest.approx(float(rise.deletion.area[0]), abs=1e-5)
        assert len(row["rise_curve_fractions"]) == len(rise.deletion.fractions)
        drawn = torch.Generator().manual_seed(derived(derived(5, canonical(["infidelity", {"draws": 6}])), key))
        infidelity = functional.infidelity(model, image, why, draws=6, generator=[drawn])
        assert row["infidelity"] == pytest.approx(float(infidelity.value[0]), rel=1e-3, abs=1e-10)
        confidence = functional.confidence(model, image, why)
        assert row["average_drop"] == pytest.approx(float(confidence.drop[0]), abs=1e-3)
        assert row["complexity"] == pytest.approx(float(functional.entropy(why)[0]), abs=1e-5)
        assert row["sparseness"] == pytest.approx(float(functional.gini(why)[0]), abs=1e-5)
        if row["method"] == "igos-4":
            assert row["objective"] == pytest.approx(why.diagnostics[0]["objective"][-1], rel=1e-4)
        else:
            assert row["objective"] is None
        assert 0 <= row["saturation"] <= 1
        assert 0 <= row["mean_sensitivity"] <= row["max_sensitivity"]


def test_the_catalogue_and_what_measures_have_the_same_names() -> None:
    assert METRICS.keys() == _MEASURES.keys()


def test_seeds_follow_from_image_and_settings(bench: Bench, everything: list[dict]) -> None:
    run(parse_spec(ALL.replace("seed = 5", "seed = 6"), "all"), bench.home / "other", base=bench.home)
    ours = {(row["method"], row["sha256"]): row for row in everything}
    theirs = {(row["method"], row["sha256"]): row for row in rows(bench.home / "other")}
    both = [pair for pair in ours.keys() & theirs.keys() if pair[0] == "igos-4"]
    assert all(ours[pair]["infidelity"] != theirs[pair]["infidelity"] for pair in both)


def test_images_of_several_sizes_are_explained_by_size(bench: Bench) -> None:
    photos = [LoadedImage(None, torch.zeros(1, 3, h, 4)) for h in (4, 5, 4)]  # type: ignore[arg-type]
    assert [[p.image.shape[2] for p in group] for group in grouped_by_shape([*photos, LoadedImage(None, error="x")])] == [
        [4, 4],
        [5],
    ]


def test_settings_become_what_a_method_takes() -> None:
    model = tiny_model()
    igos = make_explainer(
        model, "igos", {"step": {"kind": "nesterov"}, "baseline": {"kind": "blur", "sigma": 3.0}}, resolution=4
    )
    assert (igos.step, igos.baseline) == (fm.Nesterov(), fm.Blur(sigma=3.0))
    expected = make_explainer(model, "expected_gradcam", {"samples": 3, "scales": 1})
    assert (expected.gradient.samples, expected.scales) == (3, 1)
    for settings, message in [
        ({"chunk_size": 3}, "has no setting 'chunk_size'"),
        ({"step": {"kind": "magic"}}, "a table of kind 'magic'; give one of the kinds line_search, nesterov"),
        ({"step": {"kind": ["nesterov"]}}, r"a table of kind \['nesterov'\]; give one of the kinds line_search, nesterov"),
        ({"step": {"kind": "line_search", "up": 1}}, "line_search has no setting 'up'; its settings are beta"),
        ({"iterations": "many"}, "iterations is 'many'; give a whole number"),
        ({"average": 1}, "average is 1; give true or false"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_explainer(model, "igos", settings)


def test_passes_and_disk_are_foretold(bench: Bench) -> None:
    plan = make_plan(parse_spec(ALL, "all"), bench.home, ModelCache("cpu"))
    found = estimate(plan, (16, 16), {"tiny": given_pace(100.0)})
    igos = found.parts[0]
    played, rise, infidelity, confidence, road, saturation = 2 * 5 + 1, 2 * 17 + 1, 6 + 1, 2, 2 * 2 + 1, 5 + 2
    assert igos.passes is not None
    disturbed = 3 * igos.passes.forward
    assert igos.judging.forward == played + rise + infidelity + disturbed + confidence + road + saturation
    assert igos.judging.backward == 3 * igos.passes.backward + 5
    games = estimate(make_plan(read_spec(bench.spec), bench.home, ModelCache("cpu")), (16, 16), {"tiny": given_pace(100.0)})
    assert games.parts[0].judging == (2 * 6 + 1 + 4 + 1, 0)
    assert games.passes == 7 * sum(sum(part.passes or ()) + sum(part.judging) for part in games.parts)
    assert games.seconds == pytest.approx(games.passes / 100)
    run(read_spec(bench.spec), bench.home / "out", base=bench.home)
    written = sum(path.stat().st_size for path in (bench.home / "out" / "units").iterdir())
    assert games.size == pytest.approx(written, rel=0.4)
    taken = rows(bench.home / "out")
    assert sum(row["forward"] for row in taken if row["method"] == "gradcam") == 7 * games.parts[2].passes.forward


def test_memory_does_not_grow_with_the_number_of_images(bench: Bench) -> None:
    text = ALL.partition("[[methods]]")[0].replace("sample = 3", "") + '[[methods]]\nname = "gradcam"\n'
    text = text.replace('{name = "sensitivity", settings = {draws = 2}},', "").replace("shard_size = 2", "shard_size = 4")
    peaks = []
    for count in (8, 40):
        for i in range(count):
            bench.photo(f"{i}.png", i)
        models = ModelCache("cpu")
        plan = make_plan(parse_spec(text, "m"), bench.home, models)
        folder = RunFolder(bench.home / f"out{count}")
        folder.made()
        execute(plan, folder, LocalEngine(), models=models)  # what only a first run keeps
        for path in folder.units.iterdir():
            path.unlink()
        tracemalloc.start()
        execute(plan, folder, LocalEngine(), models=models)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0] + 50_000, peaks
    assert len(rows(Path(bench.home / "out40"))) == 40
