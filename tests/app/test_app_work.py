"""What the page finds out is what the commands find out, and what it hands over says how, exactly."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import threading
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from app_tools import LABELS, picture, small_model
from oracles import SmallNet
from study_tools import replace_load
from torch import nn

import faithmap as fm
from faithmap.app.asking import known_to
from faithmap.app.code import command, commands_of, explainer_code, python_of
from faithmap.app.controls import HINTS, about_method, fitting, options_of
from faithmap.app.desk import Desk
from faithmap.app.models import Known, Models
from faithmap.app.parcels import parcel_of
from faithmap.app.shelf import Upload
from faithmap.app.showing import Stage, compared, explained, path_picture, saturated
from faithmap.app.words import CancelledError, RefusedError
from faithmap.app.work import Subject, compare, explain, predict, saturate
from faithmap.app.worker import Answer, Tells
from faithmap.cli import main, make_app
from faithmap.cli.explain import ExplainArguments
from faithmap.methods.registry import METHODS
from faithmap.studies.explainers import make_explainer
from faithmap.studies.settings import CompareSettings, ExplainSettings, SaturationSettings

UPLOAD = Upload("my cat.png", picture())


SETTINGS = ExplainSettings(model="small", method="rank_descent", target="1", resolution=7, iterations=3)


@pytest.fixture
def subject() -> Subject:
    return Subject(UPLOAD, small_model())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the photograph lies, and every model is the small one."""
    monkeypatch.chdir(tmp_path)
    replace_load(monkeypatch, lambda name, weights=None, device=None: small_model(name))
    (tmp_path / UPLOAD.name).write_bytes(UPLOAD.data)
    return tmp_path


@pytest.fixture
def sketches(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file in the place of pictures, which take seconds to draw."""
    monkeypatch.setattr("faithmap.studies.explain.draw_pictures", lambda out, *others: (out / "panel.png").touch())


def ran(code: str) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """What a script left behind, and what it printed; an unlikely class may be warned of."""
    said: list[tuple[Any, ...]] = []
    names: dict[str, Any] = {"print": lambda *words: said.append(words)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fm.FaithmapWarning)
        exec(code, names)  # noqa: S102
    return names, said


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_model_sees_what_it_sees(subject: Subject) -> None:
    probabilities = predict(subject)
    with torch.no_grad():
        expected = subject.model(subject.image().image).softmax(dim=1)[0]
    assert torch.equal(probabilities, expected)
    assert Known.of(subject.model).best(probabilities) == expected.argsort(descending=True)[:5].tolist()


def test_the_command_and_the_python_find_what_the_page_shows(subject: Subject, folder: Path, sketches: None) -> None:
    result = explain(subject, [SETTINGS], Tells())
    line = commands_of(result)
    assert line == "faithmap explain 'my cat.png' --target 1 --model small --resolution 7 --iterations 3"
    assert main(shlex.split(line)[1:]) == 0
    there = np.load(folder / "faithmap-results/my cat/heatmap.npy")
    shown = result.results[0].explanation.heatmap[0].numpy()
    assert np.array_equal(there, shown)
    names, _ = ran(python_of(result))
    assert np.array_equal(names["explanation"].heatmap[0].numpy(), shown)
    assert float(names["curves"].deletion.area) == float(result.results[0].curves.deletion.area)
    assert (folder / "panel.png").exists()


def test_the_zip_is_the_commands_folder(subject: Subject, folder: Path) -> None:
    result = explain(subject, [SETTINGS], Tells())
    parcel = parcel_of(result, folder)
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


def test_two_classes_are_explained_alike(subject: Subject, folder: Path, sketches: None) -> None:
    result = explain(subject, [SETTINGS, replace(SETTINGS, target="2")], Tells())
    lines = commands_of(result).splitlines()
    for line, found in zip(lines, result.results, strict=True):
        assert main(shlex.split(line)[1:]) == 0
        out = Path(shlex.split(line)[-1])
        assert np.array_equal(np.load(out / "my cat/heatmap.npy"), found.explanation.heatmap[0].numpy())
    assert {name.split("/")[0] for name in unpacked(parcel_of(result, folder).data)} == {"faithmap-class-1", "faithmap-class-2"}
    names, _ = ran(python_of(result))
    assert np.array_equal(names["that"].heatmap[0].numpy(), result.results[1].explanation.heatmap[0].numpy())
    scene = explained(result, Stage(subject.image(), subject.model))
    assert scene["difference"] is True


def test_a_comparison_is_the_commands(subject: Subject, folder: Path) -> None:
    settings = CompareSettings(model="small", target="1", methods=("smoothgrad", "gradient"), resolution=7)
    result = compare(subject, settings, Tells())
    assert main(shlex.split(commands_of(result))[1:]) == 0
    record = json.loads((folder / "faithmap-comparison/my cat/result.json").read_text())
    ours = unpacked(parcel_of(result, folder).data)
    methods = json.loads(ours["my cat/result.json"])["methods"]
    for name in ("smoothgrad", "gradient", "random"):
        assert {**methods[name], "seconds": 0} == {**record["methods"][name], "seconds": 0}
    assert "my cat/comparison.png" in ours
    _, said = ran(python_of(result))
    assert [(words[0], words[2], words[4]) for words in said] == [
        (name, float(result.result.curves[name].deletion.area), float(result.result.curves[name].insertion.area))
        for name in settings.methods
    ]
    a, b = (
        torch.from_numpy(result.result.explanations[name].at((7, 7))[0].numpy()).flatten().argsort().argsort()
        for name in settings.methods
    )
    spearman = np.corrcoef(a, b)[0, 1]
    scene: Any = compared(result, Stage(subject.image(), subject.model))
    assert scene["agreement"][0][1] == pytest.approx(spearman, abs=1e-5)
    assert [panel["name"] for panel in scene["panels"]] == ["smoothgrad", "gradient"]


def test_a_walk_is_the_commands(subject: Subject, folder: Path) -> None:
    settings = SaturationSettings(model="small", target="1", methods=("gradcam",), channels=2, baseline="black")
    result = saturate(subject, settings, Tells())
    assert main(shlex.split(commands_of(result))[1:]) == 0
    record = json.loads((folder / "faithmap-saturation/my cat/result.json").read_text())
    assert record["saturated"] == float(result.result.path.share()[0])
    assert json.loads(unpacked(parcel_of(result, folder).data)["my cat/result.json"]) == {
        **record,
        "file": {**record["file"], "path": "my cat.png"},
    }
    _, said = ran(python_of(result))
    assert said[0] == ("saturated", record["saturated"])
    assert said[1][4] == record["features"]["gradcam"]["insertion"]
    source, words = path_picture(result)
    assert source.startswith("data:image/svg+xml;base64,")
    assert f"{100 * record['saturated']:.0f} %" in words
    assert len(saturated(result, Stage(subject.image(), subject.model))["panels"]) == 1  # type: ignore[arg-type]


def test_options_survive_the_command_line() -> None:
    given = ExplainSettings(
        model="timm/x", method="expected_gradcam", target="3", target_layer="a.b", samples=7, baseline="grey", score="logit"
    )
    line = command("explain", Upload("-odd 'name'.png", b""), given)
    _, bound, _ = make_app().parse_args(shlex.split(line.replace("-odd", "./-odd"))[1:])
    assert bound.arguments["settings"] == ExplainArguments(**vars(given))


def test_a_bundled_photograph_is_found_by_the_shell() -> None:
    line = command("explain", Upload("coffee.jpg", b"", "coffee"), ExplainSettings(target="1"))
    shell = f"python() {{ printf '%s' \"$2\"; }}; faithmap() {{ printf '%s\\n' \"$@\"; }}; {line}"
    said = subprocess.run(["/bin/bash", "-c", shell], capture_output=True, text=True, check=True).stdout.splitlines()
    assert (said[0], said[2:]) == ("explain", ["--target", "1"])
    _, ((path,),) = ran(said[1])
    assert path == fm.sample_photo("coffee")
    assert command("explain", Upload("chelsea.jpg", b"", "chelsea"), ExplainSettings()) == "faithmap explain"


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"learned_mask"}))
def test_the_python_makes_the_same_explainer(name: str) -> None:
    known = Known.of(small_model())
    probes = {"resolution": 6, "iterations": 3, "samples": 3, "baseline": "black", "score": "logit", "target_layer": "conv2"}
    settings = {setting: probes[setting] for setting in known.methods[name]}
    explainer = make_explainer(known.model, ExplainSettings(method=name, **settings))
    made = eval(explainer_code(explainer), {"fm": fm, "model": known.model})  # noqa: S307
    assert type(made) is type(explainer)
    assert made.settings == explainer.settings
    assert about_method(name)


def test_only_what_fits_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known.of(small_model())
    assert "learned_mask" not in known.methods
    assert known.methods["gradcam"] == {"target_layer", "score"}
    assert known.methods["rank_descent"] == {"resolution", "iterations", "baseline", "score"}
    assert "samples" in known.methods["integrated_gradcam"]
    assert known.layers[0] in ("conv2", "drop")
    monkeypatch.setattr("faithmap.app.models.find_spec", lambda name: None)
    assert "deeplift" not in Known.of(small_model()).methods

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.mean(dim=(2, 3)))

    flat = Known.of(fm.Classifier(Flat(), geometry=fm.Geometry(16, (16, 16))))
    assert flat.cams == []
    assert "rank_descent" in flat.methods
    assert "gradcam" not in flat.methods


def test_methods_that_do_not_know_an_operation_are_not_offered(untouched: Any) -> None:
    class Winding(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.sinh()).sinh()

    class Plain(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    particular = {"excitation_backprop", "contrastive_excitation_backprop", "lrp"}
    for net, offered in ((Plain(), particular), (Winding(), set())):
        known = Known.of(untouched(fm.Classifier(net, geometry=fm.Geometry(32, (32, 32))).eval()))
        assert known.methods.keys() & particular == offered
        assert "rank_descent" in known.methods


def test_settings_that_do_not_fit_are_refused() -> None:
    known = Known.of(small_model())
    nothing = [None] * len(HINTS)
    assert options_of(known, "small", 1, "rank_descent", *nothing) == ExplainSettings(
        model="small", method="rank_descent", target="1"
    )
    seven = options_of(known, "small", 1, "rank_descent", 7, *nothing[1:])
    assert seven.resolution == 7
    assert options_of(known, "small", 1, "rank_descent", 28, *nothing[1:]).resolution is None, "its own"
    for wrong in (0, 33, -1, 1e9, float("nan"), "7"):
        with pytest.raises(RefusedError, match="cells of the map a side"):
            options_of(known, "small", 1, "rank_descent", wrong, *nothing[1:])
    with pytest.raises(RefusedError, match="does not fit"):
        options_of(known, "small", 1, "learned_mask", *nothing)


def test_models_that_are_not_offered_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(name: str, device: str | None = None) -> fm.Classifier:
        asked.append(name)
        return small_model(name)

    models = Models(["a", "b", "c"], None, load)
    with pytest.raises(RefusedError, match="not offered"):
        models.get("hf/evil")
    for name in ("a", "b", "a", "c", "a", "b"):
        assert models.get(name).model.name == name
    assert asked == ["a", "b", "c", "b"], "two are kept, the latest"


def test_models_are_loaded_and_asked_in_the_desks_thread_alone(tmp_path: Path) -> None:
    """Two threads that watch one model's layers would spoil each other's answers."""
    asking: set[str] = set()

    def load(name: str, device: str | None = None) -> fm.Classifier:
        model = small_model(name)
        model.register_forward_pre_hook(lambda *given: asking.add(threading.current_thread().name))
        asking.add(threading.current_thread().name)
        return model

    desk = Desk(Models(["a", "b", "c"], None, load), tmp_path)
    for name in ("a", "b", "c", "a"):
        assert fitting(known_to(desk, name), "gradcam")[0]["value"] == "gradcam"
        assert known_to(desk, name).cams
    assert {name.rpartition("_")[0] for name in asking} == {"faithmap-app"}
    with pytest.raises(RefusedError, match="not offered"):
        known_to(desk, "hf/evil")
    desk.close()


def test_the_map_grows_and_cancelling_ends_it(desk: Desk, subject: Subject) -> None:
    slow = replace(SETTINGS, iterations=2000)
    cancelled, grown = threading.Event(), []
    running = desk.worker.run(lambda tells: explain(subject, [slow], tells), cancelled)
    while len(grown) < 2:
        news = next(running)
        assert not isinstance(news, Answer)
        if news.grown is not None:
            grown.append(news)
    cancelled.set()
    with pytest.raises(CancelledError):
        list(running)
    assert [tuple(one.grown.heatmap.shape) for one in grown] == [(1, 7, 7)] * 2
    assert 0 < grown[0].share < grown[1].share < 0.85
    assert int(grown[0].grown.target[0]) == 1
    scene: Any = Stage(subject.image(), subject.model).growing("rank_descent", grown[0].grown)
    assert (scene["panels"][0]["target"], scene["panels"][0]["games"]) == (LABELS[1], None)


class Long(nn.Module):
    """Twenty layers; ``asked`` counts how often any of them was, ``waits`` stops at the fifth of a pass where it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(20))
        self.asked = 0
        self.reached, self.on = threading.Event(), threading.Event()
        for layer in self.layers:
            layer.register_forward_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.asked += 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, layer in enumerate(self.layers):
            if i == 5 and len(x) > 1:
                self.reached.set()
                self.on.wait(20)
            x = layer(x)
        return x.mean(dim=(2, 3))


def test_cancelling_ends_a_pass_of_the_games_at_its_next_layer(desk: Desk) -> None:
    net = Long().eval()
    model = fm.Classifier(net, geometry=fm.Geometry(16, (16, 16)))
    subject = Subject(UPLOAD, model)
    settings = ExplainSettings(model="long", method="gradcam", target="1", target_layer="layers.3")
    cancelled = threading.Event()
    running = desk.worker.run(lambda tells: explain(subject, [settings], tells), cancelled)
    doing = ""
    while "evaluating" not in doing:
        news = next(running)
        assert not isinstance(news, Answer)
        doing = news.doing
    assert net.reached.wait(20), "many images in one pass: the games"
    before = net.asked
    cancelled.set()
    net.on.set()
    with pytest.raises(CancelledError):
        list(running)
    assert desk.worker.ended(5)
    assert net.asked == before
    assert not torch.nn.modules.module._global_forward_pre_hooks
    desk.close()


def test_hooks_and_flags_are_gone_when_work_was_cancelled(desk: Desk, untouched: Any) -> None:
    model = untouched(small_model())
    subject, settings = Subject(UPLOAD, model), ExplainSettings(model="small", target="1", iterations=500)
    running = desk.worker.run(lambda tells: explain(subject, [settings], tells))
    next(running)
    running.close()
    assert next(iter(desk.worker.run(lambda tells: 1))) is not None
    desk.close()
