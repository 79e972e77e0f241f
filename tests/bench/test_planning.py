"""Invalid settings are found before the first unit, and named with line and field."""

from __future__ import annotations

import pytest
import torch
from bench.tiny_bench import Bench, rows, tiny_model
from PIL import Image
from torch import Tensor

from faithmap.bench import planning
from faithmap.bench.evaluate import ModelCache
from faithmap.bench.plan import BenchPlan
from faithmap.bench.run import run
from faithmap.bench.spec import LoadedSpec, MethodSpec, Spec, load_spec
from faithmap.errors import BenchError
from faithmap.methods.base import RawHeatmap, Request
from faithmap.methods.cams import GradCAM
from faithmap.methods.masks import RISE
from faithmap.methods.registry import METHODS
from faithmap.model import Classifier

HEAD = """\
models = [{{name = "tiny", factory = "tiny_bench_model:make"}}]
metrics = [{metrics}]
[data]
path = "photos"
[[methods]]
name = "edges"
{methods}
"""
METHOD = '[[methods]]\nname = "{name}"\nsettings = {{ {settings} }}'


def run_spec(bench: Bench, methods: str = "", metrics: str = "", name: str = "spec.toml") -> None:
    (bench.home / name).write_text(HEAD.format(methods=methods, metrics=metrics))
    loaded = load_spec(name)
    run(loaded.spec, bench.out, base=loaded.base, locate=loaded.locate)


def complaint(bench: Bench, **parts: str) -> str:
    with pytest.raises(BenchError) as caught:
        run_spec(bench, **parts)
    assert not bench.out.exists(), "nothing was written"
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings", "field", "words"),
    [
        ("igos", "iterations = 'many'", "iterations", "is 'many'; give a whole number"),
        ("igos", "iterations = 2.5", "iterations", "is 2.5; give a whole number"),
        ("igos", "resolution = 4, iterations = 0", "iterations", "is 0; give a"),
        ("igos", "average = 1", "average", "is 1; give true or false"),
        ("igos", "noise_std = nan", "noise_std", "is nan; give a number"),
        ("igos", "noise_std = true", "noise_std", "is True; give a number"),
        ("igos", "rounds = 3", "rounds", "igos has no setting 'rounds'; its settings are average, baseline"),
        ("igos", "chunk_size = 3", "chunk_size", "igos has no setting 'chunk_size'"),
        ("igos", "score = 'probabilty'", "score", "is 'probabilty'; give one of probability, logit"),
        (
            "igos",
            "step = 'fast'",
            "step",
            "give a LineSearch, a Nesterov, a StepRule or a number above 0; in files, a table of kind line_search or nesterov",
        ),
        ("igos", "resolution = 4, step = -1", "step", "step"),
        ("igos", "resolution = 4, baseline = 'blurr'", "baseline", "blurr"),
        ("igos", "resolution = [4, 4, 4]", "resolution", "is (4, 4, 4); give a whole number or two whole numbers"),
        ("igos", "step = { kind = 'magic' }", "step", "of kind 'magic'; give one of the kinds line_search, nesterov"),
        ("igos", "step = { kind = 'line_search', up = 1 }", "step", "line_search has no setting 'up'; its settings are beta"),
        ("igos", "step = { kind = 'line_search', beta = 3.0 }", "step", "give 0 < lower <= upper"),
        ("igos", "baseline = { kind = 'blur', sigma = 'x' }", "baseline", "sigma is 'x'; give a number"),
        ("igos", "baseline = { kind = 'blur', sigma = 0.0 }", "baseline", "sigma is 0.0; give a number of pixels above 0"),
        ("rise", "masks = 0", "masks", "masks is 0; give a whole number of at least 1, or None"),
        ("rise", "cells = 4, baseline = 'purple'", "baseline", "purple"),
        ("occlusion", "patch = 4, baseline = 'purple'", "baseline", "purple"),
        ("gradcam", "target_layer = 'layer9'", "target_layer", "layer9"),
        ("gradcam", "placement = 'tile'", "placement", "tile"),
        ("expected_fusedcam", "samples = 'many'", "samples", "is 'many'; give a whole number"),
        ("gradcam", "samples = 4", "samples", "gradcam has no setting 'samples'"),
        ("rank_descent", "resolution = 4, step = -1.0", "step", "step"),
        ("rank_descent", "resolution = 4, prior = 'gradcamm'", "prior", "gradcamm"),
        ("smoothgrad", "samples = 0", "samples", "give a whole number of at least 1"),
        ("integrated_gradients", "samples = -3", "samples", "samples"),
        ("extremal", "areas = [2.0]", "areas", "areas"),
        ("mask", "resolution = 4, learning_rate = -1.0", "learning_rate", "learning_rate"),
    ],
)
def test_a_method_that_cannot_work_is_refused(bench: Bench, name: str, settings: str, field: str, words: str) -> None:
    message = complaint(bench, methods=METHOD.format(name=name, settings=settings))
    assert message.startswith(f"spec.toml, line 9, methods 2, settings, {field}: "), message
    assert words in message.partition(": ")[2]


@pytest.mark.parametrize(
    ("metric", "field", "words"),
    [
        ('{name = "deletion_insertion", settings = {protocol = "igoss"}}', "protocol", "give one of igos, igos_resampled"),
        ('{name = "deletion_insertion", settings = {steps = "all"}}', "steps", "is 'all'; give a whole number"),
        ('{name = "deletion_insertion", settings = {steps = 0}}', "steps", "steps"),
        ('{name = "deletion_insertion", settings = {baseline = "purple"}}', "baseline", "purple"),
        ('{name = "deletion_insertion", settings = {resolution = 400}}', "resolution", "400"),
        ('{name = "infidelity", settings = {draws = 0}}', "draws", "draws"),
        ('{name = "infidelity", settings = {perturbation = "circle"}}', "perturbation", "circle"),
        ('{name = "sensitivity", settings = {radius = -0.1}}', "radius", "radius"),
        ('{name = "road", settings = {fractions = [0.2, 2.0]}}', "fractions", "fractions"),
        ('{name = "confidence", settings = {scaling = "most"}}', "scaling", "give one of max, min_max, none"),
        ('{name = "saturation", settings = {target_layer = "layer9"}}', "target_layer", "layer9"),
        ('{name = "saturation", settings = {positions = 0}}', "positions", "positions"),
        ('{name = "top_features", settings = {count = 0}}', "count", "count is 0; give 1 to 10 channels"),
    ],
)
def test_a_metric_that_cannot_work_is_refused(bench: Bench, metric: str, field: str, words: str) -> None:
    message = complaint(bench, metrics=f'"complexity", {metric}')
    assert message.startswith(f"spec.toml, line 2, metrics 2, settings, {field}: "), message
    assert words in message.partition(": ")[2]


def test_a_resolution_outside_of_the_settings_has_its_own_line(bench: Bench) -> None:
    message = complaint(bench, methods='[[methods]]\nname = "igos"\n\nresolution = [4, 400]')
    assert message.startswith("spec.toml, line 10, methods 2, resolution: resolution is (400, 400); give 1 to 16 rows")


def test_errors_of_models_name_their_line_or_option(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str, **settings: object) -> None:
        raise ValueError(f"{name!r} is unknown")

    monkeypatch.setattr("faithmap.zoo.load", unknown)
    (bench.home / "spec.toml").write_text('models = ["no_such_model"]\nmethods = ["edges"]\n[data]\npath = "photos"\n')
    loaded = load_spec("spec.toml")
    with pytest.raises(BenchError, match=r"^spec.toml, line 1, models 1: model no_such_model: "):
        run(loaded.spec, bench.out, base=loaded.base, locate=loaded.locate)
    changed = load_spec("spec.toml", models=["another"], images=bench.home / "photos")
    with pytest.raises(BenchError, match=r"^--model: model another: "):
        run(changed.spec, bench.out, base=changed.base, locate=changed.locate)


def test_the_dry_run_takes_few_passes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    explained: list[int | None] = []
    start, explain = planning._start_method, RISE._explain

    def count_passes(spec: Spec, method: MethodSpec, model: Classifier, image: Tensor) -> None:
        hook = model.module.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
        try:
            start(spec, method, model, image)
        finally:
            hook.remove()
        assert not model._forward_pre_hooks

    def explain_and_note(self: RISE, request: Request) -> RawHeatmap:
        explained.append(self.masks)
        return explain(self, request)

    monkeypatch.setattr(planning, "_start_method", count_passes)
    monkeypatch.setattr(RISE, "_explain", explain_and_note)
    (bench.home / "spec.toml").write_text(HEAD.format(methods=METHOD.format(name="rise", settings="masks = 500"), metrics=""))
    loaded = load_spec("spec.toml")
    models = ModelCache("cpu")
    plan = plan_of(loaded, models)
    planning.dry_run(loaded.spec, plan, models, loaded.locate)
    assert explained == [500]
    assert sum(passes) <= 2 * planning.DRY_RUN_PASSES


def plan_of(loaded: LoadedSpec, models: ModelCache) -> BenchPlan:
    return planning.make_plan(loaded.spec, loaded.base, models, locate=loaded.locate)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"learned_mask", "edges"}))
def test_every_method_passes_the_dry_run(bench: Bench, name: str) -> None:
    if "captum" in METHODS[name].needs:
        pytest.importorskip("captum")
    fields = METHODS[name].explainer.__dataclass_fields__
    small = [key for key in ("resolution", "cells") if key in fields and fields[key].default is not None]
    settings = ", ".join(f"{key} = 4" for key in small)
    (bench.home / "spec.toml").write_text(HEAD.format(methods=METHOD.format(name=name, settings=settings), metrics=""))
    loaded = load_spec("spec.toml")
    models = ModelCache("cpu")
    planning.dry_run(loaded.spec, plan_of(loaded, models), models, loaded.locate)


def test_an_image_on_which_a_method_fails_does_not_stop_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    explain = GradCAM._explain
    first = tiny_model().read(bench.home / "photos" / "0.png")

    def explain_others(self: GradCAM, request: Request) -> RawHeatmap:
        if any(torch.equal(image, first[0]) for image in request.images):
            raise ValueError("not this one")
        return explain(self, request)

    monkeypatch.setattr(GradCAM, "_explain", explain_others)
    run_spec(bench, methods='[[methods]]\nname = "gradcam"')
    assert [row["image"] for row in rows(bench.out) if row["error"]] == ["0.png"]


def test_an_image_that_the_model_refuses_is_skipped(bench: Bench) -> None:
    Image.new("RGB", (20, 20), "white").save(bench.home / "photos" / "0.png")
    bench.write("tiny_bench_model:make", "tiny_bench_model:picky")
    loaded = load_spec("spec.toml")
    progress = run(loaded.spec, bench.out, base=loaded.base)
    assert progress.failed == 3
    for path in (bench.home / "photos").iterdir():
        Image.new("RGB", (20, 20), "white").save(path)
    with pytest.raises(BenchError, match=r"models 1: model tiny accepts none of the first images \(too white\)"):
        run(loaded.spec, bench.home / "other", base=loaded.base)


def test_a_resumed_run_makes_no_dry_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: object) -> None:
        raise AssertionError(given)

    bench.write()
    loaded = load_spec("spec.toml")
    run(loaded.spec, bench.out, base=loaded.base)
    monkeypatch.setattr(planning, "_start_method", never)
    run(loaded.spec, bench.out, base=loaded.base)
    bench.units[0].unlink()
    run(loaded.spec, bench.out, base=loaded.base, accept_changes=True)
