"""What the registry says of a method before it is loaded is so."""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import faithmap as fm
from faithmap.methods.registry import ALIASES, METHODS

IMAGE = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
CHANNELS = 5


class Counting(nn.Module):
    """Counts the images that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        stages = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU(), nn.AvgPool2d(7), nn.Flatten(), nn.Linear(16 * CHANNELS, 3)
        self.stages = nn.Sequential(*stages)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4
        self.shown = 0

    def forward(self, x: Tensor) -> Tensor:
        self.shown += len(x)
        return self.stages(x)


COUNTS = {"mask": "iterations", "extremal": "iterations", "rise": "masks", "lime": "samples", "kernelshap": "samples"}
"""Of methods that take hundreds of passes: the setting that the passes are linear in."""


def passes(name: str, **settings: int) -> tuple[int, int]:
    """Forward and backward passes that an image takes."""
    model = Counting()
    explain = METHODS[name].explainer(model, **settings)
    explain(IMAGE)  # layers are looked for once, which takes passes of its own
    model.shown = 0
    return explain(IMAGE).diagnostics[0]["backward_passes"], model.shown


def passes_at_the_defaults(name: str) -> tuple[int, int]:
    if name not in COUNTS:
        return passes(name)
    setting = COUNTS[name]
    default = METHODS[name].explainer(Counting()).settings[setting]
    start = 2 if setting == "iterations" else 60  # there are more samples than parts
    few, more = (passes(name, **{setting: count}) for count in (start, start + 1))
    return tuple(a + (b - a) * (default - start) for a, b in zip(few, more, strict=True))


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.passes.startswith("about")])
def test_passes_are_those_that_are_taken(name: str) -> None:
    needs, said = METHODS[name].needs, METHODS[name].passes
    if "captum" in needs:
        pytest.importorskip("captum")
    if "masker" in needs:
        assert said == "1 forward, and 1 of the small network"
        return
    backward, forward = passes_at_the_defaults(name)
    if name in ("scorecam", "ablationcam"):
        assert said == f"{forward - CHANNELS} forward, and 1 a channel"
    elif name == "rise":
        assert said == f"{forward} forward, of a ResNet {forward + 4000}"
    elif name == "occlusion":
        assert said == f"{fm.Occlusion(nn.Identity()).cost((224, 224))} forward, of an image of 224x224"
    else:
        assert said == f"{forward} forward" + (f", {backward} backward" if backward else "")


def test_those_of_a_search_are_said_to_be_about() -> None:
    """I-GOS+ takes twice those of I-GOS."""
    said = [METHODS[name].passes for name in ("igos", "igos_plus")]
    one, two = ([int(n) for n in re.findall("[0-9]+", passes)] for passes in said)
    assert two == [2 * n for n in one]
    assert all(passes.startswith("about ") for passes in said)


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_needs_no_gradient_takes_none(name: str, untouched: Callable) -> None:
    if {"gradient", "masker", "captum"} & set(METHODS[name].needs):
        return
    small = {"rise": {"masks": 50}, "occlusion": {"patch": 14, "stride": 7}}.get(name, {})

    class Blind(Counting):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x)

    method = METHODS[name].explainer(untouched(Blind()), **small)
    assert torch.isfinite(method(IMAGE, 0, baseline="grey").heatmap).all()


ASKED = """
import torch
from faithmap.cli import main
from faithmap.methods.registry import METHODS
assert main(["explain", "--help"]) == main(["methods"]) == 0
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
print(METHODS["log_gradient"].explainer(model)(torch.ones(1, 1, 2, 2)).method)
"""


def test_a_method_is_one_file_and_one_line(tmp_path: Path) -> None:
    """Those of docs/methods/adding.md, in a copy of the library."""
    text = (Path(__file__).parents[2] / "docs" / "methods" / "adding.md").read_text()
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
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, env=environment, check=True)
    assert "contrastive_excitation_backprop, log_gradient, occlusion" in done.stdout
    assert "the gradient of log p\n" in done.stdout
    assert done.stdout.endswith("LogGradient\n")


def test_other_names_stand_for_methods() -> None:
    assert dict(ALIASES) == {"mwp": "excitation_backprop", "c_mwp": "contrastive_excitation_backprop"}
