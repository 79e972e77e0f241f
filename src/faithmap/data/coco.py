"""COCO (Lin et al. 2014): the instances of one JSON file, with their outlines.

.. code-block:: text

    annotations/instances_val2014.json
    val2014/COCO_val2014_000000000042.jpg

A box ``[x, y, width, height]`` is in pixels from the top left corner, possibly fractional: (x, y, x + width, y + height).
The ids of COCO's categories have gaps; the index of an object's class is the rank of its category's id, 0 to 79.
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
    Segmentation,
    annotation_error,
    checked_size,
    clipped,
    inside,
)
from faithmap.data.images import AnnotationError, file_bytes

COCORecord = dict[str, Any]


class COCOInstances(AnnotatedImages):
    """The images of one COCO file and the objects in them, with masks.

    .. code-block:: python

        for annotated in COCOInstances("val2014", "annotations/instances_val2014.json"):
            image, mask = annotated.read(), annotated.mask("dog")

    Args:
        images: the folder of the images.
        annotations: the JSON file of instances.
        max_bytes: maximum size of that file; the largest that is published has 470 million bytes.

    Raises:
        AnnotationError: for a file that cannot be read or is no such JSON; on access, for an annotation that is refused.

    >>> import json, tempfile
    >>> content = {
    ...     "images": [{"id": 7, "file_name": "a.jpg", "height": 4, "width": 6}],
    ...     "categories": [{"id": 18, "name": "dog"}],
    ...     "annotations": [{"image_id": 7, "category_id": 18, "iscrowd": 0, "bbox": [1, 1, 2, 3]}],
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "instances.json")
    ...     _ = file.write_text(json.dumps(content))
    ...     data = COCOInstances(folder, file)
    ...     data.classes, data[0].size, data[0].boxes("dog").tolist()
    (('dog',), (4, 6), [[1.0, 1.0, 3.0, 4.0]])
    """

    def __init__(self, images: str | os.PathLike[str], annotations: str | os.PathLike[str], *, max_bytes: int = 2**30) -> None:
        self.images, self.path = Path(images), Path(annotations)
        content = self._content(max_bytes)
        image_records, objects, categories = (self._records(content, part) for part in ("images", "annotations", "categories"))
        self._images = [(self._whole(record, "id"), record) for record in image_records]
        names = sorted((self._whole(category, "id"), self._text(category, "name")) for category in categories)
        self._names = {number: (name, index) for index, (number, name) in enumerate(names)}
        if len(self._names) < len(names) or len(dict(self._images)) < len(image_records):
            raise self._refused("uses the id of an image or category twice", "give each its own id")
        self.classes = tuple(name for _, name in names)
        self._objects: defaultdict[int, list[COCORecord]] = defaultdict(list)
        for item in objects:
            self._objects[self._whole(item, "image_id")].append(item)

    def __len__(self) -> int:
        return len(self._images)

    def _read(self, index: int) -> AnnotatedImage:
        number, record = self._images[index]
        size = checked_size(self._whole(record, "height"), self._whole(record, "width"), self.path)
        path = inside(self.images, self._text(record, "file_name"), self.path)
        objects = tuple(self._object(item, size) for item in self._objects.get(number, ()))
        return AnnotatedImage(path, size, objects, self.path)

    def _object(self, item: COCORecord, size: tuple[int, int]) -> AnnotatedObject:
        category = self._whole(item, "category_id")
        if category not in self._names:
            raise self._refused(f"has an object of the unknown category {category}", "add it to categories")
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

    def _content(self, max_bytes: int) -> COCORecord:
        data = file_bytes(self.path, max_bytes, AnnotationError)
        try:
            content = json.loads(data, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise self._refused(f"not JSON ({str(error)[:100]})", "give an intact copy of the instances") from error
        if not isinstance(content, dict):
            raise self._refused("no JSON object", "give a file of instances")
        return content

    def _records(self, content: COCORecord, part: str) -> list[COCORecord]:
        records = content.get(part)
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise self._refused(f"has no list of {part}", "give a file of instances, with images, annotations and categories")
        return records

    def _whole(self, record: COCORecord, key: str) -> int:
        value = record.get(key)
        if type(value) is not int:
            raise self._refused(f"has {str(value)[:60]!r} as {key}", "give a whole number")
        return value

    def _text(self, record: COCORecord, key: str) -> str:
        value = record.get(key)
        if not isinstance(value, str):
            raise self._refused(f"has {str(value)[:60]!r} as {key}", "give text")
        return value

    def _refused(self, problem: str, remedy: str) -> AnnotationError:
        return annotation_error(self.path, problem, remedy)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
