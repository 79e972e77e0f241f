from dataclasses import replace

import numpy as np
import pytest
import torch

from faithmap.metrics.functional import PROTOCOLS, Curve, DeletionInsertion
from faithmap.viz import curves

FRACTIONS = torch.tensor([0.0, 0.5, 1.0])


def played(deletion: list[list[float]], insertion: list[list[float]]) -> DeletionInsertion:
    games = (Curve(FRACTIONS, torch.tensor(scores)) for scores in (deletion, insertion))
    return DeletionInsertion(*games, PROTOCOLS["igos"], (10, 10))


PROOF = played([[0.9, 0.1, 0.0]], [[0.0, 0.8, 0.9]])
RANDOM = played([[0.9, 0.6, 0.0]], [[0.0, 0.4, 0.9]])


def lines(ax) -> dict[str, np.ndarray]:
    return {line.get_label(): np.asarray(line.get_xydata()) for line in ax.get_lines()}


def test_lines_are_the_curves_and_the_legend_has_their_areas():
    ax = curves(PROOF)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["insertion  0.625", "deletion  0.275"]
    drawn = lines(ax)
    for label, game in (("insertion  0.625", PROOF.insertion), ("deletion  0.275", PROOF.deletion)):
        np.testing.assert_array_equal(drawn[label][:, 0], FRACTIONS.double())
        np.testing.assert_array_equal(drawn[label][:, 1], game.scores[0].double())
    assert len(drawn) == 2


def test_random_map_is_drawn_thin_grey_and_behind():
    ax = curves(PROOF, RANDOM)
    assert set(lines(ax)) == {"insertion  0.625", "deletion  0.275", "random insertion  0.425", "random deletion  0.525"}
    own, random = ([x for x in ax.get_lines() if x.get_label().startswith("random") is which] for which in (False, True))
    assert max(line.get_linewidth() for line in random) < min(line.get_linewidth() for line in own)
    assert max(line.get_zorder() for line in random) < min(line.get_zorder() for line in own)
    assert {line.get_color() for line in random}.isdisjoint({line.get_color() for line in own})


def test_several_images_are_drawn_as_their_mean():
    both = played([[0.9, 0.1, 0.0], [0.7, 0.3, 0.0]], [[0.0, 0.8, 0.9], [0.0, 0.6, 0.7]])
    drawn = lines(curves(both))
    np.testing.assert_allclose(drawn["deletion  0.300"][:, 1], [0.8, 0.2, 0.0], atol=1e-7)
    np.testing.assert_allclose(drawn["insertion  0.550"][:, 1], [0.0, 0.7, 0.8], atol=1e-7)


def test_axes_hold_all_probabilities_or_the_range_of_another_score():
    assert curves(PROOF).get_ylim() == pytest.approx((-0.02, 1.02))
    low, high = curves(played([[7.0, 2.0, -3.0]], [[-3.0, 5.0, 7.0]]), score="logit").get_ylim()
    assert low < -3
    assert high > 7


def test_constant_score_has_axes_too():
    low, high = curves(played([[2.0, 2.0, 2.0]], [[2.0, 2.0, 2.0]])).get_ylim()
    assert low < 2 < high


def test_words_on_the_axes():
    ax = curves(PROOF, score="evidence")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("cells deleted or inserted", "evidence")


def test_given_axes_are_used():
    first = curves(PROOF)
    assert curves(RANDOM, ax=first) is first


@pytest.mark.parametrize("other", [replace(RANDOM, resolution=(7, 7)), replace(RANDOM, protocol=PROTOCOLS["rise"])])
def test_reference_of_other_rules_cannot_be_compared(other):
    with pytest.raises(ValueError, match=r"igos at 10 x 10, the reference as .*; play both alike"):
        curves(PROOF, other)
