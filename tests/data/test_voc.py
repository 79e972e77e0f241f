"""PASCAL VOC: boxes, and hostile XML, lists and links."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from annotation_tools import VOC_XML, save_image, written

from faithmap.data import (
    VOC_CLASSES,
    AnnotationError,
    COCOInstances,
    ImageError,
    VOCBoxes,
    read_image,
)


def test_pixels_are_counted_from_one_and_the_last_pixel_belongs_to_a_box(voc: Callable[..., VOCBoxes], tmp_path: Path) -> None:
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
    assert image.boxes("person").tolist() == [[0, 0, 35, 50]], "the whole image"
    assert image.boxes("cat").shape == (0, 4)
    assert image.boxes().shape == (3, 4)
    assert torch.equal(image.read(), read_image(image.path))
    with pytest.raises(AnnotationError, match=r"000001\.xml: an object 'dog' has no outline; use boxes"):
        image.mask("dog")


def test_classes_are_in_the_order_of_models() -> None:
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


def test_a_reader_is_a_lazy_sequence(voc: Callable[..., VOCBoxes], tmp_path: Path) -> None:
    """Twelve ids of which one has an annotation: nothing is read before it is asked for."""
    data = voc(ids="".join(f"{i:06d}\n" for i in range(12)) + "\n")
    assert len(data) == 12
    assert data[1].size == data[-11].size == (50, 35)
    assert [image.objects for image in data[1:2]] == [data[1].objects]
    for outside in (12, -13):
        with pytest.raises(IndexError, match=r"image -?1. of 12"):
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


def test_without_a_file_name_the_id_names_the_image(voc: Callable[..., VOCBoxes]) -> None:
    assert voc(VOC_XML.replace("<filename>000001.jpg</filename>", ""))[0].path.name == "000001.jpg"


def test_byte_order_mark_and_declared_encoding_are_accepted(voc: Callable[..., VOCBoxes]) -> None:
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
        ("<a>" * 100_000 + "</a>" * 100_000, "starts with <a>"),
        (VOC_XML[:200], "not XML"),
        (b"", "not XML"),
        (b"\xff\xd8\xff\xe0", "not UTF-8"),
        ("<svg/>", "starts with <svg>; give a file that starts with <annotation>"),
        ("<annotation>" + " " * 2**20 + "</annotation>", "1048601 bytes are more than max_bytes=1048576"),
        (VOC_XML.replace("000001.jpg", "../../../../etc/passwd"), r"names a file '\.\./\.\./"),
        (VOC_XML.replace("000001.jpg", "/etc/passwd"), "names a file '/etc/passwd'; give plain names"),
        (VOC_XML.replace("000001.jpg", "a/../../b.jpg"), "names a file"),
        (VOC_XML.replace("000001.jpg", "..\\..\\secret.jpg"), "names a file"),
        (VOC_XML.replace("000001.jpg", "C:secret.jpg"), "names a file"),
        (VOC_XML.replace("000001.jpg", "a\x85\u202eb.jpg"), r"names a file 'a\\x85\\u202eb\.jpg'"),
        (VOC_XML.replace("<width>35", "<width>0"), "an image of 50.0 x 0.0 pixels"),
        (
            VOC_XML.replace("<width>35", "<width>999999999"),
            "an image of 50.0 x 999999999.0 pixels; give a size in whole pixels",
        ),
        (VOC_XML.replace("<width>35", "<width>35.5"), "whole pixels"),
        (VOC_XML.replace("<width>35", "<width>nan"), "has 'nan' in <annotation> as size/width; give a number"),
        (VOC_XML.replace("<width>35</width>", ""), "has nothing in <annotation> as size/width"),
        (VOC_XML.replace("<xmax>19", "<xmax>inf"), "has 'inf' in <object> as bndbox/xmax"),
        (VOC_XML.replace("<xmax>19", "<xmax>1e400"), "has '1e400'"),
        (VOC_XML.replace("<xmax>19", "<xmax>" + "9" * 400), "has '9{40}' in <object> as bndbox/xmax"),
        (
            VOC_XML.replace("<xmax>19", "<xmax>2"),
            r"has a box \(3.0, 23.0, 2.0, 37.0\) as left, top, right, bottom on an image",
        ),
        (VOC_XML.replace("<xmax>19", "<xmax>-5").replace("<xmin>4", "<xmin>-9"), "has a box"),
        (VOC_XML.replace("<xmax>19", "<xmax>60").replace("<xmin>4", "<xmin>36"), "boxes that lie on the image"),
        (VOC_XML.replace("<ymax>37", "<ymax>90").replace("<ymin>24", "<ymin>51"), "boxes that lie on the image"),
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


def test_a_box_beyond_the_edge_is_clipped(voc: Callable[..., VOCBoxes]) -> None:
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


def test_control_characters_of_a_folder_are_escaped(voc: Callable[..., VOCBoxes]) -> None:
    data = voc("<svg/>", root="a\nb\x1b[2J")
    with pytest.raises(AnnotationError, match=r"a\\nb\\x1b\[2J/Annotations/000001\.xml: starts with <svg>") as refusal:
        data[0]
    assert str(refusal.value).isprintable()


def test_wrong_lists_are_refused(voc: Callable[..., VOCBoxes], tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="more than an id in a line"):
        voc(ids="000001 -1\n000002  1\n")
    with pytest.raises(AnnotationError, match=r"test\.txt: not UTF-8"):
        VOCBoxes(written(tmp_path / "latin" / "ImageSets" / "Main" / "test.txt", b"\xff\n").parents[2])
    with pytest.raises(AnnotationError, match=r"train\.txt: cannot be read"):
        VOCBoxes(tmp_path / "VOC2007", "train")
    with pytest.raises(AnnotationError, match="names a file"):
        VOCBoxes(tmp_path / "VOC2007", "../../Annotations/000001")


def test_links_out_of_the_folder_are_refused(voc: Callable[..., VOCBoxes], tmp_path: Path) -> None:
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
def test_a_pipe_is_refused_without_waiting(voc: Callable[..., VOCBoxes], tmp_path: Path) -> None:
    data = voc()
    path = tmp_path / "VOC2007" / "Annotations" / "000001.xml"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(AnnotationError, match="pipe, socket or device"):
        data[0]


def test_an_image_of_another_size_is_refused(voc: Callable[..., VOCBoxes], tmp_path: Path) -> None:
    data = voc()
    save_image(tmp_path / "VOC2007" / "JPEGImages" / "000001.jpg", 50, 35)
    with pytest.raises(AnnotationError, match=r"annotates 50 x 35 pixels \(height x width\), but .* has 35 x 50 when upright"):
        data[0].read()
