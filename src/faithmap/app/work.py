"""What the page asks of the library, without the page: photographs and settings in, findings out.

Everything here is what the commands do: the same options, the same classes, the same random numbers. So a folder that is taken
away, the command, and what stood on the screen are one thing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor

import faithmap as fm
from faithmap.app.shelf import Upload
from faithmap.app.words import RefusedError
from faithmap.app.worker import Tells
from faithmap.cli.compare import CompareOptions
from faithmap.cli.comparison import CHANCE, Contest
from faithmap.cli.explain import Options
from faithmap.cli.inputs import Photo, photo_of
from faithmap.cli.pipeline import Session
from faithmap.cli.record import Findings
from faithmap.cli.results import Job
from faithmap.cli.saturation import SaturationOptions
from faithmap.cli.walks import Features, Walks
from faithmap.methods.cams import Saturation
from faithmap.metrics.functional import agreement_matrix

EXPLAINING = 0.85
"""Share of the progress that explaining takes; the games have the rest."""

MOST = 4
"""Methods that are compared at once."""

O = TypeVar("O", Options, CompareOptions, SaturationOptions)  # noqa: E741 - options


@dataclass(frozen=True)
class Asked:
    """One question.

    Attributes:
        upload: the photograph.
        model: is asked.
        options: as a command would have them; the class is in them.
    """

    upload: Upload
    model: fm.Classifier
    options: Options

    def photo(self) -> Photo:
        """What the model is shown."""
        return photo_of(Job(Path(self.upload.name), Path("result")), self.upload.data, self.model)

    def session(self) -> Session:
        """The command's own, around the model."""
        return Session.around(self.options, self.model, _class_of(self.options))


@dataclass(frozen=True)
class Explained:
    """A photograph and what was found out about one class of it, or about two.

    Attributes:
        asked: one question for each class.
        found: an answer to each.
    """

    asked: Sequence[Asked]
    found: Sequence[Findings]


@dataclass(frozen=True)
class Compared:
    """What several methods said of one photograph, at one resolution."""

    asked: Asked
    options: CompareOptions
    photo: Photo
    whys: dict[str, fm.Explanation]
    proofs: dict[str, fm.DeletionInsertion]
    seconds: dict[str, float]
    agreement: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Walked:
    """How much of the path to a photograph is saturated, and what methods see of it."""

    asked: Asked
    options: SaturationOptions
    photo: Photo
    walk: Saturation
    features: Features


@dataclass
class Growth:
    """A method's progress: how far it is, and its map as it stands where the method shows one."""

    tells: Tells
    photo: Photo
    target: int | None
    doing: str
    start: float = 0.0
    share: float = 1.0
    grown: fm.Explanation | None = field(default=None, init=False)
    at: float = field(default=0.0, init=False)

    def __call__(self, done: int, total: int) -> None:
        """So many steps are done."""
        self.at = self.start + self.share * done / max(1, total)
        self.tells(self.at, f"{self.doing}, {done} of {total}", self.grown)

    def maps(self, image: int, heatmap: Float[Tensor, "1 r c"]) -> None:
        """The map as it stands."""
        del image
        size = (self.photo.image.shape[-2], self.photo.image.shape[-1])
        self.grown = fm.Explanation.from_array(heatmap.detach().cpu(), size, target=self.target)
        self.tells(self.at, self.doing, self.grown)


def guess(asked: Asked) -> Float[Tensor, " classes"]:
    """The probability of every class of the photograph."""
    session = asked.session()
    return session.probabilities(asked.photo().image)[0]


def explain(asked: Sequence[Asked], tells: Tells) -> Explained:
    """Explain each question; all are about one photograph.

    Raises:
        ValueError: for settings that do not fit.
        CancelledError: where nobody wants it any more.
    """
    photo = asked[0].photo()
    found = []
    for i, one in enumerate(asked):
        tells(i / len(asked), "asking the model")
        found.append(_explained(one, photo, tells, i / len(asked), 1 / len(asked)))
    return Explained(asked, found)


def _explained(asked: Asked, photo: Photo, tells: Tells, start: float, share: float) -> Findings:
    session = asked.session()
    began = time.perf_counter()
    target = session.target
    doing = "explaining" if target is None else f"explaining {asked.model.label(target)}"
    growth = Growth(tells, photo, target, doing, start, EXPLAINING * share)
    why = session.why(photo.image, [photo], growth)
    probabilities = session.probabilities(photo.image)
    seconds = time.perf_counter() - began

    def playing(done: int = 0, total: int = 1) -> None:
        del done, total
        tells(start + EXPLAINING * share, "playing deletion and insertion", growth.grown)

    playing()
    return session.prove(photo, why[0], probabilities[0], seconds, playing)


def compare(asked: Asked, options: CompareOptions, tells: Tells) -> Compared:
    """Ask several methods about one class.

    Raises:
        RefusedError: for none, or too many.
        ValueError: for settings that do not fit.
    """
    _check_few(options.methods)
    contest, photo = Contest.around(options, asked.model, _class_of(options)), asked.photo()
    target: Any = contest.target
    whys, proofs, seconds = {}, {}, {}
    for i, name in enumerate(options.methods):
        share = 1 / len(options.methods)
        growth = Growth(tells, photo, contest.target, f"explaining by {name}", i * share, EXPLAINING * share)
        growth(0, 1)
        began = time.perf_counter()
        whys[name] = contest.why(name, photo, target, growth)
        seconds[name] = time.perf_counter() - began
        target = whys[name].target
        tells((i + EXPLAINING) * share, f"playing deletion and insertion with {name}")
        proofs[name] = contest.played(photo, whys[name])
    shared = {name: contest.cells(why).cpu() for name, why in whys.items()}
    agreement = agreement_matrix(shared)[0].tolist()
    whys[CHANCE] = contest.chance(photo, target)
    proofs[CHANCE] = contest.played(photo, whys[CHANCE])
    return Compared(asked, options, photo, whys, proofs, seconds, agreement)


def walk(asked: Asked, options: SaturationOptions, tells: Tells) -> Walked:
    """The analysis of saturation.

    Raises:
        RefusedError: for no method, or too many.
        ValueError: for settings that do not fit.
    """
    _check_few(options.methods)
    walks, photo = Walks.around(options, asked.model, _class_of(options)), asked.photo()
    tells(0, "walking from the baseline to the photograph")
    walked = walks.walk(photo)
    features: Features = {}
    for i, name in enumerate(options.methods):
        tells((1 + i) / (1 + len(options.methods)), f"explaining by {name}")
        features[name] = walks.feature(name, photo)
    return Walked(asked, options, photo, walked, features)


def _check_few(methods: Sequence[str]) -> None:
    if not 1 <= len(methods) <= MOST:
        raise RefusedError(f"{len(methods)} methods are chosen; choose one to {MOST}")


def _class_of(options: O) -> int | None:
    return None if options.target is None else int(options.target)
