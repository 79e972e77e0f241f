"""PASCAL VOC (Everingham et al. 2010), in the layout in which it is published.

.. code-block:: text

    VOC2007/
      Annotations/000001.xml
      ImageSets/Main/test.txt          one id a line
      JPEGImages/000001.jpg

VOC counts pixels from 1, and the last pixel of a box is part of it: ``xmin`` 48 and ``xmax`` 195 become 47 and 195, which is
excluded.
"""

from __future__ import annotations

import os
from pathlib import Path

from faithmap.data.annotations import AnnotatedImage, AnnotatedImages, annotation_error, inside
from faithmap.data.files import AnnotationError, file_bytes
from faithmap.data.pascal import Annotation

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
"""The 20 classes, in the order that models trained on VOC use."""

MAX_BYTES = 64 * 2**20
"""Of a list of photographs."""


class VOCBoxes(AnnotatedImages):
    """The photographs of one list of PASCAL VOC and the boxes in them.

    Args:
        root: the folder of one year, such as ``VOCdevkit/VOC2007``.
        split: the list in ``ImageSets/Main``: test, trainval, train or val.

    Raises:
        AnnotationError: for a list that cannot be read, and later for an annotation that is refused.
    """

    def __init__(self, root: str | os.PathLike[str], split: str = "test") -> None:
        self.root = Path(root)
        folder = self.root / "ImageSets" / "Main"
        self._list = inside(folder, f"{split}.txt", folder)
        try:
            lines = file_bytes(self._list, MAX_BYTES, AnnotationError).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise annotation_error(self._list, "not UTF-8", "give a list of ids, one a line") from error
        self.ids = tuple(line.strip() for line in lines if line.strip())
        if any(len(name.split()) > 1 for name in self.ids):
            problem = "has more than an id in a line, as the lists of one class have"
            raise annotation_error(self._list, problem, "give a list of ids alone, such as test")

    def __len__(self) -> int:
        return len(self.ids)

    def _read(self, index: int) -> AnnotatedImage:
        name = self.ids[index]
        annotation = Annotation(inside(self.root / "Annotations", f"{name}.xml", self._list))
        photo = inside(self.root / "JPEGImages", annotation.filename or f"{name}.jpg", annotation.path)
        classes = {label: i for i, label in enumerate(VOC_CLASSES)}
        return AnnotatedImage(photo, annotation.size, annotation.objects(classes, first=1), annotation.path)
