"""Results on the page equal those of the command and of the script that the page exports."""

from __future__ import annotations

import gc
import io
import json
import shlex
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from app_tools import UPLOAD, run_script, small_model, small_settings
from method_tools import live
from study_tools import replace_load

from faithmap.app.code import commands_of, python_of
from faithmap.app.controls import entries_of
from faithmap.app.models import OfferedModel
from faithmap.app.parcels import pack_download
from faithmap.app.showing import SceneMaker, compared, explained, path_picture, saturated
from faithmap.app.words import RefusedError, line_for
from faithmap.app.work import Subject, compare, explain, predict, saturate
from faithmap.app.worker import JobReporter
from faithmap.cli import main
from faithmap.studies.settings import CompareSettings, ExplainSettings, SaturationSettings


@pytest.fixture
def subject() -> Subject:
    return Subject(UPLOAD, small_model())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the photograph lies, and every model is the small one."""
    monkeypatch.chdir(tmp_path)
    replace_load(monkeypatch, lambda name, weights=None, device=None, outputs=None: small_model(name))
    (tmp_path / UPLOAD.name).write_bytes(UPLOAD.data)
    return tmp_path


@pytest.fixture
def sketches(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file in the place of pictures, which take seconds to draw."""
    monkeypatch.setattr("faithmap.studies.explain.draw_pictures", lambda out, *others: (out / "panel.png").touch())


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_predictions_are_the_models(subject: Subject) -> None:
    probabilities = predict(subject)
    with torch.no_grad():
        expected = subject.model(subject.image().image).softmax(dim=1)[0]
    assert torch.equal(probabilities, expected)
    assert OfferedModel.of(subject.model).best(probabilities) == expected.argsort(descending=True)[:5].tolist()


def test_command_and_script_give_the_map_on_the_page(subject: Subject, folder: Path, sketches: None) -> None:
    result = explain(subject, [small_settings()], JobReporter())
    line = commands_of(result)
    assert line == "faithmap explain 'my cat.png' --target 1 --model small --resolution 7 --iterations 3"
    assert main(shlex.split(line)[1:]) == 0
    there = np.load(folder / "faithmap-results/my cat/heatmap.npy")
    drawn_map = result.results[0].explanation.heatmap[0].numpy()
    assert np.array_equal(there, drawn_map)
    names, _ = run_script(python_of(result))
    assert np.array_equal(names["explanation"].heatmap[0].numpy(), drawn_map)
    assert float(names["curves"].deletion.area) == float(result.results[0].curves.deletion.area)
    assert (folder / "panel.png").exists()


def test_the_download_is_the_folder_of_the_command(subject: Subject, folder: Path) -> None:
    result = explain(subject, [small_settings()], JobReporter())
    parcel = pack_download(result, folder)
    main(shlex.split(commands_of(result))[1:])
    theirs = {
        str(p.relative_to(folder / "faithmap-results")): p.read_bytes() for p in (folder / "faithmap-results/my cat").iterdir()
    }
    ours = unpacked(parcel.data)
    assert parcel.name == "my cat.zip"
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"my cat/result.json"}:
        assert ours[name] == theirs[name], name
    records = [json.loads(files["my cat/result.json"]) for files in (ours, theirs)]
    for record in records:
        del record["seconds"]
    assert records[0] == records[1]
    assert sorted(path.name for path in folder.iterdir()) == ["faithmap-results", "my cat.png"], "nothing is left"


def test_two_classes_are_explained_with_the_same_random_numbers(subject: Subject, folder: Path, sketches: None) -> None:
    result = explain(subject, [small_settings(), replace(small_settings(), target="2")], JobReporter())
    lines = commands_of(result).splitlines()
    for line, found in zip(lines, result.results, strict=True):
        assert main(shlex.split(line)[1:]) == 0
        out = Path(shlex.split(line)[-1])
        assert np.array_equal(np.load(out / "my cat/heatmap.npy"), found.explanation.heatmap[0].numpy())
    assert {name.split("/")[0] for name in unpacked(pack_download(result, folder).data)} == {
        "faithmap-class-1",
        "faithmap-class-2",
    }
    names, _ = run_script(python_of(result))
    assert np.array_equal(names["that"].heatmap[0].numpy(), result.results[1].explanation.heatmap[0].numpy())
    scene = explained(result, SceneMaker(subject.image(), subject.model))
    assert scene["difference"] is True


def test_a_comparison_is_that_of_the_command(subject: Subject, folder: Path) -> None:
    settings = CompareSettings(model="small", target="1", methods=("smoothgrad", "gradient"), resolution=7)
    result = compare(subject, settings, JobReporter())
    assert main(shlex.split(commands_of(result))[1:]) == 0
    record = json.loads((folder / "faithmap-comparison/my cat/result.json").read_text())
    ours = unpacked(pack_download(result, folder).data)
    methods = json.loads(ours["my cat/result.json"])["methods"]
    for name in ("smoothgrad", "gradient", "random"):
        assert {**methods[name], "seconds": 0} == {**record["methods"][name], "seconds": 0}
    assert "my cat/comparison.png" in ours
    _, said = run_script(python_of(result))
    assert [(words[0], words[2], words[4]) for words in said] == [
        (name, float(result.result.curves[name].deletion.area), float(result.result.curves[name].insertion.area))
        for name in settings.methods
    ]
    a, b = (
        torch.from_numpy(result.result.explanations[name].at((7, 7))[0].numpy()).flatten().argsort().argsort()
        for name in settings.methods
    )
    spearman = np.corrcoef(a, b)[0, 1]
    scene: Any = compared(result, SceneMaker(subject.image(), subject.model))
    assert scene["agreement"][0][1] == pytest.approx(spearman, abs=1e-5)
    assert [panel["name"] for panel in scene["panels"]] == ["SmoothGrad", "gradient"]


def test_a_comparison_of_one_method_with_several_settings_is_that_of_the_command(subject: Subject, folder: Path) -> None:
    entries = entries_of(
        OfferedModel.of(subject.model), ["gradcam"], "smoothgrad@5, smoothgrad@5:noise_std=0, igos@4:iterations=2"
    )
    settings = CompareSettings(model="small", target="1", methods=entries, resolution=7, parts=("overlay",))
    result = compare(subject, settings, JobReporter())
    line = commands_of(result)
    assert "--methods gradcam,smoothgrad@5,smoothgrad@5:noise_std=0,igos@4:iterations=2" in line
    assert main(shlex.split(line)[1:]) == 0
    record = json.loads((folder / "faithmap-comparison/my cat/result.json").read_text())
    _, printed = run_script(python_of(result))
    assert [(name, words[2], words[4]) for name, words in zip(entries, printed, strict=True)] == [
        (name, record["methods"][name]["scores"]["deletion"], record["methods"][name]["scores"]["insertion"])
        for name in entries
    ]
    scene: Any = compared(result, SceneMaker(subject.image(), subject.model))
    assert [(panel["name"], panel["ranked"]) for panel in scene["panels"]] == [
        ("Grad-CAM", [7, 7]),
        ("SmoothGrad, 5 \N{MULTIPLICATION SIGN} 5", [5, 5]),
        ("SmoothGrad, 5 \N{MULTIPLICATION SIGN} 5, noise_std=0", [5, 5]),
        ("I-GOS, 4 \N{MULTIPLICATION SIGN} 4, iterations=2", [4, 4]),
    ]
    areas = [panel["curves"]["deletion"]["random_area"] for panel in scene["panels"]]
    names = ("random", "random@5", "random@5", "random@4")
    assert areas == pytest.approx([record["methods"][name]["scores"]["deletion"] for name in names], abs=1e-6)


def test_a_comparison_needs_no_entry_of_the_shared_resolution(subject: Subject) -> None:
    settings = CompareSettings(model="small", target="1", methods=("gradient@4",), resolution=7)
    scene: Any = compared(compare(subject, settings, JobReporter()), SceneMaker(subject.image(), subject.model))
    assert scene["panels"][0]["ranked"] == [4, 4]


REFUSED_ENTRIES = {
    "igoss": '"igoss" is no method; did you mean igos or igos_plus?',
    "learned_mask": "learned_mask does not fit the model; choose another method",
    "igos@big": "resolution is 'big'; give",
    "igos@33": "resolution of igos@33: 33 is not between 1 and 32; change it",
    "igos:resolution=33": "resolution: 33 is more than 32; change it",
    "igos:iterations=2001": "iterations: 2001 is more than 2000; change it",
    "rise:masks=20001": "masks: 20001 is more than 20000; change it",
    "igos:lambda1=1e9": "lambda1: 1000000000.0 is more than 20000; change it",
    "igos:lambda1=inf": "lambda1 is inf; give a number of at least 0, or None",
    "igos:step={kind='fixed_step', size=1e9}": "step: 1000000000.0 is more than 20000; change it",
    "igos:noise=0": "igos has no setting 'noise'; did you mean noise_std",
    "igos:noise_std": "'noise_std' sets nothing; give NAME=VALUE, such as lambda1=0.5",
    "igos:chunk_size=999": "chunk_size is the same for all methods; leave it out",
    " ": "choose at least one method, or give more entries",
}


@pytest.mark.parametrize("text", REFUSED_ENTRIES)
def test_a_wrong_entry_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the message is checked
        entries_of(OfferedModel.of(small_model()), [], text)
    assert line_for(refused.value).startswith(REFUSED_ENTRIES[text])


def test_an_entry_with_too_many_passes_is_refused(subject: Subject) -> None:
    settings = CompareSettings(model="small", target="1", methods=("igos:iterations=2000:path_points=2000",), resolution=7)
    with pytest.raises(
        RefusedError, match=r"path_points=2000 takes about \d+ passes of the model; choose settings with at most"
    ):
        compare(subject, settings, JobReporter())


def test_saturation_is_that_of_the_command(subject: Subject, folder: Path) -> None:
    settings = SaturationSettings(model="small", target="1", methods=("gradcam",), channels=2, baseline="black")
    result = saturate(subject, settings, JobReporter())
    assert main(shlex.split(commands_of(result))[1:]) == 0
    record = json.loads((folder / "faithmap-saturation/my cat/result.json").read_text())
    assert record["saturated"] == float(result.result.path.share()[0])
    assert json.loads(unpacked(pack_download(result, folder).data)["my cat/result.json"]) == {
        **record,
        "file": {**record["file"], "path": "my cat.png"},
    }
    _, said = run_script(python_of(result))
    assert said[0] == ("saturated", record["saturated"])
    assert said[1][4] == record["features"]["gradcam"]["insertion"]
    source, words = path_picture(result)
    assert source.startswith("data:image/svg+xml;base64,")
    assert f"{100 * record['saturated']:.0f} %" in words
    assert len(saturated(result, SceneMaker(subject.image(), subject.model))["panels"]) == 1  # type: ignore[arg-type]


def test_eight_clicks_keep_no_more_tensors_than_two(subject: Subject) -> None:
    """Another class at each click, of which the page has only the last result."""
    pytest.importorskip("captum")
    counts, settings = [], ExplainSettings(method="deeplift")
    for click in range(8):
        result = explain(subject, [replace(settings, target=str(click % 2))], JobReporter())
        gc.collect()
        counts.append(live())
    assert counts[7] == counts[1]
    del result
