"""ImageNet's localisation boxes (Russakovsky et al. 2015), in both published formats.

.. code-block:: text

    Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml       PASCAL's XML, one per image
    LOC_val_solution.csv                                      ILSVRC2012_val_00048981,n03995372 85 1 499 272

The images are in one folder, or in one folder per class: ``val/ILSVRC2012_val_00000001.JPEG`` or
``val/n01751748/ILSVRC2012_val_00000001.JPEG``.

ImageNet counts pixels from 0, and the last pixel of a box is part of it (499 in an image 500 wide). Some boxes end one
pixel after their image, and are clipped.
"""

from __future__ import annotations

import csv
import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faithmap.data.annotations import (
    AnnotatedImage,
    AnnotatedImages,
    AnnotatedObject,
    annotation_error,
    clipped,
    inside,
)
from faithmap.data.images import AnnotationError, file_bytes, image_size
from faithmap.data.voc import PascalAnnotation

MAX_TABLE_BYTES = 256 * 2**20
"""Maximum size of a CSV table; that of the training images has 29 million bytes."""


class ImageNetBoxes(AnnotatedImages):
    r"""Images of ImageNet and the boxes in them; names are WordNet ids, indices those of ImageNet's 1000 classes.

    .. code-block:: python

        for annotated in ImageNetBoxes("val", "LOC_val_solution.csv"):
            image, boxes = annotated.read(), annotated.boxes(annotated.classes[0])

    Args:
        images: the folder of the images.
        annotations: the folder of the XML files, searched with its subfolders, or the CSV file.

    Raises:
        AnnotationError: for annotations that cannot be read, also on access; on access, for a missing image.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = Path(folder, "LOC_val_solution.csv")
    ...     _ = table.write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,n01751748 111 108 441 193")
    ...     ImageNetBoxes(folder, table).ids
    ('ILSVRC2012_val_00000001',)
    """

    def __init__(self, images: str | os.PathLike[str], annotations: str | os.PathLike[str]) -> None:
        self.images, self.annotations = Path(images), Path(annotations)
        self._rows: Mapping[str, str] = {}
        if self.annotations.is_dir():
            found = sorted(self.annotations.rglob("*.xml"))
            self.ids = tuple(path.relative_to(self.annotations).with_suffix("").as_posix() for path in found)
        else:
            self._rows = _table(self.annotations)
            self.ids = tuple(self._rows)
        if not self.ids:
            raise annotation_error(
                self.annotations, "has no annotations", "give a folder of XML files, or LOC_val_solution.csv"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def _read(self, index: int) -> AnnotatedImage:
        name = self.ids[index]
        if name in self._rows:
            return self._of_row(name)
        annotation = PascalAnnotation(inside(self.annotations, f"{name}.xml", self.annotations))
        objects = annotation.objects(imagenet_classes(), first=0)
        image = self._image(name, [item.name for item in objects], annotation.path)
        return AnnotatedImage(image, annotation.size, objects, annotation.path)

    def _of_row(self, name: str) -> AnnotatedImage:
        words = self._rows[name].split()
        if not words or len(words) % 5:
            problem = f"has {self._rows[name][:60]!r} for {name[:60]}"
            raise annotation_error(self.annotations, problem, "give a class and four numbers for each box")
        labels, numbers = words[::5], zip(*(words[i::5] for i in range(1, 5)), strict=True)
        image = self._image(name, labels, self.annotations)
        size = image_size(image)
        objects = (self._object(label, box, size) for label, box in zip(labels, numbers, strict=True))
        return AnnotatedImage(image, size, tuple(objects), self.annotations)

    def _object(self, label: str, box: tuple[str, ...], size: tuple[int, int]) -> AnnotatedObject:
        if not all(re.fullmatch(r"-?\d{1,9}", number, re.ASCII) for number in box):
            raise annotation_error(self.annotations, f"has the box {' '.join(box)[:60]!r}", "give four whole numbers")
        left, top, right, bottom = map(int, box)
        clipped_box = clipped((left, top, right + 1, bottom + 1), size, self.annotations)
        return AnnotatedObject(label, imagenet_classes().get(label), clipped_box)

    def _image(self, name: str, labels: list[str], source: Path) -> Path:
        """The image file of an annotation, in the folder of the images or in the folder of one of its classes."""
        plain = name.rsplit("/", 1)[-1]
        folders = [f"{label}/{plain}" for label in dict.fromkeys(labels) if re.fullmatch(r"n\d{8}", label)]
        candidates = [inside(self.images, f"{path}.JPEG", source) for path in dict.fromkeys((name, plain, *folders))]
        for path in candidates:
            if path.is_file():
                return path
        problem = f"annotates {candidates[0].name}, which is not in {self.images}"
        raise annotation_error(source, problem, "give the folder of the images, or of one folder per class")


def _table(path: Path) -> dict[str, str]:
    """Id of each image to the text of its boxes."""
    try:
        text = file_bytes(path, MAX_TABLE_BYTES, AnnotationError).decode("utf-8-sig")
        header, *rows = list(csv.reader(text.splitlines(), strict=True)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise annotation_error(path, f"no table ({error})", "give LOC_val_solution.csv") from error
    if header != ["ImageId", "PredictionString"] or any(len(row) != 2 for row in rows):
        raise annotation_error(path, "has other columns than ImageId and PredictionString", "give LOC_val_solution.csv")
    return {name.strip(): boxes for name, boxes in rows}


@functools.cache
def imagenet_classes() -> Mapping[str, int]:
    """The index of each of ImageNet's 1000 classes by its WordNet id.

    >>> imagenet_classes()["n01440764"], len(imagenet_classes())
    (0, 1000)
    """
    from timm.data.imagenet_info import ImageNetInfo  # noqa: PLC0415 - seconds

    known: Any = ImageNetInfo("imagenet-1k")
    return {name: i for i, name in enumerate(known.label_names())}
