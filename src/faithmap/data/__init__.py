"""Images from the outside world: reading them safely, and finding them."""

from faithmap.data.files import ImageError, image_files, sample_photo
from faithmap.data.images import AnimationWarning, read_image

__all__ = ["AnimationWarning", "ImageError", "image_files", "read_image", "sample_photo"]
