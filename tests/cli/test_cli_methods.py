"""``faithmap methods`` lists the methods, and all settings of one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

import faithmap as fm
from faithmap.methods.registry import METHODS
from faithmap.methods.settings import settings_of


def test_methods_are_listed_with_passes_source_and_other_names(faith: Callable[..., Any]) -> None:
    run = faith("methods")
    assert run.code == 0
    lines = run.out.splitlines()
    for name, method in METHODS.items():
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        assert method.passes in line
        assert method.source in line
        assert line.endswith(method.summary + "".join(f"; also {other}" for other in method.also))


@pytest.mark.parametrize("name", ["igos", "expected_fusedcam", "lime"])
def test_a_method_is_shown_with_all_its_settings(faith: Callable[..., Any], name: str) -> None:
    if "captum" in METHODS[name].needs:
        pytest.importorskip("captum")
    run = faith("methods", name)
    assert run.code == 0
    listed = re.findall(r"(?m)^  ([\w.]+) = ", run.out)
    assert [each for each in listed if "." not in each] == list(settings_of(METHODS[name].explainer))


def test_settings_are_shown_with_default_range_unit_and_help(faith: Callable[..., Any]) -> None:
    igos = faith("methods", "igos").out
    assert "\n  lambda1 = 0.1\n      (a number of at least 0, or None)\n      weight of the removed area" in igos
    assert "\n  noise_std = 0.02\n      (a number of at least 0, pixel values)\n" in igos
    assert "\n  step.upper = 1000.0\n" in igos
    assert "in Python only" in faith("methods", "gradcam").out


def test_another_name_of_a_method_is_accepted(faith: Callable[..., Any]) -> None:
    assert faith("methods", "mwp").out.startswith("excitation_backprop (excitation backprop): ")


def test_an_unknown_method_is_refused(faith: Callable[..., Any]) -> None:
    run = faith("methods", "igoss")
    assert run.code == 2
    assert "did you mean igos" in run.complaint


def test_methods_are_printed_as_json(faith: Callable[..., Any]) -> None:
    found = json.loads(faith("methods", "--json").out)
    assert [method["name"] for method in found] == list(METHODS)
    igos = json.loads(faith("methods", "igos", "--json").out)
    assert igos["passes"] == METHODS["igos"].passes
    lambda1 = next(setting for setting in igos["settings"] if setting["name"] == "lambda1")
    assert lambda1["default"] == str(fm.IGOS.DEFAULT_LAMBDAS[0])
    assert lambda1["help"].startswith("weight of the removed area")
