"""The command line called as its users call it, with a classifier that takes milliseconds and images of known content.

``tests/cli`` and ``tests/studies`` use these fixtures.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import pytest
import torch
from PIL import Image
from study_tools import replace_load
from torch import Tensor, nn

import faithmap
from faithmap.cli import main
from faithmap.studies.settings import ExplainSettings

WriteImage: TypeAlias = Callable[..., Path]
ListFiles: TypeAlias = Callable[[], dict[str, bytes | None]]
Loads: TypeAlias = list[tuple[str, Path | None, str | None]]


@dataclass(frozen=True)
class CliOutcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The error message: one line on stderr, and nothing on stdout."""
        assert self.code == 2
        assert self.out == ""
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("error: ")
        assert "Traceback" not in self.err
        return self.err.removeprefix("error: ").rstrip("\n")


Cli: TypeAlias = Callable[..., CliOutcome]


class Spots(nn.Module):
    """Three classes: the middle is bright, the left side is bright, neither."""

    def __init__(self) -> None:
        super().__init__()
        self.eye = nn.ReLU()  # of pixels, which are not negative

    def forward(self, x: Tensor) -> Tensor:
        grey = self.eye(x).mean(dim=1)
        middle, left = grey[:, 5:11, 5:11].mean(dim=(1, 2)), grey[:, :, :4].mean(dim=(1, 2))
        return torch.stack([20 * (middle - 0.5), 20 * (left - 0.5), torch.full_like(left, 1.5)], dim=1)


def tiny_model() -> faithmap.Classifier:
    labels = ["tabby cat", "tiger cat", "sheep dog"]
    return faithmap.Classifier(Spots(), labels=labels, geometry=faithmap.Geometry(16, (16, 16)), name="spots", digest="abc")


@pytest.fixture(autouse=True)
def tiny(one_thread: None) -> None:
    """Every test here has a tiny model."""


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    """Replaces every model by the tiny one; returns the models that were loaded: name, weights and device."""
    loaded: Loads = []

    def load(name: str, *, weights: Path | None = None, device: str | None = None, outputs: Any = None) -> faithmap.Classifier:
        loaded.append((name, weights, device))
        return tiny_model()

    replace_load(monkeypatch, load)
    return loaded


@pytest.fixture
def sketches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes empty files in place of the pictures of ``explain``, which take seconds to draw."""

    def draw(folder: Path, found: object, model: object, settings: ExplainSettings) -> None:
        for name in ("overlay.png", "panel.png", "strip.png", f"deletion_insertion.{settings.animation}"):
            (folder / name).touch()

    monkeypatch.setattr("faithmap.studies.explain.draw_pictures", draw)


@pytest.fixture
def photo(tmp_path: Path) -> WriteImage:
    """Writes an image with a bright middle under a name; its noise depends on a seed."""

    def write(name: str = "cat.png", seed: int = 0, size: tuple[int, int] = (20, 24)) -> Path:
        pixels = torch.rand(*size, 3, generator=torch.Generator().manual_seed(seed)) * 0.5
        middle = tuple(slice(side // 3, -(side // 3)) for side in size)
        pixels[middle] += 0.5
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.mul(255).byte().numpy()).save(path, format="PNG")
        return path

    return write


@pytest.fixture
def faith(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs ``faithmap`` with these arguments in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> CliOutcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return CliOutcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def tree(tmp_path: Path) -> ListFiles:
    """Lists all files and folders, hidden ones too, with the content of the files."""

    def look() -> dict[str, bytes | None]:
        return {str(path.relative_to(tmp_path)): path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}

    return look


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def strict_json(text: str) -> dict[str, Any]:
    """A JSON object; NaN and Infinity are errors."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


def record_in(folder: Path) -> dict[str, Any]:
    """The content of result.json."""
    return strict_json((folder / "result.json").read_text())
