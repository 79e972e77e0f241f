"""PASCAL's XML of one photograph, which VOC and ImageNet share.

.. code-block:: xml

    <annotation>
      <filename>000001.jpg</filename>
      <size><width>353</width><height>500</height><depth>3</depth></size>
      <object>
        <name>dog</name><difficult>0</difficult>
        <bndbox><xmin>48</xmin><ymin>240</ymin><xmax>195</xmax><ymax>371</ymax></bndbox>
      </object>
    </annotation>

Every way to make a small XML file large or to fetch another one (entities, external entities, external definitions) begins
with a document type declaration, which PASCAL's files do not have. A file with one is refused: by its text, before anything
is parsed, and by the parser, should an encoding hide it from the first look.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree as ET
from xml.parsers import expat

from faithmap.data.annotations import AnnotatedObject, annotation_error, checked_size, clipped
from faithmap.data.files import AnnotationError, file_bytes

MAX_BYTES = 2**20
"""Of one file; VOC's largest have 15 thousand."""


class Annotation:
    """The XML of one photograph.

    Args:
        path: of the file.

    Raises:
        AnnotationError: for a file that cannot be read or is no such XML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = file_bytes(path, MAX_BYTES, AnnotationError).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise annotation_error(path, "not UTF-8", "save it as UTF-8") from error
        if "<!DOCTYPE" in text:
            self._refuse_declaration()
        self.root = self._tree(text)
        if self.root.tag != "annotation":
            raise annotation_error(path, f"begins with <{self.root.tag[:40]}>", "give a file that begins with <annotation>")

    @property
    def filename(self) -> str:
        """Of the photograph, as it is written; empty if it is not."""
        return (self.root.findtext("filename") or "").strip()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photograph."""
        height, width = (self._number(self.root, f"size/{side}") for side in ("height", "width"))
        return checked_size(height, width, self.path)

    def objects(self, index: Mapping[str, int], first: int) -> tuple[AnnotatedObject, ...]:
        """The objects.

        Args:
            index: of each class that is known.
            first: the number of the first pixel in a row or column, 0 or 1. The last pixel of a box is part of it.
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
        raise annotation_error(self.path, "has a document type declaration, which can hide anything", "remove it")

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
            shown = "nothing" if text is None else repr(text[:40])
            raise annotation_error(self.path, f"has {shown} in <{element.tag}> as {tag}", "give a number")
        return float(text or "")
