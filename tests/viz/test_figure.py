from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from faithmap.data import read_image
from faithmap.explanation import Explanation
from faithmap.metrics.functional import DeletionInsertion
from faithmap.viz import save_figure, save_image, show
from faithmap.viz.figure import InlineFigure, to_bytes


def test_all_levels_are_preserved_by_a_file(tmp_path: Path) -> None:
    levels = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16) / 255
    path = tmp_path / "levels.png"
    save_image(levels, path)
    assert torch.equal(read_image(path), levels)


def test_bytes_are_rounded_to_the_nearest() -> None:
    image = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 254.6 / 255, 1.0]).view(1, 3, 1, 2)
    assert to_bytes(image).tolist() == [[[0, 1, 255], [0, 254, 255]]]


def test_saved_channels_are_red_green_blue(tmp_path: Path) -> None:
    save_image(torch.tensor([1.0, 0.0, 0.2]).view(1, 3, 1, 1), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as file:
        assert (file.mode, file.getpixel((0, 0))) == ("RGB", (255, 0, 51))


def test_grey_images_are_saved_as_rgb(tmp_path: Path) -> None:
    save_image(torch.full((1, 1, 2, 2), 0.4), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as file:
        assert file.getpixel((1, 1)) == (102, 102, 102)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(2, 3, 4, 4), "image has 2 images"),
        (torch.zeros(3, 4, 4), "image has shape"),
        (torch.zeros(1, 4, 4, 4), "image has shape"),
        (torch.full((1, 3, 2, 2), 1.5), "range from 1.5 to 1.5"),
        (torch.full((1, 3, 2, 2), torch.nan), "range from nan"),
    ],
)
def test_images_that_cannot_be_saved(tmp_path: Path, image: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_image(image, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_figure_is_the_same_file_twice(
    tmp_path: Path, image: Tensor, explanation: Explanation, evidence: DeletionInsertion
) -> None:
    for name in ("a.png", "b.png"):
        save_figure(show(image, explanation, evidence), tmp_path / name, dpi=60)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as file:
        assert set(file.info) == {"dpi"}


def test_dpi_is_that_of_the_file(tmp_path: Path, image: Tensor, explanation: Explanation) -> None:
    figure = show(image, explanation)
    width, height = figure.get_size_inches()
    save_figure(figure, tmp_path / "a.png", dpi=50)
    with Image.open(tmp_path / "a.png") as file:
        assert file.size == (int(width * 50), int(height * 50))
        assert file.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["a.jpg", "a", "png"])
def test_only_png_is_written(tmp_path: Path, image: Tensor, explanation: Explanation, name: str) -> None:
    with pytest.raises(ValueError, match=r"does not end in \.png"):
        save_figure(show(image, explanation), tmp_path / name)
    with pytest.raises(ValueError, match=r"does not end in \.png"):
        save_image(image, tmp_path / name)


def test_notebook_displays_a_figure(image: Tensor, explanation: Explanation) -> None:
    figure = show(image, explanation)
    assert isinstance(figure, InlineFigure)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_pyplot_and_rcparams_are_not_touched(tmp_path: Path) -> None:
    program = """
import sys, matplotlib, torch
before = dict(dict.items(matplotlib.rcParams))  # asking for the backend itself would import pyplot
from faithmap.explanation import Explanation
from faithmap.viz import save_figure, show
save_figure(show(torch.rand(1, 3, 8, 8), Explanation(torch.rand(1, 4, 4), (8, 8))), sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules, "pyplot was imported"
assert dict(dict.items(matplotlib.rcParams)) == before, "rcParams were changed"
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.png")], check=True)
    assert (tmp_path / "a.png").exists()


def test_viz_loads_neither_methods_nor_metrics() -> None:
    program = "import sys, faithmap.viz; print(*sorted(m for m in sys.modules if m.startswith('faithmap.')))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    packages = {name.split(".")[1] for name in loaded}
    assert "viz" in packages
    assert not packages & {"methods", "metrics", "selection", "bench", "studies"}
