"""The readers of VOC, COCO and ImageNet, on small data sets in exactly their formats, and on what strangers make of them."""

from __future__ import annotations

import json
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from faithmap.data import (
    VOC_CLASSES,
    AnnotationError,
    COCOInstances,
    ImageError,
    ImageNetBoxes,
    Segmentation,
    VOCBoxes,
    image_size,
    read_image,
)

VOC_XML = """<annotation>
	<folder>VOC2007</folder>
	<filename>000001.jpg</filename>
	<source>
		<database>The VOC2007 Database</database>
		<annotation>PASCAL VOC2007</annotation>
		<image>flickr</image>
		<flickrid>341012865</flickrid>
	</source>
	<owner>
		<flickrid>Fried Camels</flickrid>
		<name>Jinky the Fruit Bat</name>
	</owner>
	<size>
		<width>35</width>
		<height>50</height>
		<depth>3</depth>
	</size>
	<segmented>0</segmented>
	<object>
		<name>dog</name>
		<pose>Left</pose>
		<truncated>1</truncated>
		<difficult>0</difficult>
		<bndbox>
			<xmin>4</xmin>
			<ymin>24</ymin>
			<xmax>19</xmax>
			<ymax>37</ymax>
		</bndbox>
	</object>
	<object>
		<name>person</name>
		<pose>Left</pose>
		<truncated>1</truncated>
		<difficult>0</difficult>
		<bndbox>
			<xmin>1</xmin>
			<ymin>1</ymin>
			<xmax>35</xmax>
			<ymax>50</ymax>
		</bndbox>
		<part>
			<name>head</name>
			<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>
		</part>
	</object>
	<object>
		<name>dog</name>
		<difficult>1</difficult>
		<bndbox>
			<xmax>30</xmax>
			<xmin>30</xmin>
			<ymax>8</ymax>
			<ymin>7</ymin>
		</bndbox>
	</object>
</annotation>
"""
IMAGENET_XML = """<annotation>
	<folder>val</folder>
	<filename>ILSVRC2012_val_00000001</filename>
	<source>
		<database>ILSVRC_2012</database>
	</source>
	<size>
		<width>50</width>
		<height>37</height>
		<depth>3</depth>
	</size>
	<segmented>0</segmented>
	<object>
		<name>n01751748</name>
		<pose>Unspecified</pose>
		<truncated>0</truncated>
		<difficult>0</difficult>
		<bndbox>
			<xmin>11</xmin>
			<ymin>0</ymin>
			<xmax>49</xmax>
			<ymax>37</ymax>
		</bndbox>
	</object>
</annotation>
"""


def photo(path: Path, width: int, height: int, **settings: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), "red").save(path, "JPEG", **settings)


def written(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def voc(tmp_path: Path) -> Callable[..., VOCBoxes]:
    def make(xml: str | bytes = VOC_XML, ids: str = "000001\n", root: str = "VOC2007") -> VOCBoxes:
        written(tmp_path / root / "Annotations" / "000001.xml", xml)
        written(tmp_path / root / "ImageSets" / "Main" / "test.txt", ids)
        photo(tmp_path / root / "JPEGImages" / "000001.jpg", 35, 50)
        return VOCBoxes(tmp_path / root)

    return make


def test_voc_counts_from_one_and_keeps_the_last_pixel(voc: Callable[..., VOCBoxes], tmp_path: Path) -> None:
    data = voc()
    assert len(data) == 1
    image = data[0]
    assert image.path == tmp_path / "VOC2007" / "JPEGImages" / "000001.jpg"
    assert image.size == (50, 35)
    assert image.classes == ("dog", "person")
    assert [(o.name, o.index, o.difficult, o.crowd) for o in image.objects] == [
        ("dog", 11, False, False),
        ("person", 14, False, False),
        ("dog", 11, True, False),
    ]
    assert image.boxes("dog").tolist() == [[3, 23, 19, 37], [29, 6, 30, 8]]
    assert image.boxes("dog", difficult=False).tolist() == [[3, 23, 19, 37]]
    assert image.boxes("person").tolist() == [[0, 0, 35, 50]], "the whole photograph"
    assert image.boxes("cat").shape == (0, 4)
    assert image.boxes().shape == (3, 4)
    assert torch.equal(image.read(), read_image(image.path))
    with pytest.raises(AnnotationError, match=r"000001\.xml: an object 'dog' has a box alone; use boxes"):
        image.mask("dog")


def test_voc_classes_are_sorted_as_models_have_them() -> None:
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


def test_a_reader_is_a_lazy_sequence(voc: Callable[..., VOCBoxes], tmp_path: Path) -> None:
    """Twelve ids of which one has an annotation: nothing is read before it is asked for."""
    data = voc(ids="".join(f"{i:06d}\n" for i in range(12)) + "\n")
    assert len(data) == 12
    assert data[1].size == data[-11].size == (50, 35)
    assert [image.objects for image in data[1:2]] == [data[1].objects]
    for outside in (12, -13):
        with pytest.raises(IndexError, match=r"photograph -?1. of 12"):
            data[outside]
    with pytest.raises(
        AnnotationError, match=r"000005\.xml: cannot be read \(No such file or directory\); give the path of an annotation"
    ):
        data[5]
    (tmp_path / "VOC2007" / "JPEGImages" / "000001.jpg").unlink()
    image = data[1]
    with pytest.raises(ImageError, match="cannot be read"):
        image.read()


def test_annotations_can_be_pickled(voc: Callable[..., VOCBoxes], coco: Callable[..., COCOInstances]) -> None:
    """As the workers of a DataLoader do."""
    for data in (voc(), coco()):
        assert pickle.loads(pickle.dumps(data))[0] == pickle.loads(pickle.dumps(data[0])) == data[0]  # noqa: S301


def test_voc_without_file_name_takes_the_id(voc: Callable[..., VOCBoxes]) -> None:
    assert voc(VOC_XML.replace("<filename>000001.jpg</filename>", ""))[0].path.name == "000001.jpg"


def test_byte_order_mark_and_declared_encoding_do_no_harm(voc: Callable[..., VOCBoxes]) -> None:
    for head in (
        '<?xml version="1.0"?>',
        '\ufeff<?xml version="1.0" encoding="utf-8"?>',
        '<?xml version="1.0" encoding="utf-16"?>',
    ):
        assert len(voc(head + VOC_XML)[0].objects) == 3


LAUGHS = '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (LAUGHS + "]>" + VOC_XML.replace("Left", "&j;"), "document type declaration"),
        ('<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + VOC_XML.replace("Left", "&x;"), "document type"),
        ('<!DOCTYPE annotation SYSTEM "http://127.0.0.1/evil.dtd">' + VOC_XML, "document type declaration"),
        (('<?xml version="1.0" encoding="utf-16"?>' + LAUGHS[21:] + "]>" + VOC_XML).encode("utf-16"), "not UTF-8"),
        ((LAUGHS + "]>" + VOC_XML).encode("utf-16-le"), "document type declaration"),
        (VOC_XML.replace("</size>", "<!DOCTYPE a>"), "document type declaration"),  # seen before it is parsed
        (VOC_XML.replace("Left", "&x;"), "not XML"),
        ("<a>" * 100_000, "not XML"),
        ("<a>" * 100_000 + "</a>" * 100_000, "begins with <a>"),
        (VOC_XML[:200], "not XML"),
        (b"", "not XML"),
        (b"\xff\xd8\xff\xe0", "not UTF-8"),
        ("<svg/>", "begins with <svg>; give a file that begins with <annotation>"),
        ("<annotation>" + " " * 2**20 + "</annotation>", "1048601 bytes are more than max_bytes=1048576"),
        (VOC_XML.replace("000001.jpg", "../../../../etc/passwd"), r"names a file '\.\./\.\./"),
        (VOC_XML.replace("000001.jpg", "/etc/passwd"), "names a file '/etc/passwd'; give plain names"),
        (VOC_XML.replace("000001.jpg", "a/../../b.jpg"), "names a file"),
        (VOC_XML.replace("000001.jpg", "..\\..\\secret.jpg"), "names a file"),
        (VOC_XML.replace("000001.jpg", "C:secret.jpg"), "names a file"),
        (VOC_XML.replace("000001.jpg", "a\x85\u202eb.jpg"), r"names a file 'a\\x85\\u202eb\.jpg'"),
        (VOC_XML.replace("<width>35", "<width>0"), "a photograph of 50.0 x 0.0 pixels"),
        (
            VOC_XML.replace("<width>35", "<width>999999999"),
            "a photograph of 50.0 x 999999999.0 pixels; give a size in whole pixels",
        ),
        (VOC_XML.replace("<width>35", "<width>35.5"), "whole pixels"),
        (VOC_XML.replace("<width>35", "<width>nan"), "has 'nan' in <annotation> as size/width; give a number"),
        (VOC_XML.replace("<width>35</width>", ""), "has nothing in <annotation> as size/width"),
        (VOC_XML.replace("<xmax>19", "<xmax>inf"), "has 'inf' in <object> as bndbox/xmax"),
        (VOC_XML.replace("<xmax>19", "<xmax>1e400"), "has '1e400'"),
        (VOC_XML.replace("<xmax>19", "<xmax>" + "9" * 400), "has '9{40}' in <object> as bndbox/xmax"),
        (
            VOC_XML.replace("<xmax>19", "<xmax>2"),
            r"has a box \(3.0, 23.0, 2.0, 37.0\) as left, top, right, bottom on a photograph",
        ),
        (VOC_XML.replace("<xmax>19", "<xmax>-5").replace("<xmin>4", "<xmin>-9"), "has a box"),
        (VOC_XML.replace("<xmax>19", "<xmax>60").replace("<xmin>4", "<xmin>36"), "boxes that lie on the photograph"),
        (VOC_XML.replace("<ymax>37", "<ymax>90").replace("<ymin>24", "<ymin>51"), "boxes that lie on the photograph"),
        (VOC_XML.replace("<name>dog</name>", "<name> </name>"), "object without a name"),
    ],
)
def test_hostile_xml_is_refused_with_one_line(voc: Callable[..., VOCBoxes], xml: str | bytes, message: str) -> None:
    data = voc(xml)
    with pytest.raises(AnnotationError, match=message) as refusal:
        data[0]
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 600
    assert "000001.xml: " in str(refusal.value)


def test_a_box_over_the_edge_is_cut(voc: Callable[..., VOCBoxes]) -> None:
    xml = VOC_XML.replace("<xmin>4", "<xmin>-3").replace("<ymin>24", "<ymin>0").replace("<xmax>19", "<xmax>36")
    assert voc(xml)[0].objects[0].box == (0, 0, 35, 37)
    assert voc(xml.replace("<ymax>37", "<ymax>99"))[0].objects[0].box == (0, 0, 35, 50)


def test_fractions_are_kept(voc: Callable[..., VOCBoxes]) -> None:
    """VOC 2011 has some."""
    assert voc(VOC_XML.replace("<xmin>4", "<xmin>45.70000076293945").replace("<xmax>19", "<xmax>46").replace("35<", "99<"))[
        0
    ].objects[0].box[0] == pytest.approx(44.7)


@pytest.mark.parametrize(
    "name", ["../Annotations/000001", "../../../etc/passwd", "/etc/passwd", "a/../b", "a\x00b", "a\x1b[2J"]
)
def test_hostile_ids_are_refused(voc: Callable[..., VOCBoxes], name: str) -> None:
    data = voc(ids=f"{name}\n")
    with pytest.raises(AnnotationError, match=r"test\.txt: names a file"):
        data[0]


def test_a_folder_s_name_breaks_no_line(voc: Callable[..., VOCBoxes]) -> None:
    data = voc("<svg/>", root="a\nb\x1b[2J")
    with pytest.raises(AnnotationError, match=r"a\\nb\\x1b\[2J/Annotations/000001\.xml: begins with <svg>") as refusal:
        data[0]
    assert str(refusal.value).isprintable()


def test_lists_that_are_none_are_refused(voc: Callable[..., VOCBoxes], tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="more than an id in a line"):
        voc(ids="000001 -1\n000002  1\n")
    with pytest.raises(AnnotationError, match=r"test\.txt: not UTF-8"):
        VOCBoxes(written(tmp_path / "latin" / "ImageSets" / "Main" / "test.txt", b"\xff\n").parents[2])
    with pytest.raises(AnnotationError, match=r"train\.txt: cannot be read"):
        VOCBoxes(tmp_path / "VOC2007", "train")
    with pytest.raises(AnnotationError, match="names a file"):
        VOCBoxes(tmp_path / "VOC2007", "../../Annotations/000001")


def test_links_inside_lead_nowhere_else(voc: Callable[..., VOCBoxes], tmp_path: Path) -> None:
    data = voc(root="away")
    (tmp_path / "linked").symlink_to(tmp_path / "away", target_is_directory=True)
    assert VOCBoxes(tmp_path / "linked")[0].read().shape == (1, 3, 50, 35), "the folder itself may be anywhere"
    secret = written(tmp_path / "secret", "text")
    path = tmp_path / "away" / "JPEGImages" / "000001.jpg"
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(AnnotationError, match=r"'000001\.jpg' that is a link out of"):
        data[0]
    path.unlink()
    path.symlink_to(path)
    with pytest.raises((AnnotationError, ImageError), match=r"cannot be (found|read)"):
        data[0].read()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no name here")
def test_a_pipe_is_not_waited_for(voc: Callable[..., VOCBoxes], tmp_path: Path) -> None:
    data = voc()
    path = tmp_path / "VOC2007" / "Annotations" / "000001.xml"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(AnnotationError, match="pipe, socket or device"):
        data[0]


def test_a_photograph_of_another_size_is_refused(voc: Callable[..., VOCBoxes], tmp_path: Path) -> None:
    data = voc()
    photo(tmp_path / "VOC2007" / "JPEGImages" / "000001.jpg", 50, 35)
    with pytest.raises(AnnotationError, match=r"annotates 50 x 35 pixels \(height x width\), but .* has 35 x 50 when upright"):
        data[0].read()


@pytest.fixture
def imagenet(tmp_path: Path) -> Callable[..., ImageNetBoxes]:
    def make(
        text: str = IMAGENET_XML, place: str = "", *, csv: bool = False, name: str = "ILSVRC2012_val_00000001"
    ) -> ImageNetBoxes:
        photo(tmp_path / "val" / place / "ILSVRC2012_val_00000001.JPEG", 50, 37)
        file = tmp_path / "LOC_val_solution.csv" if csv else tmp_path / "Annotations" / "val" / f"{name}.xml"
        written(file, text)
        return ImageNetBoxes(tmp_path / "val", file if csv else tmp_path / "Annotations" / "val")

    return make


@pytest.mark.parametrize("place", ["", "n01751748"])
def test_imagenet_xml_counts_from_nothing(imagenet: Callable[..., ImageNetBoxes], tmp_path: Path, place: str) -> None:
    data = imagenet(place=place)
    assert data.ids == ("ILSVRC2012_val_00000001",)
    image = data[0]
    assert image.path == tmp_path / "val" / place / "ILSVRC2012_val_00000001.JPEG"
    assert image.size == (37, 50)
    assert [(o.name, o.index, o.box) for o in image.objects] == [("n01751748", 65, (11, 0, 50, 37))], "38 is cut to 37"
    assert image.read().shape == (1, 3, 37, 50)


def test_imagenet_training_annotations_lie_as_their_photographs(tmp_path: Path) -> None:
    """The name of the photograph is that of the annotation; the file name inside is "%s" in some of them."""
    photo(tmp_path / "train" / "n01440764" / "n01440764_10026.JPEG", 50, 37)
    xml = IMAGENET_XML.replace("ILSVRC2012_val_00000001", "%s").replace("n01751748", "n01440764")
    written(tmp_path / "boxes" / "n01440764" / "n01440764_10026.xml", xml)
    image = ImageNetBoxes(tmp_path / "train", tmp_path / "boxes")[0]
    assert image.path == tmp_path / "train" / "n01440764" / "n01440764_10026.JPEG"
    assert image.objects[0].index == 0


HEADER = "ImageId,PredictionString\n"
ROW = "ILSVRC2012_val_00000001,n03995372 8 1 49 27 n01751748 0 0 3 36 \n"


def test_imagenet_table(imagenet: Callable[..., ImageNetBoxes]) -> None:
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
        ("ILSVRC2012_val_00000001,n03995372 50 1 60 27", "boxes that lie on the photograph"),
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
        (HEADER, "holds no annotations; give a folder of XML files, or LOC_val_solution.csv"),
        (HEADER + '"a" b,c\n', "no table"),
        (HEADER + "a," + "b" * 200_000, "no table"),
    ],
)
def test_tables_that_are_none_are_refused(imagenet: Callable[..., ImageNetBoxes], text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        imagenet(text, csv=True)


def test_imagenet_hostile_class_leads_nowhere(imagenet: Callable[..., ImageNetBoxes], tmp_path: Path) -> None:
    photo(tmp_path / "secret" / "b.JPEG", 50, 37)
    data = imagenet(IMAGENET_XML.replace("n01751748", "../secret"), name="b")
    with pytest.raises(AnnotationError, match=r"annotates b\.JPEG, which is not in"):
        data[0]


def test_header_tells_the_size_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        for kind in ("JPEG", "TIFF", "PNG"):
            path = tmp_path / f"{orientation}.{kind}"
            Image.new("RGB", (3, 5)).save(path, kind, exif=exif)
            assert image_size(path) == tuple(read_image(path).shape[-2:])
    with pytest.raises(ImageError, match="not an image that can be read"):
        image_size(written(tmp_path / "text", "text"))


def instances(**changes: Any) -> dict[str, Any]:
    """As ``instances_val2014.json`` has it: a polygon of two parts, a crowd, an RLE of text; 12 x 10 pixels."""
    content: dict[str, Any] = {
        "info": {"description": "COCO 2014 Dataset", "url": "http://cocodataset.org", "version": "1.0", "year": 2014},
        "images": [
            {"license": 3, "file_name": "COCO_val2014_000000391895.jpg", "height": 10, "width": 12, "id": 391895},
            {"license": 1, "file_name": "COCO_val2014_000000000042.jpg", "height": 10, "width": 12, "id": 42},
        ],
        "licenses": [{"url": "http://creativecommons.org/licenses/by-nc-sa/2.0/", "id": 1, "name": "Attribution"}],
        "annotations": [
            {
                "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4], [8.0, 6.0, 11.5, 6.0, 11.5, 9.0, 8.0, 9.0]],
                "area": 22.5, "iscrowd": 0, "image_id": 391895, "bbox": [1, 1, 10.5, 8], "category_id": 18, "id": 900100,
            },
            {
                "segmentation": {"counts": [3, 4, 6, 4, 103], "size": [10, 12]},
                "area": 8, "iscrowd": 1, "image_id": 391895, "bbox": [0, 3, 2, 4], "category_id": 1, "id": 900101,
            },
            {
                "segmentation": {"counts": "Q1", "size": [10, 12]},
                "area": 0, "iscrowd": 0, "image_id": 42, "bbox": [0, 0, 0, 0.5], "category_id": 90, "id": 900102,
            },
        ],
        "categories": [
            {"supercategory": "person", "id": 1, "name": "person"},
            {"supercategory": "indoor", "id": 90, "name": "toothbrush"},
            {"supercategory": "animal", "id": 18, "name": "dog"},
        ],
    }  # fmt: skip
    return content | changes


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., COCOInstances]:
    def make(content: Any = None, **settings: Any) -> COCOInstances:
        text = content if isinstance(content, str) else json.dumps(content or instances())
        written(tmp_path / "annotations" / "instances_val2014.json", text)
        photo(tmp_path / "val2014" / "COCO_val2014_000000391895.jpg", 12, 10)
        return COCOInstances(tmp_path / "val2014", tmp_path / "annotations" / "instances_val2014.json", **settings)

    return make


def test_coco_boxes_categories_and_crowds(coco: Callable[..., COCOInstances], tmp_path: Path) -> None:
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


def test_coco_run_lengths_go_down_the_columns(coco: Callable[..., COCOInstances]) -> None:
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


def test_coco_polygons_are_filled_as_pycocotools_does(coco: Callable[..., COCOInstances]) -> None:
    pytest.importorskip("pycocotools")
    wanted = torch.zeros(10, 12, dtype=torch.bool)
    wanted[1:4, 1:5] = wanted[6:9, 8:] = True
    image = coco()[0]
    assert torch.equal(image.mask("dog"), wanted)
    both = image.mask()
    assert torch.equal(both, image.mask("dog") | image.mask("person"))


def test_run_lengths_as_text_are_those_of_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    numpy = pytest.importorskip("numpy")
    for seed, size in enumerate([(1, 1), (7, 5), (40, 61), (480, 640)]):
        generator = torch.Generator().manual_seed(seed)
        smooth = torch.nn.functional.avg_pool2d(torch.randn(1, *size, generator=generator), 3, 1, 1)
        for mask in (smooth[0] > 0, smooth[0] > 0.5, torch.ones(size).bool(), torch.zeros(size).bool()):
            packed = coco.encode(numpy.asfortranarray(mask.to(torch.uint8).numpy()))
            outline = {"size": list(size), "counts": packed["counts"].decode()}
            assert torch.equal(Segmentation(outline).mask(size), mask)


def test_polygons_without_pycocotools_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
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
        ({"size": [100000, 100000], "counts": [10**10]}, r"is for \[100000, 100000\] pixels and the photograph has \[10, 12\]"),
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
        ([[1, 1, 5, 1, 5, 1e9]], "leads further than 24 pixels"),
        ([[1, 1, 5, 1, 5, 10**400]], "leads further than 24 pixels"),
        ([[1, 1, 5, 1, 5, math.nan]], "leads further than 24 pixels"),
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
        ("images", "height", 10**9, "a photograph of 1000000000 x 12 pixels"),
        ("images", "height", 10**400, "a photograph of 100000000000 x 12 pixels"),
        ("images", "height", -1, "a photograph of -1 x 12 pixels"),
        ("images", "height", "10", "has '10' as height; give a whole number"),
        ("images", "height", True, "has 'True' as height"),
        ("annotations", "bbox", [1, 1, -3, 4], r"has a box \(1, 1, -2, 5\)"),
        ("annotations", "bbox", [12, 1, 3, 4], "boxes that lie on the photograph"),
        ("annotations", "bbox", [1, 1, 10**400, 4.5], "as bbox; give"),
        ("annotations", "bbox", [1, 1, 3], "as bbox; give"),
        ("annotations", "bbox", "1134", "has 1134 as bbox"),
        ("annotations", "bbox", [1, 1, "3", 4], "as bbox; give"),
        ("annotations", "category_id", 7, "has an object of category 7, which it does not name"),
        ("annotations", "category_id", [1], "has '\\[1\\]' as category_id"),
    ],
)
def test_hostile_records_are_refused_when_they_are_read(
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
        (instances(images=instances()["images"] * 2), "the id of a photograph or category twice"),
        (instances(categories=instances()["categories"] * 2), "the id of a photograph or category twice"),
    ],
)
def test_files_that_are_no_instances_are_refused(coco: Callable[..., COCOInstances], content: Any, message: str) -> None:
    with pytest.raises(AnnotationError, match=message) as refusal:
        coco(content)
    assert len(str(refusal.value)) < 400


def test_a_file_that_is_too_large_is_not_read(coco: Callable[..., COCOInstances]) -> None:
    with pytest.raises(AnnotationError, match="bytes are more than max_bytes=100"):
        coco(max_bytes=100)


def test_subfolders_are_inside(coco: Callable[..., COCOInstances], tmp_path: Path) -> None:
    content = instances()
    content["images"][0]["file_name"] = "day/one..two.jpg"
    assert coco(content)[0].path == tmp_path / "val2014" / "day" / "one..two.jpg"


def test_an_object_of_no_extent_and_outline_is_still_there(coco: Callable[..., COCOInstances]) -> None:
    content = instances()
    content["annotations"][2]["bbox"] = [3, 4, 0, 0.5]
    del content["annotations"][2]["segmentation"]
    image = coco(content)[1]
    assert image.objects[0].box == (3, 4, 3, 4.5)
    with pytest.raises(AnnotationError, match="has a box alone"):
        image.mask()
