"""The table of methods in the docs says what the code says, and every link of the docs leads somewhere."""

from __future__ import annotations

import ast
import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import faithmap as fm
from faithmap.methods import captum_methods, gradients, masks
from faithmap.methods.registry import METHODS

DOCS = Path(__file__).parents[1] / "docs"
TABLE = DOCS / "methods" / "README.md"
PAGES = sorted(DOCS.rglob("*.md"))


class Row(NamedTuple):
    """A method's row, its cells as they stand there."""

    name: str
    explainer: str
    equation: str
    passes: str
    needs: str
    settings: str
    source: str
    code: str


def rows() -> dict[str, Row]:
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| [`")]
    cells = (Row(*(cell.strip() for cell in line.strip("|").split(" | "))) for line in lines)
    return {re.findall(r"^\[`(\w+)`]", row.name)[0]: row for row in cells}


ROWS = rows()


def test_every_method_is_in_the_table_in_the_registry_s_order() -> None:
    assert list(ROWS) == list(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_row_of_the_table_equals_the_registry(name: str) -> None:
    row, method = ROWS[name], METHODS[name]
    assert row.explainer == f"`{method.explainer.__name__}`"
    assert row.passes == method.passes
    assert row.needs == (", ".join(method.needs) or "scores")
    assert row.code == ("captum" if "captum" in method.needs else "faithmap")
    assert all(word in row.source for word in method.source.split())
    assert row.equation
    assert re.findall(r"also `(\w+)`", row.name) == list(method.also)


def settings(name: str) -> list[str]:
    """As ``name=value``, those of the method that it refers to among them."""
    cell = ROWS[name].settings
    alias = re.match(r"as `(\w+)`", cell)
    return (settings(alias[1]) if alias else []) + re.findall(r"`(\w+=[^`]+)`", cell)


def value(node: ast.expr) -> Any:
    """Of a literal, or of a public name called with literals."""
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)
        return getattr(fm, node.func.id)(**{str(word.arg): value(word.value) for word in node.keywords})
    return ast.literal_eval(node)


def default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


@pytest.mark.parametrize("name", METHODS)
def test_settings_exist_and_have_these_defaults(name: str) -> None:
    own = {field.name: field for field in fields(METHODS[name].explainer)}
    assert settings(name) or name == "edges"
    for setting in settings(name):
        said, _, text = setting.partition("=")
        assert value(ast.parse(text, mode="eval").body) == default(own[said]), setting


def test_classes_can_be_imported_from_the_modules_that_the_page_names() -> None:
    for name, method in METHODS.items():
        home = masks if name == "learned_mask" else captum_methods if "captum" in method.needs else fm
        assert getattr(home, method.explainer.__name__) is method.explainer
    assert gradients.MWP is fm.ExcitationBackprop
    assert gradients.ContrastiveMWP is fm.ContrastiveExcitationBackprop


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    prose = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    titles = re.findall(r"(?m)^#+ (.+)$", prose)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "document", [*PAGES, DOCS.parent / "README.md"], ids=lambda document: str(document.relative_to(DOCS.parent))
)
def test_links_lead_to_pages_and_headings_that_exist(document: Path) -> None:
    for target in re.findall(r"]\(([^)\s]+)\)", document.read_text()):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        there = document.parent / path if path else document
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_every_method_has_a_page_and_a_section() -> None:
    assert all(re.match(r"\[`\w+`]\([^)#]+#[^)]+\)", row.name) for row in ROWS.values())


def test_every_page_is_linked() -> None:
    text = "".join(
        page.read_text()
        for page in (
            DOCS.parent / "README.md",
            TABLE,
            DOCS / "metrics" / "README.md",
            DOCS / "bench" / "README.md",
            DOCS / "app" / "README.md",
        )
    )
    for page in PAGES:
        assert f"{page.name}" in text, page


def spellings(title: str) -> re.Pattern[str]:
    """A title in any letter case, with or without hyphens and spaces: ``GradCAM``, ``Grad CAM``, ``grad-cam``."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])\+*|\++", title)
    return re.compile(rf"(?i)(?<![\w./-]){'[- ]?'.join(map(re.escape, parts))}(?![\w+-])")


def prose(document: Path) -> str:
    """The text of a page without code, addresses and the titles of papers."""
    return re.sub(r"(?ms)^```.*?^```|^>>> [^\n]*|`[^`\n]*`|]\([^)]*\)|\"[^\"\n]*(\n[^\"\n]*)?\"", "", document.read_text())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_one_spelling_in_the_documentation(name: str) -> None:
    title = METHODS[name].explainer.title
    for document in [*PAGES, DOCS.parent / "README.md", DOCS.parent / "CHANGELOG.md"]:
        for word in spellings(title).findall(prose(document)):
            ordinary = word.islower() or (" " in word and word == word.capitalize())  # a library, or "expected gradients"
            assert ordinary or word in (title, title[0].upper() + title[1:]), f"{document.name}: write {title!r}, not {word!r}"


def test_titles_are_unique() -> None:
    titles = [method.explainer.title for method in METHODS.values()]
    assert len(set(titles)) == len(titles)
