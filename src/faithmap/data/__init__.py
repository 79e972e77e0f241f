"""Untrusted image files: reading them safely, finding them in folders, and their annotations."""

from faithmap.data.annotations import AnnotatedImage, AnnotatedImages, AnnotatedObject, Segmentation
from faithmap.data.coco import COCOInstances
from faithmap.data.imagenet import ImageNetBoxes, imagenet_classes
from faithmap.data.images import (
    AnimationWarning,
    AnnotationError,
    FileError,
    ImageError,
    image_files,
    image_size,
    read_image,
    sample_photo,
)
from faithmap.data.voc import VOC_CLASSES, VOCBoxes

__all__ = [
    "VOC_CLASSES",
    "AnimationWarning",
    "AnnotatedImage",
    "AnnotatedImages",
    "AnnotatedObject",
    "AnnotationError",
    "COCOInstances",
    "FileError",
    "ImageError",
    "ImageNetBoxes",
    "Segmentation",
    "VOCBoxes",
    "image_files",
    "image_size",
    "imagenet_classes",
    "read_image",
    "sample_photo",
]
