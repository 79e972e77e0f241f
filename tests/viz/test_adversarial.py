from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor
from viz_tools import drawn, legend, points

from faithmap.explanation import Explanation
from faithmap.metrics.functional import PROTOCOLS, AdversarialCheck, Attack, Curve
from faithmap.viz import adversarial_panel, insertion_curves, overlay, placed
from faithmap.viz.adversarial import magnified
from faithmap.viz.figure import to_bytes

AT = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
LABELS = ("ruby", "emerald", "sapphire")


@pytest.fixture
def check(image: Tensor, explanation: Explanation) -> AdversarialCheck:
    """From emerald at 0.8 to sapphire at 0.6; a quarter of the cells is needed, and all."""
    changed = (image + 0.05 * torch.where(image > 0.5, -1.0, 1.0)).clamp(0, 1)
    attack = Attack(changed, torch.tensor([[0.1, 0.8, 0.1]]), torch.tensor([[0.3, 0.1, 0.6]]), torch.tensor([1]), False)
    other = Explanation(explanation.heatmap.flip(1), (40, 60), target=torch.tensor([2]), method="Oracle")
    curves = (Curve(AT, torch.tensor([[0.0, 0.5, 0.7, 0.7, 0.8]])), Curve(AT, torch.tensor([[0.1, 0.1, 0.2, 0.2, 0.6]])))
    return AdversarialCheck(attack, explanation, other, *curves, PROTOCOLS["igos"], (10, 10), 0.5)


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_six_pictures(image: Tensor, check: AdversarialCheck) -> None:
    figure = adversarial_panel(image, check, labels=LABELS)
    pictures = [drawn(ax) for ax in figure.axes[:5]]
    assert np.array_equal(pictures[0], to_bytes(image))
    assert np.array_equal(pictures[1], to_bytes(check.attack.images))
    assert np.array_equal(pictures[3], to_bytes(overlay(image, placed(check.clean, image))))
    assert np.array_equal(pictures[4], to_bytes(overlay(check.attack.images, placed(check.adversarial, image))))
    assert figure.axes[0].get_xlabel() == "emerald, probability 0.800"
    assert figure.axes[1].get_xlabel() == "sapphire, probability 0.600"
    assert figure.axes[2].get_xlabel() == "magnified 10 times, grey is no change"
    assert f"for sapphire; rank correlation to the other {float(check.correlation):.2f}" == figure.axes[4].get_xlabel()
    text = words(figure)
    assert "emerald, probability 0.800 \N{RIGHTWARDS ARROW} sapphire, probability 0.600" in text
    assert "no pixel changed by more than 0.05 of 1" in text


def test_the_caption_states_the_magnification_of_the_difference() -> None:
    clean = torch.full((1, 3, 1, 2), 0.5)
    changed = clean.clone()
    changed[..., 0] += 0.03
    changed[..., 1] -= 0.01
    picture, said = magnified(clean, changed)
    assert said.startswith("magnified 16 times")
    assert torch.allclose(picture[0, 0, 0], torch.tensor([0.5 + 16 * 0.03, 0.5 - 16 * 0.01]), atol=1e-6)
    whole, said = magnified(torch.zeros(1, 3, 1, 1), torch.full((1, 3, 1, 1), 0.8))
    assert said.startswith("magnified 0.625 times")
    assert whole.max() == 1
    assert magnified(clean, clean)[1] == "no pixel was changed"


def test_curves_and_the_fractions_needed(check: AdversarialCheck) -> None:
    ax = insertion_curves(check)
    lines = {line.get_label(): points(line) for line in ax.get_lines()}
    assert lines["clean: 25 % of the cells"][:, 1] == pytest.approx([0.0, 0.5, 0.7, 0.7, 0.8])
    assert lines["adversarial: 100 % of the cells"][:, 1] == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.6])
    circles = [points(line)[0].tolist() for line in ax.get_lines() if line.get_marker() == "o"]
    assert circles == [pytest.approx([0.25, 0.5]), pytest.approx([1.0, 0.6])]
    assert legend(ax).get_title().get_text() == "needed for 50 % of the full image's probability"


def test_all_text_is_inside_the_figure(image: Tensor, check: AdversarialCheck) -> None:
    square = image[..., :40]
    clean, adversarial = (replace(explanation, image_size=(40, 40)) for explanation in (check.clean, check.adversarial))
    attack = replace(check.attack, images=check.attack.images[..., :40])
    check = replace(check, attack=attack, clean=clean, adversarial=adversarial)
    figure = adversarial_panel(square, check, labels=("ruby", "a name that is much too long for its place", "sapphire"))
    figure.draw_without_rendering()
    box = legend(figure.axes[5]).get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert box.y0 >= 0
    assert "a name that is much too lo …, probability 0.800" in words(figure)


def test_a_constant_map_and_a_failed_attack_are_stated(image: Tensor, check: AdversarialCheck) -> None:
    flat = replace(check.adversarial, heatmap=torch.ones(1, 10, 10))
    failed = replace(check.attack, adversarial_probabilities=check.attack.clean_probabilities)
    figure = adversarial_panel(image, replace(check, adversarial=flat, attack=failed))
    text = words(figure)
    assert "The attack failed: class 1" in text
    assert "ranks nothing" in "\n".join(t.get_text() for t in figure.axes[4].texts)
    assert "adversarial: the map ranks nothing" in text
    assert math.isnan(float(replace(check, adversarial=flat).adversarial_needed))
    assert sum(line.get_marker() == "o" for line in figure.axes[5].get_lines()) == 1


def test_inputs_that_do_not_fit(image: Tensor, check: AdversarialCheck) -> None:
    with pytest.raises(ValueError, match="give the image that was explained"):
        adversarial_panel(image[..., :30], check)
    two = replace(check, attack=replace(check.attack, images=check.attack.images.expand(2, -1, -1, -1)))
    for call in (lambda: adversarial_panel(image, two), lambda: insertion_curves(two)):
        with pytest.raises(ValueError, match="has 2 images; give that of one"):
            call()
