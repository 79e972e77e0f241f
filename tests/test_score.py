"""What is explained: targets made concrete, and numbers read off outputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oracles import given

from faithmap.score import ScoreKind, Target, logits_of, resolve

LOGITS = torch.tensor([[1.0, 2.0, 0.0], [3.0, -1.0, 0.5]])


@pytest.mark.parametrize(
    "output",
    [LOGITS, (LOGITS, "aux"), [LOGITS], {"logits": LOGITS}, {"out": LOGITS}, SimpleNamespace(logits=LOGITS)],
    ids=["tensor", "tuple", "list", "dict", "torchvision dict", "hugging face"],
)
def test_logits_are_found(output: object) -> None:
    assert torch.equal(logits_of(output), LOGITS)


@pytest.mark.parametrize("output", ["text", {"loss": LOGITS}, (), torch.zeros(2, 3, 4, 4)])
def test_outputs_without_logits_are_refused(output: object) -> None:
    with pytest.raises(TypeError, match="callable target"):
        logits_of(output)


@pytest.mark.parametrize(
    ("target", "classes"),
    [(None, [1, 0]), (2, [2, 2]), ([0, 1], [0, 1]), (torch.tensor([2, 0]), [2, 0]), (torch.tensor(1), [1, 1])],
)
@pytest.mark.parametrize("kind", ["probability", "logit"])
def test_targets(target: Target, classes: list[int], kind: ScoreKind) -> None:
    score = resolve(target, LOGITS, kind, 2)
    values = LOGITS.softmax(1) if kind == "probability" else LOGITS
    assert given(score.classes).tolist() == classes
    expected = torch.stack([values[i, c] for i, c in enumerate(classes)])
    assert torch.equal(score(LOGITS, torch.arange(2)), expected)


def test_rows_are_scored_for_the_image_they_were_made_from() -> None:
    score = resolve([0, 1], LOGITS, "logit", 2)
    rows = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    assert score(rows, torch.tensor([1, 0, 1])).tolist() == [2.0, 4.0, 8.0]
    assert score.of(torch.tensor([1]))(rows, torch.tensor([0, 0, 0])).tolist() == [2.0, 5.0, 8.0]


def test_a_callable_is_a_score() -> None:
    score = resolve(lambda output: output["depth"].sum(1), None, "probability", 2)
    assert score({"depth": LOGITS}, torch.arange(2)).tolist() == [3.0, 2.5]
    with pytest.raises(ValueError, match="one number per image"):
        resolve(lambda output: output, None, "logit", 2)(LOGITS, torch.arange(2))


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ([1], ValueError, "target has 1 entry for 2 images"),
        ([1, 2, 0], ValueError, "target has 3 entries for 2 images"),
        (3, ValueError, "class 3, but the model has classes 0 to 2"),
        (-1, ValueError, "class -1, but the model has classes 0 to 2"),
        ([0, 3], ValueError, "class 3, but the model has classes 0 to 2"),
        ([-1, 0], ValueError, "class -1, but the model has classes 0 to 2"),
        (0.5, TypeError, "give a class index"),
        ([True, False], TypeError, "give a class index"),
        ([[0, 1]], TypeError, "give a class index"),
    ],
)
def test_wrong_targets_raise(target: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        resolve(target, LOGITS, "logit", 2)


def test_an_unknown_scale_is_refused() -> None:
    wrong: Any = "odds"
    with pytest.raises(ValueError, match="'probability' or 'logit'"):
        resolve(None, LOGITS, wrong, 2)


def test_half_precision_is_scored_in_single() -> None:
    score = resolve(0, LOGITS.half(), "probability", 2)
    assert score(LOGITS.half(), torch.arange(2)).dtype == torch.float32


def test_only_the_probability_of_a_class_is_known_to_be_one() -> None:
    assert resolve(1, LOGITS, "probability", 2).is_class_probability
    assert not resolve(1, LOGITS, "logit", 2).is_class_probability
    assert not resolve(lambda output: output[:, 0], LOGITS, "probability", 2).is_class_probability
