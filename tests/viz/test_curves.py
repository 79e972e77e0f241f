from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from viz_tools import legend, points, ydata

from faithmap.methods.cams.saturation import Saturation
from faithmap.metrics.functional import PROTOCOLS, Curve, DeletionInsertion
from faithmap.viz import curves, saturation_curves

FRACTIONS = torch.tensor([0.0, 0.5, 1.0])


def evidence_of(deletion: list[list[float]], insertion: list[list[float]]) -> DeletionInsertion:
    deleted, inserted = (Curve(FRACTIONS, torch.tensor(scores)) for scores in (deletion, insertion))
    return DeletionInsertion(deleted, inserted, PROTOCOLS["igos"], (10, 10))


EVIDENCE = evidence_of([[0.9, 0.1, 0.0]], [[0.0, 0.8, 0.9]])
RANDOM = evidence_of([[0.9, 0.6, 0.0]], [[0.0, 0.4, 0.9]])


def lines(ax: Axes) -> dict[str, NDArray[np.float64]]:
    return {str(line.get_label()): points(line) for line in ax.get_lines()}


def test_lines_are_the_curves_and_the_legend_has_their_areas() -> None:
    ax = curves(EVIDENCE)
    assert [text.get_text() for text in legend(ax).get_texts()] == ["insertion  0.625", "deletion  0.275"]
    drawn = lines(ax)
    for label, curve in (("insertion  0.625", EVIDENCE.insertion), ("deletion  0.275", EVIDENCE.deletion)):
        np.testing.assert_array_equal(drawn[label][:, 0], FRACTIONS.double())
        np.testing.assert_array_equal(drawn[label][:, 1], curve.scores[0].double())
    assert len(drawn) == 2


def test_random_map_is_drawn_thin_grey_and_behind() -> None:
    ax = curves(EVIDENCE, RANDOM)
    assert set(lines(ax)) == {"insertion  0.625", "deletion  0.275", "random insertion  0.425", "random deletion  0.525"}
    own, random = ([x for x in ax.get_lines() if str(x.get_label()).startswith("random") is which] for which in (False, True))
    assert max(line.get_linewidth() for line in random) < min(line.get_linewidth() for line in own)
    assert max(line.get_zorder() for line in random) < min(line.get_zorder() for line in own)
    assert {line.get_color() for line in random}.isdisjoint({line.get_color() for line in own})


def test_several_images_are_drawn_as_their_mean() -> None:
    both = evidence_of([[0.9, 0.1, 0.0], [0.7, 0.3, 0.0]], [[0.0, 0.8, 0.9], [0.0, 0.6, 0.7]])
    drawn = lines(curves(both))
    np.testing.assert_allclose(drawn["deletion  0.300"][:, 1], [0.8, 0.2, 0.0], atol=1e-7)
    np.testing.assert_allclose(drawn["insertion  0.550"][:, 1], [0.0, 0.7, 0.8], atol=1e-7)


def test_axes_cover_all_probabilities_or_the_range_of_another_score() -> None:
    assert curves(EVIDENCE).get_ylim() == pytest.approx((-0.02, 1.02))
    low, high = curves(evidence_of([[7.0, 2.0, -3.0]], [[-3.0, 5.0, 7.0]]), score="logit").get_ylim()
    assert low < -3
    assert high > 7


def test_constant_score_has_axes_too() -> None:
    low, high = curves(evidence_of([[2.0, 2.0, 2.0]], [[2.0, 2.0, 2.0]])).get_ylim()
    assert low < 2 < high


def test_words_on_the_axes() -> None:
    ax = curves(EVIDENCE, score="evidence")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("cells deleted or inserted", "evidence")


def test_given_axes_are_used() -> None:
    first = curves(EVIDENCE)
    assert curves(RANDOM, ax=first) is first


@pytest.mark.parametrize("other", [replace(RANDOM, resolution=(7, 7)), replace(RANDOM, protocol=PROTOCOLS["rise"])])
def test_reference_of_another_protocol_or_resolution_is_refused(other: DeletionInsertion) -> None:
    with pytest.raises(ValueError, match=r"igos at 10 x 10, the reference as .*; use one protocol and resolution"):
        curves(EVIDENCE, other)


def saturation(images: int = 1) -> Saturation:
    at = torch.linspace(0, 1, 11)
    return Saturation(
        at, (4 * at.clamp(max=0.5)).expand(images, -1), at.expand(images, -1), (8 * at).expand(images, -1), "layer4"
    )


def test_saturation_lines_are_divided_by_the_maximum_in_the_legend() -> None:
    ax = saturation_curves(saturation())
    score, similarity, norm = ax.lines
    assert ydata(score)[-1] == ydata(similarity)[-1] == ydata(norm)[-1] == 1
    assert ydata(score)[1] == pytest.approx(0.2)
    words = [text.get_text() for text in legend(ax).get_texts()]
    assert words == ["saturated, 50 % of the path", "score, up to 2", "similarity", "gradient norm, up to 8"]
    assert ax.get_title() == "Saturation at layer4"


def test_saturation_of_several_images_is_refused() -> None:
    with pytest.raises(ValueError, match="has 2 images"):
        saturation_curves(saturation(2))
