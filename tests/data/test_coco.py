"""COCO: boxes, polygons and run lengths, and hostile JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from annotation_tools import instances

from faithmap.data import (
    AnnotationError,
    COCOInstances,
    Segmentation,
)


def test_boxes_categories_and_crowds(coco: Callable[..., COCOInstances], tmp_path: Path) -> None:
    data = coco()
    assert len(data) == 2
    assert data.classes == ("person", "dog", "toothbrush")
    image = data[0]
    assert image.path == tmp_path / "val2014" / "COCO_val2014_000000391895.jpg"
    assert image.size == (10, 12)
    assert [(o.name, o.index, o.box, o.crowd) for o in image.objects] == [
        ("dog", 1, (1, 1, 11.5, 9), False),
        ("person", 0, (0, 3, 2, 7), True),
    ]
    assert image.boxes(crowd=False).shape == (1, 4)
    assert image.read().shape == (1, 3, 10, 12)


def test_run_lengths_run_down_the_columns(coco: Callable[..., COCOInstances]) -> None:
    wanted = torch.zeros(10, 12, dtype=torch.bool)
    wanted[3:7, 0:2] = True
    wanted[7, 0] = False
    image = coco()[0]
    runs = torch.zeros(120, dtype=torch.bool)
    runs[3:7] = runs[13:17] = True
    assert torch.equal(image.mask("person"), runs.view(12, 10).T)
    assert torch.equal(image.mask("person"), wanted)
    assert not image.mask("person", crowd=False).any()
    assert not image.mask("cat").any()


def test_polygons_are_filled_like_those_of_pycocotools(coco: Callable[..., COCOInstances]) -> None:
    pytest.importorskip("pycocotools")
    wanted = torch.zeros(10, 12, dtype=torch.bool)
    wanted[1:4, 1:5] = wanted[6:9, 8:] = True
    image = coco()[0]
    assert torch.equal(image.mask("dog"), wanted)
    both = image.mask()
    assert torch.equal(both, image.mask("dog") | image.mask("person"))


def test_run_lengths_as_text_are_decoded_like_those_of_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    numpy = pytest.importorskip("numpy")
    for seed, size in enumerate([(1, 1), (7, 5), (40, 61), (480, 640)]):
        generator = torch.Generator().manual_seed(seed)
        smooth = torch.nn.functional.avg_pool2d(torch.randn(1, *size, generator=generator), 3, 1, 1)
        for mask in (smooth[0] > 0, smooth[0] > 0.5, torch.ones(size).bool(), torch.zeros(size).bool()):
            packed = coco.encode(numpy.asfortranarray(mask.to(torch.uint8).numpy()))
            outline = {"size": list(size), "counts": packed["counts"].decode()}
            assert torch.equal(Segmentation(outline).mask(size), mask)


def test_polygons_without_pycocotools_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'faithmap\[coco\]'"):
        Segmentation([[1, 1, 5, 1, 5, 4]]).mask((10, 12))
    assert Segmentation({"size": [2, 1], "counts": [1, 1]}).mask((2, 1)).tolist() == [[False], [True]]


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ({"size": [10, 12], "counts": [3, 4]}, "has run lengths of 7 pixels for 120"),
        ({"size": [10, 12], "counts": [0, 10**12]}, "no whole numbers from 0 to 120"),
        ({"size": [10, 12], "counts": [-5, 125]}, "no whole numbers"),
        ({"size": [10, 12], "counts": [0, True, 119]}, "no whole numbers"),
        ({"size": [10, 12], "counts": [0.5, 119.5]}, "no whole numbers"),
        ({"size": [10, 12]}, "no whole numbers"),
        ({"size": [100000, 100000], "counts": [10**10]}, r"is for \[100000, 100000\] pixels and the image has \[10, 12\]"),
        ({"counts": [120]}, "is for None pixels"),
        ({"size": [10, 12], "counts": "oooooooooooooooooooooooooo"}, "cannot be decoded"),
        ({"size": [10, 12], "counts": "o"}, "end in the middle of a number"),
        ({"size": [10, 12], "counts": "\x00"}, "cannot be decoded"),
        ({"size": [10, 12], "counts": "p"}, "cannot be decoded"),
        ({"size": [10, 12], "counts": "oooooo0"}, "has a run of"),
        ({"size": [10, 12], "counts": "@"}, "has a run of -16 pixels"),
        ([], "neither run lengths nor lists of at least three points"),
        ("Q1", "neither"),
        (7, "neither"),
        ([[1, 1, 5, 1]], "neither"),
        ([[1, 1, 5, 1, 5, 4, 7]], "neither"),
        ([[1, 1, 5, 1, 5, "4"]], "neither"),
        ([[1, 1, 5, 1, 5, True]], "neither"),
        ([1, 1, 5, 1, 5, 4], "neither"),
        ([[1, 1, 5, 1, 5, 1e9]], "extends more than 24 pixels"),
        ([[1, 1, 5, 1, 5, 10**400]], "extends more than 24 pixels"),
        ([[1, 1, 5, 1, 5, math.nan]], "extends more than 24 pixels"),
    ],
)
def test_hostile_outlines_are_refused(coco: Callable[..., COCOInstances], outline: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Segmentation(outline).mask((10, 12))
    if "NaN" in json.dumps(outline):
        return
    content = instances()
    content["annotations"][0]["segmentation"] = outline
    image = coco(content)[0]
    with pytest.raises(AnnotationError, match=r"instances_val2014\.json: the outline of an object 'dog' .*" + message):
        image.mask("dog")


@pytest.mark.parametrize(
    ("record", "key", "value", "message"),
    [
        ("images", "file_name", "../../../etc/passwd", r"names a file '\.\./"),
        ("images", "file_name", "/etc/passwd", "names a file '/etc/passwd'; give plain names"),
        ("images", "file_name", "a\x1b[2J.jpg", r"names a file 'a\\x1b\[2J\.jpg'"),
        ("images", "file_name", "", "names a file ''"),
        ("images", "file_name", None, "has 'None' as file_name; give text"),
        ("images", "height", 10**9, "an image of 1000000000 x 12 pixels"),
        ("images", "height", 10**400, "an image of 100000000000 x 12 pixels"),
        ("images", "height", -1, "an image of -1 x 12 pixels"),
        ("images", "height", "10", "has '10' as height; give a whole number"),
        ("images", "height", True, "has 'True' as height"),
        ("annotations", "bbox", [1, 1, -3, 4], r"has a box \(1, 1, -2, 5\)"),
        ("annotations", "bbox", [12, 1, 3, 4], "boxes that lie on the image"),
        ("annotations", "bbox", [1, 1, 10**400, 4.5], "as bbox; give"),
        ("annotations", "bbox", [1, 1, 3], "as bbox; give"),
        ("annotations", "bbox", "1134", "has 1134 as bbox"),
        ("annotations", "bbox", [1, 1, "3", 4], "as bbox; give"),
        ("annotations", "category_id", 7, "has an object of the unknown category 7"),
        ("annotations", "category_id", [1], "has '\\[1\\]' as category_id"),
    ],
)
def test_hostile_records_are_refused_on_access(
    coco: Callable[..., COCOInstances], record: str, key: str, value: Any, message: str
) -> None:
    content = instances()
    content[record][0][key] = value
    data = coco(content)
    with pytest.raises(AnnotationError, match=message) as refusal:
        data[0]
    assert str(refusal.value).isprintable()
    assert data[1].size == (10, 12), "the others can still be read"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 200_000, "not JSON"),
        ('{"images": [', "not JSON"),
        ('{"images": NaN}', "not JSON .NaN is no number"),
        ('{"images": ' + "9" * 5000 + "}", "not JSON"),
        ("[]", "no JSON object"),
        ("{}", "has no list of images"),
        (instances(annotations={"a": 1}), "has no list of annotations"),
        (instances(categories=[1]), "has no list of categories"),
        (instances(images=[{"id": "1"}]), "has '1' as id; give a whole number"),
        (instances(images=instances()["images"] * 2), "the id of an image or category twice"),
        (instances(categories=instances()["categories"] * 2), "the id of an image or category twice"),
    ],
)
def test_wrong_files_are_refused(coco: Callable[..., COCOInstances], content: Any, message: str) -> None:
    with pytest.raises(AnnotationError, match=message) as refusal:
        coco(content)
    assert len(str(refusal.value)) < 400


def test_a_file_that_is_too_large_is_not_read(coco: Callable[..., COCOInstances]) -> None:
    with pytest.raises(AnnotationError, match="bytes are more than max_bytes=100"):
        coco(max_bytes=100)


def test_file_names_may_contain_subfolders(coco: Callable[..., COCOInstances], tmp_path: Path) -> None:
    content = instances()
    content["images"][0]["file_name"] = "day/one..two.jpg"
    assert coco(content)[0].path == tmp_path / "val2014" / "day" / "one..two.jpg"


def test_an_object_without_extent_and_outline_is_kept(coco: Callable[..., COCOInstances]) -> None:
    content = instances()
    content["annotations"][2]["bbox"] = [3, 4, 0, 0.5]
    del content["annotations"][2]["segmentation"]
    image = coco(content)[1]
    assert image.objects[0].box == (3.0, 4.0, 3.0, 4.5)
    with pytest.raises(AnnotationError, match="has no outline"):
        image.mask()
