"""Uploads: stored in memory under a secret token, within limits, and checked by the library's safe reader."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from app_tools import bad_files, picture
from fastapi import FastAPI
from starlette.testclient import TestClient

from faithmap.app import shelf
from faithmap.app.desk import AppState
from faithmap.app.server import add_uploads
from faithmap.app.shelf import MAX_UPLOAD_BYTES, Uploads
from faithmap.app.words import RefusedError, line_for


def test_a_photograph_is_found_only_by_its_token() -> None:
    uploads = Uploads()
    token = uploads.put("cat.png", picture())
    assert uploads.get(token).data == picture()
    assert len(token) >= 32
    assert uploads.put("cat.png", picture()) != token
    for wrong in ("", "cat.png", token[:-1], "../chelsea"):
        with pytest.raises(RefusedError, match="choose it again"):
            uploads.get(wrong)


@pytest.mark.parametrize("name", bad_files())
def test_a_bad_file_is_refused_in_one_line(name: str) -> None:
    uploads = Uploads()
    with pytest.raises(RefusedError) as refused:
        uploads.put(f"/home/someone/{name}", bad_files()[name])
    line = line_for(refused.value)
    assert line.startswith(f"{name}: ")
    assert "\n" not in line
    assert "/home" not in line
    assert "Traceback" not in line
    assert len(uploads) == 0


def test_bytes_and_pixels_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError, match="larger than the limit of 16 MB"):
        Uploads().put("x.png", picture() + bytes(MAX_UPLOAD_BYTES))
    monkeypatch.setattr(shelf, "MAX_UPLOAD_PIXELS", 40 * 48 - 1)
    with pytest.raises(RefusedError, match="48 x 40 pixels are more than"):
        Uploads().put("x.png", picture())


def test_the_least_recently_used_photographs_are_dropped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MAX_UPLOADS", 2)
    uploads = Uploads()
    first, second = uploads.put("a.png", picture(1)), uploads.put("b.png", picture(2))
    uploads.get(first)
    uploads.put("c.png", picture(3))
    assert uploads.get(first).name == "a.png"
    with pytest.raises(RefusedError):
        uploads.get(second)
    monkeypatch.setattr(shelf, "MAX_TOTAL_BYTES", len(picture(1)) + 10)
    uploads.put("d.png", picture(4))
    assert len(uploads) == 1


class FileWrites:
    """Records every file of this process that is opened for writing while :attr:`recording` is set."""

    def __init__(self) -> None:
        self.recording = False
        self.paths: list[str] = []
        sys.addaudithook(self._record)  # cannot be removed

    def _record(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.recording or event != "open":
            return
        path, _, flags = arguments
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self.paths.append(str(path))


@pytest.fixture(scope="module")
def file_writes() -> FileWrites:
    return FileWrites()


def test_an_upload_is_never_written_to_disk(file_writes: FileWrites, state: AppState, tmp_path: Path) -> None:
    app = FastAPI()
    add_uploads(app, state)
    client = TestClient(app)
    file_writes.recording = True
    (tmp_path / "control").write_bytes(b"")
    answer = client.post("/photo", content=picture(), headers={"X-Name": "a.png"})
    upload = state.uploads.get(answer.json()["token"])
    file_writes.recording = False
    assert (upload.name, upload.data) == ("a.png", picture())
    assert file_writes.paths == [str(tmp_path / "control")], "the recording sees files that are written"
