"""The registry's facts about a method agree with the method: passes, needs, names."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import faithmap as fm
from faithmap.methods.base import Passes
from faithmap.methods.masks.masker import Masker
from faithmap.methods.registry import ALIASES, METHODS, assigned, explainer_from
from faithmap.methods.settings import SettingError

IMAGE = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
CHANNELS = 5
ROOT = Path(__file__).parents[2]


class Counting(nn.Module):
    """Counts the images that it is given."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        stages = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU(), nn.AvgPool2d(7), nn.Flatten(), nn.Linear(16 * CHANNELS, 3)
        self.stages = nn.Sequential(*stages)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += len(x)
        output: Tensor = self.stages(x)
        return output


LINEAR_IN = {"mask": "iterations", "extremal": "iterations", "rise": "masks", "lime": "samples", "kernelshap": "samples"}
"""Of methods that take hundreds of passes: the setting that the number of passes is linear in."""

VARYING = ("igos", "igos_plus")
"""Methods whose number of passes depends on the image."""


def needed(name: str, **settings: Any) -> dict[str, Any]:
    """Settings with the network that a method cannot do without."""
    return {"masker": Masker(3), **settings} if "masker" in METHODS[name].needs else settings


def measured_passes(name: str, **settings: Any) -> Passes:
    """Passes that one image takes, in the diagnostics; forward passes are counted by the model as well."""
    model = Counting()
    explain = METHODS[name].explainer(model, **needed(name, **settings))
    explain(IMAGE)  # target layers are searched for once, which takes passes of its own
    model.count = 0
    diagnostics = explain(IMAGE).diagnostics[0]
    assert diagnostics["forward_passes"] + diagnostics.get("advice_passes", 0) == model.count
    return Passes(diagnostics["forward_passes"], diagnostics["backward_passes"])


def counted_at_the_defaults(name: str) -> Passes:
    if name not in LINEAR_IN:
        return measured_passes(name)
    setting = LINEAR_IN[name]
    default = METHODS[name].explainer(Counting()).settings[setting]
    start = 2 if setting == "iterations" else 60  # LIME needs more samples than parts
    few, more = (measured_passes(name, **{setting: count}) for count in (start, start + 1))
    return Passes(*(a + (b - a) * (default - start) for a, b in zip(few, more, strict=True)))


def in_words(name: str, passes: Passes) -> str:
    """As the registry writes them."""
    forward, backward = passes
    if name in ("scorecam", "ablationcam"):
        return f"1 + C forward + {backward} backward for C channels" if forward == 1 + CHANNELS else f"{forward} forward"
    notes = {
        "rise": f", {forward + 4000} forward for a ResNet",
        "occlusion": " for 224x224 pixels",
        "learned_mask": ", and 1 forward of the small network",
    }
    return f"{forward} forward + {backward} backward{notes.get(name, '')}"


def skip_without_captum(name: str) -> None:
    if "captum" in METHODS[name].needs:
        pytest.importorskip("captum")


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.parametrize("name", [name for name in METHODS if name not in (*VARYING, "occlusion")])
def test_the_registry_has_the_passes_that_are_counted(name: str) -> None:
    skip_without_captum(name)
    assert in_words(name, counted_at_the_defaults(name)) == METHODS[name].passes


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.parametrize("name", [*VARYING, "occlusion"])
def test_diagnostics_count_the_passes_of_the_model(name: str) -> None:
    measured_passes(name)


@pytest.mark.parametrize("name", METHODS)
def test_the_estimate_of_passes_is_the_registry_s(name: str) -> None:
    image = torch.zeros(1, 3, 224, 224) if name == "occlusion" else IMAGE
    estimate = METHODS[name].explainer(Counting(), **needed(name)).passes(image)
    assert estimate is not None
    if name in VARYING:
        forward, backward = map(int, re.findall("[0-9]+", METHODS[name].passes))
        assert forward <= estimate.forward
        assert backward <= estimate.backward
    else:
        assert in_words(name, estimate) == METHODS[name].passes


@pytest.mark.parametrize("name", VARYING)
def test_passes_that_vary_are_the_measured_mean(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    forward, backward = importlib.import_module("method_costs").measured(name)
    assert METHODS[name].passes == f"about {forward} forward + {backward} backward"


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_needs_no_gradient_computes_none(name: str, untouched: Callable[[nn.Module], nn.Module]) -> None:
    if {"gradient", "masker", "captum"} & set(METHODS[name].needs):
        return
    small: dict[str, Any] = {"rise": {"masks": 50}, "occlusion": {"patch": 14, "stride": 7}}.get(name, {})

    class Blind(Counting):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x)

    method = METHODS[name].explainer(untouched(Blind()), **small)
    assert torch.isfinite(method(IMAGE, 0, baseline="grey").heatmap).all()


NEW_METHOD = """
import torch
from faithmap.cli import main
from faithmap.methods.registry import METHODS
assert main(["explain", "--help"]) == main(["methods"]) == 0
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
print(METHODS["log_gradient"].explainer(model)(torch.ones(1, 1, 2, 2)).method)
"""


def test_a_method_is_one_file_and_one_line(tmp_path: Path) -> None:
    """Those of docs/methods/adding.md, in a copy of the library."""
    text = (ROOT / "docs" / "methods" / "adding.md").read_text()
    shutil.copytree(Path(fm.__file__).parent, tmp_path / "faithmap", ignore=shutil.ignore_patterns("__pycache__", "samples"))
    methods = tmp_path / "faithmap" / "methods"
    first = text.split("```python\n")[1].split("```")[0]
    code = "".join(example.source for example in doctest.DocTestParser().get_examples(first))
    (methods / "gradients" / "logarithm.py").write_text(code)
    (line,) = (line for line in text.splitlines() if line.startswith('"log_gradient": MethodInfo('))
    registry = (methods / "registry.py").read_text()
    (methods / "registry.py").write_text(
        registry.replace('    "occlusion": MethodInfo(', f'    {line}\n    "occlusion": MethodInfo(')
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "300"}
    done = subprocess.run([sys.executable, "-c", NEW_METHOD], capture_output=True, text=True, env=environment, check=True)
    assert "contrastive_excitation_backprop, log_gradient, occlusion" in " ".join(done.stdout.replace("│", " ").split())
    assert "the gradient of log p\n" in done.stdout
    assert done.stdout.endswith("LogGradient\n")


def test_a_preset_stands_for_its_settings_and_others_replace_single_ones() -> None:
    made = explainer_from("igos", nn.Identity(), {"preset": "paper", "resolution": [7, 112], "iterations": 3})
    expected = {**fm.IGOS.paper((7, 112)), "iterations": 3}
    assert {name: getattr(made, name) for name in expected} == expected
    assert assigned(["preset=paper"], ["igos", "gradcam"]) == {"igos": {"preset": "paper"}, "gradcam": {}}


@pytest.mark.parametrize(
    ("method", "preset", "message"),
    [
        ("gradcam", "paper", "gradcam has no preset 'paper'; methods with presets are igos"),
        ("igos", "public", "igos has no preset 'public'; its presets are paper"),
    ],
)
def test_a_preset_that_a_method_does_not_have_is_named(method: str, preset: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        explainer_from(method, nn.Identity(), {"preset": preset})


@pytest.mark.parametrize(("name", "preset"), [(name, preset) for name, m in METHODS.items() for preset in m.presets])
def test_every_preset_makes_a_method(name: str, preset: str) -> None:
    assert explainer_from(name, nn.Identity(), {"preset": preset}).settings


def test_other_names_are_aliases_of_methods() -> None:
    assert dict(ALIASES) == {"mwp": "excitation_backprop", "c_mwp": "contrastive_excitation_backprop"}


def test_each_method_has_a_title_of_its_own() -> None:
    """Pictures of several methods are labelled by title: two methods with one title would be drawn as one."""
    titles = [method.explainer.title for method in METHODS.values()]
    assert len(set(titles)) == len(METHODS)
