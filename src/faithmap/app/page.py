"""The page: what is asked about on the left, tabs on the right."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import gradio as gr

from faithmap.app.asking import failed, known_to, once
from faithmap.app.controls import choices_of, fitting
from faithmap.app.desk import Desk
from faithmap.app.models import CAMS, Known
from faithmap.app.parts.parts import Header, Picker, Status
from faithmap.app.safety import BUSY
from faithmap.app.showing import spoken_names
from faithmap.app.tabs.common import QUICK, SLOW, UNANSWERED, Shared
from faithmap.app.tabs.compare import make_compare, offered, proposed
from faithmap.app.tabs.contrast import make_contrast
from faithmap.app.tabs.explain import make_explain
from faithmap.app.tabs.saturation import make_saturation
from faithmap.app.work import predict

TITLE = "faithmap"
LOOKING = {"share": None, "text": "asking the model what it sees"}

QUEUE = 16
"""Questions that wait, at the most; whoever comes later is told to try again."""

SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def looks() -> dict[str, Any]:
    """Theme and style, of this server alone: fonts are the system's."""
    theme = gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", font=list(SYSTEM_FONTS), font_mono=list(MONO_FONTS), radius_size="md"
    )
    theme = theme.set(body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300")
    theme = theme.set(input_placeholder_color="*neutral_600", input_placeholder_color_dark="*neutral_300")
    theme = theme.set(button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800")
    return {"theme": theme, "css": (files("faithmap.app") / "page.css").read_text(encoding="utf-8")}


def make_page(desk: Desk) -> gr.Blocks:
    """The page around a desk, whose first model is loaded."""
    known = desk.models.get(desk.models.offered[0])
    page: gr.Blocks
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        Header(elem_classes="fm-header")
        with gr.Row(elem_classes="fm-page"):
            with gr.Column(scale=1, min_width=280, elem_classes="fm-left"):
                shared, looking = _left(desk, known)
            with gr.Column(scale=3, min_width=340), gr.Tabs():
                changing, pair = _tabs(shared, known)
        _connect_photo(page, shared, looking, changing, pair)
        _connect_end(page, desk)
    page.queue(max_size=QUEUE, default_concurrency_limit=4, api_open=False)
    page._queue.ANALYTICS_MAX_EVENTS = 0  # Gradio would keep a record of every question
    return page


def _left(desk: Desk, known: Known) -> tuple[Shared, Status]:
    """The photograph, the model and the class."""
    picker = Picker(elem_id="photo")
    model = gr.Dropdown(desk.models.offered, value=desk.models.offered[0], label="Model", elem_id="model")
    guesses = gr.Radio([], label="What the model sees", elem_id="guesses", elem_classes="fm-guesses")
    other = gr.Dropdown(labels_of(known), value=None, label="Another class", filterable=True, elem_id="other")
    looking = Status(None, elem_id="looking")
    guesses.input(None, None, other, js="() => null", **_BROWSER)
    other.input(None, [other, guesses], guesses, js="(other, guess) => (Number.isInteger(other) ? null : guess)", **_BROWSER)
    return Shared(desk, picker, model, guesses, other), looking


_BROWSER: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def _tabs(shared: Shared, known: Known) -> tuple[list[Any], list[Any]]:
    """All tabs; what changes with the model, and the two classes of the second."""
    with gr.Tab("Explain", id="explain"):
        changing = make_explain(shared, known)
    with gr.Tab("Why this and not that", id="contrast"):
        more, pair = make_contrast(shared, known)
    with gr.Tab("Compare", id="compare"):
        methods = make_compare(shared, known)
    with gr.Tab("Saturation", id="saturation"):
        walks = make_saturation(shared, known)
    if shared.desk.run is not None:
        from faithmap.app.runs import browse  # noqa: PLC0415 - only where there is a run to read

        with gr.Tab("Browse the benchmark", id="browse"):
            browse(shared.desk.run)
    return [*changing, *more, methods, *walks], pair


def _connect_photo(page: gr.Blocks, shared: Shared, looking: Status, changing: list[Any], pair: list[Any]) -> None:
    """Ask the model what it sees as soon as there is another photograph, or another model."""
    first = First(shared)
    outputs = [shared.guesses, shared.other, *pair, looking]
    inputs = [shared.picker, shared.model]
    page.load(first.look, inputs, outputs, **SLOW).failure(first.busy, None, looking, **QUICK)
    for changes in (shared.picker.change, shared.model.change):
        begun = changes(first.begin, shared.picker, [shared.guesses, looking], **QUICK)
        begun.failure(None, None, looking, js=UNANSWERED, **QUICK)
        looked = begun.then(first.look, inputs, outputs, **SLOW)
        looked.failure(first.busy, None, looking, **QUICK)
    looked.success(first.refit, shared.model, changing, **SLOW)


@dataclass(frozen=True)
class First:
    """The first look at a photograph, each event a method that returns the values of its outputs."""

    shared: Shared

    def begin(self, word: str, request: gr.Request) -> tuple[Any, ...]:
        """The buttons, which are empty, and the line."""
        room = self.shared.desk.room(request.session_hash)
        room.start()
        room.words = self.shared.desk.shelf.held({*room.words, word})
        return gr.update(choices=[], value=None), LOOKING

    def look(self, word: str, model: str) -> tuple[Any, ...]:
        """The five best classes, the search, the two classes of the second tab, and the line."""
        try:
            known, best = once(self.shared.desk, lambda _: _seen(self.shared, word, model))
        except Exception as error:  # noqa: BLE001 - the page goes on
            return gr.update(choices=[], value=None), *(gr.skip() for _ in range(3)), failed(error)
        labels = labels_of(known)
        two = [best[0][1], best[1][1] if len(best) > 1 else None]
        classes = [gr.update(choices=labels, value=value) for value in two]
        return gr.update(choices=best, value=two[0]), gr.update(choices=labels, value=None), *classes, None

    def busy(self) -> dict[str, object]:
        """The line where the question was not taken."""
        return {"share": None, "text": BUSY, "error": True}

    def refit(self, model: str) -> list[Any]:
        """All controls that depend on the model."""
        known = known_to(self.shared.desk, model)
        walks = [
            gr.update(choices=spoken_names(known.cams), value=[name for name in CAMS if name in known.cams]),
            gr.update(choices=choices_of("target_layer", known), value=""),
        ]
        fits = fitting(known, None)
        return [*fits, *fits, gr.update(choices=offered(known), value=proposed(known)), *walks]


def _seen(shared: Shared, word: str, model: str) -> tuple[Known, list[tuple[str, int]]]:
    known = shared.desk.models.get(model)
    probabilities = predict(shared.subject(word, model))
    best = [(f"{known.model.label(i)}  {float(probabilities[i]):.2f}", i) for i in known.best(probabilities)]
    return known, best


def labels_of(known: Known) -> list[tuple[str, int]]:
    """All classes, for the search; a name that several have gets its number."""
    labels = known.model.labels or ()
    several = {label for label in labels if labels.count(label) > 1} if len(set(labels)) < len(labels) else set()
    return [(f"{label} ({i})" if label in several else label, i) for i, label in enumerate(labels)]


def _connect_end(page: gr.Blocks, desk: Desk) -> None:
    def leave(request: gr.Request) -> None:
        desk.leave(request.session_hash)

    page.unload(leave)
