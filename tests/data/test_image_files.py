from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from faithmap.data import ImageError, image_files, read_image, sample_photo
from faithmap.data.images import image_names


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder: Path, found: list[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found]


def test_a_folder_gives_its_images_sorted(tmp_path: Path) -> None:
    images = ["a.JPG", "b.jpeg", "c.Png", "d.webp", "e.gif", "f.bmp", "g.tif", "sub/h.tiff"]
    others = ["notes.txt", "jpg", ".hidden.jpg", ".cache/x.jpg", "sub/labels.csv"]
    touch(tmp_path, *others, *reversed(images))
    (tmp_path / "folder.jpg").mkdir()
    assert names(tmp_path, image_files([tmp_path])) == images


def test_folders_and_files_are_sorted_together_as_paths_are(tmp_path: Path) -> None:
    images = ["a-b.png", "a/b.png", "a/c/d.png", "a/e.png", "a.png", "b/a.png", "b.png", "é/\udce9.png"]
    touch(tmp_path, *reversed(images))
    wanted = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path / name for name in images)]
    assert list(image_names(tmp_path)) == wanted
    assert list(image_names(tmp_path / "b.png")) == ["."], "a file in the folder's place"


def test_files_are_taken_as_given_and_once(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.jpg", "no-suffix", ".hidden.png")
    given: list[str | Path] = [
        tmp_path / "no-suffix",
        str(tmp_path / "b.jpg"),
        tmp_path / ".hidden.png",
        tmp_path,
        tmp_path / "no-suffix",
    ]
    assert names(tmp_path, image_files(given)) == ["no-suffix", "b.jpg", ".hidden.png", "a.jpg"]


def test_absolute_and_relative_path_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg")
    monkeypatch.chdir(tmp_path)
    assert image_files(["a.jpg", tmp_path / "a.jpg", "./a.jpg", "."]) == [Path("a.jpg")]


def test_links_to_folders_are_ignored_and_links_that_lead_nowhere_are_left_to_their_reader(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a.jpg")
    try:
        (tmp_path / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
        (tmp_path / "dead.jpg").symlink_to(tmp_path / "missing.jpg")
        (tmp_path / "dead.txt").symlink_to(tmp_path / "missing.txt")
        (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        (tmp_path / "link.jpg").symlink_to(tmp_path / "sub" / "a.jpg")
    except OSError:
        pytest.skip("no links here")
    assert names(tmp_path, image_files([tmp_path])) == ["dead.jpg", "link.jpg", "loop.jpg", "sub/a.jpg"]
    for name in ("dead.jpg", "loop.jpg"):
        with pytest.raises(ImageError, match=rf"{name}: cannot be read .*; give the path of an image file"):
            read_image(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no name here")
def test_pipe_in_a_folder_is_no_image(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert names(tmp_path, image_files([tmp_path])) == ["a.jpg"]


def test_missing_path_and_folder_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.jpg: cannot be read .*; give the path of an image file"):
        image_files([tmp_path / "missing.jpg"])
    touch(tmp_path, "notes.txt")
    with pytest.raises(ImageError, match=r": a folder without images; give one with files in \.bmp \.gif"):
        image_files([tmp_path])
    assert image_files([]) == []


def test_unreadable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg", "sub/b.jpg")
    scandir = os.scandir

    def deny(path: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(ImageError, match="Permission denied"):
        image_files([tmp_path])


@pytest.mark.parametrize(("name", "size"), [("chelsea", (300, 451)), ("coffee", (400, 600))])
def test_sample_photos(name: str, size: tuple[int, int]) -> None:
    path = sample_photo(name)
    assert path.stat().st_size < 400_000
    assert read_image(path).shape == (1, 3, *size)
    assert path.name in (path.parent / "CREDITS.md").read_text()


def test_unknown_sample_photo_names_the_others() -> None:
    assert sample_photo() == sample_photo("chelsea")
    with pytest.raises(ValueError, match=r"'\.\./chelsea'; give one of chelsea, coffee"):
        sample_photo("../chelsea")
