"""``faithmap choose`` as its users see it."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_tools import Cli, ListFiles, WriteImage, record_in
from PIL import Image

import faithmap
from faithmap.methods.registry import METHODS
from faithmap.metrics.functional import PANELS
from faithmap.selection import choose, explainers_for

pytestmark = pytest.mark.usefixtures("loads")

NAMES = "gradcam,eigencam,gradient"
QUICK = ("--resolution", 6, "--methods", NAMES)
CONTROLS = {"random_map", "gaussian", "edges"}


def test_methods_are_ranked_on_all_photographs(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    paths = [photo(f"cat{i}.png", seed=i) for i in range(3)]
    run = faith("choose", *(path.name for path in paths), "--seed", 5, *QUICK)
    assert run.code == 0
    folder = tmp_path / "faithmap-choice"
    assert {file.name for file in folder.iterdir()} == {"ranking.png", "result.json"}
    with Image.open(folder / "ranking.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    record = record_in(folder)
    assert record["schema"] == "faithmap.choice/1"
    assert {method["name"] for method in record["ranking"]} == {*NAMES.split(","), *CONTROLS}
    assert {method["name"] for method in record["ranking"] if method["control"]} == CONTROLS
    assert [photograph["path"] for photograph in record["photographs"]] == [path.name for path in paths]
    assert (record["protocol"]["name"], record["protocol"]["resolution"]) == ("jury", [6, 6])
    assert record["protocol"]["jurors"] == [juror.name for juror in PANELS["quick"].jurors]
    means = [method["score"] for method in record["ranking"]]
    assert means == sorted(means, reverse=True)
    assert record["use"] == next(method["name"] for method in record["ranking"] if not method["control"])
    for method in record["ranking"]:
        assert method["name"] in run.out
        assert f"{method['score']:.3f}" in run.out
        assert method["interval"][0] <= method["score"] <= method["interval"][1]
    assert len(record["comparisons"]) == 15
    assert record["advice"][0].startswith(f"use {record['use']}: ")
    assert all(sentence in run.out for sentence in record["advice"])


def test_the_scores_equal_those_of_the_library(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    paths = [photo(f"cat{i}.png", seed=i) for i in range(2)]
    assert (
        faith("choose", "cat0.png", "cat1.png", "--seed", 5, "--score", "deletion", "--target", "tiger cat", *QUICK).code == 0
    )
    record = record_in(tmp_path / "faithmap-choice")
    model = faithmap.load("the tiny one")
    keys = [photograph["seed"] for photograph in record["photographs"]]
    chosen = choose(
        model,
        [model.read(path) for path in paths],
        1,
        explainers=explainers_for(model, NAMES.split(","), resolution=6, seed=5),
        score="deletion",
        resolution=6,
        seed=5,
        keys=keys,
    )
    assert {m["name"]: m["scores"] for m in record["ranking"]} == {m.name: m.scores.tolist() for m in chosen.ranking}
    assert record["score"] == {"name": "deletion", "higher_is_better": False}
    assert record["target"] == {"index": 1, "label": "tiger cat"}
    means = [method["score"] for method in record["ranking"]]
    assert means == sorted(means)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image's pass takes a millisecond of the clock, and nothing else any time."""
    now, forward = [0.0], faithmap.Classifier.forward

    def ticks(model: faithmap.Classifier, images: torch.Tensor) -> object:
        now[0] += 1e-3 * len(images)
        return forward(model, images)

    monkeypatch.setattr(faithmap.Classifier, "forward", ticks)
    monkeypatch.setattr("faithmap.selection.ranking.clock_of", lambda device: lambda: now[0])
    monkeypatch.setattr(sys.modules["faithmap.cli.choose"], "perf_counter", lambda: now[0])


def test_all_methods_are_ranked_by_default(faith: Cli, photo: WriteImage, tmp_path: Path, ticking: None) -> None:
    """RISE is too dear for four seconds, and named with its cost."""
    photo("cat.png")
    run = faith("choose", "cat.png", "--resolution", 6, "--budget", "4s")
    assert run.code == 0
    record = record_in(tmp_path / "faithmap-choice")
    left_out = {method["name"]: method for method in record["left_out"]}
    assert {method["name"] for method in record["ranking"]} | left_out.keys() == set(METHODS)
    assert left_out["rise"]["seconds"] == pytest.approx((4001 + 1 + 3 * 10) * 1e-3), "three jurors are left"
    assert any("rise (4 s)" in line and line.endswith(": would exceed the budget") for line in run.out.splitlines())
    assert left_out["learned_mask"]["reason"].startswith("cannot be run: masker is None")
    assert "gradcam" not in left_out
    assert record["budget"]["seconds"] == 4.0
    assert 0 < record["budget"]["spent"] <= 4.0 * 1.05
    assert {method["name"] for method in record["ranking"]} >= CONTROLS


def test_the_budget_starts_with_the_command(
    faith: Cli, photo: WriteImage, tmp_path: Path, ticking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten seconds 9.1 are gone when the photograph has been read, and half a second is kept for writing."""
    slow = itertools.chain([0.0], itertools.repeat(9.1))
    monkeypatch.setattr(sys.modules["faithmap.cli.choose"], "perf_counter", lambda: next(slow))
    photo("cat.png")
    settings = ("--resolution", 6, "--methods", "smoothgrad,gradcam", "--budget")
    assert faith("choose", "cat.png", *settings, "10s").code == 0
    record = record_in(tmp_path / "faithmap-choice")
    assert {method["name"] for method in record["ranking"]} == {*CONTROLS, "gradcam"}
    assert record["budget"]["spent"] == 9.1


def test_identical_files_count_once(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    path = photo("cat.png")
    (tmp_path / "copy.png").write_bytes(path.read_bytes())
    run = faith("choose", "cat.png", "copy.png", *QUICK)
    assert run.code == 0
    record = record_in(tmp_path / "faithmap-choice")
    assert [photograph["path"] for photograph in record["photographs"]] == ["cat.png"]
    assert "cat.png: copy.png is the same image; it is counted once" in run.err


def test_one_photograph_has_no_interval(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    assert faith("choose", "cat.png", *QUICK).code == 0
    record = record_in(tmp_path / "faithmap-choice")
    assert {method["interval"] for method in record["ranking"]} == {None}
    assert {method["to_best"]["interval"] for method in record["ranking"]} == {None}


def test_a_masker_that_cannot_be_read_is_refused(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    run = faith("choose", "cat.png", "--methods", "learned_mask", "--masker", "none.pt")
    assert "none.pt" in run.complaint


def test_json(faith: Cli, photo: WriteImage) -> None:
    photo("cat.png")
    run = faith("choose", "cat.png", "--json", *QUICK)
    (summary,) = json.loads(run.out)["images"]
    assert summary["files"] == ["cat.png"]
    assert summary["use"] in NAMES.split(",")
    assert {method["name"] for method in summary["ranking"]} == {*NAMES.split(","), *CONTROLS}


def test_a_bad_file_among_many(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    (tmp_path / "text.jpg").write_text("no picture")
    run = faith("choose", "text.jpg", "cat.png", *QUICK)
    assert run.code == 2
    assert "text.jpg: not an image" in run.err
    assert len(record_in(tmp_path / "faithmap-choice")["photographs"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "gradcam,igoss"), '"igoss" is no method'),
        (("--budget", "2 minutes"), '"2 minutes" is no time; give seconds, minutes or hours, such as 90s, 2m or 1h'),
        (("--budget", "0s"), '"0s" is no time'),
        (("--budget", "120"), '"120" is no time'),
        (("--score", "area"), "area"),
        (("--target", "sheep dgo"), "did you mean 'sheep dog'"),
        (("--resolution", "17"), "at most one cell per pixel along each side"),
        (("--methods", "gradcam", "--resolution", "6", "--budget", "0.000001s"), "no method fits into 1e-06 s: gradcam"),
        (("nowhere.png",), "nowhere.png: cannot be read"),
        (("nowhere.png", "--budget", "1s"), "nowhere.png: cannot be read"),
        (
            ("--methods", "learned_mask", "--resolution", "6"),
            "no method could be run; learned_mask: cannot be run: masker is None",
        ),
    ],
)
def test_user_errors_are_one_line(
    arguments: tuple[Any, ...], message: str, faith: Cli, photo: WriteImage, tmp_path: Path
) -> None:
    photo("cat.png")
    initial = {path.name for path in tmp_path.iterdir()}
    complaint = faith("choose", *(() if arguments[0].endswith(".png") else ("cat.png",)), *arguments).complaint
    assert message in complaint
    assert {path.name for path in tmp_path.iterdir()} == initial


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("2m", 120.0), ("1h", 3600.0), ("1.5m", 90.0)])
def test_a_budget_in_seconds_minutes_or_hours(text: str, seconds: float, faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    assert faith("choose", "cat.png", "--budget", text, "--resolution", 4, "--methods", "eigencam").code == 0
    assert record_in(tmp_path / "faithmap-choice")["budget"]["seconds"] == seconds


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError(), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 99 bytes")],
)
def test_lack_of_memory_names_the_chunk_option(
    error: Exception, faith: Cli, photo: WriteImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    photo("cat.png")

    def full(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(faithmap.GradCAM, "__call__", full)
    assert "out of memory; give a --chunk below 32" in faith("choose", "cat.png", *QUICK).complaint
    assert not (tmp_path / "faithmap-choice").exists()


def test_an_interrupted_choice_leaves_nothing(
    faith: Cli, photo: WriteImage, monkeypatch: pytest.MonkeyPatch, tree: ListFiles
) -> None:
    photo("cat.png")
    initial = tree()

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    for place in ("faithmap.selection.evaluation.jury_values", "faithmap.studies.choose.save_figure"):
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupted)
            run = faith("choose", "cat.png", *QUICK)
        assert run.code == 130
        assert "interrupted" in run.err
        assert tree() == initial


def test_a_choice_is_recognised_as_a_result_and_replaced_as_a_whole(
    faith: Cli, photo: WriteImage, monkeypatch: pytest.MonkeyPatch, tree: ListFiles
) -> None:
    photo("cat.png")
    assert faith("choose", ".", *QUICK).code == 0
    assert "exists; give --overwrite" in faith("choose", ".", *QUICK).complaint
    assert faith("choose", ".", "--overwrite", *QUICK).code == 0, "the picture is no photograph to choose with"
    initial = tree()

    def broken(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("faithmap.studies.choose.save_figure", broken)
    assert (
        "faithmap-choice: cannot be written (No space left on device)" in faith("choose", ".", "--overwrite", *QUICK).complaint
    )
    assert tree() == initial


def test_foreign_files_are_not_replaced(faith: Cli, photo: WriteImage, tmp_path: Path, tree: ListFiles) -> None:
    photo("cat.png")
    (tmp_path / "faithmap-choice").mkdir()
    (tmp_path / "faithmap-choice" / "diary.txt").write_text("mine")
    initial = tree()
    assert "faithmap-choice is not replaced" in faith("choose", "cat.png", "--overwrite", *QUICK).complaint
    assert tree() == initial
