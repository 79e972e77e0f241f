"""From the command's options to a page that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from faithmap.app.desk import Desk
from faithmap.app.models import Models
from faithmap.app.safety import Guard
from faithmap.app.server import PageServer, bound, make_server, private_place
from faithmap.errors import UserError

if TYPE_CHECKING:
    from faithmap.app.command import AppArguments

PATIENCE = 0.5
"""Seconds for a pass of the model that runs when the server ends."""


def start(arguments: AppArguments, ready: Callable[[str], None]) -> None:
    """Load the first model, make the page, and answer until the process is asked to end.

    Args:
        arguments: as the user gave them.
        ready: told the address.

    Raises:
        UserError: where the port is taken.
        faithmap.ModelError: for a model that cannot be had.
    """
    public = None if arguments.public_url is None else arguments.public_url.rstrip("/")
    if public is not None and (urlsplit(public).scheme not in ("http", "https") or urlsplit(public).path or "," in public):
        raise UserError(f"--public-url is {public!r}; give an address such as https://maps.example.org, without a path")
    with private_place() as place, closing(bound(arguments.port)) as at:
        desk = Desk(Models(arguments.models or None, arguments.device), place, arguments.run)
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
