"""From the command's options to a page that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from faithmap.app.desk import Desk
from faithmap.app.models import Models
from faithmap.app.safety import Guard
from faithmap.app.server import PageServer, bound, make_server, private_place
from faithmap.errors import UserError

PATIENCE = 0.5
"""Seconds for a pass of the model that runs when the server ends."""


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
        UserError: where the port is taken.
        faithmap.ModelError: for a model that cannot be had.
    """
    public = None if public_url is None else public_url.rstrip("/")
    if public is not None and (urlsplit(public).scheme not in ("http", "https") or urlsplit(public).path or "," in public):
        raise UserError(f"--public-url is {public!r}; give an address such as https://maps.example.org, without a path")
    with private_place() as place, closing(bound(port)) as at:
        desk = Desk(Models(models or None, device), place, run)
        try:
            PageServer(asyncio.run(guarded_page(desk, public)), desk, at, ready).answer()
        finally:
            desk.worker.ended(PATIENCE)  # before its folder goes


async def guarded_page(desk: Desk, public: str | None = None) -> Guard:
    """The page, guarded; made inside a loop, since Gradio leaves one open for each lock that it makes outside.

    Args:
        desk: what the server keeps.
        public: the address under which a reverse proxy shows the page.
    """
    from faithmap.app.page import looks, make_page  # noqa: PLC0415 - Gradio reads the environment when it is imported

    return make_server(desk, make_page(desk), public, **looks())
