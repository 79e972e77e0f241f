"""Photographs, words, the working thread, and the guard: what the page stands on, without the page."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from app_tools import bad_files, picture
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from faithmap.app import desk as desks, shelf as shelves
from faithmap.app.desk import Desk
from faithmap.app.safety import SMALL, Guard
from faithmap.app.shelf import MAX_BYTES, Shelf
from faithmap.app.words import BROKEN, MEMORY, CancelledError, RefusedError, line_for
from faithmap.app.worker import Answer, Tells, Worker
from faithmap.explanation import Explanation


def test_a_photograph_is_found_by_its_word_alone() -> None:
    shelf = Shelf()
    word = shelf.put("cat.png", picture())
    assert shelf.get(word).data == picture()
    assert len(word) >= 32
    assert shelf.put("cat.png", picture()) != word
    for wrong in ("", "cat.png", word[:-1], "../chelsea"):
        with pytest.raises(RefusedError, match="choose it again"):
            shelf.get(wrong)


@pytest.mark.parametrize("name", bad_files())
def test_a_bad_file_is_refused_in_one_line(name: str) -> None:
    shelf = Shelf()
    with pytest.raises(RefusedError) as refused:
        shelf.put(f"/home/someone/{name}", bad_files()[name])
    line = line_for(refused.value)
    assert line.startswith(f"{name}: ")
    assert "\n" not in line
    assert "/home" not in line
    assert "Traceback" not in line
    assert len(shelf) == 0


def test_a_file_may_have_so_many_bytes_and_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError, match="more than the 16 MB"):
        Shelf().put("x.png", picture() + bytes(MAX_BYTES))
    monkeypatch.setattr(shelves, "MAX_PIXELS", 40 * 48 - 1)
    with pytest.raises(RefusedError, match="48 x 40 pixels are more than"):
        Shelf().put("x.png", picture())


def test_the_oldest_photographs_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "MAX_KEPT", 2)
    shelf = Shelf()
    first, second = shelf.put("a.png", picture(1)), shelf.put("b.png", picture(2))
    shelf.get(first)
    shelf.put("c.png", picture(3))
    assert shelf.get(first).name == "a.png"
    with pytest.raises(RefusedError):
        shelf.get(second)
    monkeypatch.setattr(shelves, "MAX_TOGETHER", len(picture(1)) + 10)
    shelf.put("d.png", picture(4))
    assert len(shelf) == 1


def test_what_was_not_foreseen_is_told_to_the_terminal_alone(caplog: pytest.LogCaptureFixture) -> None:
    assert line_for(KeyError("/root/secret")) == BROKEN
    assert "/root/secret" in caplog.text
    assert line_for(RuntimeError("can't allocate memory: 12 bytes")) == MEMORY
    assert line_for(ValueError("/a/b/c.pt: no weights, see /d/e")) == "c.pt: no weights, see e"
    assert line_for(ValueError("C:\\Users\\x\\c.pt is bad; a 3/4 share")) == "c.pt is bad; a 3/4 share"
    assert line_for(ValueError("a\nb\x1b[2J")) == "a\\nb\\x1b[2J"


def test_news_reach_who_waits_and_the_answer_ends_them() -> None:
    worker, grown = Worker(), Explanation.from_array([[0.0, 1.0]], (2, 2))

    def work(tells: Tells) -> int:
        tells(0.5, "half", grown)
        time.sleep(0.1)
        return 7

    *news, answer = worker.run(work)
    assert isinstance(answer, Answer)
    assert answer.value == 7
    assert [(one.share, one.doing, one.grown) for one in news][-1] == (0.5, "half", grown)
    worker.close()


def test_cancelled_work_ends_at_its_next_word() -> None:
    worker, cancelled, steps = Worker(), threading.Event(), []

    def work(tells: Tells) -> None:
        for step in range(1000):
            steps.append(step)
            tells(step / 1000, "on")
            time.sleep(0.01)

    running = worker.run(work, cancelled)
    next(running)
    cancelled.set()
    with pytest.raises(CancelledError):
        list(running)
    assert len(steps) < 100
    assert next(iter(worker.run(lambda tells: 1))) is not None, "the thread takes other work"
    worker.close()


def test_work_that_nobody_waits_for_any_more_ends() -> None:
    worker, steps = Worker(), []

    def work(tells: Tells) -> None:
        for step in range(1000):
            steps.append(step)
            tells(step / 1000, "on")
            time.sleep(0.01)

    running = worker.run(work)
    next(running)
    running.close()
    assert next(said for said in worker.run(lambda tells: 1) if isinstance(said, Answer)).value == 1
    assert len(steps) < 100
    worker.close()


def test_work_that_waits_is_never_begun_when_it_is_cancelled() -> None:
    worker, first, begun = Worker(), threading.Event(), []
    busy = worker.run(lambda tells: first.wait(5))
    next(busy)
    waiting = threading.Event()
    waiting.set()
    later = worker.run(lambda tells: (tells(0, "on"), begun.append(1)), waiting)
    threading.Timer(0.2, first.set).start()
    with pytest.raises(CancelledError):
        list(later)
    list(busy)
    assert begun == []
    worker.close()


def test_closing_ends_work_and_whoever_leaves_takes_everything_along(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    room = desk.room("a")
    word = desk.shelf.put("a.png", picture())
    room.words.add(word)
    running = room.start()
    desk.leave("a")
    assert running.is_set()
    assert len(desk.shelf) == 0
    monkeypatch.setattr(desks, "ROOMS", 1)
    one = desk.room("b").start()
    desk.room("c")
    assert one.is_set()
    desk.close()


def test_a_second_question_of_a_visitor_ends_the_first(desk: Desk) -> None:
    first = desk.room("a").start()
    second = desk.room("a").start()
    assert first.is_set()
    assert not second.is_set()
    assert not desk.room("b").running.is_set()


PAGE = (
    '<html><head><meta property="og:image" content="https://example.org/x.png" /><link rel="manifest" href="/m.json" />'
    '<script>let a = 1;</script><script src="./assets/a.js"></script></head></html>'
)


async def echo(request: Request) -> Any:
    if request.url.path == "/":
        return HTMLResponse(PAGE)
    return PlainTextResponse(str(len(await request.body())))


@pytest.fixture
def client() -> TestClient:
    routes = [Route("/{path:path}", echo, methods=["GET", "POST"])]
    return TestClient(Guard(Starlette(routes=routes)), "http://127.0.0.1:7860", raise_server_exceptions=False)


def test_what_the_page_does_not_need_does_not_exist(client: TestClient) -> None:
    for path in (
        *("/gradio_api/file=/etc/passwd", "/file=/etc/passwd", "/gradio_api/upload", "/gradio_api/proxy=http://example.org"),
        *("/gradio_api/info", "/gradio_api/openapi.json", "/docs", "/monitoring", "/login", "/gradio_api/runs", "/x"),
        *("/gradio_api/call/x", "/gradio_api/component_server", "/gradio_api/dev/reload", "/assets/%2e%2e/config"),
    ):
        assert client.get(path).status_code == 404, path
        assert client.post(path).status_code == 404, path
    assert client.put("/photo").status_code == 404
    assert client.get("/assets/index-a1.js").status_code == 200
    assert client.post("/gradio_api/queue/join", content=b"{}").text == "2"


def test_only_the_page_itself_is_answered(client: TestClient) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/", headers={"Host": "127.0.0.1.evil.example:7860"}).status_code == 403
    assert client.get("/", headers={"Host": "localhost:7860"}).status_code == 200
    assert client.post("/photo", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post("/photo", headers={"Origin": "null"}).status_code == 403
    assert client.post("/photo", headers={"Origin": "http://127.0.0.1:7861"}).status_code == 403
    assert client.post("/photo", headers={"Origin": "http://127.0.0.1:7860"}).status_code == 200
    assert client.get("/gradio_api/queue/data", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200


def test_a_proxy_may_show_it_under_its_own_name() -> None:
    app = Guard(Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])]), "https://maps.example.org")
    client = TestClient(app, "http://127.0.0.1:7860")
    own = {"Origin": "https://maps.example.org"}
    assert client.post("/photo", headers=own).status_code == 200
    assert client.post("/photo", headers={**own, "Host": "maps.example.org"}).status_code == 200
    assert client.post("/photo", headers={"Origin": "https://example.org"}).status_code == 403


def test_bodies_are_capped_whatever_their_header_says(client: TestClient) -> None:
    join, most = "/gradio_api/queue/join", b"{}".ljust(SMALL)
    assert client.post(join, content=most).text == str(SMALL)
    assert client.post(join, content=iter([most[:9], most[9:]])).text == str(SMALL)
    assert client.post(join, content=most + b" ").status_code == 413
    assert client.post(join, content=iter([most, b"  "])).status_code == 400
    assert client.post("/photo", content=iter([bytes(MAX_BYTES), bytes(2)])).status_code >= 400


def test_every_answer_says_what_a_browser_may_do(client: TestClient) -> None:
    for path in ("/", "/gradio_api/queue/data", "/nowhere"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
        assert "http" not in policy
        assert headers["Cache-Control"] == "no-store"
    assert "Cache-Control" not in client.get("/assets/a.js").headers


def test_the_page_points_nowhere_else_and_runs_its_own_scripts_alone(client: TestClient) -> None:
    answer = client.get("/")
    assert "example.org" not in answer.text
    assert "manifest" not in answer.text
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    digest = base64.b64encode(hashlib.sha256(b"let a = 1;").digest()).decode()
    scripts = answer.headers["Content-Security-Policy"].partition("script-src")[2].partition(";")[0]
    assert scripts.split() == ["'self'", "'unsafe-eval'", f"'sha256-{digest}'"]


def test_nothing_of_a_file_is_written(tmp_path: Path, desk: Desk) -> None:
    desk.shelf.put("a.png", picture())
    assert list(tmp_path.iterdir()) == []
