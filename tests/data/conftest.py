from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotation_tools import IMAGENET_XML, VOC_XML, instances, save_image, written

from faithmap.data import COCOInstances, ImageNetBoxes, VOCBoxes


@pytest.fixture
def voc(tmp_path: Path) -> Callable[..., VOCBoxes]:
    def make(xml: str | bytes = VOC_XML, ids: str = "000001\n", root: str = "VOC2007") -> VOCBoxes:
        written(tmp_path / root / "Annotations" / "000001.xml", xml)
        written(tmp_path / root / "ImageSets" / "Main" / "test.txt", ids)
        save_image(tmp_path / root / "JPEGImages" / "000001.jpg", 35, 50)
        return VOCBoxes(tmp_path / root)

    return make


@pytest.fixture
def imagenet(tmp_path: Path) -> Callable[..., ImageNetBoxes]:
    def make(
        text: str = IMAGENET_XML, place: str = "", *, csv: bool = False, name: str = "ILSVRC2012_val_00000001"
    ) -> ImageNetBoxes:
        save_image(tmp_path / "val" / place / "ILSVRC2012_val_00000001.JPEG", 50, 37)
        file = tmp_path / "LOC_val_solution.csv" if csv else tmp_path / "Annotations" / "val" / f"{name}.xml"
        written(file, text)
        return ImageNetBoxes(tmp_path / "val", file if csv else tmp_path / "Annotations" / "val")

    return make


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., COCOInstances]:
    def make(content: Any = None, **settings: Any) -> COCOInstances:
        text = content if isinstance(content, str) else json.dumps(content or instances())
        written(tmp_path / "annotations" / "instances_val2014.json", text)
        save_image(tmp_path / "val2014" / "COCO_val2014_000000391895.jpg", 12, 10)
        return COCOInstances(tmp_path / "val2014", tmp_path / "annotations" / "instances_val2014.json", **settings)

    return make
