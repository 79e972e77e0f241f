"""The embedded model on a photograph: figures that were wrong without a word for one way to store or call the same model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracles import given
from torch import Tensor, nn

import faithmap as fm
from faithmap.metrics.functional import deletion_insertion, infidelity

pytestmark = [pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"), pytest.mark.usefixtures("one_thread")]

TIGER_CAT = 282


@pytest.fixture(scope="module")
def lite0() -> fm.Classifier:
    return fm.load("efficientnet_lite0").eval()


@pytest.fixture(scope="module")
def photo(lite0: fm.Classifier) -> Tensor:
    return lite0.read(fm.sample_photo())


class NormalisingInPlace(nn.Module):
    """The model without the Classifier's copy of the image."""

    def __init__(self, model: fm.Classifier) -> None:
        super().__init__()
        self.net, self.mean, self.std = model.module, model.mean, model.std

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.sub_(self.mean).div_(self.std))
        return logits


def correlation(first: fm.Explanation, second: fm.Explanation) -> float:
    return float(torch.corrcoef(torch.stack([first.heatmap.flatten(), second.heatmap.flatten()]))[0, 1])


def test_smoothgrad_draws_the_same_noise_for_rows_of_pixels_and_for_planes_of_colours(
    lite0: fm.Classifier, photo: Tensor
) -> None:
    """The correlation was 0.417."""
    explain = fm.SmoothGrad(lite0, samples=4)
    rows_of_pixels = photo.contiguous(memory_format=torch.channels_last)
    assert correlation(explain(photo), explain(rows_of_pixels)) > 0.9999


@pytest.mark.parametrize("method", [fm.GradCAM, fm.EigenCAM])
def test_a_model_that_normalises_in_place_is_explained_for_the_class_that_it_predicts(
    method: type[fm.Explainer], lite0: fm.Classifier, photo: Tensor
) -> None:
    """The class was 904, and the pixels changed by up to 7."""
    image = photo.clone()
    explanation = method(NormalisingInPlace(lite0))(image)
    assert given(explanation.target).tolist() == [TIGER_CAT]
    assert torch.equal(image, photo)
    assert correlation(explanation, method(lite0)(photo)) > 0.9999


def test_probabilities_are_explained_and_removed_as_they_are(lite0: fm.Classifier, photo: Tensor) -> None:
    """The probability was 0.0015 after a second softmax, and the areas a thousandth."""
    model = nn.Sequential(lite0, nn.Softmax(dim=1))
    explanation = fm.GradCAM(model)(photo)
    assert float(given(explanation.score)) == pytest.approx(0.387, abs=1e-3)
    found, expected = (
        deletion_insertion(m, photo, explanation, TIGER_CAT, steps=7, protocol="igos_resampled") for m in (model, lite0)
    )
    assert torch.allclose(found.deletion.area, expected.deletion.area, atol=1e-4)
    assert torch.allclose(found.insertion.area, expected.insertion.area, atol=1e-4)
    assert float(found.deletion.area) == pytest.approx(0.156, abs=2e-3)


def test_an_8_bit_picture_of_a_map_has_the_figures_of_its_values(lite0: fm.Classifier, photo: Tensor) -> None:
    """Whole weights of the resampling gave another order of the pixels."""
    explanation = fm.GradCAM(lite0)(photo)
    picture = (255 * explanation.heatmap / explanation.heatmap.max()).round()
    figures = []
    for dtype in (torch.uint8, torch.float32):
        heatmap = replace(explanation, heatmap=picture.to(dtype))
        curves = deletion_insertion(lite0, photo, heatmap, TIGER_CAT, steps=7, protocol="igos_resampled")
        difference = curves.insertion.area - curves.deletion.area
        figures.append(torch.cat([difference, infidelity(lite0, photo, heatmap, TIGER_CAT, draws=8).value]))
    assert torch.equal(figures[0], figures[1])
    assert float(figures[0][0]) == pytest.approx(0.128, abs=2e-3)
