"""Ready specifications: the tables of the papers that this project follows, with the numbers that they published.

The weights and data of the papers do not come with this project; each file says at its top what to get. Any of them runs on
another model and other images: ``faithmap bench run igos-table1 --model efficientnet_lite0 --images FOLDER``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def names() -> list[str]:
    """All of them.

    >>> names()[:2]
    ['expected-gradcam', 'igos-table1']
    """
    return sorted(path.stem for path in _HERE.glob("*.toml"))


def text_of(name: str) -> str:
    """The specification."""
    return (_HERE / f"{name}.toml").read_text("utf-8")


def data_of(text: str) -> str:
    """What the data set of a ready specification is, and where it is from: the words behind its path.

    >>> data_of(text_of("igos-table6"))
    'VOCtrainval and VOCtest 2007 from host.robots.ox.ac.uk/pascal/VOC'
    """
    found = re.search(r'^path = "[^"]*" *# (.*)$', text, re.MULTILINE)
    return found[1] if found else "its data set"


def published(name: str) -> dict[str, Any]:
    """The paper's numbers: where they are from, and tables of rows that name methods of the specification."""
    found: dict[str, Any] = json.loads((_HERE / f"{name}.json").read_text("utf-8"))
    return found
