"""Measures with a known truth: images, or models, for which it is known where the importance has to be."""

from faithmap.metrics.known_truth.grid_pointing import GridMosaics, GridPointing, grid_mosaics, grid_pointing_game
from faithmap.metrics.known_truth.marks import MARKS, place_mark, plant
from faithmap.metrics.known_truth.regions import (
    difull,
    dipart,
    leakage,
    region_of,
    region_share,
    repeated_content,
    weighted_regions,
)
from faithmap.metrics.known_truth.shortcuts import PlantedShortcut, ShortcutScore, plant_shortcut, shortcut_score

__all__ = [
    "MARKS",
    "GridMosaics",
    "GridPointing",
    "PlantedShortcut",
    "ShortcutScore",
    "difull",
    "dipart",
    "grid_mosaics",
    "grid_pointing_game",
    "leakage",
    "place_mark",
    "plant",
    "plant_shortcut",
    "region_of",
    "region_share",
    "repeated_content",
    "shortcut_score",
    "weighted_regions",
]
