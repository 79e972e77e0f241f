"""Browse a benchmark: the images of a run with maps and scores, in any order, and one of them in the viewer.

``open_listings``, ``Listing.ordered``, ``sheet`` and ``opened`` know nothing of the page; :func:`browse` makes its parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from faithmap.app.listing import DISAGREEMENT, MEAN, SCATTER, Listing, open_listings
from faithmap.app.opening import MOST, opened, sheet
from faithmap.app.viewer.component import Viewer
from faithmap.app.viewer.sheet import Sheet
from faithmap.bench.report.example_images import UNKNOWN_VIEW

__all__ = ["DISAGREEMENT", "MEAN", "SCATTER", "Listing", "browse", "open_listings", "opened", "sheet"]

LINES = 8
"""Images on one page of the list."""

HIGHEST, LOWEST = "highest first", "lowest first"
_TO_VIEWER = "() => document.querySelector('.run-opened')?.scrollIntoView({ behavior: 'smooth', block: 'start' })"


@dataclass(frozen=True)
class Run:
    """The listings of a run, and what the page asks of them. What a browser sends is checked against them."""

    listings: Sequence[Listing]

    def of(self, model: str) -> Listing:
        """By the model's name; the first one where there is no such model."""
        return next((one for one in self.listings if one.section.model.name == model), self.listings[0])

    def page(self, model: str, metric: str, by: str, order: str, methods: Sequence[str], number: int) -> tuple[Any, str, int]:
        """A page's lines, in words which page it is, and its number, which stays within the list."""
        listing = self.of(model)
        metric = metric if metric in listing.metrics else listing.metrics[0]
        by = by if by in sortings(listing) else MEAN
        images = listing.ordered(metric, by, highest_first=order != LOWEST)
        number = max(0, min(int(number), (len(images) - 1) // LINES))
        part = images[number * LINES : (number + 1) * LINES]
        words = f"{number * LINES + 1} to {number * LINES + len(part)} of {len(images)} images"
        return sheet(listing, part, metric, [name for name in methods if name in listing.methods]), words, number

    def open(self, model: str, methods: Sequence[str], index: Any) -> tuple[Any, str]:
        """The scene of an image, and its name or what is wrong with it."""
        listing = self.of(model)
        if not isinstance(index, int) or index not in listing.names:
            return None, "there is no such image in this run"
        words = listing.title(index) if listing.section.model.view else f"{listing.title(index)} ({UNKNOWN_VIEW})"
        try:
            return opened(listing, index, [name for name in methods if name in listing.methods]), words
        except ValueError as error:
            return None, str(error)


def sortings(listing: Listing) -> list[str]:
    """What the images of a model can be sorted by."""
    return [MEAN, *([DISAGREEMENT, SCATTER] if len(listing.methods) > 1 else []), *listing.methods]


def metrics_of(listing: Listing) -> list[tuple[str, str]]:
    """The scores of a model, each with the way that is better, as choices."""
    return [(listing.told(metric), metric) for metric in listing.metrics]


@dataclass(frozen=True)
class Controls:
    """What is listed, and in which order."""

    model: gr.Dropdown
    metric: gr.Dropdown
    by: gr.Dropdown
    order: gr.Dropdown
    methods: gr.Dropdown

    @property
    def all(self) -> list[Any]:
        """As inputs, in the order of :meth:`Run.page`."""
        return [self.model, self.metric, self.by, self.order, self.methods]


@dataclass(frozen=True)
class Lines:
    """The list, and what turns its pages."""

    sheet: Sheet
    back: gr.Button
    words: gr.Textbox
    on: gr.Button
    number: gr.State


def browse(run: Path) -> None:
    """Put the parts into the Gradio page that is being made.

    Args:
        run: the folder that ``faithmap bench run`` wrote.

    Raises:
        RunError: a ValueError of one line; where it is none.
    """
    shelf = Run(open_listings(run))
    controls = _make_controls(shelf)
    lines = _make_lines(shelf)
    name = gr.Textbox(label="Opened", interactive=False, visible=False, elem_classes="run-opened")
    viewer = Viewer(visible=False, elem_classes="run-viewer")
    _connect_list(shelf, controls, lines)

    def show(wanted: str, chosen: list[str], event: gr.EventData) -> Any:
        made, words = shelf.open(wanted, chosen, getattr(event, "index", None))
        return gr.Textbox(words, visible=True), Viewer(made, visible=made is not None)

    opening = lines.sheet.click(show, [controls.model, controls.methods], [name, viewer], **_QUIET)
    opening.then(None, js=_TO_VIEWER, api_visibility="private")


_QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Nothing here asks a model, so nothing waits."""


def _make_controls(shelf: Run) -> Controls:
    first = shelf.listings[0]
    models = [listing.section.model.name for listing in shelf.listings]
    with gr.Row():
        model = gr.Dropdown(models, value=models[0], label="Model of the run", visible=len(models) > 1)
        metric = gr.Dropdown(metrics_of(first), value=first.metrics[0], label="Score", scale=2)
        by = gr.Dropdown(sortings(first), value=MEAN, label="Sort by")
        order = gr.Dropdown([HIGHEST, LOWEST], value=HIGHEST, label="Order")
    known = list(first.methods)
    methods = gr.Dropdown(known, value=known[:MOST], multiselect=True, max_choices=MOST, label="Methods shown, up to four")
    return Controls(model, metric, by, order, methods)


def _make_lines(shelf: Run) -> Lines:
    first = shelf.listings[0]
    begun, words, _ = shelf.page(first.section.model.name, first.metrics[0], MEAN, HIGHEST, list(first.methods)[:MOST], 0)
    sheet = Sheet(begun, elem_classes="run-sheet")
    with gr.Row(equal_height=True):
        back = gr.Button("Previous", size="sm")
        place = gr.Textbox(words, label="Shown", show_label=False, container=False, interactive=False, elem_classes="run-place")
        on = gr.Button("Next", size="sm", elem_classes="run-next")
    return Lines(sheet, back, place, on, gr.State(0))


def _connect_list(shelf: Run, controls: Controls, lines: Lines) -> None:
    """Every choice lists anew, from the first page on; two buttons turn the pages."""
    told = [lines.sheet, lines.words, lines.number]

    def fresh(model: str, metric: str, by: str, order: str, methods: list[str]) -> Any:
        return shelf.page(model, metric, by, order, methods, 0)

    def turned(step: int) -> Any:
        def turn(model: str, metric: str, by: str, order: str, methods: list[str], number: int) -> Any:
            return shelf.page(model, metric, by, order, methods, number + step)

        return turn

    def changed(wanted: str) -> Any:
        listing = shelf.of(wanted)
        names = list(listing.methods)
        return (
            gr.Dropdown(metrics_of(listing), value=listing.metrics[0]),
            gr.Dropdown(sortings(listing), value=MEAN),
            gr.Dropdown(names, value=names[:MOST]),
        )

    others = [controls.metric, controls.by, controls.methods]
    controls.model.change(changed, controls.model, others, **_QUIET).then(fresh, controls.all, told, **_QUIET)
    for part in (controls.metric, controls.by, controls.order, controls.methods):
        part.change(fresh, controls.all, told, **_QUIET)
    lines.back.click(turned(-1), [*controls.all, lines.number], told, **_QUIET)
    lines.on.click(turned(1), [*controls.all, lines.number], told, **_QUIET)
