"""``faithmap compare`` as its users see it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_tools import Cli, WriteImage, record_in
from PIL import Image
from study_tools import replace_load

import faithmap

pytestmark = pytest.mark.usefixtures("loads")

QUICK = ("--resolution", 6, "--methods", "gradcam,expected_fusedcam,mask")


def grad_cam_of(path: Path) -> tuple[faithmap.Classifier, torch.Tensor, faithmap.Explanation]:
    """The tiny model, its input for a photograph, and Grad-CAM's map by the library alone."""
    model = faithmap.load("the tiny one")
    image = model.read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", faithmap.FaithmapWarning)
        return model, image, faithmap.GradCAM(model)(image)


def test_methods_are_scored_at_one_resolution_beside_a_random_map(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    path = photo("cat.png")
    run = faith("compare", "cat.png", "--seed", 7, *QUICK)
    assert run.code == 0
    folder = tmp_path / "faithmap-comparison" / "cat"
    assert {file.name for file in folder.iterdir()} == {"comparison.png", "result.json"}
    with Image.open(folder / "comparison.png") as picture:
        picture.load()
    record = record_in(folder)
    assert record["schema"] == "faithmap.comparison/1"
    assert list(record["methods"]) == ["gradcam", "expected_fusedcam", "mask", "random"]
    assert record["methods"]["mask"]["resolution"] == [6, 6]
    assert record["protocol"]["resolution"] == [6, 6]
    model, image, explanation = grad_cam_of(path)
    proof = faithmap.deletion_insertion(model, image, explanation.at((6, 6)))
    assert record["methods"]["gradcam"]["scores"]["insertion"] == float(proof.insertion.area[0])
    for name, method in record["methods"].items():
        assert name in run.out
        assert f"{method['scores']['deletion']:.3f}" in run.out


def test_all_methods_explain_the_class_of_the_first(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    assert faith("compare", "cat.png", "--target", "sheep dog", *QUICK).code == 0
    record = record_in(tmp_path / "faithmap-comparison" / "cat")
    assert record["target"] == {"index": 2, "label": "sheep dog"}
    assert any("probability" in warning for warning in record["warnings"])


def test_json(faith: Cli, photo: WriteImage) -> None:
    photo("cat.png")
    run = faith("compare", "cat.png", "--json", *QUICK)
    (image,) = json.loads(run.out)["images"]
    assert set(image["methods"]) == {"gradcam", "expected_fusedcam", "mask", "random"}


def test_a_method_by_two_of_its_names_is_compared_once(faith: Cli, photo: WriteImage) -> None:
    photo("cat.png")
    run = faith("compare", "cat.png", "--json", "--methods", "mwp,excitation_backprop, c_mwp", "--resolution", 6)
    (image,) = json.loads(run.out)["images"]
    assert list(image["methods"]) == ["excitation_backprop", "contrastive_excitation_backprop", "random"]


def test_one_method_with_two_settings_and_at_two_resolutions(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    """A setting of one entry goes before that of --set; a list needs no brackets."""
    photo("cat.png")
    methods = "mask@4x6,mask:lambda1=0.5,extremal:areas=0.1,0.2:iterations=3,mask@6"
    chosen = ("--methods", methods, "--set", "iterations=2", "--set", "lambda1=2", "--resolution", 6)
    assert faith("compare", "cat.png", *chosen).code == 0
    record = record_in(tmp_path / "faithmap-comparison" / "cat")
    found = record["methods"]
    assert list(found) == [
        *("mask@4x6", "mask:lambda1=0.5", "extremal:areas=0.1,0.2:iterations=3", "mask@6", "random@4x6", "random")
    ]
    assert [found[f"mask{rest}"]["settings"]["lambda1"] for rest in ("@4x6", ":lambda1=0.5", "@6")] == [2, 0.5, 2]
    assert found["extremal:areas=0.1,0.2:iterations=3"]["settings"]["areas"] == [0.1, 0.2]
    assert [found[key]["settings"]["iterations"] for key in ("mask@6", "extremal:areas=0.1,0.2:iterations=3")] == [2, 3]
    assert found["mask@4x6"]["resolution"] == found["mask@4x6"]["evaluated_at"] == [4, 6]
    assert found["random@4x6"]["evaluated_at"] == [4, 6]
    assert found["mask@6"]["evaluated_at"] == [6, 6]
    assert len(found["mask@4x6"]["curves"]["insertion"]) == 4 * 6 + 1


def test_a_class_activation_map_is_evaluated_at_its_own_cells(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    path = photo("cat.png")
    assert faith("compare", "cat.png", "--methods", "gradcam@16", "--resolution", 6).code == 0
    record = record_in(tmp_path / "faithmap-comparison" / "cat")
    assert list(record["methods"]) == ["gradcam@16", "random@16"]
    assert record["protocol"]["resolution"] == [16, 16]
    model, image, explanation = grad_cam_of(path)
    assert explanation.resolution == (16, 16)
    proof = faithmap.deletion_insertion(model, image, explanation)
    assert record["methods"]["gradcam@16"]["scores"]["deletion"] == float(proof.deletion.area[0])


class Strided(torch.nn.Module):
    """Its cells stand at pixels 1.5, 5.5, 9.5 and 13.5 of 16, those of a mask at 0, 5, 10 and 15."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = torch.nn.Conv2d(3, 4, 4, stride=4), torch.nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.conv(images).relu().mean(dim=(2, 3)))
        return logits


def test_a_map_with_a_resolution_of_its_own_is_ranked_by_its_cells_as_they_are(
    faith: Cli, photo: WriteImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = faithmap.Classifier(Strided(), geometry=faithmap.Geometry(16, (16, 16)), name="strided")
    replace_load(monkeypatch, lambda *_, **__: model)
    path = photo("cat.png")
    assert faith("compare", "cat.png", "--methods", "gradcam@4,gradcam", "--resolution", 4).code == 0
    methods = record_in(tmp_path / "faithmap-comparison" / "cat")["methods"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", faithmap.FaithmapWarning)
        explanation = faithmap.GradCAM(model)(model.read(path))
        raw, resampled = (
            faithmap.deletion_insertion(model, model.read(path), cells, explanation.target)
            for cells in (explanation.heatmap, explanation.cells)
        )
    assert methods["gradcam@4"]["scores"]["insertion"] == float(raw.insertion.area)
    assert methods["gradcam"]["scores"]["insertion"] == float(resampled.insertion.area)
    assert float(raw.insertion.area) != float(resampled.insertion.area)


def test_excitation_backprop_has_the_layer_of_its_own_resolution(
    faith: Cli, photo: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = faithmap.Classifier(Strided(), geometry=faithmap.Geometry(16, (16, 16)), name="strided")
    replace_load(monkeypatch, lambda *_, **__: model)
    photo("cat.png")
    entries = "excitation_backprop@16,excitation_backprop@4"
    (image,) = json.loads(faith("compare", "cat.png", "--json", "--methods", entries).out)["images"]
    assert [image["methods"][f"excitation_backprop@{n}"]["resolution"] for n in (16, 4)] == [[16, 16], [4, 4]]


def test_a_bad_file_among_many(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    (tmp_path / "text.jpg").write_text("no picture")
    run = faith("compare", "text.jpg", "cat.png", *QUICK)
    assert run.code == 2
    assert "text.jpg: not an image" in run.err
    assert [path.name for path in (tmp_path / "faithmap-comparison").iterdir()] == ["cat"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "gradcam,igoss"), '"igoss" is no method; did you mean igos or igos_plus?'),
        (("--methods", "x"), '"x" is no method; give some of igos, igos_plus'),
        (("--methods", "igos:noise=0"), "igos has no setting 'noise'; did you mean noise_std"),
        (("--methods", "igos:noise_std"), "'noise_std' sets nothing; give NAME=VALUE"),
        (("--methods", "igos:noise_std=-1"), "noise_std is -1; give a number of at least 0"),
        (("--methods", "igos@six"), "resolution is 'six'; give a whole number of at least 1 or two whole numbers"),
        (("--methods", "mask@17"), "resolution is (17, 17); give 1 to 16 rows"),
        (("--parts", "overlay,map"), '"map" is no part of the picture; give some of overlay, cells, curves'),
        (("--parts", "curves"), "the curves stand below a map; give overlay or cells first"),
        (("--methods", ""), '"" is no method'),
        (("--target", "sheep dgo"), "did you mean 'sheep dog'"),
        (("--resolution", "17"), "resolution is (17, 17); give 1 to 16 rows"),
        (("nowhere.png",), "nowhere.png: cannot be read"),
    ],
)
def test_user_errors_are_one_line(
    arguments: tuple[Any, ...], message: str, faith: Cli, photo: WriteImage, tmp_path: Path
) -> None:
    photo("cat.png")
    initial = {path.name for path in tmp_path.iterdir()}
    complaint = faith("compare", *(() if arguments[0].endswith(".png") else ("cat.png",)), *arguments).complaint
    assert message in complaint
    assert {path.name for path in tmp_path.iterdir()} == initial


def test_lack_of_memory_names_the_chunk_option(faith: Cli, photo: WriteImage, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("cat.png")

    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(faithmap.GradCAM, "__call__", full)
    assert "out of memory; give a --chunk below 32" in faith("compare", "cat.png", *QUICK).complaint


def test_a_comparison_is_recognised_as_a_result(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    """It can be replaced, and its picture is no photograph to compare next time."""
    photo("cat.png")
    quick = ("--resolution", 6, "--methods", "gradcam")
    assert faith("compare", "cat.png", *quick).code == 0
    assert "exists; give --overwrite" in faith("compare", "cat.png", *quick).complaint
    assert faith("compare", ".", "--overwrite", *quick).code == 0
    assert [path.name for path in (tmp_path / "faithmap-comparison").iterdir()] == ["cat"]
