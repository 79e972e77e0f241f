"""The page behind nginx as the page for teams sets it up: the same configuration, run, with ports and files of its own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from app_tools import page_open, picture
from viewer_tools import CHROMIUM, PANDAS, QUIET
from visitor_tools import Visitor, checked

pytestmark = pytest.mark.filterwarnings(*PANDAS)

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
TEAM = Path(__file__).parents[2] / "docs" / "app" / "team.md"
HOST = "maps.example.org"
KEYS = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={HOST}")
AROUND = """daemon off; pid {place}/pid; error_log {place}/error.log;
events {{}}
http {{ access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
{server}
}}
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def configuration(place: Path, port: int, page: str) -> str:
    """The page's own text with this test's files, ports and host."""
    found = re.search(r"```nginx\n(.*?)```", TEAM.read_text(), re.DOTALL)
    assert found is not None
    swaps = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/maps.pem": f"{place}/maps.pem",
        "/etc/ssl/maps.key": f"{place}/maps.key",
        "/etc/nginx/faithmap.htpasswd": f"{place}/faithmap.htpasswd",
        "http://127.0.0.1:7860": page,
        f"Host {HOST}": f"Host {HOST}:{port}",
    }
    server = found[1]
    for old, new in swaps.items():
        assert old in server
        server = server.replace(old, new)
    own = "" if os.geteuid() else "user root root; "  # it would become somebody who may not read the test's files
    return own + AROUND.format(place=place, server=server)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where nginx answers."""
    if NGINX is None or shutil.which("openssl") is None:
        pytest.skip("needs nginx and openssl")
    place, port = tmp_path_factory.mktemp("nginx"), free_port()
    public = f"https://{HOST}:{port}"
    subprocess.run([*KEYS, "-keyout", place / "maps.key", "-out", place / "maps.pem"], check=True, capture_output=True)
    (place / "faithmap.htpasswd").write_text("anna:{PLAIN}secret\n")
    with page_open(public=public) as (page, _):
        (place / "nginx.conf").write_text(configuration(place, port, page))
        with subprocess.Popen([NGINX, "-c", place / "nginx.conf", "-e", place / "error.log"]) as nginx:
            try:
                wait_for(port, nginx)
                yield public
            finally:
                nginx.terminate()


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Return when the server accepts connections; fail when it has ended."""
    while server.poll() is None:
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("nginx did not start")


@pytest.fixture(scope="module")
def chromium(chromium: Any) -> Iterator[Any]:
    """One that finds the proxy by its name."""
    kind = chromium.browser_type
    opened = kind.launch(executable_path=CHROMIUM, args=[*QUIET, f"--host-resolver-rules=MAP {HOST} 127.0.0.1"])
    yield opened
    opened.close()


@pytest.fixture
def visitor(chromium: Any, address: str) -> Iterator[Visitor]:
    """One who may log in."""
    login = {"username": "anna", "password": "secret"}
    opened = Visitor(chromium, address, ignore_https_errors=True, http_credentials=login)
    yield from checked(opened, address)
    opened.context.close()


def test_nobody_passes_without_the_log_in(chromium: Any, address: str) -> None:
    context = chromium.new_context(ignore_https_errors=True)
    for path in ("/", "/gradio_api/queue/data", "/favicon.ico", "/gradio_api/info"):
        assert context.request.get(f"{address.replace(HOST, '127.0.0.1')}{path}").status == 401
    context.close()


def test_the_page_works_through_the_proxy(visitor: Visitor) -> None:
    assert "default-src" in visitor.tab.reload().headers["content-security-policy"]
    visitor.tab.wait_for_selector("#guesses label")
    with visitor.looked():
        visitor.give("mine.png", picture(3))
    assert visitor.ask("explain").startswith("done")
    assert visitor.maps("explain") >= 1
