"""The shell command and the Python code that the page exports."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import pytest
from app_tools import run_script, small_model

import faithmap as fm
from faithmap.app.code import command, explainer_code
from faithmap.app.controls import about_method
from faithmap.app.models import OfferedModel
from faithmap.app.shelf import Upload
from faithmap.cli import make_app
from faithmap.cli.explain import ExplainArguments
from faithmap.methods.registry import METHODS
from faithmap.studies.base import make_explainer
from faithmap.studies.settings import ExplainSettings


def test_the_parser_reads_the_settings_back() -> None:
    given = ExplainSettings(
        model="timm/x", method="expected_fusedcam", target="3", target_layer="a.b", samples=7, baseline="grey", score="logit"
    )
    line = command("explain", Upload("-odd 'name'.png", b""), given)
    _, bound, _ = make_app().parse_args(shlex.split(line.replace("-odd", "./-odd"))[1:])
    assert bound.arguments["settings"] == ExplainArguments(**vars(given))


def test_a_sample_photograph_is_found_by_the_shell() -> None:
    line = command("explain", Upload("coffee.jpg", b"", "coffee"), ExplainSettings(target="1"))
    shell = f"python() {{ printf '%s' \"$2\"; }}; faithmap() {{ printf '%s\\n' \"$@\"; }}; {line}"
    said = subprocess.run(["/bin/bash", "-c", shell], capture_output=True, text=True, check=True).stdout.splitlines()
    assert (said[0], said[2:]) == ("explain", ["--target", "1"])
    _, ((path,),) = run_script(said[1])
    assert path == fm.sample_photo("coffee")
    assert command("explain", Upload("chelsea.jpg", b"", "chelsea"), ExplainSettings()) == "faithmap explain"


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"learned_mask"}))
def test_the_script_makes_the_same_explainer(name: str) -> None:
    known = OfferedModel.of(small_model())
    probes: dict[str, Any] = {
        "resolution": 6,
        "iterations": 3,
        "samples": 3,
        "baseline": "black",
        "score": "logit",
        "target_layer": "conv2",
    }
    settings = {setting: probes[setting] for setting in known.methods[name]}
    explainer = make_explainer(known.model, ExplainSettings(method=name, **settings))
    made = eval(explainer_code(explainer), {"fm": fm, "model": known.model})  # noqa: S307
    assert type(made) is type(explainer)
    assert made.settings == explainer.settings
    assert about_method(name)


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("igos", "baseline={kind='constant', value=0.5}"),
        ("igos", "step={kind='fixed_step', size=8}"),
        ("rank_descent", "prior=gaussian"),
        ("igos", "preset=paper"),
        ("expected_gradcam", "gradient.samples=3"),
    ],
)
def test_the_script_has_settings_that_are_objects(method: str, setting: str) -> None:
    model = small_model()
    explainer = make_explainer(model, ExplainSettings(method=method, set=(setting,)))
    made = eval(explainer_code(explainer), {"fm": fm, "model": model})  # noqa: S307
    assert made.settings == explainer.settings != METHODS[method].explainer(model).settings
