"""What users get wrong: one line on stderr, exit code 2, and nothing left behind."""

from __future__ import annotations

import os
import signal
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cli_tools import Cli, ListFiles, Loads, WriteImage
from cyclopts import App

import faithmap
from faithmap.cli import main, make_app
from faithmap.errors import one_line

ARGUMENTS = {
    "unknown command": (["explian"], r'Unknown command "explian". Did you mean "explain"'),
    "unknown option": (["explain", "--resolutoin", "7"], r"Unknown option: --resolutoin. Did you mean --resolution?"),
    "option without value": (["explain", "--seed"], "--seed requires an argument"),
    "option given twice": (["explain", "--seed", "1", "--seed", "2"], "--seed specified multiple times"),
    "unknown method": (["explain", "--method", "zzz"], '--method: "zzz" is no method; give some of igos, igos_plus'),
    "a setting of another method": (
        ["explain", "--method", "gradcam", "--resolution", "7"],
        "--resolution is no setting of gradcam",
    ),
    "unknown setting": (
        ["explain", "--method", "igos", "--set", "lambda3=1"],
        "igos has no setting 'lambda3'; did you mean lambda2",
    ),
    "setting of a wrong type": (["explain", "--method", "igos", "--set", "lambda1=x"], "lambda1 is 'x'; give a number"),
    "no assignment": (["explain", "--set", "lambda1"], "'lambda1' sets nothing; give NAME=VALUE"),
    "no samples": (["explain", "--method", "gradcam", "--samples", "7"], "--samples is no setting of gradcam; leave it out"),
    "no layers": (["explain", "--target-layer", "conv"], "--target-layer is no setting of rank_descent; leave it out"),
    "no such layer": (["explain", "--method", "gradcam", "--target-layer", "conv"], "'conv' is no module of the model"),
    "unknown baseline": (["explain", "--baseline", "pink"], '"pink" for --baseline. Choose from'),
    "unknown score": (["explain", "--score", "loss"], '"loss" for --score. Choose from'),
    "unknown protocol": (["explain", "--protocol", "roar"], '"roar" for --protocol. Choose from'),
    "unknown animation": (["explain", "--animation", "mp4"], '"mp4" for --animation. Choose from'),
    "seed is no number": (["explain", "--seed", "x"], 'unable to convert "x" into int'),
    "no iterations": (["explain", "--iterations", "0"], '"0" for --iterations. Must be > 0'),
    "no chunk": (["explain", "--chunk", "0"], '"0" for --chunk. Must be > 0'),
    "no resolution": (["explain", "--resolution", "big"], '"big" is no resolution; give cells per side, such as 28'),
    "resolution of three": (["explain", "--resolution", "1x2x3"], '"1x2x3" is no resolution'),
    "resolution 0": (["explain", "--resolution", "0"], "resolution is (0, 0); give 1 to 16 rows and 1 to 16 columns"),
    "resolution too fine": (["explain", "--resolution", "7x17"], "resolution is (7, 17); give 1 to 16 rows"),
    "target nearly right": (["explain", "--target", "tiger kat"], "no class of spots; did you mean 'tiger cat'"),
    "target of no class": (["explain", "--target", "3"], "'3' is no class of spots; give a class name or its number"),
    "negative target": (["explain", "--target", "-1"], "'-1' is no class of spots"),
    "missing folder": (["explain", "nowhere/"], "nowhere: cannot be read (No such file or directory); give"),
    "missing file": (["explain", "no.jpg"], "no.jpg: cannot be read (No such file or directory); give"),
    "empty folder": (["explain", "empty"], "empty: a folder without images; give one with files in .bmp .gif .jpeg"),
    "corrupt file": (["explain", "corrupt.png"], "corrupt.png: a PNG file that cannot be decoded"),
    "text called jpg": (["explain", "text.jpg"], "text.jpg: not an image that can be read (starts like text); give a JPEG"),
    "empty file": (["explain", "empty.jpg"], "empty.jpg: not an image that can be read (it is empty)"),
    "bomb": (["explain", "bomb.png"], "bomb.png: 20000 x 10000 pixels are more than max_pixels=100000000"),
    "pipe": (["explain", "pipe"], "pipe: cannot be read (it is a pipe, socket or device)"),
    "out under a file": (
        ["explain", "--out", "text.jpg/out"],
        "no results can be written there (Not a directory); give another",
    ),
    "out is a file": (
        ["explain", "--out", "text.jpg"],
        "text.jpg: no results can be written there (File exists); give another",
    ),
    "out is read-only": (["explain", "--out", "/proc/faithmap"], "/proc/faithmap: no results can be written there"),
}

REAL_MODELS = {
    "unknown model": (["--model", "efficientnet_light0"], "'efficientnet_light0': is no model; did you mean"),
    "missing weights": (["--weights", "none.pt"], "none.pt: cannot be read (No such file or directory); give"),
    "weights are text": (["--weights", "text.jpg"], "text.jpg: is damaged, or no file of weights; give"),
    "unknown device": (["--device", "toaster"], "device 'toaster': is not available on this computer"),
}


def announcing(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that says it is so large."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""), b"IEND")
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.fixture
def littered(tmp_path: Path, photo: WriteImage) -> Path:
    """A folder with one of everything that is no image."""
    content = photo("whole.png").read_bytes()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("Dear diary, today I was a picture.\n")
    (tmp_path / "corrupt.png").write_bytes(content[:200])
    (tmp_path / "bomb.png").write_bytes(announcing(20_000, 10_000))
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.usefixtures("littered", "loads", "sketches")
def test_user_errors_are_one_line_and_leave_nothing(faith: Cli, tree: ListFiles, arguments: str) -> None:
    given, expected = ARGUMENTS[arguments]
    initial = tree()
    assert expected in faith(*given).complaint
    assert tree() == initial


@pytest.mark.parametrize("arguments", REAL_MODELS)
@pytest.mark.usefixtures("littered")
def test_errors_of_a_model_are_one_line(faith: Cli, tree: ListFiles, arguments: str) -> None:
    given, expected = REAL_MODELS[arguments]
    initial = tree()
    assert expected in faith("explain", *given).complaint
    assert tree() == initial


NAMED = {"method", "methods", "metric", "metrics", "model", "models", "score", "protocol", "baseline"}
"""Parameters of the commands that take names."""

NEARLY_RIGHT = {
    ("adversarial", "method"): (["adversarial", "--method", "gradcan"], "gradcam"),
    ("adversarial", "model"): (["adversarial", "--model", "efficientnet_light0"], "efficientnet_lite0"),
    ("app", "models"): (["app", "--models", "efficientnet_light0"], "efficientnet_lite0"),
    ("bench plan", "model"): (["bench", "plan", "good.toml", "--model", "efficientnet_light0"], "efficientnet_lite0"),
    ("bench run", "model"): (["bench", "run", "good.toml", "--model", "efficientnet_light0"], "efficientnet_lite0"),
    ("bench run", "a specification"): (["bench", "run", "igos-tabel1"], "igos-table1"),
    ("bench run", "its method"): (["bench", "run", "method.toml"], "gradcam"),
    ("bench run", "its metric"): (["bench", "run", "metric.toml"], "deletion_insertion"),
    ("bench run", "a metric's setting"): (["bench", "run", "setting.toml"], "steps"),
    ("choose", "methods"): (["choose", "--methods", "gradcam,igoss"], "igos or igos_plus"),
    ("choose", "model"): (["choose", "--model", "efficientnet_light0"], "efficientnet_lite0"),
    ("choose", "score"): (["choose", "--score", "insertoin"], '"insertion"'),
    ("compare", "methods"): (["compare", "--methods", "gradcam,igoss@14"], "igos or igos_plus"),
    ("compare", "model"): (["compare", "--model", "efficientnet_light0"], "efficientnet_lite0"),
    ("explain", "method"): (["explain", "--method", "gradcan"], "gradcam"),
    ("explain", "model"): (["explain", "--model", "efficientnet_light0"], "efficientnet_lite0"),
    ("explain", "score"): (["explain", "--score", "probabilty"], '"probability"'),
    ("explain", "protocol"): (["explain", "--protocol", "igoss"], '"igos"'),
    ("explain", "baseline"): (["explain", "--baseline", "blak"], '"black"'),
    ("methods", "method"): (["methods", "gradcan"], "gradcam"),
    ("saturation", "methods"): (["saturation", "--methods", "gradcan"], "gradcam"),
    ("saturation", "model"): (["saturation", "--model", "efficientnet_light0"], "efficientnet_lite0"),
    ("saturation", "baseline"): (["saturation", "--baseline", "blak"], '"black"'),
    ("train-masker", "model"): (["train-masker", "whole.png", "--model", "efficientnet_light0"], "efficientnet_lite0"),
}
"""Every name that a command takes, with a typing error, and the suggestion."""

SPECIFICATION = """models = ["efficientnet_lite0"]
data = { kind = "folder", path = "." }
methods = [{ name = "gradcam" }]
metrics = [{ name = "deletion_insertion", settings = { steps = 3 } }]
"""


def commands(app: App, prefix: str = "") -> Iterator[tuple[str, App]]:
    """All commands, with those below a command."""
    for name in app:
        if not name.startswith("-"):
            below = list(commands(app[name], f"{prefix}{name} "))
            yield from below or [(f"{prefix}{name}", app[name])]


def test_every_name_that_a_command_takes_is_swept() -> None:
    taken = {
        (name, argument.name.lstrip("-").lower())
        for name, command in commands(make_app())
        for argument in command.assemble_argument_collection(parse_docstring=False)
        if argument.name.lstrip("-").lower() in NAMED
    }
    assert taken == {(command, name) for command, name in NEARLY_RIGHT if name in NAMED}


@pytest.mark.parametrize("where", NEARLY_RIGHT, ids=" ".join)
def test_a_name_that_is_nearly_right_gets_a_suggestion(
    faith: Cli, tree: ListFiles, tmp_path: Path, photo: WriteImage, where: tuple[str, str]
) -> None:
    if where[0] == "app":
        pytest.importorskip("gradio")
    photo("whole.png")
    for name, old, new in [
        ("good", "", ""),
        ("method", "gradcam", "gradcan"),
        ("metric", "deletion_insertion", "deletion_insertoin"),
        ("setting", "steps", "stepps"),
    ]:
        (tmp_path / f"{name}.toml").write_text(SPECIFICATION.replace(old, new) if old else SPECIFICATION)
    initial = tree()
    arguments, suggestion = NEARLY_RIGHT[where]
    assert f"did you mean {suggestion}".lower() in faith(*arguments).complaint.lower()
    assert tree() == initial


@pytest.mark.skipif("__import__('torch').cuda.is_available()")
def test_a_missing_gpu_is_one_line(faith: Cli, tree: ListFiles) -> None:
    initial = tree()
    assert faith("explain", "--device", "cuda").complaint.startswith("device 'cuda': is not available on this computer")
    assert tree() == initial


@pytest.mark.usefixtures("littered", "loads", "sketches")
def test_the_model_is_not_loaded_for_nothing(faith: Cli, loads: Loads) -> None:
    faith("explain", "nowhere", "empty")
    faith("explain", "--out", "text.jpg")
    assert loads == []


@pytest.mark.usefixtures("loads", "sketches")
def test_foreign_files_are_neither_replaced_nor_changed(faith: Cli, photo: WriteImage, tree: ListFiles, tmp_path: Path) -> None:
    photo("cat.png")
    (tmp_path / "out" / "cat").mkdir(parents=True)
    (tmp_path / "out" / "cat" / "diary.txt").touch()
    initial = tree()
    for arguments in ((), ("--overwrite",)):
        assert "out/cat is not replaced" in faith("explain", "cat.png", "--out", "out", *arguments).complaint
    assert tree() == initial


@pytest.mark.usefixtures("loads")
def test_an_internal_error_is_not_reported_as_a_user_error(
    photo: WriteImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("faithmap.studies.explain.draw_pictures", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["explain", str(photo("cat.png")), "--out", str(tmp_path / "out"), "--iterations", "1", "--resolution", "2"])
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("loads", "sketches")
@pytest.mark.parametrize("name", ["\x1b[2J.png", "two\nlines.png", "\u202egnp.png", "[bold]x.png"])
def test_a_hostile_name_is_escaped_in_errors(faith: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("no image")
    complaint = faith("explain", "--", name).complaint
    assert complaint.startswith(one_line(name) + ": not an image")
    assert complaint.isprintable()


def test_no_argument_and_help_are_the_same_and_no_error(faith: Cli) -> None:
    helped, bare = faith("--help"), faith()
    assert helped == bare
    assert helped.code == 0
    assert helped.err == ""
    assert {"explain", "models"} <= set(helped.out.replace("│", " ").split())


def test_the_version_is_printed(faith: Cli) -> None:
    assert faith("--version").out == f"faithmap {faithmap.__version__}\n"


def test_models_are_listed(faith: Cli) -> None:
    run = faith("models")
    assert run.code == 0
    assert run.out.splitlines()[0] == "efficientnet_lite0"
    assert "timm/NAME" in run.out


def test_the_handler_of_sigterm_is_the_programs_own_again(faith: Cli) -> None:
    initial = signal.getsignal(signal.SIGTERM)
    faith("explain", "--sed", 1)
    assert signal.getsignal(signal.SIGTERM) is initial


def test_the_command_line_runs_in_a_thread(faith: Cli) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(faith, "--version").result().code == 0


def test_a_full_disk_under_stdout_is_one_line(faith: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        encoding = "utf-8"

        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None: ...

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stdout", Full())
    assert main(["--version"]) == 2
