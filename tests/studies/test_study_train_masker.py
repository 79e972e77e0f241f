"""``faithmap train-masker`` and what it makes, as their users call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest
from cli_tools import Cli, ListFiles, WriteImage, record_in
from PIL import Image
from study_tools import replace_load

import faithmap
from faithmap.methods.masks.masker_files import read_training

pytestmark = pytest.mark.usefixtures("loads", "sketches")

TINY = ("--batch", 2, "--channels", 4)


@pytest.fixture
def photos(photo: WriteImage) -> Path:
    return min(photo(f"photos/{seed}.png", seed) for seed in range(3)).parent


def test_from_photographs_to_a_map(faith: Cli, photos: Path, tmp_path: Path) -> None:
    run = faith("train-masker", "photos", "--steps", 4, *TINY)
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith("masker   masker.safetensors, for spots\ntrained  4 steps on 3 images\nloss     ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masker.safetensors", "photos"]
    explained = faith("explain", "photos/1.png", "--method", "learned_mask", "--masker", "masker.safetensors")
    assert explained.code == 0
    record = record_in(tmp_path / "faithmap-results" / "1")
    assert record["method"]["name"] == "LearnedMask"
    assert record["method"]["settings"]["masker"]["steps"] == 4
    assert len(record["method"]["settings"]["masker"]["digest"]) == 64
    assert record["heatmap"]["resolution"] == [8, 8]


def test_a_resumed_training_equals_an_uninterrupted_one(faith: Cli, photos: Path, tmp_path: Path) -> None:
    assert faith("train-masker", "photos", "--steps", 5, "--out", "whole", *TINY).code == 0
    assert faith("train-masker", "photos", "--steps", 2, "--out", "part", *TINY).code == 0
    run = faith("train-masker", "photos", "--steps", 5, "--out", "part", "--resume", *TINY)
    assert run.code == 0
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "part").read_bytes()
    again = faith("train-masker", "photos", "--steps", 5, "--out", "part", "--resume", *TINY)
    assert again.code == 0
    assert "5 steps on 3 images" in again.out
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "part").read_bytes()


def test_an_interrupted_training_can_be_resumed(
    faith: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the fifth step; the file holds four, and goes on to what was never interrupted."""
    from faithmap.methods.masks import masker_training

    step, done = masker_training._step, []

    def interrupted(*arguments: Any) -> float:
        done.append(1)
        if len(done) == 6:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(masker_training, "_step", interrupted)
    run = faith("train-masker", "photos", "--steps", 7, "--every", 2, *TINY)
    assert run.code == 130
    assert run.err == "error: interrupted; existing results are complete\n"
    monkeypatch.setattr(masker_training, "_step", step)
    assert read_training(tmp_path / "masker.safetensors").done == 4
    assert faith("train-masker", "photos", "--steps", 7, "--resume", *TINY).code == 0
    assert faith("train-masker", "photos", "--steps", 7, "--out", "whole", *TINY).code == 0
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "masker.safetensors").read_bytes()


WRONG = {
    "no photographs": ((), "no images are given; give image files, or folders of them"),
    "missing": (("nowhere",), "nowhere: cannot be read (No such file or directory)"),
    "no image": (("text.jpg",), "text.jpg: not an image that can be read"),
    "out is there": (("photos", "--out", "made"), "made exists; give --resume to continue it"),
    "out is a folder": (("photos", "--out", "photos"), "photos: is no file; give another --out"),
    "out is nowhere": (("photos", "--out", "no/where"), "no/where: cannot be written (No such file or directory)"),
    "not ours": (("photos", "--out", "text.jpg", "--overwrite"), "text.jpg is no masker of faithmap and is not replaced"),
    "nothing to go on with": (("photos", "--resume"), "masker.safetensors: there is no training to resume"),
    "both": (("photos", "--resume", "--overwrite", "--out", "made"), "give one of them"),
    "no training": (("photos", "--resume", "--out", "text.jpg"), "text.jpg: is damaged, or no file of a masker"),
    "other settings": (("photos", "--resume", "--out", "made", "--seed", 1), "the training began with --seed 0; give the same"),
    "other photographs": (("photos/1.png", "--resume", "--out", "made"), "the training began with other images"),
    "fewer steps": (("photos", "--resume", "--out", "made", "--steps", 1), "has done 2 steps already"),
    "no channels": (("photos", "--channels", 6), "channels is 6; give a multiple of 4"),
    "no steps": (("photos", "--steps", 0), '"0" for --steps. Must be > 0'),
    "no rate": (("photos", "--learning-rate", 0), "Must be > 0"),
    "an endless rate": (("photos", "--learning-rate", "inf"), "learning_rate is inf; give a finite number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_user_errors_are_one_line_and_leave_nothing(
    name: str, faith: Cli, photos: Path, tree: ListFiles, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("Dear diary")
    assert faith("train-masker", "photos", "--out", "made", "--steps", 2, *TINY).code == 0
    initial = tree()
    given, expected = WRONG[name]
    given = given if "--channels" in given else (*given, *TINY)
    assert expected in faith("train-masker", *given).complaint
    assert tree() == initial


def test_a_masker_of_another_model_or_of_none_is_refused(
    faith: Cli, photos: Path, tree: ListFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert faith("train-masker", "photos", "--steps", 1, *TINY).code == 0
    initial = tree()
    ask = ("explain", "photos/1.png", "--method", "learned_mask")
    assert "learned_mask needs a network that was trained for the model; 'faithmap train-masker' makes" in faith(*ask).complaint
    assert "photos/1.png: is damaged, or no file of a masker" in faith(*ask, "--masker", "photos/1.png").complaint
    assert "no.st: cannot be read (No such file or directory)" in faith(*ask, "--masker", "no.st").complaint
    plain = ("explain", "photos/1.png", "--method", "gradient", "--masker", "masker.safetensors")
    assert faith(*plain).complaint == "--masker is no setting of gradient; leave it out"
    assert "learned_mask needs a network" in faith("compare", "photos/1.png", "--methods", "learned_mask").complaint
    assert "learned_mask needs a network" in faith("adversarial", "photos/1.png", "--method", "learned_mask").complaint
    load = faithmap.load

    def other(*arguments: Any, **settings: Any) -> faithmap.Classifier:
        model = load(*arguments, **settings)
        model.digest = "def"
        return model

    replace_load(monkeypatch, other)
    complaint = faith(*ask, "--masker", "masker.safetensors").complaint
    assert "the masker was trained for spots with weights abc, not for spots with weights def" in complaint
    resumed = faith("train-masker", "photos", "--steps", 2, "--resume", *TINY).complaint
    assert resumed.startswith("masker.safetensors: the masker was trained for spots with weights abc")
    assert tree() == initial


def test_photographs_of_several_sizes_are_refused(
    faith: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load = faithmap.load

    def uncropped(*arguments: Any, **settings: Any) -> faithmap.Classifier:
        model = load(*arguments, **settings)
        model.geometry = faithmap.Geometry()
        return model

    replace_load(monkeypatch, uncropped)
    Image.new("RGB", (30, 20)).save(tmp_path / "photos" / "wide.png")
    complaint = faith("train-masker", "photos", *TINY).complaint
    assert "photos/0.png is 20 x 24 to the model and photos/wide.png 20 x 30; give images of one size" in complaint


def test_a_full_disk_is_one_line_and_leaves_no_partial_file(
    faith: Cli, photos: Path, tree: ListFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    initial = tree()

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("faithmap.methods.masks.masker_files.os.fsync", full)
    complaint = faith("train-masker", "photos", "--steps", 1, *TINY).complaint
    assert complaint == "masker.safetensors: cannot be written (No space left on device); give another --out"
    assert tree() == initial


def test_images_that_are_not_cached_are_read_again(
    faith: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert faith("train-masker", "photos", "--steps", 3, "--out", "kept", *TINY).code == 0
    monkeypatch.setattr("faithmap.studies.train_masker.CACHE_BYTES", 0)
    assert faith("train-masker", "photos", "--steps", 3, "--out", "read", *TINY).code == 0
    assert (tmp_path / "kept").read_bytes() == (tmp_path / "read").read_bytes()
