"""What is taken away: the folder that a command writes, as a zip, under a word that nobody can guess."""

from __future__ import annotations

import secrets
import tempfile
import threading
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from faithmap.app.work import Compared, Explained, Walked
from faithmap.cli.alone import Alone, Drawn
from faithmap.cli.comparison import Contest
from faithmap.cli.inputs import Photo
from faithmap.cli.results import Job, plan
from faithmap.cli.walks import Walks

KEPT = 16
"""Parcels at once; the oldest goes first."""


@dataclass(frozen=True)
class Parcel:
    """A zip, and what it is called."""

    name: str
    data: bytes


class Parcels:
    """Where parcels wait to be fetched, in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Parcel] = OrderedDict()

    def put(self, parcel: Parcel) -> str:
        """Keep it, and return the word for it."""
        word = secrets.token_urlsafe(24)
        with self._lock:
            self._kept[word] = parcel
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return word

    def get(self, word: str) -> Parcel | None:
        """The parcel of that word; None where there is none, or no longer."""
        with self._lock:
            return self._kept.get(word)


def parcel_of(result: Explained | Compared | Walked, room: Path) -> Parcel:
    """Write the folder as the command does, and pack it.

    Args:
        result: what was found out.
        room: a private folder; what is written into it is gone when this is done.

    Raises:
        UserError: where it cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=room) as made:
        out = Path(made)
        name = _explained(result, out) if isinstance(result, Explained) else _alone(result, out)
        return Parcel(f"{name}.zip", _packed(out))


def _explained(result: Explained, out: Path) -> str:
    name = ""
    for asked, found in zip(result.asked, result.found, strict=True):
        place = out if len(result.asked) == 1 else out / f"faithmap-class-{asked.options.target}"
        place.mkdir(exist_ok=True)
        photo = _into(found.photo, place)
        name = photo.job.folder.name
        asked.session().write(replace(found, photo=photo))
    return name if len(result.asked) == 1 else f"{name}-this-and-that"


def _alone(result: Compared | Walked, out: Path) -> str:
    photo = _into(result.photo, out)
    work: Alone
    made: tuple[dict[str, Any], Drawn]
    if isinstance(result, Compared):
        work = contest = Contest.around(result.options, result.asked.model, None)
        made = contest.result(photo, result.whys, result.proofs, result.seconds)
        kind = "comparison"
    else:
        work = walks = Walks.around(result.options, result.asked.model, None)
        made = walks.result(photo, result.walk, result.features)
        kind = "saturation"
    work.write(photo.job, *made)
    return f"{photo.job.folder.name}-{kind}"


def _into(photo: Photo, out: Path) -> Photo:
    """The same with the folder that the command would make in another one."""
    (job,) = plan([photo.job.file], out)
    return replace(photo, job=Job(photo.job.file, job.folder))


def _packed(out: Path) -> bytes:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(out.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(out))
    return packed.getvalue()
