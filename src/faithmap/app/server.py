"""The server: on this machine alone, in front of it the guard, and nothing left behind when it ends."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import uvicorn
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from faithmap.app.desk import Desk
from faithmap.app.safety import LOCAL, Guard
from faithmap.app.shelf import MAX_BYTES, plain, too_large
from faithmap.app.words import RefusedError, line_for
from faithmap.errors import UserError, os_reason

if TYPE_CHECKING:
    import gradio as gr

_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""Read by Gradio when it is imported, and when it starts."""

_PLAIN: dict[str, Any] = {
    "path": "/",
    "footer_links": [],
    "run_history": False,
    "show_error": False,
    "max_file_size": 1,
    "ssr_mode": False,
    "enable_monitoring": False,
    "pwa": False,
    "mcp_server": False,
}
"""Of all that Gradio can add to a page, nothing."""

GRACE = 1
"""Seconds for answers that are under way when the server ends."""


@contextmanager
def private_place() -> Iterator[Path]:
    """A folder that only this user can look into, where Gradio puts what it must; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="faithmap-app-") as made:
        before = {name: os.environ.get(name) for name in (*_QUIET, "GRADIO_TEMP_DIR")}
        os.environ.update(_QUIET, GRADIO_TEMP_DIR=made)
        try:
            yield Path(made)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def make_server(desk: Desk, blocks: gr.Blocks, public: str | None = None, **looks: Any) -> Guard:
    """The page and what belongs to it, guarded.

    Args:
        desk: what the server keeps.
        blocks: the page.
        public: the address under which a reverse proxy shows it.
        looks: the page's theme, style and head, as ``gradio.mount_gradio_app`` takes them.
    """
    import gradio as gr  # noqa: PLC0415 - takes seconds, and reads the environment

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _take_photographs(app, desk)
    _give_parcels(app, desk)
    gr.mount_gradio_app(app, blocks, server_name=LOCAL[0], root_path=public, **_PLAIN, **looks)
    desk.endings.append(blocks.app.stop_event.set)  # connections that wait for news end, too
    return Guard(app, public)


def _take_photographs(app: FastAPI, desk: Desk) -> None:
    @app.post("/photo")
    async def photo(request: Request) -> Response:
        """Take one photograph, and answer with the word for it, or with the one line that says why not."""
        name = plain(unquote(request.headers.get("x-name", ""))[:500])
        try:
            data = await _body(request, name)
            word = await run_in_threadpool(desk.shelf.put, name, data)
        except Exception as error:  # noqa: BLE001 - whatever a hostile file does to a decoder becomes one line
            return JSONResponse({"error": line_for(error)}, 400)
        return JSONResponse({"word": word, "name": name})


def _give_parcels(app: FastAPI, desk: Desk) -> None:
    @app.get("/parcel/{word}")
    def parcel(word: str) -> Response:
        """Give what was packed for the one who has the word."""
        found = desk.parcels.get(word)
        if found is None:
            return JSONResponse({"error": "this result is no longer here; pack it again"}, 404)
        name = found.name.encode("ascii", "replace").decode().replace("?", "_")
        return Response(found.data, 200, {"Content-Disposition": f'attachment; filename="{name}"'}, "application/zip")


async def _body(request: Request, name: str) -> bytes:
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_BYTES:
        raise RefusedError(too_large(name))
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BYTES:
            raise RefusedError(too_large(name))
    return bytes(data)


def bound(port: int) -> socket.socket:
    """A socket on this machine's own address.

    Raises:
        UserError: where the port is taken.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((LOCAL[0], port))
    except OSError as error:
        made.close()
        raise UserError(f"port {port} cannot be used ({os_reason(error)}); give another --port, or 0 for any") from error
    return made


class PageServer(uvicorn.Server):
    """Answers on a socket until it is asked to end, by a signal or by :attr:`should_exit`.

    Args:
        app: what answers.
        desk: closed at the end, before answers that are under way are waited for.
        at: the socket, closed at the end.
        ready: told the address when the page can be opened.
    """

    def __init__(self, app: Guard, desk: Desk, at: socket.socket, ready: Callable[[str], None]) -> None:
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE, ws="none"
        )
        super().__init__(config)
        self._desk, self._at, self._ready = desk, at, ready

    def answer(self) -> None:
        """Until the end."""
        with closing(self._at):
            try:
                self.run(sockets=[self._at])
            finally:
                self._desk.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that it is up."""
        await super().startup(sockets)
        if not self.should_exit:
            self._ready(f"http://{LOCAL[0]}:{self._at.getsockname()[1]}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is computed first."""
        self._desk.close()
        await super().shutdown(sockets)
