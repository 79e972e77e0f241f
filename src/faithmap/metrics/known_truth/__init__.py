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
from faithmap.metrics.known_truth.rule_networks import (
    ARCHITECTURES,
    RuleNetwork,
    RuleShares,
    rule_score,
    train_on_rule,
)
from faithmap.metrics.known_truth.rules import RULES, RuleImages, rule_images
from faithmap.metrics.known_truth.shortcuts import PlantedShortcut, ShortcutScore, plant_shortcut, shortcut_score

__all__ = [
    "ARCHITECTURES",
    "MARKS",
    "RULES",
    "GridMosaics",
    "GridPointing",
    "PlantedShortcut",
    "RuleImages",
    "RuleNetwork",
    "RuleShares",
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
    "rule_images",
    "rule_score",
    "shortcut_score",
    "train_on_rule",
    "weighted_regions",
]
