"""The commands in the tables of docs/papers.md run, each on five small images.

The images have 32 pixels per side, and every resolution of a command or a ready-made table is divided by seven, as 224 is.
"""

from __future__ import annotations

import re
import runpy
import shlex
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest
import torch
from bench.tiny_bench import rows
from PIL import Image
from study_tools import replace_load

from faithmap.bench.spec import ready_names, ready_text
from faithmap.cli import main
from faithmap.warning_types import FaithmapWarning

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line[1:-1].split("|")]
    for line in (ROOT / "docs" / "papers.md").read_text().splitlines()
    if line.startswith(("| Table", "| Figure"))
]
COMMANDS = [command.strip("`") for _, command, *_ in ROWS if command]

MODEL = """
import torch
from torch import nn

import faithmap


def make():
    torch.manual_seed(0)
    stages = [(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU()) for a, b in ((3, 4), (4, 6), (6, 8), (8, 8))]
    net = nn.Sequential(*(part for stage in stages for part in stage), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    geometry = faithmap.Geometry(32, (32, 32))
    return faithmap.Classifier(net, labels=["cat", "dog", "cow"], geometry=geometry, name="small")
"""

FEW = {"igos": "iterations=1", "mask": "iterations=2", "rise": "masks=8", "scorecam": None}
"""Settings with which a method takes milliseconds."""

OPTIONS = {
    "figure_landscape.py": ["--steps", "2"],
    "figure_failure.py": ["--resolutions", "4", "8"],
    "cam_infidelity.py": ["--draws", "3"],
}
"""What makes a script fast."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """A folder with five images and their labels, where every model is a small one and every ready-made table is small."""
    (tmp_path / "small_model.py").write_text(MODEL)
    photos = tmp_path / "photos"
    photos.mkdir()
    generator = torch.Generator().manual_seed(0)
    for i in range(5):
        pixels = torch.rand(40, 36, 3, generator=generator) * 0.5
        pixels[8 + i : 24 + i, 10:26, i % 3] += 0.5
        Image.fromarray(pixels.mul(255).byte().numpy()).save(photos / f"{i}.png")
    (photos / "labels.csv").write_text("file,imagenet_index\n" + "".join(f"{i}.png,{i % 3}\n" for i in range(5)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "small_model", raising=False)
    replace_load(monkeypatch, lambda *_, **__: import_module("small_model").make())
    texts = {name: small_table(ready_text(name)) for name in ready_names()}
    monkeypatch.setattr("faithmap.bench.spec.ready_text", texts.__getitem__)
    return tmp_path


def small_table(text: str) -> str:
    """A ready-made table with the small model, small resolutions, and few iterations, masks and draws.

    >>> small_table("resolution = [224, 28, 14, 7]")
    'resolution = [32, 4, 2]'
    """
    small = '[[models]]\nname = "small"\nfactory = "small_model:make"\n\n'
    text = re.sub(r"(\[\[models\]\]\n(\w+ = .*\n)+\n*)+", small, text)
    text = re.sub(r"\b(masks|draws) = \d+", r"\1 = 4", text)
    text = re.sub(r"resolution = \[(.*?)\]", lambda found: f"resolution = [{sevenths(found[1])}]", text)
    text = re.sub(r"resolution = (\d+)", lambda found: f"resolution = {sevenths(found[1])}", text)
    return "[[".join(map(with_few_iterations, text.split("[[")))


def with_few_iterations(block: str) -> str:
    """A block of a table; of a method that iterates, with two iterations.

    >>> with_few_iterations('methods]]\\nname = "mask"\\nsettings = { lambda1 = 1.0 }')
    'methods]]\\nname = "mask"\\nsettings = { iterations = 2, lambda1 = 1.0 }'
    """
    if not re.match(r'methods\]\]\nname = "(igos|mask|rank_descent)"', block):
        return block
    if "settings = { " in block:
        return block.replace("settings = { ", "settings = { iterations = 2, ")
    return f"{block.rstrip()}\nsettings = {{ iterations = 2 }}\n\n"


def sevenths(numbers: str) -> str:
    """Resolutions of at least 2, each once."""
    return ", ".join(dict.fromkeys(str(max(2, int(number) // 7)) for number in numbers.split(",")))


def small_command(command: str) -> list[str]:
    """The arguments of a study with small resolutions, and settings with which its methods are fast.

    >>> small_command("faithmap compare photos --methods igos@224,gradcam@14")
    ['compare', 'photos', '--methods', 'igos@32,gradcam@2', '--set', 'igos.iterations=1']
    """
    text = re.sub(r"(?<=@)\d+|(?<=--resolution )\d+", lambda found: sevenths(found[0]), command)
    if text.startswith("faithmap compare") and "--resolution" not in text and not re.search(r"@", text):
        text += " --resolution 4"
    few = [f"{name}.{setting}" for name, setting in FEW.items() if setting and re.search(rf"[ ,]{name}\b", text)]
    return [*shlex.split(text)[1:], *(part for setting in few for part in ("--set", setting))]


@pytest.mark.sweep
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_runs_on_five_images(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, first, *rest = shlex.split(command)
    before_it = set(folder.rglob("*"))
    if program == "python":
        monkeypatch.setattr(sys, "argv", [first, *rest, *OPTIONS[Path(first).name]])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FaithmapWarning)
            runpy.run_path(str(ROOT / first), run_name="__main__")
    else:
        assert main([first, *rest] if first == "bench" else small_command(command)) == 0
    made = {path.relative_to(folder) for path in set(folder.rglob("*")) - before_it}
    if first in ("explain", "compare", "saturation", "adversarial"):
        assert sum(path.name == "result.json" for path in made) == 5, "one result for each image"
    if first == "bench":
        results = rows(folder / "faithmap-bench" / rest[1])
        assert {row["index"] for row in results} == set(range(5))
        assert [row["error"] for row in results if row["error"] is not None] == []
    else:
        assert any(path.suffix == ".png" for path in made)


def test_every_table_and_figure_of_both_papers_is_a_row() -> None:
    """I-GOS has 6 tables and 15 figures, Expected Grad-CAM 8 tables and 15 figures."""
    igos = next(i for i, row in enumerate(ROWS) if row[0] == "Tables 1 to 8")
    for of_paper, tables in ((ROWS[:igos], 6), (ROWS[igos:], 8)):
        assert numbered("Table", of_paper) == set(range(1, tables + 1))
        assert numbered("Figure", of_paper) == set(range(1, 16))


def numbered(kind: str, of_paper: list[list[str]]) -> set[int]:
    """The numbers of the tables or figures that rows begin with."""
    found: set[int] = set()
    for title, *_ in of_paper:
        if match := re.match(rf"{kind}s? (\d+)[a-z]?(?: (to|and) (\d+))?", title):
            first, last = int(match[1]), int(match[3] or match[1])
            found |= set(range(first, last + 1))
    return found


def test_a_row_without_a_command_says_why() -> None:
    assert all(len(row) == 4 for row in ROWS)
    assert all(row[3] for row in ROWS if not row[1])


def test_every_command_is_one_of_this_project() -> None:
    assert all(command.startswith(("faithmap ", "python benchmarks/")) for command in COMMANDS)
