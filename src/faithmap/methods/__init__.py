"""Explainers: they ask a model questions about images and answer with heatmaps."""

from faithmap.methods.base import Explainer
from faithmap.methods.masks import IGOS, LineSearch, Mask

__all__ = ["IGOS", "Explainer", "LineSearch", "Mask"]
