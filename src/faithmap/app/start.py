"""Start the page: load the first model, build the page, and serve it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from faithmap.app.desk import AppState
from faithmap.app.models import OfferedModels
from faithmap.app.safety import Guard
from faithmap.app.server import PageServer, bound, make_server, private_folder
from faithmap.errors import UserError

PATIENCE = 0.5
"""Seconds that a running pass of the model has when the server ends."""


def start(
    ready: Callable[[str], None],
    *,
    run: Path | None = None,
    models: Sequence[str] = (),
    port: int = 0,
    public_url: str | None = None,
    device: str | None = None,
) -> None:
    """Load the first model, make the page, and answer requests until the process is asked to end.

    Args:
        ready: called with the address when the page can be opened.
        run: folder of a benchmark to browse.
        models: names of the models that can be chosen; by default those whose weights are installed.
        port: on 127.0.0.1; 0 for any free port.
        public_url: address at which a reverse proxy serves the page.
        device: where to compute; by default the CPU.

    Raises:
        UserError: if the port cannot be used, or the public address is not one.
        faithmap.ModelError: for a model that cannot be loaded.
    """
    public = None if public_url is None else public_url.rstrip("/")
    if public is not None and (urlsplit(public).scheme not in ("http", "https") or urlsplit(public).path or "," in public):
        raise UserError(f"--public-url is {public!r}; give an address such as https://maps.example.org, without a path")
    with private_folder() as folder, closing(bound(port)) as at:
        state = AppState(OfferedModels(models or None, device), folder, run)
        try:
            PageServer(asyncio.run(guarded_page(state, public)), state, at, ready).answer()
        finally:
            state.jobs.ended(PATIENCE)  # before the folder is removed


async def guarded_page(state: AppState, public: str | None = None) -> Guard:
    """The page, guarded. Made inside an event loop: outside, Gradio opens a loop for each lock and never closes it.

    Args:
        state: of the server.
        public: address at which a reverse proxy serves the page.
    """
    from faithmap.app.page import looks, make_page  # noqa: PLC0415 - Gradio reads the environment when it is imported

    return make_server(state, make_page(state), public, **looks())
