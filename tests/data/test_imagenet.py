"""ImageNet's boxes from XML and from a table, and hostile tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from annotation_tools import IMAGENET_XML, save_image, written

from faithmap.data import (
    AnnotationError,
    ImageNetBoxes,
)


@pytest.mark.parametrize("place", ["", "n01751748"])
def test_xml_counts_pixels_from_zero(imagenet: Callable[..., ImageNetBoxes], tmp_path: Path, place: str) -> None:
    data = imagenet(place=place)
    assert data.ids == ("ILSVRC2012_val_00000001",)
    image = data[0]
    assert image.path == tmp_path / "val" / place / "ILSVRC2012_val_00000001.JPEG"
    assert image.size == (37, 50)
    assert [(o.name, o.index, o.box) for o in image.objects] == [("n01751748", 65, (11, 0, 50, 37))], "38 is cut to 37"
    assert image.read().shape == (1, 3, 37, 50)


def test_training_images_are_found_by_the_path_of_their_annotation(tmp_path: Path) -> None:
    """The name of the photograph is that of the annotation; the file name inside is "%s" in some of them."""
    save_image(tmp_path / "train" / "n01440764" / "n01440764_10026.JPEG", 50, 37)
    xml = IMAGENET_XML.replace("ILSVRC2012_val_00000001", "%s").replace("n01751748", "n01440764")
    written(tmp_path / "boxes" / "n01440764" / "n01440764_10026.xml", xml)
    image = ImageNetBoxes(tmp_path / "train", tmp_path / "boxes")[0]
    assert image.path == tmp_path / "train" / "n01440764" / "n01440764_10026.JPEG"
    assert image.objects[0].index == 0


HEADER = "ImageId,PredictionString\n"


ROW = "ILSVRC2012_val_00000001,n03995372 8 1 49 27 n01751748 0 0 3 36 \n"


def test_table_of_boxes(imagenet: Callable[..., ImageNetBoxes]) -> None:
    image = imagenet(HEADER + ROW, csv=True)[0]
    assert image.size == (37, 50)
    assert [(o.name, o.index, o.box) for o in image.objects] == [
        ("n03995372", 740, (8, 1, 50, 28)),
        ("n01751748", 65, (0, 0, 4, 37)),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("../../secret,n03995372 8 1 49 27", r"names a file '\.\./\.\./secret\.JPEG'"),
        ("/etc/passwd,n03995372 8 1 49 27", "names a file '/etc/passwd"),
        ("ILSVRC2012_val_00000009,n03995372 8 1 49 27", r"annotates ILSVRC2012_val_00000009\.JPEG, which is not in"),
        (
            "ILSVRC2012_val_00000001,n03995372 8 1 49",
            "has 'n03995372 8 1 49' for ILSVRC2012_val_00000001; give a class and four",
        ),
        ("ILSVRC2012_val_00000001,", "has '' for"),
        ("ILSVRC2012_val_00000001,n03995372 8 1 nan 27", "has the box '8 1 nan 27'; give four whole numbers"),
        ("ILSVRC2012_val_00000001,n03995372 8 1 4 99999999999999999999", "has the box"),
        ("ILSVRC2012_val_00000001,n03995372 50 1 60 27", "boxes that lie on the image"),
        ("ILSVRC2012_val_00000001,../.. 8 1 60 27", ""),
    ],
)
def test_hostile_rows_are_refused(imagenet: Callable[..., ImageNetBoxes], row: str, message: str) -> None:
    data = imagenet(HEADER + row + "\n", csv=True)
    if not message:
        assert data[0].objects[0].index is None, "a name is only a name"
        return
    with pytest.raises(AnnotationError, match=message):
        data[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has other columns than ImageId and PredictionString"),
        (HEADER + "a,b,c\n", "has other columns"),
        ("", "has other columns"),
        (HEADER, "has no annotations; give a folder of XML files, or LOC_val_solution.csv"),
        (HEADER + '"a" b,c\n', "no table"),
        (HEADER + "a," + "b" * 200_000, "no table"),
    ],
)
def test_wrong_tables_are_refused(imagenet: Callable[..., ImageNetBoxes], text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        imagenet(text, csv=True)


def test_a_hostile_class_does_not_leave_the_folder(imagenet: Callable[..., ImageNetBoxes], tmp_path: Path) -> None:
    save_image(tmp_path / "secret" / "b.JPEG", 50, 37)
    data = imagenet(IMAGENET_XML.replace("n01751748", "../secret"), name="b")
    with pytest.raises(AnnotationError, match=r"annotates b\.JPEG, which is not in"):
        data[0]
