"""``faithmap saturation`` as its users see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "igos"), "igos looks at no layer"),
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
