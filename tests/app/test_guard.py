"""The guard: which requests are answered, and with which headers."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from faithmap.app.safety import MAX_BODY_BYTES, Guard
from faithmap.app.shelf import MAX_UPLOAD_BYTES

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


def test_paths_that_the_page_does_not_need_return_404(client: TestClient) -> None:
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


def test_only_requests_of_the_page_itself_are_answered(client: TestClient) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/", headers={"Host": "127.0.0.1.evil.example:7860"}).status_code == 403
    assert client.get("/", headers={"Host": "localhost:7860"}).status_code == 200
    assert client.post("/photo", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post("/photo", headers={"Origin": "null"}).status_code == 403
    assert client.post("/photo", headers={"Origin": "http://127.0.0.1:7861"}).status_code == 403
    assert client.post("/photo", headers={"Origin": "http://127.0.0.1:7860"}).status_code == 200
    assert client.get("/gradio_api/queue/data", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200


def test_a_reverse_proxy_may_serve_the_page_under_its_own_name() -> None:
    app = Guard(Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])]), "https://maps.example.org")
    client = TestClient(app, "http://127.0.0.1:7860")
    own = {"Origin": "https://maps.example.org"}
    assert client.post("/photo", headers=own).status_code == 200
    assert client.post("/photo", headers={**own, "Host": "maps.example.org"}).status_code == 200
    assert client.post("/photo", headers={"Origin": "https://example.org"}).status_code == 403


def test_the_size_of_a_body_is_limited_without_trust_in_its_header(client: TestClient) -> None:
    join, most = "/gradio_api/queue/join", b"{}".ljust(MAX_BODY_BYTES)
    assert client.post(join, content=most).text == str(MAX_BODY_BYTES)
    assert client.post(join, content=iter([most[:9], most[9:]])).text == str(MAX_BODY_BYTES)
    assert client.post(join, content=most + b" ").status_code == 413
    assert client.post(join, content=iter([most, b"  "])).status_code == 400
    assert client.post("/photo", content=iter([bytes(MAX_UPLOAD_BYTES), bytes(2)])).status_code >= 400


def test_every_answer_has_security_headers(client: TestClient) -> None:
    for path in ("/", "/gradio_api/queue/data", "/nowhere"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
        assert "http" not in policy
        assert headers["Cache-Control"] == "no-store"
    assert "Cache-Control" not in client.get("/assets/a.js").headers


def test_the_page_links_to_no_other_host_and_runs_only_its_own_scripts(client: TestClient) -> None:
    answer = client.get("/")
    assert "example.org" not in answer.text
    assert "manifest" not in answer.text
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    digest = base64.b64encode(hashlib.sha256(b"let a = 1;").digest()).decode()
    scripts = answer.headers["Content-Security-Policy"].partition("script-src")[2].partition(";")[0]
    assert scripts.split() == ["'self'", "'unsafe-eval'", f"'sha256-{digest}'"]
