"""Limits for the bodies of requests: exactly what the page's own script sends.

Gradio's server takes more: it treats an object that names a file as a file, in the data of any component, and copies the file,
or fetches the address, into its temporary folder. No component of this page takes a file that way. So a body is JSON whose
objects have only the names of a short list, and it is read completely before Gradio receives any of it.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.types import Message, Receive

NAMES = frozenset(
    (
        *("data", "event_data", "event_id", "fn_index", "session_hash", "trigger_id"),
        *("token", "name"),
        "index",
    )
)
"""Names of an event, of a photograph, and of a chosen line."""


async def read_body(receive: Receive) -> bytes | None:
    """The complete body of a request; None if either side closed the connection."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


def is_page_body(body: bytes) -> bool:
    """Whether a body is one that the page sends.

    >>> is_page_body(b'{"data": [{"token": "chelsea"}, 28], "fn_index": 4}')
    True
    >>> is_page_body(b'{"data": [{"path": "/etc/hostname"}]}')
    False
    """
    try:
        given = json.loads(body, object_pairs_hook=_object, parse_constant=_refuse)
        json.dumps(given, ensure_ascii=False, allow_nan=False).encode()  # half a surrogate pair cannot be encoded in an answer
    except (ValueError, RecursionError):
        return False
    return isinstance(given, dict)


def replay(body: bytes, receive: Receive) -> Receive:
    """For the next reader: the same body, then the messages that follow."""
    left = [body]

    async def replayed() -> Message:
        return {"type": "http.request", "body": left.pop()} if left else await receive()

    return replayed


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if not NAMES.issuperset(name for name, _ in pairs):
        raise ValueError("a name that the page does not send")
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
