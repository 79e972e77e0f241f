"""The words: terms that docs/glossary.md replaces are not used in the library, its documentation and its benchmarks.

Each pattern below is a retired word or phrase, with the term to write instead. A second test checks the names of variables,
arguments and functions, tests included: a participle such as ``told`` does not say what a value is.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "docs", "benchmarks")
SUFFIXES = {".py", ".pyi", ".md", ".js", ".css", ".html", ".toml"}
TEXTS = {
    path.relative_to(ROOT): path.read_text()
    for path in sorted((*ROOT.glob("*.*"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))))
    if path.suffix in SUFFIXES and path.is_file()
}

RETIRED = {
    r"(?<!pointing )(?<!pointing_)(?<!Pointing )\b[Gg]ames?\b": "deletion and insertion, curve, protocol",
    r"\b[Pp]layed\b|\bplays (deletion|insertion|every|one|both|a map|the map)\b": "evaluate, measure",
    r"\b[Ff]ore(tell|told|tells|telling)\b": "estimate, predict",
    r"\bat the most\b": "at most",
    r"\b(go(es)?|went|gone) on (with|where)\b": "resume",
    r"\bcan(not|'t) be told (from|apart)\b": "statistically indistinguishable",
    r"\b[Cc]autions?\b": "warning",
    r"\bunheard\b": "suppressed",
    r"\b[Ww]ho(m)?ever\b": "name the person or the code",
    r"\bwhat is left of\b": "the score as cells are deleted",
    r"\bcome and go\b|\bgo and come\b|\bgo or come\b": "deleted and inserted",
    r"\bno longer moves\b": "stops changing",
    r"\bforgets\b|\bforgotten\b": "weights are randomised",
    r"\bdust\b": "noise",
    r"\binside out\b": "left greater than right, or top than bottom",
    r"\b(hung|hangs?) up\b": "close the connection",
    r"\bhangs? on the image\b": "depend on the image",
    r"\bby a clock\b": "wall-clock time",
    r"\bdrawn plainly\b": "sampled independently",
    r"\b(on|of|where on) the way\b": "along the path",
    r"\bWalk the path\b|\bwalk along\b": "Analyse saturation",
    r"\bLayer that is looked at\b": "Target layer",
    r"\bdoubted\b": "tested",
    r"\bas (they|it) (were|was) (told|asked)\b": "plain words",
    r"\bknows? of\b|\bknows? some\b|\bholds its own\b": "supports, contains",
    r"\bcells a side\b|\bChannels a method\b": "cells per side, channels per method",
    r"\b(comes|came) back exactly\b": "is left unchanged",
    r"\bno choice\b|\bwins nothing\b": "gives the same map, does not help",
    r"\bfound by asking\b": "dry run",
    r"\bhold (every|each|all) \w+ (that is there )?against\b": "verify",
    r"\brests? on\b": "depends on",
    r"\b(what|which) you can put right\b": "user error",
}
"""A pattern, and what to write instead."""

RETIRED_NAMES = {
    *("went", "came", "told", "played", "asked", "shown", "seen", "counted", "everyone", "here", "before"),
    *("why", "game", "games", "chance", "foretold"),
}
"""Names that do not say what a value is."""


def found(pattern: str, text: str) -> list[str]:
    """The lines that contain the pattern, with their numbers.

    >>> found(r"\\bdust\\b", "a map\\nis dust")
    ['2: is dust']
    """
    if not re.search(pattern, text):
        return []
    return [f"{n}: {line.strip()}" for n, line in enumerate(text.splitlines(), start=1) if re.search(pattern, line)]


def names(source: str) -> set[str]:
    """The names of variables, arguments, functions and attributes that Python source text assigns.

    >>> sorted(names("def f(told): self.why = other = told"))
    ['f', 'other', 'told', 'why']
    """
    assigned = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.Attribute(attr=name, ctx=ast.Store()):
                assigned.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                assigned.add(name)
    return assigned


@pytest.mark.parametrize("pattern", RETIRED)
def test_retired_words_are_not_used(pattern: str) -> None:
    lines = [f"{path}:{line}" for path, text in TEXTS.items() for line in found(pattern, text)]
    assert not lines, f"write {RETIRED[pattern]!r} instead:\n" + "\n".join(lines)


@pytest.mark.parametrize("folder", ["src", "benchmarks", "tests"])
def test_names_say_what_a_value_is(folder: str) -> None:
    used = {path: names(path.read_text()) & RETIRED_NAMES for path in sorted((ROOT / folder).rglob("*.py"))}
    assert not {str(path.relative_to(ROOT)): words for path, words in used.items() if words}
