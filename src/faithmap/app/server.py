"""The server: reachable only from this machine, behind the guard; removes all its files when it ends."""

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

from faithmap.app.desk import AppState
from faithmap.app.safety import LOCAL, Guard
from faithmap.app.shelf import MAX_UPLOAD_BYTES, plain, too_large
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
"""Environment variables that Gradio reads when it is imported and when it starts."""

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
"""Switches off everything that Gradio can add to a page."""

GRACE = 1
"""Seconds that running answers have when the server ends."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can read, for Gradio's temporary files; removed at the end."""
    with tempfile.TemporaryDirectory(prefix="faithmap-app-") as made:
        previous = {name: os.environ.get(name) for name in (*_QUIET, "GRADIO_TEMP_DIR")}
        os.environ.update(_QUIET, GRADIO_TEMP_DIR=made)
        try:
            yield Path(made)
        finally:
            for name, value in previous.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def make_server(state: AppState, blocks: gr.Blocks, public: str | None = None, **looks: Any) -> Guard:
    """The application that serves the page, guarded.

    Args:
        state: of the server.
        blocks: the page.
        public: address at which a reverse proxy serves the page.
        looks: theme and style, passed to ``gradio.mount_gradio_app``.
    """
    import gradio as gr  # noqa: PLC0415 - takes seconds, and reads the environment

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_uploads(app, state)
    add_downloads(app, state)
    gr.mount_gradio_app(app, blocks, server_name=LOCAL[0], root_path=public, **_PLAIN, **looks)
    state.on_close.append(blocks.app.stop_event.set)  # ends connections that wait for progress
    return Guard(app, public)


def add_uploads(app: FastAPI, state: AppState) -> None:
    """Add the path that receives photographs."""

    @app.post("/photo")
    async def photo(request: Request) -> Response:
        """Store a photograph; answers with its token, or with one line that gives the reason of the refusal."""
        name = plain(unquote(request.headers.get("x-name", ""))[:500])
        try:
            data = await _body(request, name)
            token = await run_in_threadpool(state.uploads.put, name, data)
        except Exception as error:  # noqa: BLE001 - any error of a decoder becomes one line
            return JSONResponse({"error": line_for(error)}, 400)
        return JSONResponse({"token": token, "name": name})


def add_downloads(app: FastAPI, state: AppState) -> None:
    """Add the path that serves downloads."""

    @app.get("/download/{token}")
    def download(token: str) -> Response:
        """Answer with the download of that token."""
        found = state.downloads.get(token)
        if found is None:
            return JSONResponse({"error": "this result is no longer here; pack it again"}, 404)
        name = found.name.encode("ascii", "replace").decode().replace("?", "_")
        return Response(found.data, 200, {"Content-Disposition": f'attachment; filename="{name}"'}, "application/zip")


async def _body(request: Request, name: str) -> bytes:
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_UPLOAD_BYTES:
        raise RefusedError(too_large(name))
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_UPLOAD_BYTES:
            raise RefusedError(too_large(name))
    return bytes(data)


def bound(port: int) -> socket.socket:
    """A socket on 127.0.0.1.

    Raises:
        UserError: if the port cannot be used.
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
    """Answers requests on a socket until a signal or :attr:`should_exit` ends it.

    Args:
        app: the application.
        state: of the server; closed before running answers are waited for.
        at: the socket; closed at the end.
        ready: called with the address when the page can be opened.
    """

    def __init__(self, app: Guard, state: AppState, at: socket.socket, ready: Callable[[str], None]) -> None:
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE, ws="none"
        )
        super().__init__(config)
        self._state, self._at, self._ready = state, at, ready

    def answer(self) -> None:
        """Answer requests until the end."""
        with closing(self._at):
            try:
                self.run(sockets=[self._at])
            finally:
                self._state.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call ``ready``."""
        await super().startup(sockets)
        if not self.should_exit:
            self._ready(f"http://{LOCAL[0]}:{self._at.getsockname()[1]}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the jobs first, then the server."""
        self._state.close()
        await super().shutdown(sockets)
