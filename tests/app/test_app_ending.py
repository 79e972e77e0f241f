"""The end of the command: at once, by any signal, without files left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from visitor_tools import Visitor

COMMAND = """
import sys, time, torch
torch.set_num_threads(1)
import faithmap.zoo
def slow(module, given):
    time.sleep(0.02)
def load(name, **others):
    from app_tools import small_model
    model = small_model(name)
    model.register_forward_pre_hook(slow)
    return model
faithmap.zoo.load = load
from faithmap.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""The command with a model that loads at once, and whose 2,000 iterations take more than a minute."""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, tuple[subprocess.Popen[str], Path]]]:
    """A server for each signal, started at the same time."""
    servers: dict[int, tuple[subprocess.Popen[str], Path]] = {}
    command = [sys.executable, "-c", COMMAND, "app", "--port", "0", "--models", "small"]
    for number in (signal.SIGTERM, signal.SIGINT):
        place = tmp_path_factory.mktemp("place")
        paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
        environment = {**os.environ, "TMPDIR": str(place), "PYTHONPATH": paths}
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        servers[number] = (subprocess.Popen(command, env=environment, **pipes), place)
    yield servers
    for server, _ in servers.values():
        server.kill()
        server.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
def test_a_signal_ends_it_at_once_with_a_page_open_and_leaves_no_files(
    chromium: Any, started: dict[int, tuple[subprocess.Popen[str], Path]], number: int, code: int
) -> None:
    server, place = started[number]
    assert server.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:(\d+)", server.stdout.readline())
    assert found is not None
    with socket.socket() as elsewhere:
        assert elsewhere.connect_ex(("127.0.0.2", int(found[1]))) != 0
    (made,) = place.glob("faithmap-app-*")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    visitor = Visitor(chromium, found[0])
    tab = visitor.tab
    tab.click("#explain-settings button >> nth=0")
    visitor.number("explain-iterations", "2000")
    tab.click("#explain-start")
    tab.wait_for_selector("#explain-viewer .map canvas")
    server.send_signal(number)
    assert server.wait(30) == code, "long before the work would be done"
    assert server.stderr is not None
    assert server.stderr.read() == ""
    assert [path for path in place.iterdir() if not path.name.startswith("torchinductor")] == [], "torch leaves that one"
    tab.click("#explain-cancel")
    visitor.context.close()


def test_the_command_does_not_wait_for_a_running_pass() -> None:
    """Python waits for its threads at the end; the command does not."""
    code = """
import sys, threading, types
def start(ready, **arguments):
    threading.Thread(target=threading.Event().wait, args=(60,)).start()
    raise KeyboardInterrupt
sys.modules["faithmap.app.start"] = types.SimpleNamespace(start=start)
from faithmap.app.command import open_page
open_page()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
