import subprocess
import sys

import pytest
import torch
from PIL import Image

from faithmap.data import read_image
from faithmap.viz import save_figure, save_image, show
from faithmap.viz.figure import to_bytes


def test_all_levels_survive_a_file(tmp_path):
    levels = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16) / 255
    path = tmp_path / "levels.png"
    save_image(levels, path)
    assert torch.equal(read_image(path), levels)


def test_bytes_are_rounded_to_the_nearest():
    image = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 254.6 / 255, 1.0]).view(1, 3, 1, 2)
    assert to_bytes(image).tolist() == [[[0, 1, 255], [0, 254, 255]]]


def test_saved_channels_are_red_green_blue(tmp_path):
    save_image(torch.tensor([1.0, 0.0, 0.2]).view(1, 3, 1, 1), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as file:
        assert (file.mode, file.getpixel((0, 0))) == ("RGB", (255, 0, 51))


def test_grey_images_are_saved_as_rgb(tmp_path):
    save_image(torch.full((1, 1, 2, 2), 0.4), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as file:
        assert file.getpixel((1, 1)) == (102, 102, 102)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(2, 3, 4, 4), "image holds 2 images"),
        (torch.zeros(3, 4, 4), "image has shape"),
        (torch.zeros(1, 4, 4, 4), "image has shape"),
        (torch.full((1, 3, 2, 2), 1.5), "range from 1.5 to 1.5"),
        (torch.full((1, 3, 2, 2), torch.nan), "range from nan"),
    ],
)
def test_images_that_cannot_be_saved(tmp_path, image, message):
    with pytest.raises(ValueError, match=message):
        save_image(image, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_figure_is_the_same_file_twice(tmp_path, image, why, proof):
    for name in ("a.png", "b.png"):
        save_figure(show(image, why, proof), tmp_path / name, dpi=60)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as file:
        assert set(file.info) == {"dpi"}


def test_dpi_is_that_of_the_file(tmp_path, image, why):
    figure = show(image, why)
    width, height = figure.get_size_inches()
    save_figure(figure, tmp_path / "a.png", dpi=50)
    with Image.open(tmp_path / "a.png") as file:
        assert file.size == (int(width * 50), int(height * 50))
        assert file.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["a.jpg", "a", "png"])
def test_only_png_is_written(tmp_path, image, why, name):
    with pytest.raises(ValueError, match=r"does not end in \.png"):
        save_figure(show(image, why), tmp_path / name)
    with pytest.raises(ValueError, match=r"does not end in \.png"):
        save_image(image, tmp_path / name)


def test_notebook_shows_a_figure_by_itself(image, why):
    assert show(image, why)._repr_png_().startswith(b"\x89PNG")


def test_nothing_global_is_touched(tmp_path):
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
