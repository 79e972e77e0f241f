"""Whether a heatmap is true."""

from faithmap.metrics.deletion_insertion import PROTOCOLS, Curve, DeletionInsertion, Protocol, deletion_insertion

__all__ = ["PROTOCOLS", "Curve", "DeletionInsertion", "Protocol", "deletion_insertion"]
