"""PASCAL VOC (Everingham et al. 2010), in the layout in which it is published, and its XML, which ImageNet shares.

.. code-block:: text

    VOC2007/
      Annotations/000001.xml
      ImageSets/Main/test.txt          one id per line
      JPEGImages/000001.jpg

.. code-block:: xml

    <annotation>
      <filename>000001.jpg</filename>
      <size><width>353</width><height>500</height><depth>3</depth></size>
      <object>
        <name>dog</name><difficult>0</difficult>
        <bndbox><xmin>48</xmin><ymin>240</ymin><xmax>195</xmax><ymax>371</ymax></bndbox>
      </object>
    </annotation>

VOC counts pixels from 1, and the last pixel of a box is part of it: ``xmin`` 48 and ``xmax`` 195 become 47 and 195, excluded.

Every attack by which a small XML file becomes large or loads another file (entities, external entities, external definitions)
starts with a document type declaration, which PASCAL's files do not have. A file with one is refused: by its text, before it is
parsed, and by the parser, in case an encoding hides it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree as ET
from xml.parsers import expat

from faithmap.data.annotations import (
    AnnotatedImage,
    AnnotatedImages,
    AnnotatedObject,
    annotation_error,
    checked_size,
    clipped,
    inside,
)
from faithmap.data.images import AnnotationError, file_bytes

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The 20 classes, in the order of models that were trained on VOC."""

MAX_LIST_BYTES = 64 * 2**20
"""Maximum size of a list of images."""

MAX_XML_BYTES = 2**20
"""Maximum size of an XML file; the largest of VOC have 15 thousand bytes."""


class VOCBoxes(AnnotatedImages):
    """The images of one list of PASCAL VOC and the boxes in them.

    .. code-block:: python

        for annotated in VOCBoxes("VOCdevkit/VOC2007", "test"):
            image, boxes = annotated.read(), annotated.boxes("dog")

    Args:
        root: the folder of one year, such as ``VOCdevkit/VOC2007``.
        split: the list in ``ImageSets/Main``: test, trainval, train or val.

    Raises:
        AnnotationError: for a list that cannot be read; on access, for an annotation that is refused.

    >>> import tempfile
    >>> xml = (
    ...     "<annotation><filename>000001.jpg</filename><size><width>6</width><height>4</height></size><object><name>dog</name>"
    ...     "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object></annotation>"
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, text in {"ImageSets/Main/test.txt": "000001", "Annotations/000001.xml": xml}.items():
    ...         Path(folder, name).parent.mkdir(parents=True)
    ...         _ = Path(folder, name).write_text(text)
    ...     VOCBoxes(folder)[0].boxes("dog").tolist()
    [[1.0, 1.0, 3.0, 4.0]]
    """

    def __init__(self, root: str | os.PathLike[str], split: str = "test") -> None:
        self.root = Path(root)
        folder = self.root / "ImageSets" / "Main"
        self._list = inside(folder, f"{split}.txt", folder)
        try:
            lines = file_bytes(self._list, MAX_LIST_BYTES, AnnotationError).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise annotation_error(self._list, "not UTF-8", "give a list of ids, one per line") from error
        self.ids = tuple(line.strip() for line in lines if line.strip())
        if any(len(name.split()) > 1 for name in self.ids):
            problem = "has more than an id in a line, like the lists of one class"
            raise annotation_error(self._list, problem, "give a list of ids only, such as test")

    def __len__(self) -> int:
        return len(self.ids)

    def _read(self, index: int) -> AnnotatedImage:
        name = self.ids[index]
        annotation = PascalAnnotation(inside(self.root / "Annotations", f"{name}.xml", self._list))
        image = inside(self.root / "JPEGImages", annotation.filename or f"{name}.jpg", annotation.path)
        classes = {label: i for i, label in enumerate(VOC_CLASSES)}
        return AnnotatedImage(image, annotation.size, annotation.objects(classes, first=1), annotation.path)


class PascalAnnotation:
    """The XML file of one image.

    Args:
        path: of the file.

    Raises:
        AnnotationError: for a file that cannot be read or is no such XML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = file_bytes(path, MAX_XML_BYTES, AnnotationError).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise annotation_error(path, "not UTF-8", "save it as UTF-8") from error
        if "<!DOCTYPE" in text:
            self._refuse_declaration()
        self.root = self._tree(text)
        if self.root.tag != "annotation":
            raise annotation_error(path, f"starts with <{self.root.tag[:40]}>", "give a file that starts with <annotation>")

    @property
    def filename(self) -> str:
        """Name of the image file; empty if it is missing."""
        return (self.root.findtext("filename") or "").strip()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        height, width = (self._number(self.root, f"size/{side}") for side in ("height", "width"))
        return checked_size(height, width, self.path)

    def objects(self, index: Mapping[str, int], first: int) -> tuple[AnnotatedObject, ...]:
        """The objects in the image.

        Args:
            index: of each known class.
            first: the number of the first pixel of a row or column, 0 or 1. The last pixel of a box is part of it.
        """
        return tuple(self._object(element, index, first) for element in self.root.iterfind("object"))

    def _tree(self, text: str) -> ET.Element:
        builder, parser = ET.TreeBuilder(), expat.ParserCreate("utf-8")
        parser.StartDoctypeDeclHandler = self._refuse_declaration
        parser.StartElementHandler = builder.start
        parser.EndElementHandler = builder.end
        parser.CharacterDataHandler = builder.data
        try:
            parser.Parse(text.encode(), True)
        except expat.ExpatError as error:
            raise annotation_error(self.path, f"not XML ({str(error)[:100]})", "give an intact copy") from error
        return builder.close()

    def _refuse_declaration(self, *_: object) -> NoReturn:
        raise annotation_error(self.path, "has a document type declaration, which is not safe", "remove it")

    def _object(self, element: ET.Element, index: Mapping[str, int], first: int) -> AnnotatedObject:
        name = (element.findtext("name") or "").strip()
        if not name:
            raise annotation_error(self.path, "has an object without a name", "name its class")
        left, top, right, bottom = (self._number(element, f"bndbox/{end}") for end in ("xmin", "ymin", "xmax", "ymax"))
        box = clipped((left - first, top - first, right - first + 1, bottom - first + 1), self.size, self.path)
        difficult = (element.findtext("difficult") or "0").strip() == "1"
        return AnnotatedObject(name, index.get(name), box, difficult=difficult)

    def _number(self, element: ET.Element, tag: str) -> float:
        text = element.findtext(tag)
        if not re.fullmatch(r"\s*-?\d{1,9}(\.\d*)?\s*", text or "", re.ASCII):
            quoted = "nothing" if text is None else repr(text[:40])
            raise annotation_error(self.path, f"has {quoted} in <{element.tag}> as {tag}", "give a number")
        return float(text or "")
