"""Which images are read, where results are written, and which names they have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_tools import Cli, ListFiles, Loads, WriteImage, inside, record_in, strict_json
from PIL import Image

import faithmap

pytestmark = pytest.mark.usefixtures("loads", "sketches")

SMALL = ("--iterations", 3, "--resolution", 7, "--chunk", 256)
QUICK = (*SMALL, "--baseline", "grey")


def test_without_arguments_the_sample_photograph_is_explained(faith: Cli, tmp_path: Path, loads: Loads) -> None:
    run = faith("explain", *QUICK)
    assert run.code == 0
    assert "error" not in run.err
    assert loads == [("efficientnet_lite0", None, None)]
    assert record_in(tmp_path / "faithmap-results" / "chelsea")["file"]["path"] == str(faithmap.sample_photo())
    for word in ("predicted", "deletion", "insertion", "a random map", str(Path("faithmap-results", "chelsea"))):
        assert word in run.out


def test_folders_and_files_mix_and_the_model_is_loaded_once(
    faith: Cli, photo: WriteImage, tmp_path: Path, loads: Loads
) -> None:
    photo("album/one.png", 1)
    photo("album/deep/two.png", 2)
    photo("three", 3)
    assert faith("explain", "album", "three", "album/one.png", *QUICK).code == 0
    assert inside(tmp_path / "faithmap-results") == ["one", "three", "two"]
    assert len(loads) == 1


def test_results_in_a_searched_folder_are_not_explained(
    faith: Cli, photo: WriteImage, tmp_path: Path, sketches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo("cat.png")
    faith("explain", "cat.png", *QUICK)
    Image.new("RGB", (8, 8)).save(tmp_path / "faithmap-results" / "cat" / "overlay.png")
    assert faith("explain", ".", "--out", "again", *QUICK).code == 0
    assert inside(tmp_path / "again") == ["cat"]
    assert "contains no images except faithmap's results" in faith("explain", "faithmap-results", *QUICK).complaint


def test_existing_results_are_refused_before_the_model_is_loaded(
    faith: Cli, photo: WriteImage, tree: ListFiles, loads: Loads
) -> None:
    photo("cat.png")
    faith("explain", "cat.png", *QUICK)
    initial = tree()
    complaint = faith("explain", "cat.png", *QUICK).complaint
    assert "--overwrite" in complaint
    assert tree() == initial
    assert len(loads) == 1


def test_overwrite_replaces_results(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    faith("explain", "cat.png", *QUICK)
    assert faith("explain", "cat.png", "--overwrite", "--seed", 5, *QUICK).code == 0
    assert inside(tmp_path / "faithmap-results") == ["cat"]
    assert record_in(tmp_path / "faithmap-results" / "cat")["seed"]["run"] == 5


def test_two_files_of_the_same_name_both_get_a_result(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("a/cat.png", 1)
    photo("b/cat.png", 2)
    assert faith("explain", "a", "b", *QUICK).code == 0
    folders = sorted((tmp_path / "faithmap-results").iterdir())
    assert len(folders) == 2
    assert {record_in(folder)["file"]["path"] for folder in folders} == {str(Path("a/cat.png")), str(Path("b/cat.png"))}


@pytest.mark.parametrize(
    "name", ["[red]x[/red].png", "line\nbreak.png", "\x1b[31mred.png", ":cat:.png", "-dash.png", "a b 'c'.png"]
)
def test_strange_names_are_printed_with_unprintable_characters_escaped(faith: Cli, photo: WriteImage, name: str) -> None:
    photo(name)
    run = faith("explain", *QUICK, "--", name)
    assert run.code == 0
    assert run.out.splitlines()[0] == name.replace("\n", "\\n").replace("\x1b", "\\x1b")
    assert len(run.out.splitlines()) == 9
    assert "\x1b" not in run.out


def test_a_name_that_is_not_unicode_is_printed_and_recorded(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png").rename(tmp_path / os.fsdecode(b"c\xffat.png"))
    run = faith("explain", os.fsdecode(b"c\xffat.png"), "--json", *QUICK)
    assert run.code == 0
    assert strict_json(run.out)["images"][0]["file"] == os.fsdecode(b"c\xffat.png")
