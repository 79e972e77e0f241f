"""Speed and memory of the page: seconds to the first map and to the end of the server, and memory over many requests.

    python benchmarks/app_speed.py --requests 20

The page of the embedded model is started, and requests are sent to its server as a browser sends them; the time in the browser
is not included. Memory is the resident set of the server after each answer. Two requests before the measurement fill the caches
of Python, torch and Gradio. At the end, a request with 2,000 iterations is sent, and the server is ended while it computes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np

FORWARD, SESSION = 2, "measured"


@contextmanager
def opened(threads: int, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The page on a free port: its address and its process."""
    command = [sys.executable, "-m", "faithmap", "app", "--port", "0", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:  # noqa: S603
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found is not None
            yield found[0], server
        finally:
            server.send_signal(signal.SIGTERM)


class Page:
    """One visitor, who sends the requests of the page's script."""

    def __init__(self, address: str) -> None:
        self.address = address
        with urlopen(address) as answer:  # noqa: S310 - the page's own address
            text = answer.read().decode()
        found = re.search(r"window.gradio_config = (\{.*?\});</script>", text, re.DOTALL)
        assert found is not None
        config = json.loads(found[1])
        parts = {part["props"].get("elem_id"): part["id"] for part in config["components"]}
        self.start = parts["explain-start"]
        click = [d for d in config["dependencies"] if [self.start, "click"] in d["targets"]]
        self.begin = click[0]["id"]
        self.run = next(d["id"] for d in config["dependencies"] if d.get("trigger_after") == self.begin and d["backend_fn"])

    def explain(self, iterations: int = 25) -> Iterator[None]:
        """One request with the default method; yields for each map that arrives, and at the end."""
        self._post("run/predict", self.begin, [])
        photo = {"token": "chelsea", "name": "chelsea"}
        settings = [28, iterations, None, "", "", ""]
        self._post("queue/join", self.run, [photo, "efficientnet_lite0", None, 282, "rank_descent", *settings])
        with urlopen(f"{self.address}/gradio_api/queue/data?session_hash={SESSION}") as events:  # noqa: S310
            for line in events:
                answer = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
                if answer.get("msg") == "process_generating" and b"places" in line:
                    yield
                if answer.get("msg") == "process_completed":
                    assert answer["success"], answer
                    return

    def _post(self, path: str, number: int, data: Sequence[object]) -> None:
        body = {"data": data, "event_data": None, "fn_index": number, "trigger_id": self.start, "session_hash": SESSION}
        request = Request(  # noqa: S310
            f"{self.address}/gradio_api/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urlopen(request):  # noqa: S310
            pass


def memory_of(process: int) -> float:
    """Resident memory in MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def seconds_to_end(page: Page, server: subprocess.Popen[str]) -> float:
    """From SIGTERM to the end of the process, while it computes."""
    request = page.explain(2000)  # kept open: a closed request is cancelled
    next(request)
    began = time.perf_counter()
    server.send_signal(signal.SIGTERM)
    server.wait()
    return time.perf_counter() - began


def main() -> None:
    """Send the requests, and print the times and the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    first: list[float] = []
    whole: list[float] = []
    memory: list[float] = []
    with opened(given.threads) as (address, server):
        page = Page(address)
        for number in range(FORWARD + given.requests):
            began = time.perf_counter()
            at: float | None = None
            for _ in page.explain():
                at = at or time.perf_counter() - began
            if number >= FORWARD:
                first.append(at or float("nan"))
                whole.append(time.perf_counter() - began)
            memory.append(memory_of(server.pid))
            print(
                f"{number:3d}  first map {at:.2f} s  whole {time.perf_counter() - began:.2f} s  {memory[-1]:.0f} MiB",
                flush=True,
            )
        ending = seconds_to_end(page, server)
        start, end = memory[FORWARD - 1], memory[-1]
        print(f"first map: median {np.median(first):.2f} s, slowest {max(first):.2f} s; whole: median {np.median(whole):.2f} s")
        print(
            f"memory: {start:.0f} MiB before, {end:.0f} MiB after {given.requests} requests ({100 * (end / start - 1):+.1f} %)"
        )
        print(f"ended {ending:.1f} s after SIGTERM, while it computed")


if __name__ == "__main__":
    main()
