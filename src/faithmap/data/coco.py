"""COCO (Lin et al. 2014): the instances of one JSON file, with their outlines.

.. code-block:: text

    annotations/instances_val2014.json
    val2014/COCO_val2014_000000000042.jpg

A box ``[x, y, width, height]`` is in pixels from the top left corner and need not be whole: (x, y, x + width, y + height).
The numbers of COCO's categories have gaps; an object's index is the place of its category in their order, 0 to 79.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any, NoReturn

from faithmap.data.annotations import (
    AnnotatedImage,
    AnnotatedImages,
    AnnotatedObject,
    annotation_error,
    checked_size,
    clipped,
    inside,
)
from faithmap.data.files import AnnotationError, file_bytes
from faithmap.data.segmentation import Segmentation

Record = dict[str, Any]


class COCOInstances(AnnotatedImages):
    """The photographs of one COCO file and the objects in them, with masks.

    Args:
        images: the folder of the photographs.
        annotations: the JSON file of instances.
        max_bytes: of that file; the largest that is published has 470 million.

    Raises:
        AnnotationError: for a file that cannot be read or is no such JSON, and later for an annotation that is refused.
    """

    def __init__(self, images: str | os.PathLike[str], annotations: str | os.PathLike[str], *, max_bytes: int = 2**30) -> None:
        self.images, self.path = Path(images), Path(annotations)
        content = self._content(max_bytes)
        photos, objects, categories = (self._records(content, part) for part in ("images", "annotations", "categories"))
        self._photos = [(self._whole(photo, "id"), photo) for photo in photos]
        names = sorted((self._whole(category, "id"), self._text(category, "name")) for category in categories)
        self._names = {number: (name, index) for index, (number, name) in enumerate(names)}
        if len(self._names) < len(names) or len(dict(self._photos)) < len(photos):
            raise self._refused("uses the id of a photograph or category twice", "give each its own")
        self.classes = tuple(name for _, name in names)
        self._objects: defaultdict[int, list[Record]] = defaultdict(list)
        for item in objects:
            self._objects[self._whole(item, "image_id")].append(item)

    def __len__(self) -> int:
        return len(self._photos)

    def _read(self, index: int) -> AnnotatedImage:
        number, photo = self._photos[index]
        size = checked_size(self._whole(photo, "height"), self._whole(photo, "width"), self.path)
        path = inside(self.images, self._text(photo, "file_name"), self.path)
        objects = tuple(self._object(item, size) for item in self._objects.get(number, ()))
        return AnnotatedImage(path, size, objects, self.path)

    def _object(self, item: Record, size: tuple[int, int]) -> AnnotatedObject:
        category = self._whole(item, "category_id")
        if category not in self._names:
            raise self._refused(f"has an object of category {category}, which it does not name", "add it to categories")
        name, index = self._names[category]
        box = item.get("bbox")
        if (
            not isinstance(box, list)
            or len(box) != 4
            or not all(type(number) in (int, float) and abs(number) < 1e9 for number in box)
        ):
            raise self._refused(f"has {str(box)[:60]} as bbox", "give [x, y, width, height]")
        left, top, width, height = box
        outline = item.get("segmentation")
        return AnnotatedObject(
            name,
            index,
            clipped((left, top, left + width, top + height), size, self.path),
            crowd=item.get("iscrowd") == 1,
            segmentation=None if outline is None else Segmentation(outline),
        )

    def _content(self, max_bytes: int) -> Record:
        data = file_bytes(self.path, max_bytes, AnnotationError)
        try:
            content = json.loads(data, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise self._refused(f"not JSON ({str(error)[:100]})", "give an intact copy of the instances") from error
        if not isinstance(content, dict):
            raise self._refused("no JSON object", "give a file of instances")
        return content

    def _records(self, content: Record, part: str) -> list[Record]:
        records = content.get(part)
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise self._refused(f"has no list of {part}", "give a file of instances, with images, annotations and categories")
        return records

    def _whole(self, record: Record, key: str) -> int:
        value = record.get(key)
        if type(value) is not int:
            raise self._refused(f"has {str(value)[:60]!r} as {key}", "give a whole number")
        return value

    def _text(self, record: Record, key: str) -> str:
        value = record.get(key)
        if not isinstance(value, str):
            raise self._refused(f"has {str(value)[:60]!r} as {key}", "give text")
        return value

    def _refused(self, problem: str, remedy: str) -> AnnotationError:
        return annotation_error(self.path, problem, remedy)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
