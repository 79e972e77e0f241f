"""Output: warnings, errors of single files, the JSON document, and progress."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_tools import Cli, WriteImage, inside, record_in, strict_json
from PIL import Image

pytestmark = pytest.mark.usefixtures("loads", "sketches")

SMALL = ("--iterations", 3, "--resolution", 7, "--chunk", 256)
QUICK = (*SMALL, "--baseline", "grey")


def test_a_warning_is_one_line_that_names_the_file(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    run = faith("explain", "cat.png", "--target", "tiger cat", "--baseline", "white", *SMALL)
    assert run.code == 0
    lines = run.err.splitlines()
    assert all(line.startswith("warning: cat.png: ") for line in lines)
    assert any("has probability" in line for line in lines)
    assert "Warning" not in run.err
    assert [line.removeprefix("warning: cat.png: ") for line in lines] == record_in(tmp_path / "faithmap-results" / "cat")[
        "warnings"
    ]


def test_the_first_frame_of_an_animation_is_explained_with_a_warning(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    frame = Image.open(photo("cat.png"))
    frame.save(tmp_path / "film.gif", save_all=True, append_images=[Image.new("RGB", frame.size)])
    run = faith("explain", "film.gif", *QUICK)
    assert run.code == 0
    assert "warning: film.gif: has several frames, of which the first is read\n" in run.err


def test_a_bad_file_is_named_and_the_others_are_explained(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("a.png", 1)
    (tmp_path / "b.jpg").write_text("this is text")
    photo("c.png", 2)
    run = faith("explain", "a.png", "b.jpg", "missing.png", "c.png", *QUICK)
    assert run.code == 2
    assert inside(tmp_path / "faithmap-results") == ["a", "c"]
    errors = [line for line in run.err.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 2
    assert errors[0].startswith("error: missing.png: cannot be read (No such file or directory)")
    assert errors[1].startswith("error: b.jpg: not an image that can be read (starts like text)")


def test_a_picture_of_one_pixel_and_links_that_lead_nowhere_do_not_end_the_run(
    faith: Cli, photo: WriteImage, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    photo("in/a.png", 1)
    Image.new("RGB", (1, 1)).save(tmp_path / "in" / "b.png")
    photo("in/z.png", 2)
    try:
        (tmp_path / "in" / "dead.png").symlink_to(tmp_path / "missing.png")
        (tmp_path / "in" / "loop.png").symlink_to(tmp_path / "in" / "loop.png")
        (tmp_path / "in" / "loop").symlink_to(tmp_path / "in" / "loop")
    except OSError:
        pytest.skip("no links here")
    run = faith("explain", "in", *QUICK)
    assert run.code == 2
    assert inside(tmp_path / "faithmap-results") == ["a", "z"]
    pixel, dead, loop = (line for line in run.err.splitlines() if not line.startswith("warning: "))
    assert pixel == "error: in/b.png: a single pixel, of which no part can be more important; give a larger image"
    assert dead.startswith("error: in/dead.png: cannot be read (No such file or directory)")
    assert loop.startswith("error: in/loop.png: cannot be read (Too many levels of symbolic links)")


def test_json_is_one_document_and_nothing_else(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("a.png", 1)
    (tmp_path / "b.jpg").write_text("this is text")
    run = faith("explain", "a.png", "b.jpg", "--json", "--target", "sheep dog", *QUICK)
    assert run.code == 2
    document = strict_json(run.out)
    assert document["schema"] == "faithmap.summary/1"
    assert document["error"] is None
    good, bad = document["images"]
    record = record_in(tmp_path / good["folder"])
    assert good["file"] == "a.png"
    for key in ("target", "predicted", "scores", "warnings"):
        assert good[key] == record[key]
    assert bad["file"] == "b.jpg"
    assert f"error: {bad['error']}\n" in run.err


def test_json_is_a_document_even_if_nothing_can_be_explained(faith: Cli, photo: WriteImage) -> None:
    photo("a.png")
    run = faith("explain", "a.png", "--json", "--target", "zebra", *QUICK)
    assert run.code == 2
    document = strict_json(run.out)
    assert document["images"] == []
    assert run.err == f"error: {document['error']}\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_progress_is_drawn_on_a_terminal_only(
    faith: Cli, photo: WriteImage, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...]
) -> None:
    photo("cat.png")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    run = faith("explain", "cat.png", *arguments, *QUICK)
    assert run.code == 0
    assert ("explaining cat.png" in screen.getvalue()) == (not arguments)
    assert "\x1b" not in run.out
