"""The program as a process: what its start costs, pipes, signals, and one run with the embedded model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from cli_tools import Cli
from PIL import Image

import faithmap

SOURCE = Path(faithmap.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}

LIGHT = """
import sys
from faithmap.cli import main
for line in ("--version", "--help", "explain --help", "methods", "explain --sed 1", "explain --resolution x"):
    main(line.split())
heavy = {"torch", "numpy", "matplotlib", "PIL", "timm"} & set(sys.modules)
assert not heavy, heavy
"""

ENDLESS = """
import signal, sys, torch, faithmap, faithmap.studies.base
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start a background job with SIGINT ignored
from faithmap.cli import main
tiny = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
passes = []
def announce(module, images):
    passes.append(1)
    if len(passes) == 20:
        print("computing", flush=True)
tiny.register_forward_pre_hook(announce)
faithmap.studies.base.load = lambda *_, **__: faithmap.Classifier(tiny, geometry=faithmap.Geometry(8, (8, 8)))
sys.exit(main("explain --method mask --iterations 9999999 --resolution 2 --out deep/out".split()))
"""

posix = pytest.mark.skipif(os.name != "posix", reason="pipes and signals of another kind")


def start(*arguments: str, stdout: int | IO[str] = subprocess.PIPE, cwd: Path | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, text=True, stdout=stdout, stderr=subprocess.PIPE, cwd=cwd)


def test_help_version_and_misspelt_options_import_nothing_heavy() -> None:
    with start("-c", LIGHT) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.startswith(f"faithmap {faithmap.__version__}\n")


@posix
def test_a_closed_pipe_ends_the_program_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, start("-m", "faithmap", "explain", "--help", stdout=pipe) as process:
        assert process.communicate(timeout=300)[1] == ""
    assert process.returncode == 141


@pytest.mark.sweep
@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_is_one_line_and_leaves_nothing(tmp_path: Path, number: int, code: int) -> None:
    with start("-c", ENDLESS, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "computing\n"
            assert (tmp_path / "deep" / "out").is_dir()
            process.send_signal(number)
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
    assert (process.returncode, out) == (code, "")
    assert err.startswith("error: interrupted")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_embedded_model_explains_the_sample_photograph(faith: Cli, tmp_path: Path) -> None:
    run = faith("explain", "--json", "--iterations", 1, "--resolution", 4, "--target", "tiger cat", "--no-animation")
    assert run.code == 0
    assert "error" not in run.err
    (image,) = json.loads(run.out)["images"]
    assert image["target"]["index"] == 282
    assert image["predicted"][0]["label"] == "tiger cat"
    folder = tmp_path / image["folder"]
    record = json.loads((folder / "result.json").read_text())
    assert record["model"]["name"] == "efficientnet_lite0"
    assert len(record["model"]["digest"]) == 64
    assert record["scores"] == image["scores"]
    with Image.open(folder / "panel.png") as panel:
        panel.load()
