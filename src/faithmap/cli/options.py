"""What the commands that look at images have in common.

A command's own options are a dataclass that derives from :class:`Shared`. They come first in ``--help``, these in a box below
them; where a command says an option of these in its own docstring, its words hold.

Annotations are not postponed here: cyclopts would look for their names in the modules of the commands.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Group, Parameter
from cyclopts.types import PositiveInt

_BOX = Parameter(group=Group("Class, model, results and run", sort_key=1))
_FLAG = Parameter(negative="", show_default=False)

Out: TypeAlias = Annotated[Path, _BOX]
"""The folder for the results, whose default is each command's own."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Which class of which model, where results go, and how they are computed.

    Args:
        target: the class to explain, by name ("tiger cat") or number; without it, the class that the model predicts.
        model: by name; see "faithmap models".
        weights: a checkpoint file for the model, instead of the weights that its name stands for.
        out: the folder for the results, one folder in it for each image, named after the file.
        overwrite: replace results that exist already. The old ones stay until the new ones are complete.
        seed: of all random numbers.
        device: where to compute, such as cuda; without it, the CPU.
        chunk: images in one pass of the model, at the most; fewer need less memory.
        json: print one JSON document instead of text, and no progress.
    """

    target: Annotated[str | None, _BOX] = None
    model: Annotated[str, _BOX] = "efficientnet_lite0"
    weights: Annotated[Path | None, _BOX] = None
    out: Out = Path("faithmap-results")
    overwrite: Annotated[bool, _BOX, _FLAG] = False
    seed: Annotated[int, _BOX] = 0
    device: Annotated[str | None, _BOX] = None
    chunk: Annotated[PositiveInt, _BOX] = 32
    json: Annotated[bool, _BOX, _FLAG] = False
