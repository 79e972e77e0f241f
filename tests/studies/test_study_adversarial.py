"""``faithmap adversarial`` as its users see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_tools import Cli, ListFiles, WriteImage, record_in
from PIL import Image
from study_tools import replace_load

import faithmap
from faithmap.data import read_image
from faithmap.metrics.functional import adversarial_check, mi_fgsm
from faithmap.studies.adversarial import AdversarialStudy
from faithmap.studies.result_folder import RESULT_FILES
from faithmap.studies.settings import AdversarialSettings

pytestmark = pytest.mark.usefixtures("loads")

QUICK = ("--method", "gradcam", "--radius", "64/255")


@pytest.fixture
def sketch(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file in the place of the picture, which takes a second to draw."""
    monkeypatch.setattr("faithmap.studies.adversarial.adversarial_panel", lambda *args, **kwargs: None)
    monkeypatch.setattr("faithmap.studies.adversarial.save_figure", lambda figure, path: path.touch())


def record_of(tmp_path: Path) -> dict[str, Any]:
    return record_in(tmp_path / "faithmap-adversarial" / "cat")


def test_the_record_equals_what_the_library_computes(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    path = photo("cat.png")
    run = faith("adversarial", "cat.png", "--seed", 7, "--target", "tiger cat", "--method", "gradcam", "--radius", "0.5")
    assert (run.code, run.err) == (0, "")
    folder = tmp_path / "faithmap-adversarial" / "cat"
    arrays = {"adversarial.npy", "clean_heatmap.npy", "adversarial_heatmap.npy"}
    assert {file.name for file in folder.iterdir()} == {"check.png", "adversarial.png", "result.json"} | arrays
    assert {file.name for file in folder.iterdir()} == {"result.json"} | RESULT_FILES["faithmap.adversarial"]
    record = record_of(tmp_path)
    assert record["schema"] == "faithmap.adversarial/1"
    model = faithmap.load("the tiny one")
    image = model.read(path)
    check = adversarial_check(faithmap.GradCAM(model), image, 1, targeted=True, radius=0.5)
    assert np.array_equal(np.load(folder / "adversarial.npy"), check.attack.images[0].numpy())
    assert np.array_equal(np.load(folder / "clean_heatmap.npy"), check.clean.heatmap[0].numpy())
    assert np.array_equal(np.load(folder / "adversarial_heatmap.npy"), check.adversarial.heatmap[0].numpy())
    for name, needed, curve, probabilities in (
        ("clean", check.clean_needed, check.clean_insertion, check.attack.clean_probabilities),
        ("adversarial", check.adversarial_needed, check.adversarial_insertion, check.attack.adversarial_probabilities),
    ):
        side = record[name]
        assert side["index"] == int(probabilities.argmax())
        assert side["probability"] == pytest.approx(float(probabilities.max()), abs=1e-6)
        assert side["needed"] == float(needed)
        assert side["insertion"] == float(curve.area)
        assert side["curve"] == {"fractions": curve.fractions.tolist(), "scores": curve.scores[0].tolist()}
        assert f"{side['label']} {side['probability']:.3f}: {100 * side['needed']:.0f} % of the cells" in run.out
    assert record["clean"]["other"]["index"] == record["adversarial"]["index"] != record["clean"]["index"]
    assert record["attack"]["fooled"]
    assert record["attack"]["radius"] == 0.5
    assert 0 < record["attack"]["largest_change"] <= 0.5 + 1e-6
    assert record["difference"] == float(check.difference)
    saved = read_image(folder / "adversarial.png")
    with torch.no_grad():
        as_it_is, again = (model(x).softmax(1)[0] for x in (saved, model.preprocess(saved)))
    assert record["saved"]["as_it_is"]["probability"] == pytest.approx(float(as_it_is.max()), abs=1e-5)
    assert record["saved"]["read_again"]["probability"] == pytest.approx(float(again.max()), abs=1e-5)
    with Image.open(folder / "check.png") as picture:
        picture.load()


@pytest.mark.usefixtures("sketch")
def test_a_class_to_be_reached(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    assert faith("adversarial", "cat.png", "--target", "tiger cat", "--early-stop", "--radius", "0.9", *QUICK[:2]).code == 0
    record = record_of(tmp_path)
    assert record["attack"]["target"] == {"index": 1, "label": "tiger cat"}
    assert record["adversarial"]["label"] == "tiger cat"
    assert record["attack"]["early_stop"]
    model = faithmap.load("the tiny one")
    attack = mi_fgsm(model, model.read(tmp_path / "cat.png"), 1, targeted=True, radius=0.9, early_stop=True)
    assert np.array_equal(np.load(tmp_path / "faithmap-adversarial" / "cat" / "adversarial.npy"), attack.images[0].numpy())


@pytest.mark.usefixtures("sketch")
def test_an_attack_that_fails_is_a_warning(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    run = faith("adversarial", "cat.png", "--method", "gradcam", "--radius", "1/2550", "--target", "tiger cat")
    assert run.code == 0
    assert "warning: " in run.err
    assert "the attack failed, the model predicts" in run.err
    assert "give a larger --radius or more --steps" in run.err
    assert not record_of(tmp_path)["attack"]["fooled"]


@pytest.mark.usefixtures("sketch")
def test_rounding_that_undoes_the_attack_is_a_warning(
    faith: Cli, photo: WriteImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faithmap.studies.adversarial.LEVELS", 1)
    photo("cat.png")
    run = faith("adversarial", "cat.png", "--early-stop", *QUICK)
    record = record_of(tmp_path)
    assert record["saved"]["as_it_is"]["index"] != record["adversarial"]["index"]
    assert (
        f"rounding to 8 bits undid the attack: the model predicts {record['saved']['as_it_is']['label']} for adversarial.png"
        in run.err
    )


@pytest.mark.usefixtures("sketch")
def test_a_map_that_ranks_nothing_has_no_number(
    faith: Cli, photo: WriteImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo("cat.png")
    explain = faithmap.GradCAM.__call__

    def flat(self: faithmap.GradCAM, *args: Any, **kwargs: Any) -> faithmap.Explanation:
        explanation = explain(self, *args, **kwargs)
        explanation.heatmap.fill_(1)
        return explanation

    monkeypatch.setattr(faithmap.GradCAM, "__call__", flat)
    run = faith("adversarial", "cat.png", *QUICK)
    assert run.code == 0
    assert record_of(tmp_path)["clean"]["needed"] is None
    assert record_of(tmp_path)["correlation"] is None
    assert "the map ranks nothing" in run.out


@pytest.mark.usefixtures("sketch")
def test_json_several_photographs_and_a_bad_one(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    photo("dog.png", seed=1)
    (tmp_path / "text.jpg").write_text("no picture")
    run = faith("adversarial", "text.jpg", "cat.png", "dog.png", "--json", *QUICK)
    assert run.code == 2
    bad, cat, dog = json.loads(run.out)["images"]
    assert "not an image" in bad["error"]
    assert cat["clean"]["label"]
    assert cat["attack"]["fooled"]
    assert dog["folder"].endswith("dog")
    assert faith("adversarial", "cat.png", *QUICK).complaint.endswith("give --overwrite to replace results, or another --out")
    assert faith("adversarial", "cat.png", "--overwrite", *QUICK).code == 0
    # what a folder holds beside results is attacked, results are not
    assert faith("adversarial", ".", "--out", "more", *QUICK).code == 2
    assert {path.name for path in (tmp_path / "more").iterdir()} == {"cat", "dog"}


@pytest.mark.usefixtures("sketch")
def test_neighbours_and_order_do_not_matter(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    photo("dog.png", seed=1)
    options = ("--method", "expected_fusedcam", "--radius", "64/255")
    faith("adversarial", "cat.png", "dog.png", *options)
    together = record_of(tmp_path)
    faith("adversarial", "dog.png", "cat.png", "--overwrite", *options)
    alone = record_of(tmp_path)
    together.pop("seconds"), alone.pop("seconds")
    assert together == alone
    model = faithmap.load("the tiny one")
    maps = [
        faithmap.ExpectedFusedCAM(model)(model.read(tmp_path / "cat.png"), generator=faithmap.image_generators(0, [index]))
        for index in (alone["seed"]["image"], 0)
    ]
    saved = np.load(tmp_path / "faithmap-adversarial" / "cat" / "clean_heatmap.npy")
    assert [np.array_equal(saved, explanation.heatmap[0].numpy()) for explanation in maps] == [True, False]


@pytest.mark.usefixtures("sketch")
def test_the_saved_image_is_also_read_again(
    faith: Cli, photo: WriteImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that crops crops again."""
    model = faithmap.load("the tiny one")
    model.geometry = faithmap.Geometry(20, (16, 16))
    replace_load(monkeypatch, lambda *args, **kwargs: model)
    photo("cat.png")
    assert faith("adversarial", "cat.png", *QUICK).code == 0
    saved = read_image(tmp_path / "faithmap-adversarial" / "cat" / "adversarial.png")
    with torch.no_grad():
        as_it_is, again = (float(model(x).softmax(1).max()) for x in (saved, model.preprocess(saved)))
    assert as_it_is != pytest.approx(again, abs=1e-3)
    found = record_of(tmp_path)["saved"]
    assert found["as_it_is"]["probability"] == pytest.approx(as_it_is, abs=1e-5)
    assert found["read_again"]["probability"] == pytest.approx(again, abs=1e-5)


@pytest.mark.usefixtures("sketch")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--radius", "0"), '"0" is not more than 0 and at most 1; give a number such as 0.03, or 8/255'),
        (("--radius", "8"), '"8" is not more than 0'),
        (("--radius", "8/0"), '"8/0" is not more than 0'),
        (("--radius", "nan"), '"nan" is not more than 0'),
        (("--radius", "1e-2"), '"1e-2" is not more than 0'),
        (("--share", "1.5"), '"1.5" is not more than 0'),
        (("--steps", "0"), '"0" for --steps. Must be > 0'),
        (("--method", "gradcan"), '"gradcan" is no method; did you mean gradcam'),
        (("--method", "gradcam", "--resolution", "7"), "--resolution is no setting of gradcam"),
        (("--resolution", "17"), "resolution is (17, 17); give 1 to 16 rows"),
        (("--target", "sheep dgo"), "did you mean 'sheep dog'"),
        (("--target", "TABBY", "--method", "gradcam"), "'TABBY' is no class of spots"),
        (("--target", "tabby cat", "--method", "gradcam"), "cat.png: the model already predicts tabby cat; give another"),
        (("nowhere.png",), "nowhere.png: cannot be read"),
        (("--out", "cat.png"), "no results can be written there"),
    ],
)
def test_user_errors_are_one_line(
    arguments: tuple[Any, ...], message: str, faith: Cli, photo: WriteImage, tree: ListFiles
) -> None:
    photo("cat.png")
    initial = tree()
    assert message in faith("adversarial", *(() if arguments[0] == "nowhere.png" else ("cat.png",)), *arguments).complaint
    assert tree() == initial


@pytest.mark.usefixtures("sketch")
def test_lack_of_memory_names_the_chunk_option(faith: Cli, photo: WriteImage, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("cat.png")

    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(faithmap.GradCAM, "__call__", full)
    assert "out of memory; give a --chunk below 32" in faith("adversarial", "cat.png", *QUICK).complaint


def test_the_defaults_are_igos_at_its_own_resolution_and_the_papers_attack() -> None:
    study = AdversarialStudy.for_model(AdversarialSettings(), faithmap.load("the tiny one"), None)
    assert isinstance(study.explainer, faithmap.IGOS)
    assert study.explainer.resolution == 28
    assert (study.settings.radius, study.settings.steps, study.settings.early_stop) == (16 / 255, 10, False)
