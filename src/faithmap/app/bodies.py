"""Bodies: what the page's own script sends, and nothing more of what Gradio's server would take.

Gradio reads an object that names a file as one, whatever part of a page it is sent to: the server copies the file, or fetches
the address, into its temporary folder and says where. No part of this page takes a file that way. So a body is JSON whose
objects have names of a short list, wherever they stand, and is read whole before Gradio sees any of it.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.types import Message, Receive

NAMES = frozenset(
    (
        *("data", "event_data", "event_id", "fn_index", "session_hash", "trigger_id"),
        *("word", "name"),
        "index",
    )
)
"""Of a question, of a photograph, and of a line that was chosen."""


async def whole(receive: Receive) -> bytes | None:
    """All of a request's body; None where the visitor hung up, or was hung up on."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


def is_plain(body: bytes) -> bool:
    """Whether it is what the page sends.

    >>> is_plain(b'{"data": [{"word": "chelsea"}, 28], "fn_index": 4}'), is_plain(b'{"data": [{"path": "/etc/hostname"}]}')
    (True, False)
    """
    try:
        given = json.loads(body, object_pairs_hook=_named, parse_constant=_refused)
        json.dumps(given, ensure_ascii=False, allow_nan=False).encode()  # half a character is one that nobody can answer to
    except (ValueError, RecursionError):
        return False
    return isinstance(given, dict)


def again(body: bytes, receive: Receive) -> Receive:
    """For whoever reads next: the same body, then what else comes."""
    held = [body]

    async def replayed() -> Message:
        return {"type": "http.request", "body": held.pop()} if held else await receive()

    return replayed


def _named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if not NAMES.issuperset(name for name, _ in pairs):
        raise ValueError("a name that the page does not send")
    return dict(pairs)


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
