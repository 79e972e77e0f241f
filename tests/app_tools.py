"""A small classifier with layers, photographs good and bad, and the page on a free port."""

from __future__ import annotations

import asyncio
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import torch
from oracles import SmallNet
from PIL import Image

import faithmap as fm
from faithmap.app.desk import AppState
from faithmap.app.models import OfferedModels
from faithmap.app.shelf import Upload
from faithmap.studies.settings import ExplainSettings

LABELS = ["tabby cat", "tiger cat", "sheep dog", "<img src=x onerror=alert(1)>", "otter", "otter"]


def small_model(name: str = "small") -> fm.Classifier:
    """Six classes, two of one name, one of a hostile name."""
    torch.manual_seed(0)
    geometry = fm.Geometry(32, (32, 32))
    return fm.Classifier(SmallNet(len(LABELS)), labels=LABELS, geometry=geometry, name=name, digest="abc").eval()


def picture(seed: int = 0, size: tuple[int, int] = (40, 48), kind: str = "PNG") -> bytes:
    """A photograph of noise with a bright middle."""
    pixels = np.random.default_rng(seed).integers(0, 128, (*size, 3), dtype=np.uint8)
    pixels[size[0] // 3 : -size[0] // 3, size[1] // 3 : -size[1] // 3] += 127
    made = BytesIO()
    Image.fromarray(pixels).save(made, kind)
    return made.getvalue()


UPLOAD = Upload("my cat.png", picture())


def small_settings() -> ExplainSettings:
    """Settings that take little time."""
    return ExplainSettings(model="small", method="rank_descent", target="1", resolution=7, iterations=3)


def announcing(width: int, height: int, held: bytes | None = None) -> bytes:
    """A PNG whose header announces so many pixels, and that holds none unless they are given."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", held or zlib.compress(b"")) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """A PNG of 100 million pixels, all black, in 300 KB: more than the page takes."""
    return announcing(10_000, 10_000, zlib.compress(bytes(10_000 * 30_001), 1))


@cache
def bad_files() -> dict[str, bytes]:
    """Files that the page refuses."""
    return {
        "corrupt.png": picture()[:500],
        "huge.png": announcing(60000, 60000),
        "text.jpg": b"#!/bin/sh\necho hello\n",
        "empty.png": b"",
        "page.png": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "bomb.png": bomb(),
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "zip.gif": b"PK\x03\x04" + bytes(200),
    }


def small_models() -> OfferedModels:
    """Two models that load quickly."""
    return OfferedModels(["small", "other"], None, lambda name, device=None: small_model(name))


def run_script(code: str) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Run a script; its names, and the arguments of its calls of ``print``. It may warn of an unlikely class."""
    printed: list[tuple[Any, ...]] = []
    names: dict[str, Any] = {"print": lambda *words: printed.append(words)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fm.FaithmapWarning)
        exec(code, names)  # noqa: S102 - our own code
    return names, printed


@contextmanager
def page_open(
    models: OfferedModels | None = None, public: str | None = None, **settings: Any
) -> Iterator[tuple[str, AppState]]:
    """Serve the page in a thread; yields its address and the state of the server."""
    from faithmap.app.server import PageServer, bound, private_folder
    from faithmap.app.start import guarded_page

    with private_folder() as place:
        state = AppState(models or small_models(), place, **settings)
        up, where = threading.Event(), []

        def ready(address: str) -> None:
            where.append(address)
            up.set()

        def answer() -> None:
            server = PageServer(asyncio.run(guarded_page(state, public)), state, bound(0), ready)
            servers.append(server)
            server.answer()

        servers: list[PageServer] = []
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            assert up.wait(60)
            yield where[0], state
        finally:
            for server in servers:
                server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
