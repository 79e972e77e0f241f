"""Rules against a slow reading of each scene, recipes of networks, and the score of known maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import faithmap as fm
from faithmap.metrics import KnownRuleScore
from faithmap.metrics.known_truth import ARCHITECTURES, RULES, rule_images, rule_score, rules, train_on_rule

SHAPES = ("circle", "square", "triangle")


def slow_class(rule: str, objects: list[tuple[str, int, int]]) -> int:
    """The class of a scene of (shape, colour, column)."""
    shapes = [shape for shape, _, _ in objects]
    if rule == "shape_and_colour":
        return int(("square", rules.RED) in [(shape, colour) for shape, colour, _ in objects])
    if rule == "count":
        return shapes.count("circle") - 1
    if rule == "left_of":
        (circle,), (square,) = ([column for shape, _, column in objects if shape == wanted] for wanted in ("circle", "square"))
        return int(circle < square)
    return int("circle" in shapes and "square" not in shapes)


@pytest.mark.parametrize("rule", RULES)
def test_the_class_follows_the_rule(rule: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    scene = rules._SCENES[rule](rules._Scene.drawn(200, generator), generator)
    assert len(scene.classes.unique()) == len(rules.CLASSES[rule])
    assert bool((scene.places.sort(dim=1).values == torch.arange(9)).all()), "every cell once"
    for i in range(200):
        objects = [
            (SHAPES[int(scene.shapes[i, slot])], int(scene.colours[i, slot]), int(scene.places[i, slot]) % rules.GRID)
            for slot in range(rules.SLOTS)
            if scene.present[i, slot]
        ]
        assert slow_class(rule, objects) == int(scene.classes[i])


@pytest.mark.parametrize("rule", ["shape_and_colour", "count", "cancel"])
def test_the_class_changes_without_an_object_that_matters(rule: Any) -> None:
    generator = torch.Generator().manual_seed(4)
    scene = rules._SCENES[rule](rules._Scene.drawn(200, generator), generator)
    for i, slot in scene.matters.nonzero().tolist():
        rest = [
            (SHAPES[int(scene.shapes[i, other])], int(scene.colours[i, other]), 0)
            for other in range(rules.SLOTS)
            if scene.present[i, other] and other != slot
        ]
        red_squares = sum(shape == "square" and colour == rules.RED for shape, colour, _ in rest)
        assert slow_class(rule, rest) != int(scene.classes[i]) or red_squares


def test_objects_do_not_overlap_and_masks_are_painted_objects() -> None:
    generator = torch.Generator().manual_seed(5)
    scene = rules._count(rules._Scene.drawn(50, generator), generator)
    _, objects = rules._painted(scene, generator)
    assert int(objects.sum(dim=1).max()) == 1
    assert bool((objects.flatten(2).sum(dim=2) > 30)[scene.present].all()), "every object is inside the image"
    found = rule_images("shape_and_colour", 60, seed=2)
    assert bool((found.masks.flatten(1).any(dim=1) == (found.classes == 1)).all())
    red = torch.stack([found.images[i][:, found.masks[i]].mean(dim=1) for i in found.classes.nonzero().flatten().tolist()])
    assert bool((red[:, 0] > 0.6).all() and (red[:, 1:] < 0.5).all())


def test_what_cancels_is_against_the_class() -> None:
    found = rule_images("cancel", 60, seed=2)
    both = found.against.flatten(1).any(dim=1)
    assert found.classes[both].unique().tolist() == [0]
    assert bool(found.masks[both].flatten(1).any(dim=1).all())
    assert not bool((found.masks & found.against).any())


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_a_layer_to_explain(architecture: Any) -> None:
    torch.manual_seed(0)
    model = fm.Classifier(ARCHITECTURES[architecture].build(3)).eval()
    images = rule_images("count", 2)
    assert model(images.images).shape == (2, 3)
    explanation = fm.HiResCAM(model, score="logit")(images.images, 0)
    assert explanation.resolution in {(6, 6), (8, 8)}


def test_a_recipe_gives_the_same_network_and_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    first, second = (train_on_rule("cancel", "cnn", steps=2, least_accuracy=0.0) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not first.model.training
    assert first.accuracy == second.accuracy


def test_a_network_that_did_not_learn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cnn did not learn count in 1 steps: its accuracy is \d") as error:
        train_on_rule("count", "cnn", steps=1)
    assert "\n" not in str(error.value)


class RedSquare(nn.Module):
    """Looks at the red of an image alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        red = (x[:, 0] - x[:, 1:].amax(dim=1)).clamp(min=0.3).sum(dim=(1, 2))
        return torch.stack([-red, red], dim=1) / 100


def test_scores_of_known_maps() -> None:
    found = rule_images("left_of", 4, seed=1)
    right = rule_score(found.masks.float(), found.masks)
    assert torch.equal(torch.stack(right), torch.ones(3, 4))
    constant = rule_score(torch.ones(4, 48, 48), found.masks)
    assert torch.allclose(torch.stack(constant), found.masks.float().mean(dim=(1, 2)).expand(3, 4))
    metric = KnownRuleScore(part="top")
    metric.update(found.masks.float(), found.masks)
    assert float(metric.compute()) == 1


def test_the_gradient_of_a_model_that_looks_at_red_is_on_red_objects() -> None:
    images = torch.zeros(1, 3, 48, 48)
    images[:, 0, 10:20, 10:20] = 1
    explanation = fm.Gradient(RedSquare(), score="logit")(images, 1)
    assert torch.equal(torch.stack(rule_score(explanation, images[:, 0] > 0)), torch.ones(3, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rule_images("right_of", 1), "rule is 'right_of'"),  # type: ignore[arg-type]
        (lambda: rule_images("count", 0), "count is 0"),
        (lambda: train_on_rule("count", "vgg"), "architecture is 'vgg'"),  # type: ignore[arg-type]
        (lambda: rule_score(torch.ones(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)), "no object matters"),
        (lambda: KnownRuleScore(part="all"), "part is 'all'"),  # type: ignore[arg-type]
    ],
)
def test_invalid_input_is_refused_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
