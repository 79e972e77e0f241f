"""The explainer that the settings of a study stand for: every method, and every setting."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from cli_tools import Cli, WriteImage, record_in

import faithmap
from faithmap.cli.explain import ExplainArguments
from faithmap.methods.registry import ALIASES, METHODS
from faithmap.studies.base import make_explainer
from faithmap.studies.settings import ExplainSettings

pytestmark = pytest.mark.usefixtures("loads", "sketches")

SMALL = ("--iterations", 3, "--resolution", 7, "--chunk", 256)
QUICK = (*SMALL, "--baseline", "grey")


def test_the_choices_are_those_of_the_library() -> None:
    hints = get_type_hints(ExplainArguments)
    assert set(choices(hints["baseline"])) == {*faithmap.BASELINES, "zero"}
    assert get_args(hints["method"]) == tuple(METHODS)
    assert not set(ALIASES) & set(METHODS)
    assert set(get_args(hints["protocol"])) == set(faithmap.metrics.PROTOCOLS)
    assert choices(hints["score"]) == get_args(faithmap.score.ScoreKind)


def choices(hint: object) -> tuple[str, ...]:
    """Of an option that need not be given."""
    literal, none = get_args(hint)
    assert none is type(None)
    return get_args(literal)


def test_the_defaults_are_those_of_the_methods() -> None:
    """What is not given is the method's own."""
    model = faithmap.load("the tiny one")
    for name, method in METHODS.items():
        if "masker" in method.needs:
            continue
        assert make_explainer(model, ExplainSettings(method=name, chunk=32)).settings == method.explainer(model).settings


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (("expected_fusedcam", "--samples", 3, "--baseline", "black"), {"samples": 3, "references": "black"}),
        (("integrated_gradcam", "--baseline", "grey"), {"samples": 24, "baseline": "grey"}),
        (("smooth_gradcam", "--samples", 3), {"samples": 3, "noise_std": 0.1}),
        (("smooth_gradcam", "--set", "samples=3", "--set", "gradient.noise_std=0.2"), {"samples": 3, "noise_std": 0.2}),
    ],
)
def test_settings_of_the_gradient(
    arguments: tuple[Any, ...], settings: dict[str, Any], faith: Cli, photo: WriteImage, tmp_path: Path
) -> None:
    photo("cat.png")
    assert faith("explain", "cat.png", "--method", *arguments).code == 0
    found = record_in(tmp_path / "faithmap-results" / "cat")["method"]["settings"]["gradient"]
    assert {name: found[name] for name in settings} == settings


def test_any_setting_of_the_method_can_be_given(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    assert faith("explain", "cat.png", "--method", "igos", "--set", "lambda1=0.5", *SMALL).code == 0
    assert record_in(tmp_path / "faithmap-results" / "cat")["method"]["settings"]["lambda1"] == 0.5


def settings_in(folder: Path, method: str) -> dict[str, Any]:
    found: dict[str, Any] = record_in(folder)["methods"][method]["settings"]
    return found


def test_a_setting_is_one_of_every_compared_method_that_has_it(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    given = ("iterations=2", "mask.iterations=3", "igos.resolution=5")
    assignments = [part for text in given for part in ("--set", text)]
    assert faith("compare", "cat.png", "--methods", "igos,mask,gradient", "--resolution", 7, *assignments).code == 0
    folder = tmp_path / "faithmap-comparison" / "cat"
    assert (settings_in(folder, "igos")["iterations"], settings_in(folder, "mask")["iterations"]) == (2, 3)
    assert (settings_in(folder, "igos")["resolution"], settings_in(folder, "mask")["resolution"]) == (5, 7)
    assert "iterations" not in settings_in(folder, "gradient")


@pytest.mark.parametrize(
    "command",
    [
        ("explain", "--method", "igos"),
        ("compare", "--methods", "igos,gradcam"),
        ("adversarial", "--method", "igos"),
        ("choose", "--methods", "igos,gradcam"),
        ("saturation", "--methods", "gradcam"),
    ],
)
def test_every_study_refuses_a_setting_that_no_method_has(command: tuple[str, ...], faith: Cli, photo: WriteImage) -> None:
    photo("cat.png")
    run = faith(command[0], "cat.png", *command[1:], "--set", "lambda9=1")
    assert run.code == 2
    assert "has no setting 'lambda9'" in run.complaint


def test_choose_takes_settings_of_a_method(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    passes = []
    for iterations in (1, 4):
        out = tmp_path / str(iterations)
        setting = ("--set", f"rank_descent.iterations={iterations}")
        arguments = ("--methods", "rank_descent", "--resolution", 3, "--budget", "1h", "--out", out)
        assert faith("choose", "cat.png", *arguments, *setting).code == 0
        ranking = {method["name"]: method["passes"] for method in record_in(out)["ranking"]}
        passes.append(ranking["rank_descent"]["backward"])
    assert passes[0] < passes[1]


def test_a_setting_is_given_once(faith: Cli, photo: WriteImage) -> None:
    photo("cat.png")
    run = faith("explain", "cat.png", "--method", "igos", "--iterations", 3, "--set", "iterations=4")
    assert (run.code, run.complaint) == (2, "iterations is given twice, by an option of its own and by --set; give it once")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_explains(name: str, faith: Cli, photo: WriteImage, tmp_path: Path, sketches: None) -> None:
    if "captum" in METHODS[name].needs:
        pytest.importorskip("captum")
    photo("cat.png")
    quick: tuple[object, ...] = ()
    if name in ("igos", "igos_plus", "igos_plus_plus", "mask", "extremal", "rank_descent"):
        quick = ("--resolution", 3, "--iterations", 2)
    elif name in ("random_map", "gaussian"):
        quick = ("--resolution", 3)
    elif name in ("rise", "smoothgrad", "vargrad", "expected_gradients", "gradientshap"):
        quick = ("--samples", 3)
    elif name in ("lime", "kernelshap"):
        quick = ("--samples", 60)
    if "masker" in METHODS[name].needs:
        assert faith("train-masker", "cat.png", "--steps", 1, "--batch", 1, "--channels", 4).code == 0
        quick = ("--masker", "masker.safetensors")
    assert faith("explain", "cat.png", "--method", name, *quick).code == 0
    record = record_in(tmp_path / "faithmap-results" / "cat")
    assert record["method"]["name"] == METHODS[name].explainer.__name__
    assert record["passes"]["forward"] >= 1


@pytest.mark.parametrize(("also", "name"), [("mwp", "ExcitationBackprop"), ("c_mwp", "ContrastiveExcitationBackprop")])
def test_a_method_is_found_by_its_other_names(also: str, name: str, faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    assert faith("explain", "cat.png", "--method", also).code == 0
    assert record_in(tmp_path / "faithmap-results" / "cat")["method"]["name"] == name


def test_a_missing_library_is_one_line(faith: Cli, photo: WriteImage, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("cat.png")
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.delitem(sys.modules, "captum.attr", raising=False)
    complaint = faith("explain", "cat.png", "--method", "deeplift").complaint
    assert complaint == "this method is captum's; pip install 'faithmap[captum]'"
