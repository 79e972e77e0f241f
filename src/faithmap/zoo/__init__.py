"""Models by name: installed with pip, of timm, torchvision and Hugging Face, and from checkpoint files."""

from faithmap.zoo.folding import fold_batch_norm
from faithmap.zoo.loading import available, load, names
from faithmap.zoo.recipe import ModelError, state_digest

__all__ = ["ModelError", "available", "fold_batch_norm", "load", "names", "state_digest"]
