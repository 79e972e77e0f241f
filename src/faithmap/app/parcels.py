"""Downloads: the result folder that a command writes, as a zip file, stored in memory under a secret token."""

from __future__ import annotations

import secrets
import tempfile
import threading
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from faithmap.app.work import Compared, Explained, Saturated
from faithmap.studies.base import InputImage
from faithmap.studies.result_folder import ImageJob, plan_jobs

MAX_DOWNLOADS = 16
"""Downloads that are stored; the oldest is dropped first."""


@dataclass(frozen=True)
class Download:
    """A zip file: name and content."""

    name: str
    data: bytes


class Downloads:
    """The downloads of all visitors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stored: OrderedDict[str, Download] = OrderedDict()

    def put(self, download: Download) -> str:
        """Store a download, and return its token."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._stored[token] = download
            while len(self._stored) > MAX_DOWNLOADS:
                self._stored.popitem(last=False)
        return token

    def get(self, token: str) -> Download | None:
        """The download of that token; None if there is none, or no longer."""
        with self._lock:
            return self._stored.get(token)


def pack_download(result: Explained | Compared | Saturated, folder: Path) -> Download:
    """Write the result folder as the command does, and pack it.

    Args:
        result: of a study.
        folder: a private folder; it is empty again at the end.

    Raises:
        UserError: if it cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=folder) as made:
        out = Path(made)
        if isinstance(result, Explained):
            name = _write_explained(result, out)
        elif isinstance(result, Compared):
            image = _moved(result.result.image, out)
            result.study.write(replace(result.result, image=image))
            name = f"{image.job.folder.name}-comparison"
        else:
            image = _moved(result.result.image, out)
            result.study.write(replace(result.result, image=image))
            name = f"{image.job.folder.name}-saturation"
        return Download(f"{name}.zip", _packed(out))


def _write_explained(result: Explained, out: Path) -> str:
    name = ""
    for study, found in zip(result.studies, result.results, strict=True):
        folder = out if len(result.studies) == 1 else out / f"faithmap-class-{study.target}"
        folder.mkdir(exist_ok=True)
        image = _moved(found.image, folder)
        name = image.job.folder.name
        study.write(replace(found, image=image))
    return name if len(result.studies) == 1 else f"{name}-this-and-that"


def _moved(image: InputImage, out: Path) -> InputImage:
    """The image with the result folder that the command would create in ``out``."""
    (job,) = plan_jobs([image.job.file], out)
    return replace(image, job=ImageJob(image.job.file, job.folder))


def _packed(out: Path) -> bytes:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(out.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(out))
    return packed.getvalue()
