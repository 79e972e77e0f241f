"""The page: photograph, model and class on the left, tabs on the right."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import gradio as gr

from faithmap.app.asking import error_status, offered_model, run_short_job
from faithmap.app.controls import choices_of, fitting
from faithmap.app.desk import AppState
from faithmap.app.models import CAMS, OfferedModel
from faithmap.app.parts.parts import Header, Picker, StatusLine
from faithmap.app.safety import BUSY
from faithmap.app.showing import titles_of
from faithmap.app.tabs.common import NO_SERVER, QUICK, SLOW, SharedInputs
from faithmap.app.tabs.compare import make_compare, offered_methods, proposed_methods
from faithmap.app.tabs.contrast import make_contrast
from faithmap.app.tabs.explain import make_explain
from faithmap.app.tabs.saturation import make_saturation
from faithmap.app.work import predict

TITLE = "faithmap"
PREDICTING = {"share": None, "text": "predicting the class"}

QUEUE = 16
"""Maximum number of waiting requests; further ones are refused with a message."""

SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def looks() -> dict[str, Any]:
    """Theme and style. They load nothing from other servers: the fonts are those of the system."""
    theme = gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", font=list(SYSTEM_FONTS), font_mono=list(MONO_FONTS), radius_size="md"
    )
    theme = theme.set(body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300")
    theme = theme.set(input_placeholder_color="*neutral_600", input_placeholder_color_dark="*neutral_300")
    theme = theme.set(button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800")
    return {"theme": theme, "css": (files("faithmap.app") / "page.css").read_text(encoding="utf-8")}


def make_page(state: AppState) -> gr.Blocks:
    """Make the page; loads the first model."""
    offered = state.models.get(state.models.offered[0])
    page: gr.Blocks
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        Header(elem_classes="fm-header")
        with gr.Row(elem_classes="fm-page"):
            with gr.Column(scale=1, min_width=280, elem_classes="fm-left"):
                shared, status = _left(state, offered)
            with gr.Column(scale=3, min_width=340), gr.Tabs():
                changing, pair = _tabs(shared, offered)
        _connect_photo(page, shared, status, changing, pair)
        _connect_end(page, state)
    page.queue(max_size=QUEUE, default_concurrency_limit=4, api_open=False)
    page._queue.ANALYTICS_MAX_EVENTS = 0  # Gradio would store every request
    return page


def _left(state: AppState, offered: OfferedModel) -> tuple[SharedInputs, StatusLine]:
    """The photograph, the model, the class, and a status line."""
    picker = Picker(elem_id="photo")
    model = gr.Dropdown(state.models.offered, value=state.models.offered[0], label="Model", elem_id="model")
    guesses = gr.Radio([], label="Predicted classes", elem_id="guesses", elem_classes="fm-guesses")
    other = gr.Dropdown(labels_of(offered), value=None, label="Another class", filterable=True, elem_id="other")
    status = StatusLine(None, elem_id="looking")
    guesses.input(None, None, other, js="() => null", **_BROWSER)
    other.input(None, [other, guesses], guesses, js="(other, guess) => (Number.isInteger(other) ? null : guess)", **_BROWSER)
    return SharedInputs(state, picker, model, guesses, other), status


_BROWSER: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def _tabs(shared: SharedInputs, offered: OfferedModel) -> tuple[list[Any], list[Any]]:
    """All tabs; what changes with the model, and the two classes of the second tab."""
    with gr.Tab("Explain", id="explain"):
        changing = make_explain(shared, offered)
    with gr.Tab("Why this and not that", id="contrast"):
        more, pair = make_contrast(shared, offered)
    with gr.Tab("Compare", id="compare"):
        methods = make_compare(shared, offered)
    with gr.Tab("Saturation", id="saturation"):
        saturation = make_saturation(shared, offered)
    if shared.state.run is not None:
        from faithmap.app.runs import browse  # noqa: PLC0415 - only if there is a run to read

        with gr.Tab("Browse the benchmark", id="browse"):
            browse(shared.state.run)
    return [*changing, *more, methods, *saturation], pair


def _connect_photo(page: gr.Blocks, shared: SharedInputs, status: StatusLine, changing: list[Any], pair: list[Any]) -> None:
    """Predict the classes whenever the photograph or the model changes."""
    events = PhotoEvents(shared)
    outputs = [shared.guesses, shared.other, *pair, status]
    inputs = [shared.picker, shared.model]
    page.load(events.look, inputs, outputs, **SLOW).failure(events.busy, None, status, **QUICK)
    for changes in (shared.picker.change, shared.model.change):
        begun = changes(events.begin, shared.picker, [shared.guesses, status], **QUICK)
        begun.failure(None, None, status, js=NO_SERVER, **QUICK)
        looked = begun.then(events.look, inputs, outputs, **SLOW)
        looked.failure(events.busy, None, status, **QUICK)
    looked.success(events.refit, shared.model, changing, **SLOW)


@dataclass(frozen=True)
class PhotoEvents:
    """The events of a new photograph or model. Each is a method that returns the values of its outputs."""

    shared: SharedInputs

    def begin(self, token: str, request: gr.Request) -> tuple[Any, ...]:
        """The buttons of the classes, empty, and the status line."""
        session = self.shared.state.session(request.session_hash)
        session.start()
        session.tokens = self.shared.state.uploads.existing({*session.tokens, token})
        return gr.update(choices=[], value=None), PREDICTING

    def look(self, token: str, model: str) -> tuple[Any, ...]:
        """The five best classes, the search, the two classes of the second tab, and the status line."""
        try:
            offered, best = run_short_job(self.shared.state, lambda _: _predicted(self.shared, token, model))
        except Exception as error:  # noqa: BLE001 - the page stays usable
            return gr.update(choices=[], value=None), *(gr.skip() for _ in range(3)), error_status(error)
        labels = labels_of(offered)
        two = [best[0][1], best[1][1] if len(best) > 1 else None]
        classes = [gr.update(choices=labels, value=value) for value in two]
        return gr.update(choices=best, value=two[0]), gr.update(choices=labels, value=None), *classes, None

    def busy(self) -> dict[str, object]:
        """The status line of a request that was not accepted."""
        return {"share": None, "text": BUSY, "error": True}

    def refit(self, model: str) -> list[Any]:
        """All controls that depend on the model."""
        offered = offered_model(self.shared.state, model)
        saturation = [
            gr.update(choices=titles_of(offered.cams), value=[name for name in CAMS if name in offered.cams]),
            gr.update(choices=choices_of("target_layer", offered, offered.default), value=""),
        ]
        fits = fitting(offered, None)
        methods = gr.update(choices=offered_methods(offered), value=proposed_methods(offered))
        return [*fits, *fits, methods, *saturation]


def _predicted(shared: SharedInputs, token: str, model: str) -> tuple[OfferedModel, list[tuple[str, int]]]:
    offered = shared.state.models.get(model)
    probabilities = predict(shared.subject(token, model))
    best = [(f"{offered.model.label(i)}  {float(probabilities[i]):.2f}", i) for i in offered.best(probabilities)]
    return offered, best


def labels_of(offered: OfferedModel) -> list[tuple[str, int]]:
    """All classes, for the search; if several have the same name, their numbers are appended."""
    labels = offered.model.labels or ()
    several = {label for label in labels if labels.count(label) > 1} if len(set(labels)) < len(labels) else set()
    return [(f"{label} ({i})" if label in several else label, i) for i, label in enumerate(labels)]


def _connect_end(page: gr.Blocks, state: AppState) -> None:
    def leave(request: gr.Request) -> None:
        state.end_session(request.session_hash)

    page.unload(leave)
