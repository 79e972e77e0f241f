"""The command: what it says when it cannot begin, and whom it answers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from app_tools import page_open

from faithmap.cli import main


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["app", "--port", str(port)]) == 2
    assert (
        capsys.readouterr().err
        == f"error: port {port} cannot be used (Address already in use); give another --port, or 0 for any\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--models", "lite9"], "'lite9': is no model"),
        (["--run", "no-such-run"], "no-such-run"),
        (["--public-url", "maps.example.org"], "give an address such as https://maps.example.org"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", "--port", "0", *arguments]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1


def test_a_missing_gradio_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("faithmap.app.command.REQUIRED", ("no_such_library",))
    assert main(["app"]) == 2
    assert capsys.readouterr().err == "error: the page needs Gradio; pip install 'faithmap[app]'\n"


@pytest.fixture
def status_of() -> Callable[..., int]:
    def ask(address: str, path: str, **headers: str) -> int:
        try:
            with urlopen(Request(f"{address}/{path}", headers=headers)) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    return ask


def test_a_reverse_proxy_may_serve_the_page(status_of: Callable[..., int], one_thread: None) -> None:
    with page_open(public="https://maps.example.org") as (address, _):
        assert status_of(address, "", Host="maps.example.org") == 200
        assert status_of(address, "", Host="other.example.org") == 403
        with urlopen(address) as answer:
            text = answer.read().decode()
            assert '"root":"https://maps.example.org"' in text.replace('": "', '":"')
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        for path in (
            "gradio_api/info",
            "gradio_api/openapi.json",
            "config",
            "docs",
            "gradio_api/file=/etc/passwd",
            "monitoring",
        ):
            assert status_of(address, path) == 404, path
