"""The pictures of a result, drawn for once."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_tools import Cli, WriteImage
from matplotlib.figure import Figure
from PIL import Image

pytestmark = pytest.mark.usefixtures("loads")

QUICK = ("--iterations", 3, "--resolution", 5, "--chunk", 256, "--baseline", "grey")


@pytest.mark.parametrize(("protocol", "suffix"), [("igos", "gif"), ("rise", "webp")])
def test_all_pictures_are_drawn(faith: Cli, photo: WriteImage, tmp_path: Path, protocol: str, suffix: str) -> None:
    photo("cat.png", size=(20, 24))
    run = faith("explain", "cat.png", "--protocol", protocol, "--animation", suffix, *QUICK)
    assert run.code == 0
    folder = tmp_path / "faithmap-results" / "cat"
    pictures = {"overlay.png", "panel.png", "strip.png", f"deletion_insertion.{suffix}"}
    assert {path.name for path in folder.iterdir()} == {*pictures, "heatmap.npy", "result.json"}
    for name in pictures:
        with Image.open(folder / name) as picture:
            picture.load()
            assert (picture.size == (24, 20)) == (name == "overlay.png")
            assert (getattr(picture, "n_frames", 1) > 10) == name.startswith("deletion")


def test_the_animation_can_be_switched_off(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    assert faith("explain", "cat.png", "--no-animation", *QUICK).code == 0
    names = {path.name for path in (tmp_path / "faithmap-results" / "cat").iterdir()}
    assert names == {"overlay.png", "panel.png", "strip.png", "heatmap.npy", "result.json"}


def test_a_constant_map_has_only_a_panel(faith: Cli, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "flat.png")
    run = faith("explain", "flat.png", *QUICK[:-1], "black")
    assert run.code == 0
    assert "one value everywhere" in run.err
    names = {path.name for path in (tmp_path / "faithmap-results" / "flat").iterdir()}
    assert names == {"panel.png", "heatmap.npy", "result.json"}


def test_a_picture_of_one_row_has_all_pictures(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("line.png")
    with Image.open(tmp_path / "line.png") as picture:
        picture.crop((0, 10, 24, 11)).save(tmp_path / "line.png")
    assert faith("explain", "line.png", "--no-animation", *QUICK).code == 0
    names = {path.name for path in (tmp_path / "faithmap-results" / "line").iterdir()}
    assert names == {"overlay.png", "panel.png", "strip.png", "heatmap.npy", "result.json"}


def test_the_ratios_of_the_strip(faith: Cli, photo: WriteImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 5 x 5 cells, 4 % is one cell and 20 % five, each deleted above and inserted below."""
    figures: dict[str, Figure] = {}
    monkeypatch.setattr("faithmap.studies.explain.save_figure", lambda figure, path: figures.update({path.name: figure}))
    photo("cat.png")
    assert faith("explain", "cat.png", "--no-animation", "--ratios", "0.04,1/5", *QUICK).code == 0
    assert [ax.get_title() for ax in figures["strip.png"].axes] == ["0 %", "4 %", "20 %", "", "", ""]


def test_ratios_that_are_no_shares(faith: Cli, photo: WriteImage) -> None:
    photo("cat.png")
    for ratios in ("0.1,5", "", "a"):
        assert "is not more than 0 and at most 1" in faith("explain", "cat.png", "--ratios", ratios).complaint
