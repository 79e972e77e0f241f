"""Models by name: those whose weights are installed with pip, timm's, torchvision's, Hugging Face's, checkpoint files."""

from faithmap.zoo.catalog import available, names
from faithmap.zoo.errors import ModelError
from faithmap.zoo.folding import fold_batch_norm
from faithmap.zoo.loading import load
from faithmap.zoo.weights import state_digest

__all__ = ["ModelError", "available", "fold_batch_norm", "load", "names", "state_digest"]
