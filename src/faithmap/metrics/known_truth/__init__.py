"""Measures with a known truth: images, or models, for which it is known where the importance has to be."""

from faithmap.metrics.known_truth.grid_pointing import GridMosaics, GridPointing, grid_mosaics, grid_pointing_game

__all__ = ["GridMosaics", "GridPointing", "grid_mosaics", "grid_pointing_game"]
