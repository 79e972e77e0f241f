"""The tab "Browse the benchmark": a sorted list of the images of a run with maps and scores, and one image in the viewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from faithmap.app.listing import DISAGREEMENT, MEAN, SCATTER, RunListing, open_listings
from faithmap.app.opening import MOST, opened, sheet
from faithmap.app.viewer.component import Viewer
from faithmap.app.viewer.sheet import Sheet
from faithmap.bench.report.example_images import UNKNOWN_VIEW

LINES = 8
"""Number of images on one page of the list."""

HIGHEST, LOWEST = "highest first", "lowest first"
_TO_VIEWER = "() => document.querySelector('.run-opened')?.scrollIntoView({ behavior: 'smooth', block: 'start' })"


@dataclass(frozen=True)
class BrowsedRun:
    """The listings of a run, one per model. Values from a browser are checked against them."""

    listings: Sequence[RunListing]

    def of(self, model: str) -> RunListing:
        """The listing of a model; the first one if there is no such model."""
        return next((one for one in self.listings if one.section.model.name == model), self.listings[0])

    def page(self, model: str, metric: str, by: str, order: str, methods: Sequence[str], number: int) -> tuple[Any, str, int]:
        """The lines of a page, its position in words, and its number, limited to the pages that exist."""
        listing = self.of(model)
        metric = metric if metric in listing.metrics else listing.metrics[0]
        by = by if by in sortings(listing) else MEAN
        images = listing.ordered(metric, by, highest_first=order != LOWEST)
        number = max(0, min(int(number), (len(images) - 1) // LINES))
        part = images[number * LINES : (number + 1) * LINES]
        words = f"{number * LINES + 1} to {number * LINES + len(part)} of {len(images)} images"
        return sheet(listing, part, metric, [name for name in methods if name in listing.methods]), words, number

    def open(self, model: str, methods: Sequence[str], index: Any) -> tuple[Any, str]:
        """The scene of an image, and its name or an error message."""
        listing = self.of(model)
        if not isinstance(index, int) or index not in listing.names:
            return None, "there is no such image in this run"
        words = listing.title(index) if listing.section.model.view else f"{listing.title(index)} ({UNKNOWN_VIEW})"
        try:
            return opened(listing, index, [name for name in methods if name in listing.methods]), words
        except ValueError as error:
            return None, str(error)


def sortings(listing: RunListing) -> list[str]:
    """The orders of the images of a model."""
    return [MEAN, *([DISAGREEMENT, SCATTER] if len(listing.methods) > 1 else []), *listing.methods]


def metrics_of(listing: RunListing) -> list[tuple[str, str]]:
    """The scores of a model, as choices with the direction that is better."""
    return [(listing.with_direction(metric), metric) for metric in listing.metrics]


@dataclass(frozen=True)
class ListingControls:
    """Model, score, order and methods."""

    model: gr.Dropdown
    metric: gr.Dropdown
    by: gr.Dropdown
    order: gr.Dropdown
    methods: gr.Dropdown

    @property
    def all(self) -> list[Any]:
        """As inputs, in the order of :meth:`BrowsedRun.page`."""
        return [self.model, self.metric, self.by, self.order, self.methods]


@dataclass(frozen=True)
class ListingParts:
    """The list, and the buttons that turn its pages."""

    sheet: Sheet
    previous: gr.Button
    position: gr.Textbox
    following: gr.Button
    number: gr.State


def browse(run: Path) -> None:
    """Make the tab in the current Gradio page.

    Args:
        run: the folder that ``faithmap bench run`` wrote.

    Raises:
        RunError: a ValueError of one line, if it is not a run.
    """
    browsed = BrowsedRun(open_listings(run))
    controls = _make_controls(browsed)
    lines = _make_lines(browsed)
    name = gr.Textbox(label="Opened", interactive=False, visible=False, elem_classes="run-opened")
    viewer = Viewer(visible=False, elem_classes="run-viewer")
    _connect_list(browsed, controls, lines)

    def show(wanted: str, chosen: list[str], event: gr.EventData) -> Any:
        made, words = browsed.open(wanted, chosen, getattr(event, "index", None))
        return gr.Textbox(words, visible=True), Viewer(made, visible=made is not None)

    opening = lines.sheet.click(show, [controls.model, controls.methods], [name, viewer], **_QUIET)
    opening.then(None, js=_TO_VIEWER, api_visibility="private")


_QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""No event here uses a model, so that none waits."""


def _make_controls(browsed: BrowsedRun) -> ListingControls:
    first = browsed.listings[0]
    models = [listing.section.model.name for listing in browsed.listings]
    with gr.Row():
        model = gr.Dropdown(models, value=models[0], label="Model of the run", visible=len(models) > 1)
        metric = gr.Dropdown(metrics_of(first), value=first.metrics[0], label="Score", scale=2)
        by = gr.Dropdown(sortings(first), value=MEAN, label="Sort by")
        order = gr.Dropdown([HIGHEST, LOWEST], value=HIGHEST, label="Order")
    known = list(first.methods)
    methods = gr.Dropdown(known, value=known[:MOST], multiselect=True, max_choices=MOST, label="Methods shown, up to four")
    return ListingControls(model, metric, by, order, methods)


def _make_lines(browsed: BrowsedRun) -> ListingParts:
    first = browsed.listings[0]
    begun, words, _ = browsed.page(first.section.model.name, first.metrics[0], MEAN, HIGHEST, list(first.methods)[:MOST], 0)
    sheet = Sheet(begun, elem_classes="run-sheet")
    with gr.Row(equal_height=True):
        back = gr.Button("Previous", size="sm")
        place = gr.Textbox(words, label="Shown", show_label=False, container=False, interactive=False, elem_classes="run-place")
        on = gr.Button("Next", size="sm", elem_classes="run-next")
    return ListingParts(sheet, back, place, on, gr.State(0))


def _connect_list(browsed: BrowsedRun, controls: ListingControls, lines: ListingParts) -> None:
    """Every choice shows the first page again; two buttons turn the pages."""
    outputs = [lines.sheet, lines.position, lines.number]

    def first_page(model: str, metric: str, by: str, order: str, methods: list[str]) -> Any:
        return browsed.page(model, metric, by, order, methods, 0)

    def turn_by(step: int) -> Any:
        def turn(model: str, metric: str, by: str, order: str, methods: list[str], number: int) -> Any:
            return browsed.page(model, metric, by, order, methods, number + step)

        return turn

    def changed(wanted: str) -> Any:
        listing = browsed.of(wanted)
        names = list(listing.methods)
        return (
            gr.Dropdown(metrics_of(listing), value=listing.metrics[0]),
            gr.Dropdown(sortings(listing), value=MEAN),
            gr.Dropdown(names, value=names[:MOST]),
        )

    others = [controls.metric, controls.by, controls.methods]
    controls.model.change(changed, controls.model, others, **_QUIET).then(first_page, controls.all, outputs, **_QUIET)
    for part in (controls.metric, controls.by, controls.order, controls.methods):
        part.change(first_page, controls.all, outputs, **_QUIET)
    lines.previous.click(turn_by(-1), [*controls.all, lines.number], outputs, **_QUIET)
    lines.following.click(turn_by(1), [*controls.all, lines.number], outputs, **_QUIET)
