"""``faithmap compare`` as its users see it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

import faithmap

pytestmark = pytest.mark.usefixtures("loads")

QUICK = ("--resolution", 6, "--methods", "gradcam,expected_gradcam,mask")


def test_methods_are_scored_at_one_resolution_against_chance(faith, photo, tmp_path: Path):
    path = photo("cat.png")
    run = faith("compare", "cat.png", "--seed", 7, *QUICK)
    assert run.code == 0
    folder = tmp_path / "faithmap-comparison" / "cat"
    assert {file.name for file in folder.iterdir()} == {"comparison.png", "result.json"}
    with Image.open(folder / "comparison.png") as picture:
        picture.load()
    record = json.loads((folder / "result.json").read_text())
    assert record["schema"] == "faithmap.comparison/1"
    assert list(record["methods"]) == ["gradcam", "expected_gradcam", "mask", "random"]
    assert record["methods"]["mask"]["resolution"] == [6, 6]
    assert record["protocol"]["resolution"] == [6, 6]
    model = faithmap.load("the tiny one")
    image = model.read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", faithmap.FaithmapWarning)
        why = faithmap.GradCAM(model)(image)
    proof = faithmap.deletion_insertion(model, image, why.at((6, 6)))
    assert record["methods"]["gradcam"]["scores"]["insertion"] == float(proof.insertion.area[0])
    for name, method in record["methods"].items():
        assert name in run.out
        assert f"{method['scores']['deletion']:.3f}" in run.out


def test_the_first_methods_class_is_everybodys(faith, photo, tmp_path: Path):
    photo("cat.png")
    assert faith("compare", "cat.png", "--target", "sheep dog", *QUICK).code == 0
    record = json.loads((tmp_path / "faithmap-comparison" / "cat" / "result.json").read_text())
    assert record["target"] == {"index": 2, "label": "sheep dog"}
    assert any("probability" in warning for warning in record["warnings"])


def test_json(faith, photo):
    photo("cat.png")
    run = faith("compare", "cat.png", "--json", *QUICK)
    (image,) = json.loads(run.out)["images"]
    assert set(image["methods"]) == {"gradcam", "expected_gradcam", "mask", "random"}


def test_a_method_by_two_of_its_names_is_compared_once(faith, photo):
    photo("cat.png")
    run = faith("compare", "cat.png", "--json", "--methods", "mwp,excitation_backprop, c_mwp", "--resolution", 6)
    (image,) = json.loads(run.out)["images"]
    assert list(image["methods"]) == ["excitation_backprop", "contrastive_excitation_backprop", "random"]


def test_a_bad_file_among_many(faith, photo, tmp_path: Path):
    photo("cat.png")
    (tmp_path / "text.jpg").write_text("no picture")
    run = faith("compare", "text.jpg", "cat.png", *QUICK)
    assert run.code == 2
    assert "text.jpg: not an image" in run.err
    assert [path.name for path in (tmp_path / "faithmap-comparison").iterdir()] == ["cat"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "gradcam,igoss"), '"igoss" is no method; give some of igos, igos_plus'),
        (("--methods", ""), '"" is no method'),
        (("--target", "sheep dgo"), "did you mean 'sheep dog'"),
        (("--resolution", "17"), "resolution is (17, 17); give 1 to 16 rows"),
        (("nowhere.png",), "nowhere.png: cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: tuple, message: str, faith, photo, tmp_path: Path):
    photo("cat.png")
    before = {path.name for path in tmp_path.iterdir()}
    complaint = faith("compare", *(() if arguments[0].endswith(".png") else ("cat.png",)), *arguments).complaint
    assert message in complaint
    assert {path.name for path in tmp_path.iterdir()} == before


def test_memory_does_not_suffice(faith, photo, monkeypatch: pytest.MonkeyPatch):
    photo("cat.png")

    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(faithmap.GradCAM, "__call__", full)
    assert "out of memory; give a --chunk below 32" in faith("compare", "cat.png", *QUICK).complaint


def test_a_comparison_is_known_as_a_result(faith, photo, tmp_path: Path):
    """It can be replaced, and its picture is no photograph to compare next time."""
    photo("cat.png")
    quick = ("--resolution", 6, "--methods", "gradcam")
    assert faith("compare", "cat.png", *quick).code == 0
    assert "exists; give --overwrite" in faith("compare", "cat.png", *quick).complaint
    assert faith("compare", ".", "--overwrite", *quick).code == 0
    assert [path.name for path in (tmp_path / "faithmap-comparison").iterdir()] == ["cat"]
