"""``faithmap saturation`` as its users see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_tools import Cli, WriteImage, record_in
from PIL import Image
from study_tools import replace_load
from torch import Tensor, nn

import faithmap
from faithmap.methods.cams import saturation

pytestmark = pytest.mark.usefixtures("loads")

QUICK = ("--methods", "gradcam,expected_gradcam", "--channels", 2)


def test_the_record_equals_what_the_library_computes(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    path = photo("cat.png")
    run = faith("saturation", "cat.png", "--baseline", "black", *QUICK)
    assert run.code == 0
    folder = tmp_path / "faithmap-saturation" / "cat"
    assert {file.name for file in folder.iterdir()} == {"saturation.png", "features.png", "result.json"}
    for name in ("saturation.png", "features.png"):
        with Image.open(folder / name) as picture:
            picture.load()
    record = record_in(folder)
    assert record["schema"] == "faithmap.saturation/1"
    model = faithmap.load("the tiny one")
    walk = saturation(model, model.read(path), baseline="black")
    assert record["path"]["score"] == walk.score[0].tolist()
    assert record["saturated"] == walk.share().item()
    assert record["target_layer"] == "eye"
    assert list(record["features"]) == ["gradcam", "expected_gradcam"]
    assert f"{100 * record['saturated']:.0f} % of the path, at eye" in run.out
    assert f"insertion {record['features']['gradcam']['insertion']:.3f}" in run.out


def test_json(faith: Cli, photo: WriteImage) -> None:
    photo("cat.png")
    (image,) = json.loads(faith("saturation", "cat.png", "--json", *QUICK).out)["images"]
    assert set(image["features"]) == {"gradcam", "expected_gradcam"}
    assert 0 <= image["saturated"] <= 1


class Deep(nn.Module):
    """Two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 12, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.coarse(self.fine(x)).relu().mean(dim=(2, 3))
        return scores[:, :2] * 50


def test_the_default_methods_use_the_layer_of_the_path(faith: Cli, photo: WriteImage, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("cat.png")
    deep = faithmap.Classifier(Deep(), geometry=faithmap.Geometry(16, (16, 16)))
    replace_load(monkeypatch, lambda *arguments, **named: deep)
    (image,) = json.loads(faith("saturation", "cat.png", "--json").out)["images"]
    assert set(image["features"]) == {"gradcam", "integrated_gradcam", "expected_gradcam"}
    record = record_in(Path("faithmap-saturation/cat"))
    assert record["target_layer"] == "coarse"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "igos"), "igos has no target layer"),
        (("--methods", "gradcam", "--target-layer", "eyes"), "'eyes' is no module of the model; did you mean 'eye'?"),
        (("--methods", "gradcam", "--channels", "4"), "count is 4; give 1 to 3 channels"),
        (("--methods", "gradcam,x"), '"x" is no method'),
    ],
)
def test_user_errors_are_one_line(
    arguments: tuple[Any, ...], message: str, faith: Cli, photo: WriteImage, tmp_path: Path
) -> None:
    photo("cat.png")
    initial = {path.name for path in tmp_path.iterdir()}
    assert message in faith("saturation", "cat.png", *arguments).complaint
    assert {path.name for path in tmp_path.iterdir()} == initial
