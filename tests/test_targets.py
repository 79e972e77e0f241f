"""Targets beyond single-label classifiers: their values by hand, and methods and metrics that explain them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import matplotlib as mpl
import pytest
import torch
from oracles import Untouched, given
from torch import Tensor, nn

import faithmap as fm
from faithmap import BinaryTarget, DetectionTarget, MultiLabelTarget, RegressionTarget, SegmentationTarget
from faithmap.methods.cams.saturation import top_features
from faithmap.methods.gradients import Gradient, IntegratedGradients
from faithmap.methods.masks import RISE, IGOSPlus, Mask, Occlusion
from faithmap.metrics import Deletion
from faithmap.metrics.functional import confidence, infidelity, randomisation, road, sensitivity
from faithmap.score import ImageTarget, Score, resolve, target_of
from faithmap.targets.detection import iou
from faithmap.targets.segmentation import PixelScale
from faithmap.viz import strip

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = torch.tensor([0, 1, 1])
PLACES = (slice(2, 8), slice(2, 8)), (slice(14, 20), slice(12, 18))
"""Two patches of the images, which hold the evidence of one region each."""

REGIONS = torch.zeros(2, 24, 20)
REGIONS[0, 4:10, 10:16] = 1
REGIONS[1, 16:22, 2:6] = 1


class Segmenter(nn.Module):
    """Class 1 of a region's pixels is as likely as that region's patch, elsewhere in the image, is bright."""

    def __init__(self, gain: float = 10.0) -> None:
        super().__init__()
        self.eye = nn.Conv2d(3, 3, 1, bias=False)
        self.gain = gain
        with torch.no_grad():
            self.eye.weight.copy_(torch.eye(3).view(3, 3, 1, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        means = self.eye(x).mean(dim=1)
        evidence = torch.stack([means[:, rows, columns].mean(dim=(1, 2)) for rows, columns in PLACES], dim=1)
        z = torch.einsum("ni,ihw->nhw", self.gain * (evidence - 0.5), REGIONS.to(x))
        return {"out": torch.stack([torch.zeros_like(z), z], dim=1), "aux": z}


class Detector(nn.Module):
    """A box around each patch, found as surely as the patch is bright, dropped below 0.05; in torchvision's format."""

    boxes = torch.tensor([[2.0, 2.0, 8.0, 8.0], [12.0, 14.0, 18.0, 20.0]])

    def __init__(self, *, differentiable: bool = True) -> None:
        super().__init__()
        self.eye = nn.Conv2d(3, 3, 1, bias=False)
        self.differentiable = differentiable
        with torch.no_grad():
            self.eye.weight.copy_(torch.eye(3).view(3, 3, 1, 1))

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        means = self.eye(x).mean(dim=1)
        bright = torch.stack([means[:, rows, columns].mean(dim=(1, 2)) for rows, columns in PLACES], dim=1)
        scores = (8 * (bright - 0.5)).sigmoid()
        scores = scores if self.differentiable else scores.detach()
        found = [(row > 0.05).nonzero().flatten().flip(0) for row in scores]
        return [{"boxes": self.boxes[i] + 0.5, "labels": i + 1, "scores": row[i]} for row, i in zip(scores, found, strict=True)]


@pytest.fixture
def pictures() -> Tensor:
    """Grey noise with both patches bright."""
    images = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(3)) * 0.4
    for rows, columns in PLACES:
        images[:, :, rows, columns] += 0.5
    return images


def regions(**settings: Any) -> SegmentationTarget:
    return SegmentationTarget(1, REGIONS.bool(), **settings)


def test_scores_of_multi_label_binary_and_regression_outputs() -> None:
    z = torch.tensor([[1.0, 2.0], [3.0, -4.0], [5.0, 6.0]])
    assert torch.equal(MultiLabelTarget(1)({"logits": z}, ROWS), z[:, 1].sigmoid())
    assert MultiLabelTarget([0, 1], score="logit")(z, ROWS).tolist() == [1.0, -4.0, 6.0]
    assert torch.equal(BinaryTarget()(z[:, 0], ROWS), z[:, 0].sigmoid())
    assert BinaryTarget([False, True], score="logit")(z[:, :1], ROWS).tolist() == [-1.0, 3.0, 5.0]
    assert RegressionTarget([1, 0], sign=-1)(z, ROWS).tolist() == [-2.0, -3.0, -5.0]
    assert RegressionTarget()(z[:, 1], ROWS).tolist() == [2.0, -4.0, 6.0]
    assert MultiLabelTarget(0)(z.half(), ROWS).dtype == torch.float32


def test_a_region_is_averaged_or_summed() -> None:
    z = torch.randn(3, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 6, 8)
    mask[0, :2, :3], mask[1, 5, 7] = 1, 0.5
    chosen = [(0, slice(0, 2), slice(0, 3)), (1, slice(5, 6), slice(7, 8)), (2, slice(5, 6), slice(7, 8))]
    scales: dict[PixelScale, Tensor] = {"probability": z.softmax(dim=1), "sigmoid": z.sigmoid(), "logit": z}
    for score, values in scales.items():
        means = SegmentationTarget(2, mask, score)({"out": z}, ROWS)
        assert torch.allclose(means, torch.stack([values[i, 2, r, c].mean() for i, r, c in chosen]))
    total = SegmentationTarget([3, 2], mask, "logit", "sum")(z, ROWS)
    assert torch.allclose(total, torch.stack([z[0, 3, :2, :3].sum(), z[1, 2, 5, 7] / 2, z[2, 2, 5, 7] / 2]))
    assert torch.allclose(SegmentationTarget(1, score="logit")(z, ROWS), z[:, 1].mean(dim=(1, 2)))
    assert torch.allclose(SegmentationTarget(0)(z[:, :1], ROWS), z[:, 0].sigmoid().mean(dim=(1, 2)))
    one = SegmentationTarget(1, mask[0], score="logit")
    assert one.count is None
    assert torch.allclose(one(z, ROWS), z[:, 1, :2, :3].mean(dim=(1, 2)))


def test_a_region_at_another_resolution_weighs_its_share_of_a_pixel() -> None:
    z = torch.arange(4.0).view(1, 1, 2, 2)
    mask = torch.zeros(4, 4)
    mask[0, 0], mask[2:, 2:] = 1, 1
    assert float(SegmentationTarget(0, mask, "logit")(z, ROWS[:1])) == pytest.approx((0.25 * 0 + 1 * 3) / 1.25)


def test_the_predicted_region_is_the_clean_images(pictures: Tensor, untouched: Untouched) -> None:
    model = untouched(Segmenter().train())
    target = SegmentationTarget.predicted(model, pictures, 1, chunk_size=1)
    assert torch.equal(given(target.region), REGIONS.sum(dim=0).bool().expand(2, -1, -1))
    assert target.count == 2
    dark = pictures.clone()
    dark[1] = 0
    with pytest.raises(ValueError, match="image 1: the model predicts the class at no pixel"):
        SegmentationTarget.predicted(model, dark, 1)


def test_the_overlap_of_boxes_is_intersection_over_union() -> None:
    box = torch.tensor([0.0, 0.0, 4.0, 2.0])
    assert iou(torch.tensor([[2.0, 0.0, 6.0, 2.0], [0.0, 0.0, 4.0, 2.0], [4.0, 0.0, 5.0, 1.0]]), box).tolist() == [
        pytest.approx(4 / 12),
        1.0,
        0.0,
    ]


FOUND = {
    "boxes": torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0], [9.0, 9.0, 10.0, 10.0], [0.0, 0.0, 4.0, 4.0]]),
    "labels": torch.tensor([1, 1, 1, 2]),
    "scores": torch.tensor([0.9, 0.3, 0.99, 0.7]),
}
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "scores": torch.zeros(0)}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"box": (0, 0, 4, 2), "label": 1}, 0.5 * 0.9),
        ({"box": (0, 0, 4, 2), "label": 1, "overlap": "best"}, 0.3),
        ({"box": (0, 0, 4, 4), "label": 2}, 0.7),
        ({"box": (0, 0, 4, 4)}, 0.9),
        ({"box": (0, 0, 4, 2), "label": 2, "minimum": 0.6}, 0.0),
        ({"box": (20, 20, 30, 30), "overlap": "best"}, 0.0),
    ],
)
def test_the_score_of_a_box_is_that_of_the_best_detection(settings: dict[str, Any], expected: float) -> None:
    answers = DetectionTarget(**settings)([FOUND, NOTHING], torch.tensor([0, 0]))
    assert answers.tolist() == pytest.approx([expected, 0.0])


def test_each_image_has_its_own_box(pictures: Tensor) -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0], [9.0, 9.0, 10.0, 10.0]])
    target = DetectionTarget(boxes, [1, 1])
    assert target([FOUND] * 3, ROWS).tolist() == pytest.approx([0.45, 0.99, 0.99])
    predicted = DetectionTarget.predicted(Detector(), pictures, rank=1)
    scores = [one["scores"].sort().values[0] for one in Detector()(pictures)]
    assert torch.allclose(predicted(Detector()(pictures), torch.arange(2)), torch.stack(scores))
    with pytest.raises(ValueError, match="image 0: the model detects 2 objects; there is none of rank 2"):
        DetectionTarget.predicted(Detector(), pictures, rank=2)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (MultiLabelTarget, {"label": -1}, "label is -1; give a number of at least 0"),
        (MultiLabelTarget, {"label": [0.5]}, "label is .0.5.; give a number"),
        (MultiLabelTarget, {"label": 0, "score": "odds"}, "score is 'odds'; give one of probability, logit"),
        (BinaryTarget, {"positive": 1}, "positive is 1; give True or False"),
        (RegressionTarget, {"output": 0, "sign": 2}, "sign is 2; give 1, or -1"),
        (SegmentationTarget, {"label": 0, "region": torch.zeros(3, 3)}, "a region holds no pixel"),
        (SegmentationTarget, {"label": 0, "region": torch.ones(3)}, "region has shape .3,."),
        (SegmentationTarget, {"label": [0, 1], "region": torch.ones(3, 2, 2)}, "label is given for 2 images, region for 3"),
        (DetectionTarget, {"box": (4, 0, 0, 4)}, "with x1 < x2"),
        (DetectionTarget, {"box": (0, 0, 4, 4), "minimum": 1.0}, "minimum is 1.0"),
        (
            DetectionTarget,
            {"box": torch.tensor([[0, 0, 4, 4]] * 2), "label": [1, 2, 3]},
            "label is given for 3 images, box for 2",
        ),
    ],
)
def test_settings_outside_their_range_are_refused(kind: type[ImageTarget], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)


@pytest.mark.parametrize(
    ("target", "output", "rows", "message"),
    [
        (MultiLabelTarget(2), torch.zeros(1, 2), ROWS[:1], "label is 2, but the model returns 0 to 1"),
        (BinaryTarget(), torch.zeros(1, 2), ROWS[:1], "2 numbers per image, not a single logit"),
        (DetectionTarget((0, 0, 4, 4)), [FOUND], ROWS, "detections of 1 images for 3"),
    ],
)
def test_an_output_without_the_label_or_the_image_is_refused(
    target: ImageTarget, output: Any, rows: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        target(output, rows)


@pytest.mark.parametrize("target", [SegmentationTarget(0), DetectionTarget((0, 0, 4, 4)), RegressionTarget()])
def test_an_output_of_another_type_is_refused(target: ImageTarget) -> None:
    with pytest.raises(TypeError, match="the model returned"):
        target(torch.zeros(3, 2, 2), ROWS)


def test_a_target_can_be_restricted_to_some_images() -> None:
    target = MultiLabelTarget([0, 1, 2], score="logit")
    some = target.of(torch.tensor([2, 0])).of(torch.tensor([1, 1, 0]))
    z = torch.tensor([[1.0, 2.0, 3.0]] * 3)
    assert some.count == 3
    assert some(z, torch.arange(3)).tolist() == [1.0, 1.0, 3.0]
    assert Score("logit", function=target).of(torch.tensor([2]))(z, torch.zeros(3, dtype=torch.long)).tolist() == [3.0] * 3
    second = target_of(torch.tensor([4, 5]), torch.tensor([1]))
    assert isinstance(second, Tensor)
    assert second.tolist() == [5]
    assert target_of(3, torch.tensor([1])) == 3
    with pytest.raises(ValueError, match="MultiLabelTarget is made for 3 images, not 2"):
        resolve(target, None, "logit", 2)


def test_a_single_logit_has_no_probability_among_classes(pictures: Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"softmax is 1 whatever the image; explain target=BinaryTarget\(\)"):
        RISE(model, masks=2)(pictures)
    assert torch.allclose(given(RISE(model, masks=2)(pictures, BinaryTarget()).score), model(pictures)[:, 0].sigmoid())


def test_a_target_gets_the_whole_output_of_a_classifier(pictures: Tensor) -> None:
    """Pixels in, normalised inside, as for classes."""
    plain, whole = (fm.Classifier(Segmenter(), mean=[0.5] * 3, std=[0.5] * 3, whole_output=w) for w in (False, True))
    score = given(RISE(whole, masks=2)(pictures, regions()).score)
    assert torch.allclose(score, regions()(Segmenter()((pictures - 0.5) / 0.5), torch.arange(2)))
    with pytest.raises(TypeError, match="whole_output=True"):
        RISE(plain, masks=2)(pictures, regions())


QUICK: dict[str, Any] = {"resolution": 6, "iterations": 3, "baseline": "black"}
METHODS: dict[str, Callable[[nn.Module], fm.Explainer]] = {
    "rise": lambda model: RISE(model, masks=300, cells=5, chunk_size=7),
    "occlusion": lambda model: Occlusion(model, patch=4, stride=2, baseline="black", chunk_size=7),
    "igos": lambda model: fm.IGOS(model, path_points=4, chunk_size=3, **QUICK),
    "igos_plus": lambda model: IGOSPlus(model, path_points=4, chunk_size=3, **QUICK),
    "mask": lambda model: Mask(model, chunk_size=3, **{**QUICK, "iterations": 8}),
    "gradient": lambda model: Gradient(model, chunk_size=1),
    "integrated gradients": lambda model: IntegratedGradients(model, samples=5, baseline=0.0, chunk_size=3),
    "gradcam": lambda model: fm.GradCAM(model, target_layer="eye", chunk_size=1),
    "hirescam": lambda model: fm.HiResCAM(model, target_layer="eye", chunk_size=1),
    "integrated_gradcam": lambda model: fm.IntegratedGradCAM(model, target_layer="eye", chunk_size=3),
    "scorecam": lambda model: fm.ScoreCAM(model, target_layer="eye", chunk_size=2),
    "ablationcam": lambda model: fm.AblationCAM(model, target_layer="eye", chunk_size=2),
}
ScoreFunction: TypeAlias = Callable[[Any], Tensor]
BY_HAND: dict[str, tuple[Callable[[], nn.Module], ImageTarget, Callable[[int], ScoreFunction]]] = {
    "segmenter": (Segmenter, regions(), lambda i: lambda out: out["out"].softmax(1)[:, 1][:, REGIONS[i] > 0].mean(dim=1)),
    "detector": (
        Detector,
        DetectionTarget(Detector.boxes + 0.5, [1, 2]),
        lambda i: lambda out: torch.stack([(one["scores"] * (one["labels"] == i + 1)).sum() for one in out]),
    ),
}


@pytest.mark.parametrize("kind", BY_HAND)
@pytest.mark.parametrize("name", METHODS)
def test_each_image_is_explained_for_its_own_target(name: str, kind: str, pictures: Tensor, untouched: Untouched) -> None:
    """Together, in odd chunks, with a target that knows its images; alone, with a plain function written by hand."""
    make, target, by_hand = BY_HAND[kind]
    explain = METHODS[name](untouched(make()))
    together = explain(pictures, target)
    for i in (0, 1):
        alone = explain(pictures[i : i + 1], by_hand(i), generator=fm.image_generators(0, [i]))
        assert alone.heatmap.std() > 0
        assert torch.allclose(together.heatmap[i], alone.heatmap[0], atol=1e-5)
        assert torch.allclose(given(together.score)[i], given(alone.score)[0])


@pytest.mark.parametrize("kind", BY_HAND)
@pytest.mark.parametrize("name", sorted(set(METHODS) - {"gradcam", "integrated_gradcam", "scorecam", "ablationcam"}))
def test_the_map_of_each_image_is_high_at_its_own_evidence(name: str, kind: str, pictures: Tensor) -> None:
    """Those that are left out weigh whole channels: at pixels they show the image."""
    make, target, _ = BY_HAND[kind]
    explain = METHODS[name](make())
    explanation = explain(pictures, target)
    heatmap = explanation.at()
    curves = fm.deletion_insertion(explain.model, pictures, explanation.at((12, 10)), target, baseline="black")
    for i, place in enumerate(PLACES):
        inside, other = heatmap[i][place].mean(), heatmap[i][PLACES[1 - i]].mean()
        assert inside > 1.3 * other
        assert inside > 1.1 * heatmap[i].mean()
    assert (curves.difference > 0.2).all()


@pytest.mark.parametrize("name", ["igos", "igos_plus", "mask", "gradient", "integrated gradients", "gradcam"])
def test_a_score_without_a_gradient_is_refused_by_gradient_methods(name: str, pictures: Tensor, untouched: Untouched) -> None:
    model = untouched(Detector(differentiable=False))
    with pytest.raises(ValueError, match=r"the score has no gradient to the model.* RISE, Occlusion"):
        METHODS[name](model)(pictures, DetectionTarget.predicted(model, pictures))


@pytest.mark.parametrize("name", ["rise", "occlusion", "scorecam", "ablationcam"])
def test_methods_without_gradients_explain_a_score_without_a_gradient(name: str, pictures: Tensor) -> None:
    blind, seeing = Detector(differentiable=False), Detector()
    target = DetectionTarget.predicted(blind, pictures)
    assert torch.equal(METHODS[name](blind)(pictures, target).heatmap, METHODS[name](seeing)(pictures, target).heatmap)


def affine(scale: float, level: float) -> Callable[[dict[str, Tensor]], Tensor]:
    return lambda out: scale * out["out"][:, 1][:, REGIONS[0] > 0].mean(dim=1) + level


@pytest.mark.parametrize("name", ["igos", "igos_plus", "mask"])
@pytest.mark.parametrize(("scale", "level"), [(300.0, 0.0), (1e-3, -2.0), (1.0, 50.0)])
def test_a_mask_does_not_depend_on_the_unit_of_a_score(name: str, scale: float, level: float, pictures: Tensor) -> None:
    """Degrees, metres or logits below 0: the regulariser weighs the same beside each."""
    explain = METHODS[name](Segmenter().double())
    usual, other = (explain(pictures.double(), affine(*numbers)) for numbers in ((1.0, 0.0), (scale, level)))
    assert usual.heatmap.std() > 0.05
    assert torch.allclose(other.heatmap, usual.heatmap, atol=1e-4)
    falls = [d["score_fall"] for d in usual.diagnostics], [d["score_fall"] for d in other.diagnostics]
    assert falls[1] == pytest.approx([abs(scale) * fall for fall in falls[0]], rel=1e-6)


def test_rise_does_not_depend_on_the_level_of_a_score(pictures: Tensor) -> None:
    """A level is put back whole, with none of the noise that the random coverage of the pixels would make of it."""
    explain = RISE(Segmenter(), masks=200, cells=5, chunk_size=9)
    near, far = explain(pictures, affine(1.0, 0.0)), explain(pictures, affine(1.0, -1000.0))
    assert torch.allclose(far.heatmap + 1000, near.heatmap, atol=1e-3)
    errors = [[d["standard_error"] for d in explanation.diagnostics] for explanation in (near, far)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)


def test_rise_of_a_callable_is_the_centred_estimator(pictures: Tensor) -> None:
    explain = RISE(Segmenter(), masks=60, cells=4, probability=0.4, chunk_size=11)
    explanation = explain(pictures[:1], affine(2.0, 3.0))
    (generator,) = fm.image_generators(0, [0])
    masks = explain.draw(60, (24, 20), generator)
    with torch.no_grad():
        scores = affine(2.0, 3.0)(Segmenter()(pictures[0] * masks.unsqueeze(1)))
    terms = (scores - scores.mean()).view(-1, 1, 1) * masks / 0.4
    assert torch.allclose(explanation.heatmap[0], scores.mean() + terms.mean(dim=0), atol=1e-5)
    assert explanation.diagnostics[0]["standard_error"] == pytest.approx(float((terms.std(dim=0) / 60**0.5).mean()), rel=1e-4)


def test_a_baseline_that_does_not_lower_the_score_is_warned_about(pictures: Tensor) -> None:
    explain = METHODS["igos"](Segmenter())
    with pytest.warns(fm.BaselineWarning, match="no less than the image's"), pytest.warns(fm.EmptyHeatmapWarning):
        explanation = explain(pictures, regions(score="logit"), baseline="white")
    assert explanation.heatmap.isfinite().all()


def test_metrics_evaluate_the_explained_target(pictures: Tensor) -> None:
    """The callable stays with the map, and with each image's part of it."""
    model, target = Segmenter(), regions(score="logit")
    explanation = RISE(model, masks=50)(pictures, target)
    by_hand = [affine(1.0, 0.0), lambda out: out["out"][:, 1][:, REGIONS[1] > 0].mean(dim=1)]
    for i, one in enumerate(explanation):
        alone = pictures[i : i + 1]
        curves = fm.deletion_insertion(model, alone, one, steps=5)
        again = fm.deletion_insertion(model, alone, one, by_hand[i], steps=5)
        assert torch.allclose(curves.deletion.scores, again.deletion.scores, atol=1e-5)
        assert curves.deletion.scores[0, 0] == pytest.approx(float(given(explanation.score)[i]), rel=1e-5)
    together = fm.deletion_insertion(model, pictures, explanation, steps=5, chunk_size=3)
    assert torch.allclose(together.deletion.scores[1:], curves.deletion.scores, atol=1e-5)
    assert together.deletion.scores.max() > 1, "a logit"
    metric = Deletion(model, steps=5)
    metric.update(pictures, explanation)
    assert torch.allclose(metric.per_image(), together.deletion.area)
    walked = road(model, pictures, explanation, fractions=(0.2, 0.6), chunk_size=3)
    assert torch.allclose(walked.clean, given(explanation.score))
    draws = infidelity(model, pictures, explanation, draws=6, chunk_size=5, perturbation="square")
    assert torch.equal(
        draws.observed, infidelity(model, pictures, explanation, target, draws=6, perturbation="square").observed
    )


def test_a_map_of_a_target_is_as_sensitive_as_its_image_alone(pictures: Tensor) -> None:
    explain = Gradient(Segmenter())
    together = sensitivity(explain, pictures, regions(), draws=3, chunk_size=4, seed=1)
    alone = sensitivity(
        explain, pictures[1:], SegmentationTarget(1, REGIONS[1]), draws=3, generator=fm.image_generators(1, [1])
    )
    assert torch.allclose(together.changes[1], alone.changes[0], atol=1e-6)


def test_randomisation_explains_the_same_target_at_every_stage(pictures: Tensor, untouched: Untouched) -> None:
    checked = randomisation(METHODS["hirescam"](untouched(Segmenter())), pictures, regions())
    assert checked.original.function is not None
    assert (checked.spearman < 0.999).all()


def test_figures_and_top_features_use_the_explained_target(pictures: Tensor) -> None:
    model, explanation = Segmenter(), METHODS["hirescam"](Segmenter())(pictures, regions())
    figure = strip(model, pictures[1:], explanation[1], ratios=(0.5,))
    assert f"explained score {float(given(explanation.score)[1]):.3f}" in figure.texts[0].get_text()
    features = top_features(model, pictures, explanation, count=1)
    curves = fm.deletion_insertion(model, pictures, features, steps=2)
    assert torch.allclose(curves.deletion.scores[:, 0], given(explanation.score))


def test_scores_above_one_are_refused_by_confidence_and_drawn_by_deletion(pictures: Tensor) -> None:
    model, explanation = Segmenter(), RISE(Segmenter(), masks=20)(pictures, regions(score="logit"))
    with pytest.raises(ValueError, match=r"scores range from -5 to 2; give a target in \[0, 1\]"):
        confidence(model, pictures, explanation)
    metric = Deletion(model, steps=5)
    metric.update(pictures, explanation, affine(1.0, 30.0))
    with mpl.rc_context({"backend": "agg"}):
        figure, axes = metric.plot()
    assert axes.get_ylim()[1] >= float(metric.compute()) > 25
    mpl.pyplot.close(figure)


torchvision = pytest.importorskip("torchvision")


def with_statistics(model: nn.Module) -> nn.Module:
    """Random weights, with statistics of images in its batch norms: without them the activations vanish with depth."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.get_submodule("backbone").train()(torch.randn(4, 3, 128, 128))
    return model.eval()


def small_lraspp() -> nn.Module:
    torch.manual_seed(0)
    make = torchvision.models.segmentation.lraspp_mobilenet_v3_large
    return with_statistics(make(weights=None, weights_backbone=None, num_classes=3))


def small_detector() -> nn.Module:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "num_classes": 3,
        "min_size": 64,
        "max_size": 96,
        "box_score_thresh": 0.0,
        "rpn_post_nms_top_n_test": 20,
    }
    make = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn
    model = with_statistics(make(weights=None, weights_backbone=None, **settings))
    nn.init.normal_(model.get_parameter("roi_heads.box_predictor.cls_score.weight"), std=0.05)
    return model


@pytest.mark.filterwarnings("ignore::faithmap.warning_types.TargetLayerWarning")  # random weights hardly show changes
@pytest.mark.parametrize(
    ("make", "layer", "target"),
    [
        (small_lraspp, "backbone.16", lambda model, images: SegmentationTarget(0, torch.ones(2, 8, 8), score="logit")),
        (small_detector, "backbone.fpn.inner_blocks.1", DetectionTarget.predicted),
    ],
    ids=["lraspp", "faster r-cnn"],
)
def test_models_of_torchvision_are_explained_together_and_alone(
    make: Callable[[], nn.Module], layer: str, target: Callable[[nn.Module, Tensor], ImageTarget], untouched: Untouched
) -> None:
    """Together and alone, with and without gradients; both games begin at the image's score."""
    model, images = untouched(make()), torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(2))
    frozen = target(model, images)
    explainers = [
        RISE(model, masks=4, chunk_size=3),
        Gradient(model),
        fm.GradCAM(model, target_layer=layer, relu=False),
        fm.IGOS(model, resolution=4, iterations=1, path_points=2, chunk_size=4, step=5.0, baseline="black"),
    ]
    for explain in explainers:
        explanation = explain(images, frozen)
        assert explanation.heatmap.isfinite().all()
        assert (explanation.heatmap.flatten(1).std(dim=1) > 0).all()
        alone = explain(images[1:], frozen.of(torch.tensor([1])), generator=fm.image_generators(0, [1]))
        pair = [explanation.heatmap[1].flatten(), alone.heatmap.flatten()]  # rounding can swap two of a detector's regions
        assert torch.nn.functional.cosine_similarity(pair[0] / pair[0].norm(), pair[1] / pair[1].norm(), dim=0) > 0.95
    curves = fm.deletion_insertion(model, images, explanation, steps=2)
    assert torch.allclose(curves.deletion.scores[:, 0], given(explanation.score), atol=1e-5)
