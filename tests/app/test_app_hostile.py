"""Requests that the page never sends: none reaches a file or another host, and no answer contains a path or a traceback."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from app_tools import page_open, picture
from viewer_tools import PANDAS

from faithmap.app.bodies import is_page_body
from faithmap.app.desk import AppState

pytestmark = pytest.mark.filterwarnings(*PANDAS)

LEAK = re.compile(r"Traceback|File \"|site-packages|faithmap-app-|/(?:home|tmp|usr|root|etc|opt|var)/")
"""What no answer may contain."""

STRANGE: list[Any] = [
    *(None, "", -1, 1.5, 10**30, True, "x" * 5000, "../../x", "<b>", "\ud800", "\0"),
    *([], [None], [["gradcam"]], ["x"] * 9000, {}, {"token": ["a"]}),
]


class Page:
    """The server of the page, without a browser."""

    def __init__(self, address: str) -> None:
        self.address = address
        with urlopen(address) as answer:
            found = re.search(r"window\.gradio_config = (\{.*?\});</script>", answer.read().decode(), re.DOTALL)
        assert found is not None
        self.events = [one for one in json.loads(found[1])["dependencies"] if one["backend_fn"]]

    def post(self, path: str, body: bytes) -> tuple[int, str]:
        request = Request(f"{self.address}/gradio_api/{path}", body, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def ask(self, event: dict[str, Any], data: Any, **more: Any) -> tuple[int, str]:
        """The answer to an event: at once, or from the queue."""
        body = {"data": data, "fn_index": event["id"], "session_hash": "someone", **more}
        path = "queue/join" if event["queue"] else "run/predict"
        status, text = self.post(path, json.dumps(body).encode())
        if status == 200 and event["queue"]:
            with urlopen(f"{self.address}/gradio_api/queue/data?session_hash=someone", timeout=60) as news:
                text = "".join(line.decode() for line in iter(news.readline, b"") if line.strip())
        return status, text

    def event(self, name: str) -> dict[str, Any]:
        return next(one for one in self.events if one["api_name"] == name)


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Page, AppState]]:
    with page_open() as (address, state):
        yield Page(address), state


def test_no_part_of_the_page_takes_a_file(site: tuple[Page, AppState], tmp_path: Path) -> None:
    """Gradio would copy the file into its temporary folder, or fetch the address, and answer with the path."""
    page, state = site
    (tmp_path / "secret.txt").write_text("secret")
    initial = sorted(state.folder.rglob("*"))
    for named in (str(tmp_path / "secret.txt"), "http://127.0.0.1:9/secret.txt"):
        file = {"path": named, "meta": {"_type": "gradio.FileData"}}
        for event in page.events:
            for given in (file, [file]):
                status, text = page.ask(event, [given] * len(event["inputs"]))
                assert (status, "secret" in text) == ((200, False) if not event["inputs"] else (400, False)), event["api_name"]
        assert page.ask(page.event("cancel"), [], event_data=file)[0] == 400
    assert sorted(state.folder.rglob("*")) == initial


@pytest.mark.parametrize("name", ["run", "run_2", "run_3", "look", "change", "begin_4"])
def test_strange_values_are_answered_with_one_line(site: tuple[Page, AppState], name: str) -> None:
    page, _ = site
    chosen: dict[str, list[Any]] = {
        "run": [0, None],
        "run_2": [0, None, ["gradcam"], 7, ""],
        "run_3": [0, None, ["gradcam"], "", "blur", 4],
    }
    given: list[Any] = [{"token": "chelsea", "name": "chelsea"}, "small", *chosen.get(name, [])]
    if name == "run":
        given += ["gradcam", None, None, None, "", "", ""]
    given = {"change": ["small", "gradcam"], "begin_4": given[:1]}.get(name, given)
    event = page.event(name)
    if name.startswith("run"):
        page.ask(page.event("look"), given[:2])
        assert "done in" in page.ask(event, given)[1]
    for place in range(len(given)):
        for value in STRANGE:
            _, text = page.ask(event, [*given[:place], value, *given[place + 1 :]])
            assert not LEAK.search(text), (place, str(value)[:40])
    for data in ([], given[:-1], None, "x", 5, [given]):
        assert not LEAK.search(page.ask(event, data)[1])
    assert page.ask(event, given)[0] == 200, "the page goes on"


def test_only_tokens_of_photographs_are_kept(site: tuple[Page, AppState]) -> None:
    page, state = site
    event, token = page.event("begin_4"), state.uploads.put("cat.png", picture())
    for given in (token, *(str(number) * 1000 for number in range(20))):
        assert page.ask(event, [{"token": given, "name": "cat.png"}])[0] == 200
    assert state.session("someone").tokens == {token}
    state.end_session("someone")
    assert state.uploads.existing([token]) == set()


def test_only_bodies_of_the_page_are_accepted(site: tuple[Page, AppState]) -> None:
    for body in (
        b'{"data": [{"token": "w", "name": "n"}, null, 1, ["a"]], "fn_index": 1}',
        b'{"event_data": {"index": 3}}',
        b"{}",
    ):
        assert is_page_body(body)
    deep = b'{"data": ' + b"[" * 100_000
    for strange in (
        b"",
        b"[]",
        b"null",
        b"{",
        deep,
        b'{"data": [NaN]}',
        b'{"data": [1e400, Infinity]}',
        b"\xff",
        b"[" * 100_000,
    ):
        assert not is_page_body(strange), strange[:20]
    assert not is_page_body(b'{"data": ["\\ud800"]}')
    assert is_page_body(b'{"data": ["\\ud83d\\ude00"]}')
    for name in ("path", "pa\\u0074h", "meta", "url", "__type__", "value"):
        assert not is_page_body(b'{"data": [[{"%s": 1}]]}' % name.encode()), name
    assert site[0].post("run/predict", deep) == (400, '{"error":"not a request of the page"}')
    assert site[0].post("queue/join", b'{"data": ["x"], "fn_index": 9999}') != (200, "")
