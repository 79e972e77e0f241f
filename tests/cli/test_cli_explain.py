"""``faithmap explain`` as its users see it: what is written, what is printed, and what a result depends on."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn, get_args, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from study_tools import replace_load
from torch import Tensor

import faithmap
from faithmap.cli.explain import ExplainArguments
from faithmap.methods.registry import ALIASES, METHODS
from faithmap.studies import base, explain as explaining
from faithmap.studies.explainers import make_explainer
from faithmap.studies.result_folder import RESULT_FILES
from faithmap.studies.settings import ExplainSettings

pytestmark = pytest.mark.usefixtures("loads", "sketches")

SMALL = ("--iterations", 3, "--resolution", 7, "--chunk", 256)
QUICK = (*SMALL, "--baseline", "grey")


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def strictly(text: str) -> dict:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def result(folder: Path) -> dict:
    return strictly((folder / "result.json").read_text())


def heatmap(folder: Path) -> np.ndarray:
    return np.load(folder / "heatmap.npy", allow_pickle=False)


def test_without_arguments_the_sample_photograph_is_explained(faith, tmp_path: Path, loads: list[tuple]):
    run = faith("explain", *QUICK)
    assert run.code == 0
    assert "error" not in run.err
    assert loads == [("efficientnet_lite0", None, None)]
    assert result(tmp_path / "faithmap-results" / "chelsea")["file"]["path"] == str(faithmap.sample_photo())
    for word in ("predicted", "deletion", "insertion", "a random map", str(Path("faithmap-results", "chelsea"))):
        assert word in run.out


def test_a_result_folder_holds_what_is_promised(faith, photo, tmp_path: Path):
    photo("cat.png")
    faith("explain", "cat.png", "--out", "here", *QUICK)
    assert inside(tmp_path / "here") == ["cat"]
    pictures = {"overlay.png", "panel.png", "strip.png", "deletion_insertion.gif"}
    assert set(inside(tmp_path / "here" / "cat")) == {"result.json", "heatmap.npy"} | pictures
    assert pictures | {"heatmap.npy"} <= RESULT_FILES["faithmap.result"]


@pytest.mark.parametrize(("name", "method"), [("igos", faithmap.IGOS), ("mask", faithmap.Mask)])
def test_the_result_is_the_library_s_own(faith, photo, tmp_path: Path, loads: list[tuple], name: str, method: type):
    path = photo("cat.png")
    settings = ("--method", name, "--score", "logit", "--baseline", "grey", "--protocol", "rise", "--target", "tiger cat")
    assert faith("explain", "cat.png", "--resolution", "5x7", "--iterations", 3, "--seed", 11, *settings).code == 0

    model = faithmap.load("the tiny one")
    image = model.read(path)
    index = int(hashlib.sha256(path.read_bytes()).hexdigest()[:16], 16)
    explainer = method(model, resolution=(5, 7), iterations=3, score="logit", baseline="grey", seed=11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", faithmap.FaithmapWarning)
        why = explainer(image, 1, generator=faithmap.image_generators(11, [index]))
    proof = faithmap.deletion_insertion(model, image, why, protocol="rise")
    noise = torch.rand(1, 5, 7, generator=faithmap.image_generators(11, [~index])[0])
    chance = faithmap.deletion_insertion(model, image, noise, 1, protocol="rise")

    folder = tmp_path / "faithmap-results" / "cat"
    assert heatmap(folder).dtype == np.float32
    assert np.array_equal(heatmap(folder), why.heatmap[0].numpy())
    record = result(folder)
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
    assert record["method"] == {"name": method.__name__, "settings": json.loads(json.dumps(why.settings))}
    assert record["seed"] == {"run": 11, "image": index}
    probabilities = model(image).softmax(dim=1)[0]
    assert record["target"] == pytest.approx(
        {"index": 1, "label": "tiger cat", "probability": float(probabilities[1]), "score": float(why.score[0])}
    )
    assert [guess["index"] for guess in record["predicted"]] == probabilities.argsort(descending=True).tolist()
    assert record["scores"]["heatmap"] == {
        "deletion": float(proof.deletion.area[0]),
        "insertion": float(proof.insertion.area[0]),
        "difference": float(proof.difference[0]),
    }
    assert record["scores"]["random"]["difference"] == float(chance.difference[0])
    assert record["curves"]["random"]["deletion"] == chance.deletion.scores[0].tolist()
    assert record["curves"]["heatmap"]["insertion"] == proof.insertion.scores[0].tolist()
    assert record["curves"]["heatmap"]["fractions"] == proof.insertion.fractions.tolist()
    assert record["protocol"]["name"] == "rise"
    assert record["protocol"]["resolution"] == [16, 16]
    assert record["heatmap"] == {"file": "heatmap.npy", "resolution": [5, 7], "rows": None, "columns": None}
    assert record["passes"]["forward"] == why.diagnostics[0]["forward_passes"]
    assert record["diagnostics"]["objective"] == why.diagnostics[0]["objective"]
    assert record["seconds"]["explaining"] > 0


def test_the_random_map_is_another_one_for_another_seed_and_the_same_for_the_same(faith, photo, tmp_path: Path):
    photo("cat.png")
    chance = []
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        faith("explain", "cat.png", "--out", out, "--seed", seed, *QUICK)
        chance.append(result(tmp_path / out / "cat")["scores"]["random"])
    assert chance[0] == chance[1] != chance[2]


def test_neighbours_order_and_name_do_not_matter(faith, photo, tmp_path: Path):
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


def test_together_images_get_what_they_get_alone(faith, photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for seed in range(5):
        photo(f"{seed}.png", seed)
    files = [f"{seed}.png" for seed in range(5)]
    faith("explain", *files, "--out", "alone", *QUICK)
    calls = []
    explain = faithmap.RankDescent.__call__

    def counting(self: faithmap.RankDescent, images: Tensor, *a: object, **k: object) -> faithmap.Explanation:
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


def test_images_of_several_sizes_go_one_after_the_other(faith, photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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


def test_folders_and_files_mix_and_the_model_is_loaded_once(faith, photo, tmp_path: Path, loads: list[tuple]):
    photo("album/one.png", 1)
    photo("album/deep/two.png", 2)
    photo("three", 3)
    assert faith("explain", "album", "three", "album/one.png", *QUICK).code == 0
    assert inside(tmp_path / "faithmap-results") == ["one", "three", "two"]
    assert len(loads) == 1


def test_results_inside_a_searched_folder_are_not_explained_in_turn(faith, photo, tmp_path: Path, sketches, monkeypatch):
    photo("cat.png")
    faith("explain", "cat.png", *QUICK)
    Image.new("RGB", (8, 8)).save(tmp_path / "faithmap-results" / "cat" / "overlay.png")
    assert faith("explain", ".", "--out", "again", *QUICK).code == 0
    assert inside(tmp_path / "again") == ["cat"]
    assert "contains no images except faithmap's results" in faith("explain", "faithmap-results", *QUICK).complaint


@pytest.mark.parametrize("target", ["Tiger  Cat", "tiger_cat", "1"])
def test_a_target_is_given_by_name_or_number(faith, photo, tmp_path: Path, target: str):
    photo("cat.png")
    faith("explain", "cat.png", "--target", target, *QUICK)
    assert result(tmp_path / "faithmap-results" / "cat")["target"]["index"] == 1


def test_a_warning_is_one_line_that_names_the_file(faith, photo, tmp_path: Path):
    photo("cat.png")
    run = faith("explain", "cat.png", "--target", "tiger cat", "--baseline", "white", *SMALL)
    assert run.code == 0
    lines = run.err.splitlines()
    assert all(line.startswith("warning: cat.png: ") for line in lines)
    assert any("has probability" in line for line in lines)
    assert "Warning" not in run.err
    assert [line.removeprefix("warning: cat.png: ") for line in lines] == result(tmp_path / "faithmap-results" / "cat")[
        "warnings"
    ]


def test_of_an_animation_the_first_frame_is_explained_and_this_is_said(faith, photo, tmp_path: Path):
    frame = Image.open(photo("cat.png"))
    frame.save(tmp_path / "film.gif", save_all=True, append_images=[Image.new("RGB", frame.size)])
    run = faith("explain", "film.gif", *QUICK)
    assert run.code == 0
    assert run.err == "warning: film.gif: has several frames, of which the first is read\n"


def test_a_bad_file_among_good_ones_is_named_and_the_rest_goes_on(faith, photo, tmp_path: Path):
    photo("a.png", 1)
    (tmp_path / "b.jpg").write_text("this is text")
    photo("c.png", 2)
    run = faith("explain", "a.png", "b.jpg", "missing.png", "c.png", *QUICK)
    assert run.code == 2
    assert inside(tmp_path / "faithmap-results") == ["a", "c"]
    errors = run.err.splitlines()
    assert len(errors) == 2
    assert errors[0].startswith("error: missing.png: cannot be read (No such file or directory)")
    assert errors[1].startswith("error: b.jpg: not an image that can be read (starts like text)")


def test_json_is_one_document_and_nothing_else(faith, photo, tmp_path: Path):
    photo("a.png", 1)
    (tmp_path / "b.jpg").write_text("this is text")
    run = faith("explain", "a.png", "b.jpg", "--json", "--target", "sheep dog", *QUICK)
    assert run.code == 2
    document = strictly(run.out)
    assert document["schema"] == "faithmap.summary/1"
    assert document["error"] is None
    good, bad = document["images"]
    record = result(tmp_path / good["folder"])
    assert good["file"] == "a.png"
    for key in ("target", "predicted", "scores", "warnings"):
        assert good[key] == record[key]
    assert bad["file"] == "b.jpg"
    assert f"error: {bad['error']}\n" in run.err


def test_json_is_a_document_even_where_nothing_can_be_done(faith, photo):
    photo("a.png")
    run = faith("explain", "a.png", "--json", "--target", "zebra", *QUICK)
    assert run.code == 2
    document = strictly(run.out)
    assert document["images"] == []
    assert run.err == f"error: {document['error']}\n"


def test_existing_results_are_refused_before_the_model_is_loaded(faith, photo, tree, loads: list[tuple]):
    photo("cat.png")
    faith("explain", "cat.png", *QUICK)
    before = tree()
    complaint = faith("explain", "cat.png", *QUICK).complaint
    assert "--overwrite" in complaint
    assert tree() == before
    assert len(loads) == 1


def test_overwrite_replaces_results(faith, photo, tmp_path: Path):
    photo("cat.png")
    faith("explain", "cat.png", *QUICK)
    assert faith("explain", "cat.png", "--overwrite", "--seed", 5, *QUICK).code == 0
    assert inside(tmp_path / "faithmap-results") == ["cat"]
    assert result(tmp_path / "faithmap-results" / "cat")["seed"]["run"] == 5


def test_two_files_of_one_name_both_get_a_result(faith, photo, tmp_path: Path):
    photo("a/cat.png", 1)
    photo("b/cat.png", 2)
    assert faith("explain", "a", "b", *QUICK).code == 0
    folders = sorted((tmp_path / "faithmap-results").iterdir())
    assert len(folders) == 2
    assert {result(folder)["file"]["path"] for folder in folders} == {str(Path("a/cat.png")), str(Path("b/cat.png"))}


@pytest.mark.parametrize(
    "name", ["[red]x[/red].png", "line\nbreak.png", "\x1b[31mred.png", ":cat:.png", "-dash.png", "a b 'c'.png"]
)
def test_strange_names_are_printed_as_they_are_but_for_what_does_not_print(faith, photo, name: str):
    photo(name)
    run = faith("explain", *QUICK, "--", name)
    assert run.code == 0
    assert run.out.splitlines()[0] == name.replace("\n", "\\n").replace("\x1b", "\\x1b")
    assert len(run.out.splitlines()) == 6
    assert "\x1b" not in run.out


def test_a_name_that_is_no_text_is_printed_and_recorded(faith, photo, tmp_path: Path):
    photo("cat.png").rename(tmp_path / os.fsdecode(b"c\xffat.png"))
    run = faith("explain", os.fsdecode(b"c\xffat.png"), "--json", *QUICK)
    assert run.code == 0
    assert strictly(run.out)["images"][0]["file"] == os.fsdecode(b"c\xffat.png")


def test_an_interrupt_leaves_what_was_complete_and_nothing_else(faith, photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        photo(name, seed)
    save = np.save

    def interrupt(path: Path, array: np.ndarray) -> None:
        if path.parent.name.startswith(".b."):
            raise KeyboardInterrupt
        save(path, array)

    monkeypatch.setattr(np, "save", interrupt)
    run = faith("explain", "a.png", "b.png", "c.png", *QUICK)
    assert run.code == 130
    assert run.err.startswith("error: interrupted")
    assert run.err.count("\n") == 1
    assert inside(tmp_path / "faithmap-results") == ["a"]


def test_an_interrupt_before_the_first_result_leaves_nothing(faith, photo, tree, monkeypatch: pytest.MonkeyPatch):
    photo("a.png")
    before = tree()

    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(faithmap.RankDescent, "_descend", interrupt)
    run = faith("explain", "a.png", "--json", "--out", "x/y", *QUICK)
    assert run.code == 130
    assert strictly(run.out) == {"schema": "faithmap.summary/1", "error": "interrupted", "images": []}
    assert tree() == before


def test_a_full_disk_ends_the_run_with_one_line_and_no_half_result(faith, photo, tree, monkeypatch: pytest.MonkeyPatch):
    photo("a.png")
    before = tree()

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    complaint = faith("explain", "a.png", *QUICK).complaint
    assert complaint == f"{Path('faithmap-results/a')}: cannot be written (No space left on device); give another --out"
    assert tree() == before


def test_a_map_that_ranks_nothing_is_said_to(faith, tmp_path: Path):
    Image.new("RGB", (40, 40), "black").save(tmp_path / "flat.png")
    run = faith("explain", "flat.png", "--baseline", "black", *SMALL)
    assert run.code == 0
    assert "warning: flat.png: the heatmap has one value everywhere" in run.err


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_runs_out_is_the_chunk_s_fault(error: Exception, faith, photo, monkeypatch: pytest.MonkeyPatch):
    photo("a.png")

    def greedy(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(faithmap.RankDescent, "_descend", greedy)
    assert faith("explain", "a.png", *QUICK).complaint == "out of memory; give a --chunk below 256, or another --device"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_progress_is_drawn_on_a_terminal_only(faith, photo, monkeypatch: pytest.MonkeyPatch, arguments: tuple):
    photo("cat.png")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    run = faith("explain", "cat.png", *arguments, *QUICK)
    assert run.code == 0
    assert ("explaining cat.png" in screen.getvalue()) == (not arguments)
    assert "\x1b" not in run.out


def test_the_choices_are_the_library_s():
    hints = get_type_hints(ExplainArguments)
    assert set(choices(hints["baseline"])) == set(faithmap.BASELINES)
    assert get_args(hints["method"]) == tuple(METHODS)
    assert not set(ALIASES) & set(METHODS)
    assert set(get_args(hints["protocol"])) == set(faithmap.metrics.PROTOCOLS)
    assert choices(hints["score"]) == get_args(faithmap.score.ScoreKind)


def choices(hint: object) -> tuple[str, ...]:
    """Of an option that need not be given."""
    literal, none = get_args(hint)
    assert none is type(None)
    return get_args(literal)


def test_the_defaults_are_the_library_s():
    """What is not given is the method's own."""
    model = faithmap.load("the tiny one")
    for name, method in METHODS.items():
        if "masker" in method.needs:
            continue
        assert make_explainer(model, ExplainSettings(method=name, chunk=32)).settings == method.explainer(model).settings


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (("expected_gradcam", "--samples", 3, "--baseline", "black"), {"samples": 3, "references": "black"}),
        (("integrated_gradcam", "--baseline", "grey"), {"samples": 24, "baseline": "grey"}),
        (("smooth_gradcam", "--samples", 3), {"samples": 3, "noise_std": 0.1}),
        (("smooth_gradcam", "--set", "samples=3", "--set", "gradient.noise_std=0.2"), {"samples": 3, "noise_std": 0.2}),
    ],
)
def test_settings_of_the_gradient(arguments: tuple, settings: dict, faith, photo, tmp_path: Path):
    photo("cat.png")
    assert faith("explain", "cat.png", "--method", *arguments).code == 0
    found = result(tmp_path / "faithmap-results" / "cat")["method"]["settings"]["gradient"]
    assert {name: found[name] for name in settings} == settings


def test_any_setting_of_the_method_can_be_given(faith, photo, tmp_path: Path):
    photo("cat.png")
    assert faith("explain", "cat.png", "--method", "igos", "--set", "lambda1=0.5", *SMALL).code == 0
    assert result(tmp_path / "faithmap-results" / "cat")["method"]["settings"]["lambda1"] == 0.5


@pytest.mark.parametrize("name", METHODS)
def test_every_method_explains(name: str, faith, photo, tmp_path: Path, sketches):
    if "captum" in METHODS[name].needs:
        pytest.importorskip("captum")
    photo("cat.png")
    masks = (
        ("--resolution", 3, "--iterations", 2)
        if name in ("igos", "igos_plus", "igos_plus_plus", "mask", "extremal", "rank_descent")
        else ()
    )
    masks = ("--resolution", 3) if name in ("random_map", "gaussian") else masks
    masks = ("--samples", 3) if name in ("rise", "smoothgrad", "vargrad", "expected_gradients", "gradientshap") else masks
    masks = ("--samples", 60) if name in ("lime", "kernelshap") else masks
    if "masker" in METHODS[name].needs:
        assert faith("train-masker", "cat.png", "--steps", 1, "--batch", 1, "--channels", 4).code == 0
        masks = ("--masker", "masker.safetensors")
    assert faith("explain", "cat.png", "--method", name, *masks).code == 0
    record = result(tmp_path / "faithmap-results" / "cat")
    assert record["method"]["name"] == METHODS[name].explainer.__name__
    assert record["passes"]["forward"] >= 1


@pytest.mark.parametrize(("also", "name"), [("mwp", "ExcitationBackprop"), ("c_mwp", "ContrastiveExcitationBackprop")])
def test_a_method_is_found_by_its_other_names(also: str, name: str, faith, photo, tmp_path: Path):
    photo("cat.png")
    assert faith("explain", "cat.png", "--method", also).code == 0
    assert result(tmp_path / "faithmap-results" / "cat")["method"]["name"] == name


def test_a_library_that_is_missing_is_told_in_one_line(faith, photo, monkeypatch: pytest.MonkeyPatch):
    photo("cat.png")
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.delitem(sys.modules, "captum.attr", raising=False)
    complaint = faith("explain", "cat.png", "--method", "deeplift").complaint
    assert complaint == "this method is captum's; pip install 'faithmap[captum]'"


def test_only_so_many_photographs_are_in_memory(faith, photo, monkeypatch: pytest.MonkeyPatch):
    for seed in range(6):
        photo(f"{seed}.png", seed)
    waiting: list[int] = []
    write, read = base.write_record, explaining.read_input
    held = [0]

    def counting_read(job: object, model: object) -> object:
        held[0] += 1
        waiting.append(held[0])
        return read(job, model)

    def counting_write(folder: Path, record: dict) -> None:
        held[0] -= 1
        write(folder, record)

    monkeypatch.setattr(explaining, "read_input", counting_read)
    monkeypatch.setattr(base, "write_record", counting_write)
    monkeypatch.setattr(explaining.ExplainStudy, "batch_size", 2)
    faith("explain", ".", *QUICK)
    assert len(waiting) == 6
    assert max(waiting) == 2
