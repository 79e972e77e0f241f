"""Guard: checks every request before the server of the page answers it, and adds security headers to every answer.

Gradio's server offers far more than this page needs: it serves and accepts files, fetches addresses, documents its interface.
So only a short list of paths is answered; all others return 404. Host and origin of a request are checked: neither a script of
another site nor a foreign name that resolves to 127.0.0.1 is accepted. Bodies contain only what the page sends
(:mod:`faithmap.app.bodies`). The headers of an answer allow scripts of this server only, no other host, no frames, and no
guessing of types.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faithmap.app.bodies import is_page_body, read_body, replay
from faithmap.app.shelf import MAX_UPLOAD_BYTES

LOCAL = ("127.0.0.1", "localhost")

MAX_BODY_BYTES = 256 * 2**10
"""Maximum size of a request that is not a photograph."""

BUSY = "not accepted: too many requests are waiting, or this page is older than the server; try again in a minute, or reload"

_NAME = r"[A-Za-z0-9_-]{1,64}"
_ANSWERED: Mapping[str, tuple[re.Pattern[str], ...]] = {
    "GET": tuple(
        map(
            re.compile,
            (
                r"/",
                r"/(assets|static)/[\w./-]+",
                r"/(gradio_api/)?theme\.css",
                r"/favicon\.ico",
                rf"/gradio_api/heartbeat/{_NAME}",
                r"/gradio_api/queue/data",
                rf"/download/{_NAME}",
            ),
        )
    ),
    "POST": tuple(map(re.compile, (r"/gradio_api/(queue/join|run/predict|cancel)/?", r"/photo"))),
}
"""The paths that are answered, by method."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_INLINE = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)
_OUTWARD = re.compile(rb"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>|<link rel=\"manifest\"[^>]*>\s*")


@dataclass(frozen=True)
class Guard:
    """ASGI middleware.

    Attributes:
        app: the guarded application.
        public: address at which a reverse proxy serves the page, such as ``https://maps.example.org``; None without a proxy.
    """

    app: ASGIApp
    public: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        sealed, refusal, body = _Sender(send, scope["path"]), self._refusal(scope), None
        if refusal is None and scope["method"] == "POST" and scope["path"] != "/photo":
            body = await read_body(_capped(receive, MAX_BODY_BYTES + 1))
            refusal = None if body is not None and is_page_body(body) else (400, "not a request of the page")
        if refusal is not None:
            status, line = refusal
            await JSONResponse({"error": line}, status)(scope, receive, sealed)
            return
        await self.app(scope, _capped(receive, MAX_UPLOAD_BYTES + 1) if body is None else replay(body, receive), sealed)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and message for a request that is refused; None for one that is answered."""
        headers = Headers(scope=scope)
        method, path = "GET" if scope["method"] == "HEAD" else scope["method"], scope["path"]
        if not self._is_own(headers, path):
            return 403, "this page answers only at its own address"
        if ".." in path or not any(pattern.fullmatch(path) for pattern in _ANSWERED.get(method, ())):
            return 404, "not found"
        length = headers.get("content-length", "0")
        if path != "/photo" and (not length.isdecimal() or int(length) > MAX_BODY_BYTES):
            return 413, "larger than any request of the page"
        return None

    def _is_own(self, headers: Headers, path: str) -> bool:
        """Whether a request comes from the page, or opens it."""
        hosts: Collection[str | None] = (*LOCAL, urlsplit(self.public or "").hostname)
        host = headers.get("host", "")
        if _name(host) not in hosts:
            return False
        origin = headers.get("origin")
        if origin is not None and origin != self.public and urlsplit(origin).netloc != host:
            return False
        site = headers.get("sec-fetch-site", "none")
        return site in ("none", "same-origin") or (path == "/" and headers.get("sec-fetch-mode") == "navigate")


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _capped(receive: Receive, limit: int) -> Receive:
    """Closes the connection when a body exceeds the limit, whatever its header says."""
    left = limit

    async def capped() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        return message if left >= 0 else {"type": "http.disconnect"}

    return capped


class _Sender:
    """Adds the security headers, removes links to other hosts from the page, and allows its inline scripts by their SHA-256."""

    def __init__(self, send: Send, path: str) -> None:
        self._send = send
        self._path = path
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        """Send one part of a response."""
        if message["type"] == "http.response.start" and self._is_page(message):
            self._start = message
            return
        if message["type"] == "http.response.start":
            self._seal(message)
        if message["type"] == "http.response.body" and self._start is not None:
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            message = await self._rewritten(self._start)
        await self._send(message)

    def _is_page(self, message: MutableMapping[str, Any]) -> bool:
        return self._path == "/" and "text/html" in Headers(raw=message["headers"]).get("content-type", "")

    async def _rewritten(self, start: Message) -> Message:
        page = _OUTWARD.sub(b"", self._body)
        if self._body:
            MutableHeaders(scope=start)["Content-Length"] = str(len(page))
        self._seal(start, tuple(_digest(script) for script in _INLINE.findall(page)))
        self._start = None
        await self._send(start)
        return {"type": "http.response.body", "body": page}

    def _seal(self, message: MutableMapping[str, Any], scripts: Collection[str] = ()) -> None:
        headers = MutableHeaders(scope=message)
        headers.update({**_HEADERS, "Content-Security-Policy": policy(scripts)})
        if "server" in headers:
            del headers["server"]
        if not self._path.startswith(("/assets/", "/static/")):
            headers["Cache-Control"] = "no-store"


def policy(scripts: Collection[str] = ()) -> str:
    """The content security policy of a response.

    Gradio 6.31 needs ``'unsafe-eval'``; without it the page stays empty. The browser makes functions from the template and the
    script of every ``gr.HTML``, which all parts of this page are, and from the ``js`` of every event. The source of these
    functions is part of this package; values of visitors and files are never part of it. Inline scripts run only if their
    digest is given, scripts of other hosts never.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' 'unsafe-eval' {' '.join(scripts)}".strip(),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'self'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _digest(script: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
