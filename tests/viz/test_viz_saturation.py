import pytest
import torch

from faithmap.methods.cams.saturation import Saturation
from faithmap.viz import saturation_curves


def walk(images: int = 1) -> Saturation:
    at = torch.linspace(0, 1, 11)
    return Saturation(
        at, (4 * at.clamp(max=0.5)).expand(images, -1), at.expand(images, -1), (8 * at).expand(images, -1), "layer4"
    )


def test_lines_are_scaled_and_the_legend_tells_by_what():
    ax = saturation_curves(walk())
    score, similarity, norm = ax.lines
    assert score.get_ydata()[-1] == similarity.get_ydata()[-1] == norm.get_ydata()[-1] == 1
    assert score.get_ydata()[1] == pytest.approx(0.2)
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == ["saturated, 50 % of the path", "score, up to 2", "similarity", "gradient norm, up to 8"]
    assert ax.get_title() == "Saturation at layer4"


def test_one_image_at_a_time():
    with pytest.raises(ValueError, match="holds 2 images"):
        saturation_curves(walk(2))
