"""``faithmap saturation`` as its users see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from study_tools import replace_load
from torch import Tensor, nn

import faithmap
from faithmap.methods.cams import saturation

pytestmark = pytest.mark.usefixtures("loads")

QUICK = ("--methods", "gradcam,expected_gradcam", "--channels", 2)


def test_the_walk_and_the_features_are_the_library_s(faith, photo, tmp_path: Path):
    path = photo("cat.png")
    run = faith("saturation", "cat.png", "--baseline", "black", *QUICK)
    assert run.code == 0
    folder = tmp_path / "faithmap-saturation" / "cat"
    assert {file.name for file in folder.iterdir()} == {"saturation.png", "features.png", "result.json"}
    for name in ("saturation.png", "features.png"):
        with Image.open(folder / name) as picture:
            picture.load()
    record = json.loads((folder / "result.json").read_text())
    assert record["schema"] == "faithmap.saturation/1"
    model = faithmap.load("the tiny one")
    walk = saturation(model, model.read(path), baseline="black")
    assert record["path"]["score"] == walk.score[0].tolist()
    assert record["saturated"] == walk.share().item()
    assert record["target_layer"] == "eye"
    assert list(record["features"]) == ["gradcam", "expected_gradcam"]
    assert f"{100 * record['saturated']:.0f} % of the path, at eye" in run.out
    assert f"insertion {record['features']['gradcam']['insertion']:.3f}" in run.out


def test_json(faith, photo):
    photo("cat.png")
    (image,) = json.loads(faith("saturation", "cat.png", "--json", *QUICK).out)["images"]
    assert set(image["features"]) == {"gradcam", "expected_gradcam"}
    assert 0 <= image["saturated"] <= 1


class Deep(nn.Module):
    """Two resolutions, of which Expected Grad-CAM would look at both by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 12, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.coarse(self.fine(x)).relu().mean(dim=(2, 3))[:, :2] * 50


def test_the_default_methods_look_where_the_walk_looks(faith, photo, monkeypatch: pytest.MonkeyPatch):
    photo("cat.png")
    deep = faithmap.Classifier(Deep(), geometry=faithmap.Geometry(16, (16, 16)))
    replace_load(monkeypatch, lambda *arguments, **named: deep)
    (image,) = json.loads(faith("saturation", "cat.png", "--json").out)["images"]
    assert set(image["features"]) == {"gradcam", "integrated_gradcam", "expected_gradcam"}
    record = json.loads(Path("faithmap-saturation/cat/result.json").read_text())
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
def test_what_is_wrong_is_said_in_one_line(arguments: tuple, message: str, faith, photo, tmp_path: Path):
    photo("cat.png")
    before = {path.name for path in tmp_path.iterdir()}
    assert message in faith("saturation", "cat.png", *arguments).complaint
    assert {path.name for path in tmp_path.iterdir()} == before
