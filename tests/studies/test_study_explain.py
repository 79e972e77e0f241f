"""``faithmap explain``: the content of a result, and what it depends on."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_tools import Cli, Loads, WriteImage, inside, record_in, tiny_model
from numpy.typing import NDArray
from PIL import Image
from study_tools import replace_load
from torch import Tensor, nn

import faithmap
from faithmap.methods.registry import METHODS
from faithmap.seeds import derived
from faithmap.studies import base, explain as explaining
from faithmap.studies.base import InputImage, read_input
from faithmap.studies.result_folder import RESULT_FILES, ImageJob, write_record

pytestmark = pytest.mark.usefixtures("loads", "sketches")

SMALL = ("--iterations", 3, "--resolution", 7, "--chunk", 256)
QUICK = (*SMALL, "--baseline", "grey")


def heatmap(folder: Path) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.load(folder / "heatmap.npy", allow_pickle=False)
    return found


def test_a_result_folder_contains_all_files_of_the_study(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    faith("explain", "cat.png", "--out", "here", *QUICK)
    assert inside(tmp_path / "here") == ["cat"]
    pictures = {"overlay.png", "panel.png", "strip.png", "deletion_insertion.gif"}
    assert set(inside(tmp_path / "here" / "cat")) == {"result.json", "heatmap.npy"} | pictures
    assert pictures | {"heatmap.npy"} <= RESULT_FILES["faithmap.result"]


def test_the_target_layer_and_how_it_was_found_are_printed_and_recorded(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    out = faith("explain", "cat.png", "--out", "here", "--method", "gradcam").out
    diagnostics = json.loads((tmp_path / "here" / "cat" / "result.json").read_text())["diagnostics"]
    (layer,), rule = diagnostics["target_layer"], diagnostics["layer_found_by"]
    assert f"{layer} ({rule})" in " ".join(out.split())
    assert "target layer" not in faith("explain", "cat.png", "--out", "there", *QUICK).out


def test_the_verdict_is_that_of_the_jury(faith: Cli, photo: WriteImage, tmp_path: Path, loads: Loads) -> None:
    path = photo("cat.png")
    run = faith("explain", "cat.png", "--target", "tiger cat", "--method", "occlusion", "--seed", 3)
    record = record_in(tmp_path / "faithmap-results" / "cat")

    model = faithmap.load("the tiny one")
    image = model.read(path)
    index = int(hashlib.sha256(path.read_bytes()).hexdigest()[:16], 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", faithmap.FaithmapWarning)
        explanation = faithmap.Occlusion(model)(image, 1)
        jury = faithmap.image_generators(derived(3, "jury"), [index])
        result = faithmap.evidence(model, image, explanation, generator=jury)
    (verdict,) = result.verdicts
    assert record["optimises"] == ["colour"]
    found = record["evidence"]
    assert (found["level"], found["sentence"], found["votes"]) == (verdict.level, verdict.sentence, verdict.votes)
    assert [juror["name"] for juror in found["jurors"]] == list(result.jurors)
    keys = ("heatmap", "random", "centred", "edges")
    assert [[juror[key] for key in keys] for juror in found["jurors"]] == result.values[:, 0].tolist()
    assert {juror["name"]: juror["no_vote"] for juror in found["jurors"]}["grey"] == "the method optimised it"
    assert f"{verdict.level}: {verdict.sentence}" in " ".join(run.out.split())


@pytest.mark.parametrize(("protocol", "own"), [("igos", False), ("rise", True)])
def test_a_measure_that_the_method_optimised_is_marked(
    faith: Cli, photo: WriteImage, tmp_path: Path, protocol: str, own: bool
) -> None:
    photo("cat.png")
    run = faith("explain", "cat.png", "--method", "occlusion", "--protocol", protocol, "--evidence", "none")
    assert ("optimised by this method: no evidence for it" in run.out) == own
    assert "verdict" not in run.out
    assert record_in(tmp_path / "faithmap-results" / "cat")["evidence"] is None


@pytest.mark.parametrize(("name", "method"), [("igos", faithmap.IGOS), ("mask", faithmap.Mask)])
def test_the_record_equals_what_the_library_computes(
    faith: Cli, photo: WriteImage, tmp_path: Path, loads: Loads, name: str, method: type
) -> None:
    path = photo("cat.png")
    settings = ("--method", name, "--score", "logit", "--baseline", "grey", "--protocol", "rise", "--target", "tiger cat")
    assert faith("explain", "cat.png", "--resolution", "5x7", "--iterations", 3, "--seed", 11, *settings).code == 0

    model = faithmap.load("the tiny one")
    image = model.read(path)
    index = int(hashlib.sha256(path.read_bytes()).hexdigest()[:16], 16)
    explainer = method(model, resolution=(5, 7), iterations=3, score="logit", baseline="grey", seed=11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", faithmap.FaithmapWarning)
        explanation = explainer(image, 1, generator=faithmap.image_generators(11, [index]))
    proof = faithmap.deletion_insertion(model, image, explanation, protocol="rise")
    noise = torch.rand(1, 5, 7, generator=faithmap.image_generators(11, [~index])[0])
    control = faithmap.deletion_insertion(model, image, noise, 1, protocol="rise")

    folder = tmp_path / "faithmap-results" / "cat"
    assert heatmap(folder).dtype == np.float32
    assert np.array_equal(heatmap(folder), explanation.heatmap[0].numpy())
    record = record_in(folder)
    assert record["schema"] == "faithmap.result/1"
    assert record["versions"]["faithmap"] == faithmap.__version__
    assert record["versions"]["torch"] == version("torch")
    assert record["file"] == {
        "path": "cat.png",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "size": [20, 24],
    }
    assert record["model"] == {"name": "spots", "digest": "abc", "classes": 3, "device": "cpu", "input_size": [16, 16]}
    assert record["window"] == pytest.approx(model.geometry.window((20, 24))._asdict())
    settings = json.loads(json.dumps(explanation.settings))
    title = METHODS[name].explainer.title
    assert record["method"] == {"name": method.__name__, "title": title, "settings": settings}
    assert record["seed"] == {"run": 11, "image": index}
    probabilities = model(image).softmax(dim=1)[0]
    assert record["target"] == pytest.approx(
        {"index": 1, "label": "tiger cat", "probability": float(probabilities[1]), "score": float(explanation.score[0])}
    )
    assert [guess["index"] for guess in record["predicted"]] == probabilities.argsort(descending=True).tolist()
    assert record["scores"]["heatmap"] == {
        "deletion": float(proof.deletion.area[0]),
        "insertion": float(proof.insertion.area[0]),
        "difference": float(proof.difference[0]),
    }
    assert record["scores"]["random"]["difference"] == float(control.difference[0])
    assert record["curves"]["random"]["deletion"] == control.deletion.scores[0].tolist()
    assert record["curves"]["heatmap"]["insertion"] == proof.insertion.scores[0].tolist()
    assert record["curves"]["heatmap"]["fractions"] == proof.insertion.fractions.tolist()
    assert record["protocol"]["name"] == "rise"
    assert record["protocol"]["resolution"] == [16, 16]
    assert record["heatmap"] == {"file": "heatmap.npy", "resolution": [5, 7], "rows": None, "columns": None}
    assert record["passes"]["forward"] == explanation.diagnostics[0]["forward_passes"]
    assert record["diagnostics"]["objective"] == explanation.diagnostics[0]["objective"]
    assert record["seconds"]["explaining"] > 0


def test_the_random_map_depends_on_the_seed(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    photo("cat.png")
    control = []
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        faith("explain", "cat.png", "--out", out, "--seed", seed, *QUICK)
        control.append(record_in(tmp_path / out / "cat")["scores"]["random"])
    assert control[0] == control[1] != control[2]


def test_neighbours_order_and_name_do_not_matter(faith: Cli, photo: WriteImage, tmp_path: Path) -> None:
    for seed, name in enumerate(("cat.png", "dog.png", "ant.png")):
        photo(name, seed)
    photo("alias.png", 0)
    faith("explain", "cat.png", "--out", "alone", *QUICK)
    faith("explain", "cat.png", "dog.png", "ant.png", "--out", "first", *QUICK)
    faith("explain", "ant.png", "alias.png", "dog.png", "cat.png", "--out", "last", *QUICK)
    alone = heatmap(tmp_path / "alone" / "cat")
    assert np.array_equal(heatmap(tmp_path / "first" / "cat"), alone)
    assert np.array_equal(heatmap(tmp_path / "last" / "cat"), alone)
    assert np.array_equal(heatmap(tmp_path / "last" / "alias"), alone)
    assert not np.array_equal(heatmap(tmp_path / "first" / "dog"), alone)


def test_images_in_a_batch_get_the_results_that_they_get_alone(
    faith: Cli, photo: WriteImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(5):
        photo(f"{seed}.png", seed)
    files = [f"{seed}.png" for seed in range(5)]
    faith("explain", *files, "--out", "alone", *QUICK)
    calls = []
    explain = faithmap.RankDescent.__call__

    def counting(self: faithmap.RankDescent, images: Tensor, *a: Any, **k: Any) -> faithmap.Explanation:
        calls.append(len(images))
        return explain(self, images, *a, **k)

    monkeypatch.setattr(faithmap.RankDescent, "__call__", counting)
    monkeypatch.setattr(explaining.ExplainStudy, "batch_size", 3)
    (tmp_path / "2.png").write_text("no image")
    run = faith("explain", *files, "--out", "together", *QUICK)
    assert calls == [2, 2]
    assert run.code == 2
    for seed in (0, 1, 3, 4):
        expected = heatmap(tmp_path / "alone" / str(seed))
        assert np.allclose(heatmap(tmp_path / "together" / str(seed)), expected, atol=1e-5)


def test_images_of_different_sizes_are_explained_separately(
    faith: Cli, photo: WriteImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = faithmap.load("the tiny one")
    model.geometry = faithmap.Geometry()
    replace_load(monkeypatch, lambda *_, **__: model)
    monkeypatch.setattr(explaining.ExplainStudy, "batch_size", 8)
    photo("a.png", 0, (20, 24))
    photo("b.png", 1, (24, 20))
    photo("tiny.png", 2, (5, 5))
    run = faith("explain", "a.png", "b.png", "tiny.png", *QUICK)
    assert run.code == 2
    assert "error: tiny.png: resolution is (7, 7); give 1 to 5 rows" in run.err
    assert run.err.count("error") == 1
    assert inside(tmp_path / "faithmap-results") == ["a", "b"]


@pytest.mark.parametrize("target", ["Tiger  Cat", "tiger_cat", "1"])
def test_a_target_is_given_by_name_or_number(faith: Cli, photo: WriteImage, tmp_path: Path, target: str) -> None:
    photo("cat.png")
    faith("explain", "cat.png", "--target", target, *QUICK)
    assert record_in(tmp_path / "faithmap-results" / "cat")["target"]["index"] == 1


def test_a_constant_map_is_a_warning(faith: Cli, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "black").save(tmp_path / "flat.png")
    run = faith("explain", "flat.png", "--baseline", "black", *SMALL)
    assert run.code == 0
    assert "warning: flat.png: the heatmap has one value everywhere" in run.err


def test_only_one_batch_of_images_is_in_memory(faith: Cli, photo: WriteImage, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(6):
        photo(f"{seed}.png", seed)
    waiting: list[int] = []
    in_memory = [0]

    def counting_read(job: ImageJob, model: faithmap.Classifier) -> InputImage:
        in_memory[0] += 1
        waiting.append(in_memory[0])
        return read_input(job, model)

    def counting_write(folder: Path, record: Mapping[str, Any]) -> None:
        in_memory[0] -= 1
        write_record(folder, record)

    monkeypatch.setattr(explaining, "read_input", counting_read)
    monkeypatch.setattr(base, "write_record", counting_write)
    monkeypatch.setattr(explaining.ExplainStudy, "batch_size", 2)
    faith("explain", ".", *QUICK)
    assert len(waiting) == 6
    assert max(waiting) == 2


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        (("explain", *QUICK), "faithmap-results"),
        (("compare", "--methods", "gradcam,edges", "--resolution", 7), "faithmap-comparison"),
        (("saturation", "--methods", "gradcam", "--channels", 2), "faithmap-saturation"),
        (("adversarial", "--method", "gradcam"), "faithmap-adversarial"),
    ],
)
def test_what_the_model_returns_is_a_warning_in_the_record(
    faith: Cli, photo: WriteImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...], folder: str
) -> None:
    """Not one on stderr that belongs to no image."""

    def load(name: str, **more: Any) -> faithmap.Classifier:
        del name, more
        model = tiny_model()
        model.module = nn.Sequential(model.module, nn.Softmax(dim=1))
        return model

    replace_load(monkeypatch, load)
    for seed in range(2):
        photo(f"{seed}.png", seed)
    run = faith(*command, "0.png", "1.png")
    assert run.code == 0, run.err
    for number in range(2):
        warned = [text for text in record_in(tmp_path / folder / str(number))["warnings"] if "returns probabilities" in text]
        assert len(warned) == 1
        assert run.err.count(f"warning: {number}.png: {warned[0]}") == 1
    assert run.err.count("returns probabilities") == 2
