"""Interrupts, full disks and lack of memory: complete results stay, and nothing partial is left."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from cli_tools import Cli, ListFiles, WriteImage, inside, strict_json

import faithmap

pytestmark = pytest.mark.usefixtures("loads", "sketches")

SMALL = ("--iterations", 3, "--resolution", 7, "--chunk", 256)
QUICK = (*SMALL, "--baseline", "grey")


def test_an_interrupt_leaves_only_complete_results(
    faith: Cli, photo: WriteImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        photo(name, seed)
    save = np.save

    def interrupt(path: Path, array: np.ndarray) -> None:
        if path.parent.name.startswith(".b."):
            raise KeyboardInterrupt
        save(path, array)

    monkeypatch.setattr(np, "save", interrupt)
    run = faith("explain", "a.png", "b.png", "c.png", *QUICK)
    assert run.code == 130
    (error,) = (line for line in run.err.splitlines() if not line.startswith("warning: "))
    assert error.startswith("error: interrupted")
    assert inside(tmp_path / "faithmap-results") == ["a"]


def test_an_interrupt_before_the_first_result_leaves_nothing(
    faith: Cli, photo: WriteImage, tree: ListFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo("a.png")
    initial = tree()

    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(faithmap.RankDescent, "_descend", interrupt)
    run = faith("explain", "a.png", "--json", "--out", "x/y", *QUICK)
    assert run.code == 130
    assert strict_json(run.out) == {"schema": "faithmap.summary/1", "error": "interrupted", "images": []}
    assert tree() == initial


def test_a_full_disk_is_one_line_and_leaves_no_partial_result(
    faith: Cli, photo: WriteImage, tree: ListFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo("a.png")
    initial = tree()

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    complaint = faith("explain", "a.png", *QUICK).complaint
    assert complaint == f"{Path('faithmap-results/a')}: cannot be written (No space left on device); give another --out"
    assert tree() == initial


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_lack_of_memory_names_the_chunk_option(
    error: Exception, faith: Cli, photo: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo("a.png")

    def greedy(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(faithmap.RankDescent, "_descend", greedy)
    assert faith("explain", "a.png", *QUICK).complaint == "out of memory; give a --chunk below 256, or another --device"
