"""Settings are read from the dataclasses of the methods: types, ranges, help, and values from files and texts."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

import pytest
import torch
from annotated_types import Ge, Gt, Lt, Unit
from torch import Tensor, nn

import faithmap as fm
from faithmap.baselines import Baseline
from faithmap.methods.registry import METHODS, assigned, explainer_from
from faithmap.methods.settings import (
    REQUIRED,
    AlsoNamed,
    Setting,
    SettingError,
    check_settings,
    complete_docstring,
    described,
    find_setting,
    plain_settings,
    settings_of,
)


@dataclass(frozen=True)
class Spring:
    """A spring.

    Args:
        strength: in newtons per metre,
            above 0.
    """

    strength: Annotated[float, Gt(0), Unit("N/m")] = 2.0


@dataclass(frozen=True)
class StiffSpring(Spring):
    """A stiff spring."""

    damping: Annotated[float, Ge(0), Lt(1)] = 0.5


@dataclass
class Machine:
    """A machine.

    Args:
        wheels: number of wheels.
        spring: the spring, or a fixed strength.

    Text after the section stays.
    """

    model: nn.Module
    wheels: Annotated[int, Ge(1)] = 4
    spring: Spring | float = field(default_factory=Spring)
    sides: int | tuple[int, int] | None = None
    paint: Annotated[Literal["red", "blue"] | None, AlsoNamed("colour")] = None
    shares: tuple[Annotated[float, Gt(0), Lt(1)], ...] = (0.5,)
    background: Baseline = "blur"
    _cache: int = field(default=0, init=False)


@dataclass
class Truck(Machine):
    """A truck.

    Args:
        load: in kilograms.
        wheels: number of wheels, with the trailer's.
    """

    load: float = 0.0


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (Annotated[int, Ge(1)] | None, "a whole number of at least 1, or None"),
        (Annotated[float, Ge(0), Lt(1)], "a number of at least 0 and below 1"),
        (int | tuple[int, int], "a whole number or two whole numbers"),
        (tuple[Annotated[float, Gt(0)], ...], "a list of numbers above 0"),
        (Sequence[nn.Module | str], "a list of Modules or texts"),
        (Literal["a", "b"] | Callable[[Tensor], Tensor], "one of a, b or a callable"),
        (Spring | float | None, "a Spring, a number, or None"),
        (Baseline, "a text, a number, a Tensor or a callable"),
    ],
)
def test_expected_values_are_described_in_words(annotation: Any, words: str) -> None:
    assert Setting("x", annotation).expected == words


def test_settings_are_the_fields_of_the_constructor() -> None:
    settings = settings_of(Truck)
    assert list(settings) == ["wheels", "spring", "sides", "paint", "shares", "background", "load"]
    assert settings["wheels"].default == 4
    assert settings["spring"].default == Spring()
    assert settings["wheels"].help == "number of wheels, with the trailer's."
    assert settings["spring"].help == "the spring, or a fixed strength."
    assert settings_of(Spring)["strength"].help == "in newtons per metre, above 0."
    assert settings_of(Spring)["strength"].unit == "N/m"
    assert Setting("x", int).default is REQUIRED


@pytest.mark.parametrize(
    ("setting", "plain", "value"),
    [
        ("wheels", 6, 6),
        ("spring", 3, 3),
        ("spring", {"strength": 5}, Spring(5)),
        ("spring", {"kind": "spring"}, Spring()),
        ("spring", {"kind": "stiff_spring", "damping": 0.25}, StiffSpring(damping=0.25)),
        ("sides", [3, 4], (3, 4)),
        ("sides", "none", None),
        ("shares", [0.1, 0.2], (0.1, 0.2)),
        ("background", {"kind": "median_blur", "blur": {"sigma": 3.0}}, fm.MedianBlur(blur=fm.Blur(sigma=3.0))),
        ("background", "none", "none"),
    ],
)
def test_a_plain_form_stands_for_a_value(setting: str, plain: Any, value: Any) -> None:
    assert settings_of(Machine)[setting].from_plain(plain) == value


@pytest.mark.parametrize(
    ("setting", "plain", "message"),
    [
        ("wheels", 0, "wheels is 0; give a whole number of at least 1"),
        ("wheels", True, "wheels is True; give a whole number of at least 1"),
        ("wheels", 2.5, "wheels is 2.5; give a whole number of at least 1"),
        ("wheels", "none", "wheels is 'none'; give a whole number of at least 1"),
        ("spring", float("nan"), "spring is nan; give a Spring or a number; in files, a table of kind spring or stiff_spring"),
        ("spring", {"kind": "rope"}, "spring is a table of kind 'rope'; give one of the kinds spring, stiff_spring"),
        ("spring", {"kind": ["spring"]}, "spring is a table of kind ['spring']; give one of the kinds spring, stiff_spring"),
        ("spring", {"strength": 0}, "strength is 0; give a number above 0"),
        ("spring", {"strenght": 1}, "spring has no setting 'strenght'; did you mean strength?"),
        ("sides", {"kind": "spring"}, "sides is a table of kind 'spring'; give a whole number, two whole numbers, or None"),
        ("sides", [1, 2, 3], "sides is (1, 2, 3); give a whole number, two whole numbers, or None"),
        ("paint", "green", "paint is 'green'; give one of red, blue, or None"),
        ("shares", [0.5, 1.0], "shares is (0.5, 1.0); give a list of numbers above 0 and below 1"),
    ],
)
def test_a_wrong_plain_form_is_refused(setting: str, plain: Any, message: str) -> None:
    with pytest.raises(SettingError) as refused:
        settings_of(Machine)[setting].from_plain(plain)
    assert str(refused.value) == message
    assert refused.value.setting == setting


@pytest.mark.parametrize(
    ("setting", "text", "plain"),
    [
        ("wheels", "6", 6),
        ("spring", "0.5", 0.5),
        ("spring", '{kind = "stiff_spring", damping = 0.25}', {"kind": "stiff_spring", "damping": 0.25}),
        ("sides", "14x20", [14, 20]),
        ("sides", "14,20", [14, 20]),
        ("sides", "[14, 20]", [14, 20]),
        ("sides", "none", "none"),
        ("paint", "red", "red"),
        ("background", "grey", "grey"),
        ("background", "0.5", 0.5),
        ("shares", "0.1, 0.2", [0.1, 0.2]),
    ],
)
def test_a_text_is_read_by_the_type_of_the_setting(setting: str, text: str, plain: Any) -> None:
    assert settings_of(Machine)[setting].from_text(text) == plain


def test_a_text_of_no_value_is_refused() -> None:
    with pytest.raises(SettingError, match="wheels is 'many'; give a whole number of at least 1"):
        settings_of(Machine)["wheels"].from_text("many")


def test_settings_of_a_default_object_are_found_by_either_name() -> None:
    strength = settings_of(Spring)["strength"]
    assert find_setting(Machine, "strength")[-1] == find_setting(Machine, "spring.strength")[-1] == strength
    assert find_setting(Machine, "colour") == [settings_of(Machine)["paint"]]
    assert plain_settings(Machine, {"strength": 3, "colour": "red"}) == {"spring": Spring(3), "paint": "red"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"wheel": 3}, "machine has no setting 'wheel'; did you mean wheels?"),
        ({"q": 3}, "machine has no setting 'q'; its settings are background, paint, shares, sides, spring, wheels"),
        ({"strength": 3, "spring.strength": 4}, "machine has 'spring.strength' twice; give it once"),
        ({"paint": "red", "colour": "red"}, "machine has 'colour' twice; give it once"),
        ({"strength": 3, "spring": 4}, "machine has 'spring' and strength of it; give one of the two"),
    ],
)
def test_unknown_and_repeated_settings_are_refused(given: Mapping[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as refused:
        plain_settings(Machine, given, "machine")
    assert str(refused.value) == message


def test_settings_of_the_run_are_marked() -> None:
    marked = [setting.name for setting in settings_of(fm.IGOS).values() if setting.of_run]
    assert marked == ["chunk_size", "seed", "autocast"]


def test_an_instance_is_checked() -> None:
    check_settings(Machine(nn.Identity()))
    with pytest.raises(SettingError, match="wheels is 0; give a whole number of at least 1"):
        check_settings(Machine(nn.Identity(), wheels=0))


def test_a_docstring_describes_the_fields_of_the_bases() -> None:
    complete_docstring(Truck)
    assert Truck.__doc__ is not None
    lines = Truck.__doc__.splitlines()
    assert lines[:3] == ["A truck.", "", "Args:"]
    assert lines[3:6] == [
        "    wheels: number of wheels, with the trailer's.",
        "    spring: the spring, or a fixed strength.",
        "    load: in kilograms.",
    ]
    initial = Machine.__doc__
    complete_docstring(Machine)
    assert inspect.cleandoc(initial or "") == Machine.__doc__, "an own section stays, and what stands behind it"
    complete_docstring(StiffSpring)
    assert StiffSpring.__doc__ == "A stiff spring.\n\nArgs:\n    strength: in newtons per metre, above 0.\n"


@pytest.mark.parametrize("name", METHODS)
def test_type_hints_of_every_method_can_be_evaluated(name: str) -> None:
    kind = METHODS[name].explainer
    hints = typing.get_type_hints(kind, include_extras=True)
    assert set(settings_of(kind)) <= set(hints)
    assert not any(setting.annotation is Any for setting in settings_of(kind).values())


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_a_method_is_described_where_help_shows_it(name: str) -> None:
    kind = METHODS[name].explainer
    helps = described(kind)
    public = [each.name for each in fields(kind) if each.init and not each.name.startswith("_")]
    assert [each for each in public if not helps.get(each)] == []
    text = inspect.getdoc(kind) or ""
    assert [each for each in public if f"    {each}: " not in text] == []


@pytest.mark.parametrize("name", METHODS)
def test_the_defaults_of_every_method_fit_their_own_types(name: str) -> None:
    check_settings(METHODS[name].explainer(nn.Identity()))


def test_explainers_are_made_from_plain_settings() -> None:
    model = nn.Identity()
    igos = explainer_from("igos", model, {"lambda1": 0.5, "resolution": [4, 5], "upper": 100.0, "autocast": "bfloat16"})
    assert igos.settings["lambda1"] == 0.5
    assert igos.settings["resolution"] == [4, 5]
    assert igos.settings["step"]["upper"] == 100.0
    assert igos.autocast is torch.bfloat16
    smooth = explainer_from("smoothgrad", model, {"method": "gradient_times_input"})
    assert smooth.settings["method"]["name"] == "GradientTimesInput"
    descent = explainer_from("rank_descent", model, {"prior": {"kind": "gradcam", "relu": False}})
    assert descent.settings["prior"] == "GradCAM"
    assert explainer_from("rank_descent", model, {"prior": "expected_fusedcam"}).settings["prior"] == "expected_fusedcam"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("igos", {"lamda1": 0.5}, "igos has no setting 'lamda1'; did you mean lambda1 or lambda2?"),
        ("igos", {"autocast": "quarter"}, "autocast is 'quarter'; give a dtype, or None"),
        ("smoothgrad", {"method": "igos"}, "method is .*; give a GradientExplainer, or None"),
        (
            "learned_mask",
            {},
            "learned_mask needs a network that was trained for the model; 'faithmap train-masker' makes one; give its file",
        ),
    ],
)
def test_plain_settings_that_do_not_fit_a_method_are_refused(name: str, settings: Mapping[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        explainer_from(name, nn.Identity(), settings)


def test_assignments_go_to_the_methods_that_have_them() -> None:
    texts = ["iterations=20", "igos.lambda1 = 0.5", "target_layer=features", "score=logit", "prior=gradcam"]
    assert assigned(texts, ["igos", "rank_descent", "gradcam"]) == {
        "igos": {"iterations": 20, "lambda1": 0.5, "score": "logit"},
        "rank_descent": {"iterations": 20, "score": "logit", "prior": "gradcam"},
        "gradcam": {"target_layer": "features", "score": "logit"},
    }
    name = "contrastive_excitation_backprop"
    assert assigned(["c_mwp.relu=false"], [name]) == {name: {"relu": False}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lambda1", "'lambda1' sets nothing; give NAME=VALUE, such as lambda1=0.5"),
        ("lamda1=2", "igos has no setting 'lamda1'; did you mean lambda1 or lambda2?"),
        ("lambda1=many", "lambda1 is 'many'; give a number"),
        ("igos.samples=3", "igos has no setting 'samples'"),
    ],
)
def test_assignments_that_fit_no_method_are_refused(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        assigned([text], ["igos", "gradcam"])


def test_settings_are_read_without_pydantic() -> None:
    code = "import faithmap.methods.registry, sys; print({'torch', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_input_is_a_target_layer_in_every_form() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(2, 1, bias=False))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    for form in ("input", ["input"]):
        explain = explainer_from("excitation_backprop", model, {"target_layer": form})
        assert explain(torch.tensor([[[[1.0, 3.0]]]]), lambda output: output[:, 0]).diagnostics[0]["target_layer"] == ["input"]
