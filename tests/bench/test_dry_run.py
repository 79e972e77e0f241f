"""What is wrong with a specification is found before a run begins, and said with the line and the field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bench.tiny_bench import Bench, rows
from PIL import Image

from faithmap.bench import planning
from faithmap.bench.errors import BenchError
from faithmap.bench.load_spec import load_spec
from faithmap.bench.models import ModelCache
from faithmap.bench.run import run
from faithmap.methods.base import RawHeatmap, Request
from faithmap.methods.cams import GradCAM
from faithmap.methods.masks import RISE
from faithmap.methods.registry import METHODS

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


def go(bench: Bench, methods: str = "", metrics: str = "", name: str = "spec.toml") -> None:
    (bench.home / name).write_text(HEAD.format(methods=methods, metrics=metrics))
    request = load_spec(name)
    run(request.spec, bench.home / "out", base=request.base, place=request.place)


def complaint(bench: Bench, **parts: str) -> str:
    with pytest.raises(BenchError) as caught:
        go(bench, **parts)
    assert not (bench.home / "out").exists(), "nothing has begun"
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
        ("rise", "masks = 0", "masks", "give at least 1 mask"),
        ("rise", "cells = 4, baseline = 'purple'", "baseline", "purple"),
        ("occlusion", "patch = 4, baseline = 'purple'", "baseline", "purple"),
        ("gradcam", "target_layer = 'layer9'", "target_layer", "layer9"),
        ("gradcam", "placement = 'tile'", "placement", "tile"),
        ("expected_gradcam", "samples = 'many'", "samples", "is 'many'; give a whole number"),
        ("gradcam", "samples = 4", "samples", "gradcam has no setting 'samples'"),
        ("rank_descent", "resolution = 4, step = -1.0", "step", "step"),
        ("rank_descent", "resolution = 4, prior = 'gradcamm'", "prior", "gradcamm"),
        ("smoothgrad", "samples = 0", "samples", "give at least 1 sample"),
        ("integrated_gradients", "samples = -3", "samples", "samples"),
        ("extremal", "areas = [2.0]", "areas", "areas"),
        ("mask", "resolution = 4, learning_rate = -1.0", "learning_rate", "learning_rate"),
    ],
)
def test_a_method_that_cannot_work_is_refused(bench: Bench, name: str, settings: str, field: str, words: str) -> None:
    said = complaint(bench, methods=METHOD.format(name=name, settings=settings))
    assert said.startswith(f"spec.toml, line 9, methods 2, settings, {field}: "), said
    assert words in said.partition(": ")[2]


@pytest.mark.parametrize(
    ("metric", "field", "words"),
    [
        ('{name = "deletion_insertion", settings = {protocol = "igoss"}}', "protocol", "give one of igos, rise"),
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
    ],
)
def test_a_metric_that_cannot_work_is_refused(bench: Bench, metric: str, field: str, words: str) -> None:
    said = complaint(bench, metrics=f'"complexity", {metric}')
    assert said.startswith(f"spec.toml, line 2, metrics 2, settings, {field}: "), said
    assert words in said.partition(": ")[2]


def test_a_resolution_of_its_own_has_its_own_line(bench: Bench) -> None:
    said = complaint(bench, methods='[[methods]]\nname = "igos"\n\nresolution = [4, 400]')
    assert said.startswith("spec.toml, line 10, methods 2, resolution: resolution is (400, 400); give 1 to 16 rows")


def test_models_and_images_have_their_lines(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str, **settings: object) -> None:
        raise ValueError(f"{name!r} is unknown")

    monkeypatch.setattr("faithmap.load", unknown)
    (bench.home / "spec.toml").write_text('models = ["no_such_model"]\nmethods = ["edges"]\n[data]\npath = "photos"\n')
    request = load_spec("spec.toml")
    with pytest.raises(BenchError, match=r"^spec.toml, line 1, models 1: model no_such_model: "):
        run(request.spec, bench.home / "out", base=request.base, place=request.place)
    changed = load_spec("spec.toml", models=["another"], images=bench.home / "photos")
    with pytest.raises(BenchError, match=r"^--model: model another: "):
        run(changed.spec, bench.home / "out", base=changed.base, place=changed.place)


def test_what_works_is_not_refused_and_asks_little(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, explained = [], []
    forward, explain = planning._begin, RISE._explain

    def counting(spec, method, model, image):  # type: ignore[no-untyped-def]
        hook = model.module.register_forward_pre_hook(lambda _, given: shown.append(len(given[0])))
        try:
            forward(spec, method, model, image)
        finally:
            hook.remove()
        assert not model._forward_pre_hooks

    def whole(self: RISE, request: Request) -> RawHeatmap:
        explained.append(self.masks)
        return explain(self, request)

    monkeypatch.setattr(planning, "_begin", counting)
    monkeypatch.setattr(RISE, "_explain", whole)
    (bench.home / "spec.toml").write_text(HEAD.format(methods=METHOD.format(name="rise", settings="masks = 500"), metrics=""))
    request = load_spec("spec.toml")
    models = ModelCache("cpu")
    plan = trial_plan(request, models)
    planning.dry_run(request.spec, plan, models, request.place)
    assert explained == [500]
    assert sum(shown) <= 2 * planning.PASSES


def trial_plan(request, models):  # type: ignore[no-untyped-def]
    from faithmap.bench.planning import make_plan

    return make_plan(request.spec, request.base, models, place=request.place)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"learned_mask", "edges"}))
def test_every_method_passes_its_trial(bench: Bench, name: str) -> None:
    if "captum" in METHODS[name].needs:
        pytest.importorskip("captum")
    small = {"resolution", "cells"} & set(METHODS[name].explainer.__dataclass_fields__)
    settings = ", ".join(f"{key} = 4" for key in small)
    (bench.home / "spec.toml").write_text(HEAD.format(methods=METHOD.format(name=name, settings=settings), metrics=""))
    request = load_spec("spec.toml")
    models = ModelCache("cpu")
    planning.dry_run(request.spec, trial_plan(request, models), models, request.place)


def test_a_photograph_on_which_a_method_fails_does_not_stop_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    explain = GradCAM._explain
    from bench.tiny_bench import tiny_model

    first = tiny_model().read(bench.home / "photos" / "0.png")

    def moody(self: GradCAM, request: Request) -> RawHeatmap:
        if any(torch.equal(image, first[0]) for image in request.images):
            raise ValueError("not this one")
        return explain(self, request)

    monkeypatch.setattr(GradCAM, "_explain", moody)
    go(bench, methods='[[methods]]\nname = "gradcam"')
    assert [row["image"] for row in rows(bench.home / "out") if row["error"]] == ["0.png"]


def test_a_photograph_that_the_model_does_not_take_is_passed_over(bench: Bench) -> None:
    Image.new("RGB", (20, 20), "white").save(bench.home / "photos" / "0.png")
    bench.write("tiny_bench_model:make", "tiny_bench_model:picky")
    request = load_spec("spec.toml")
    state = run(request.spec, bench.home / "out", base=request.base)
    assert state.failed == 3
    for path in (bench.home / "photos").iterdir():
        Image.new("RGB", (20, 20), "white").save(path)
    with pytest.raises(BenchError, match=r"models 1: model tiny takes none of the first images \(too white\)"):
        run(request.spec, bench.home / "other", base=request.base)


def test_a_run_that_goes_on_is_not_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: object) -> None:
        raise AssertionError(given)

    bench.write()
    request = load_spec("spec.toml")
    begin: Callable[..., object] = lambda **more: run(request.spec, bench.home / "out", base=request.base, **more)  # noqa: E731
    begin()
    monkeypatch.setattr(planning, "_begin", never)
    begin()
    next(Path(bench.home / "out" / "units").iterdir()).unlink()
    begin(accept_changes=True)
