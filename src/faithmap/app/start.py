"""From the command's options to a page that answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from faithmap.app.desk import Desk
from faithmap.app.models import Models
from faithmap.app.server import PageServer, bound, make_server, private_place

if TYPE_CHECKING:
    from faithmap.cli.app import AppOptions


def start(options: AppOptions, ready: Callable[[str], None]) -> None:
    """Load the first model, make the page, and answer until the process is asked to end.

    Args:
        options: as the user gave them.
        ready: told the address.

    Raises:
        UserError: where the port is taken.
        faithmap.ModelError: for a model that cannot be had.
    """
    with private_place() as place:
        at = bound(options.port)
        desk = Desk(Models(options.models or None, options.device), place, options.run)
        from faithmap.app.page import looks, make_page  # noqa: PLC0415 - Gradio reads the environment when it is imported

        page = make_page(desk)
        PageServer(make_server(desk, page, options.public_url, **looks()), desk, at, ready).answer()
