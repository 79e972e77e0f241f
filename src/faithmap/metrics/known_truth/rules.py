"""Synthetic images whose class follows a known rule, and the objects that matter in each.

Up to four objects lie in different cells of a 3 x 3 grid on a grey background: circles, squares and triangles in four colours.

:shape_and_colour: class 1 if there is a red square; the others have a red object, a square, or both, but no red square.
:count: class 0, 1 or 2 for one, two or three circles; squares and triangles do not count.
:left_of: class 1 if the circle is left of the square, whatever the triangles.
:cancel: class 1 if there is a circle, unless there is also a square, which cancels it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

RuleName: TypeAlias = Literal["shape_and_colour", "count", "left_of", "cancel"]

RULES: tuple[RuleName, ...] = get_args(RuleName)
CLASSES: Mapping[RuleName, tuple[str, ...]] = MappingProxyType(
    {
        "shape_and_colour": ("no red square", "a red square"),
        "count": ("one circle", "two circles", "three circles"),
        "left_of": ("the circle is right of the square", "the circle is left of the square"),
        "cancel": ("no circle, or a square", "a circle and no square"),
    }
)
"""Names of the classes of each rule."""

SIZE = 48
"""Pixels per side."""

GRID = 3
SLOTS = 4
CIRCLE, SQUARE, TRIANGLE = range(3)
RED, GREEN = 0, 1
COLOURS = ((0.9, 0.15, 0.15), (0.15, 0.75, 0.2), (0.2, 0.3, 0.95), (0.95, 0.85, 0.2))


@dataclass(frozen=True, eq=False)
class RuleImages:
    """Images, the class that the rule gives them, and where the importance for this class has to be.

    >>> images = rule_images("cancel", 3, seed=0)
    >>> tuple(images.images.shape), tuple(images.masks.shape), images.classes.shape
    ((3, 3, 48, 48), (3, 48, 48), torch.Size([3]))

    Attributes:
        images: in [0, 1].
        classes: of each image.
        masks: the objects that the image has its class for; empty if it has it because something is absent.
        against: the objects that count against the class; with a circle and a square under ``cancel``, the circle.
    """

    images: Float[Tensor, "n 3 h w"]
    classes: Int[Tensor, " n"]
    masks: Bool[Tensor, "n h w"]
    against: Bool[Tensor, "n h w"]


def rule_images(rule: RuleName, count: int, seed: int = 0) -> RuleImages:
    """Images of a rule; the same for the same seed and count.

    >>> torch.equal(rule_images("count", 2, seed=1).images, rule_images("count", 2, seed=1).images)
    True

    Args:
        rule: one of :data:`RULES`.
        count: number of images, at least 1.
        seed: of all that is drawn.

    Raises:
        ValueError: for an unknown rule, or a count below 1.
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; give one of {', '.join(RULES)}")
    if count < 1:
        raise ValueError(f"count is {count}; give at least 1")
    generator = torch.Generator().manual_seed(seed)
    scene = _SCENES[rule](_Scene.drawn(count, generator), generator)
    images, objects = _painted(scene, generator)
    masks, against = ((objects & flags[..., None, None]).any(dim=1) for flags in (scene.matters, scene.against))
    return RuleImages(images, scene.classes, masks, against)


@dataclass
class _Scene:
    """What each slot of each image contains; a rule changes it."""

    places: Int[Tensor, "n s"]
    shapes: Int[Tensor, "n s"]
    colours: Int[Tensor, "n s"]
    present: Bool[Tensor, "n s"]
    classes: Int[Tensor, " n"]
    matters: Bool[Tensor, "n s"]
    against: Bool[Tensor, "n s"]

    @classmethod
    def drawn(cls, count: int, generator: torch.Generator) -> _Scene:
        """Triangles of random colours in different cells; each is present with probability 0.6."""
        places = torch.rand(count, GRID * GRID, generator=generator).argsort(dim=1)
        none = torch.zeros(count, SLOTS, dtype=torch.bool)
        return cls(
            places,
            torch.full((count, SLOTS), TRIANGLE),
            torch.randint(len(COLOURS), (count, SLOTS), generator=generator),
            torch.rand(count, SLOTS, generator=generator) < 0.6,
            torch.zeros(count, dtype=torch.long),
            none,
            none.clone(),
        )


def _shape_and_colour(scene: _Scene, generator: torch.Generator) -> _Scene:
    count = len(scene.classes)
    scene.classes = torch.randint(2, (count,), generator=generator)
    scene.shapes = torch.randint(3, (count, SLOTS), generator=generator)
    red_other, other_square = torch.rand(2, count, generator=generator) < 0.5
    scene.shapes[:, 0] = torch.where(red_other, torch.randint(2, (count,), generator=generator) * TRIANGLE, SQUARE)
    scene.colours[:, 0] = torch.where(red_other, RED, torch.randint(1, len(COLOURS), (count,), generator=generator))
    scene.shapes[other_square, 1], scene.present[other_square, 1] = SQUARE, True
    forbidden = (scene.shapes == SQUARE) & (scene.colours == RED)
    scene.colours[forbidden] = GREEN
    wanted = scene.classes == 1
    scene.shapes[wanted, 0], scene.colours[wanted, 0] = SQUARE, RED
    scene.present[:, 0] = True
    scene.matters[:, 0] = wanted
    return scene


def _count(scene: _Scene, generator: torch.Generator) -> _Scene:
    count = len(scene.classes)
    scene.classes = torch.randint(3, (count,), generator=generator)
    circles = torch.arange(SLOTS) <= scene.classes.unsqueeze(1)
    others = torch.randint(SQUARE, TRIANGLE + 1, (count, SLOTS), generator=generator)
    scene.shapes = torch.where(circles, CIRCLE, others)
    scene.present |= circles
    scene.matters = circles
    return scene


def _left_of(scene: _Scene, generator: torch.Generator) -> _Scene:
    del generator
    columns = scene.places % GRID
    other = (columns != columns[:, :1]).int().argmax(dim=1, keepdim=True)  # the first place in another column
    first, second = scene.places.gather(1, other), scene.places[:, 1:2].clone()
    scene.places.scatter_(1, other, second)
    scene.places[:, 1:2] = first
    scene.shapes[:, 0], scene.shapes[:, 1] = CIRCLE, SQUARE
    scene.present[:, :2] = scene.matters[:, :2] = True
    columns = scene.places % GRID
    scene.classes = (columns[:, 0] < columns[:, 1]).long()
    return scene


def _cancel(scene: _Scene, generator: torch.Generator) -> _Scene:
    drawn = torch.rand(len(scene.classes), generator=generator)
    circle, square = drawn < 0.8, (drawn >= 0.5) & (drawn < 0.9)  # a circle alone in half of the images, both in 30 %
    scene.shapes[:, 0], scene.shapes[:, 1] = CIRCLE, SQUARE
    scene.present[:, 0], scene.present[:, 1] = circle, square
    scene.classes = (circle & ~square).long()
    scene.matters[:, 0], scene.matters[:, 1] = circle & ~square, circle & square
    scene.against[:, 0] = circle & square
    return scene


_SCENES: Mapping[RuleName, Callable[[_Scene, torch.Generator], _Scene]] = {
    "shape_and_colour": _shape_and_colour,
    "count": _count,
    "left_of": _left_of,
    "cancel": _cancel,
}


def _painted(scene: _Scene, generator: torch.Generator) -> tuple[Float[Tensor, "n 3 h w"], Bool[Tensor, "n s h w"]]:
    """The images, and the mask of each object; objects do not overlap."""
    count, cell = len(scene.classes), SIZE / GRID
    clouds = torch.rand(count, 1, 5, 5, generator=generator)
    images = 0.35 + 0.3 * F.interpolate(clouds, (SIZE, SIZE), mode="bilinear", align_corners=True).repeat(1, 3, 1, 1)
    images += 0.15 * (torch.rand(images.shape, generator=generator) - 0.5)
    radius = 4.5 + 1.5 * torch.rand(count, SLOTS, 1, 1, generator=generator)
    jitter = 3 * torch.rand(2, count, SLOTS, generator=generator) - 1.5
    places = scene.places[:, :SLOTS]
    middles = torch.stack([places // GRID, places % GRID]) * cell + cell / 2 - 0.5 + jitter
    positions = torch.arange(SIZE, dtype=torch.float32)
    down = (positions.view(-1, 1) - middles[0, ..., None, None]) / radius
    across = (positions - middles[1, ..., None, None]) / radius
    circle = down.square() + across.square() <= 1
    square = torch.maximum(down.abs(), across.abs()) <= math.sqrt(math.pi) / 2  # as large as the circle
    triangle = (down <= 0.8) & (across.abs() <= (down + 1.3) / 1.6)
    shapes = scene.shapes[..., None, None]
    inside = torch.where(shapes == CIRCLE, circle, torch.where(shapes == SQUARE, square, triangle))
    objects: Tensor = inside & scene.present[..., None, None]
    colours = torch.tensor(COLOURS)[scene.colours] + 0.08 * torch.randn(count, SLOTS, 3, generator=generator)
    for slot in range(SLOTS):
        images = torch.where(objects[:, slot : slot + 1], colours[:, slot, :, None, None], images)
    return images.clamp(0, 1), objects
