"""I-GOS: the properties that its paper states, its settings, and what a call leaves unchanged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import pytest
import torch
from oracles import Linear, Patch, SmallNet
from torch import Tensor, nn

from faithmap import IGOS, BaselineWarning, Classifier, EmptyHeatmapWarning, LineSearch, LowConfidenceWarning, image_generators
from faithmap.baselines import Blur, compose, upsample
from faithmap.methods.masks.base import Regulariser
from faithmap.methods.masks.igos import IGOSObjective, PathNoise
from faithmap.methods.masks.steps import Evaluate, StepResult
from faithmap.probe import MaskProbe
from faithmap.score import Score, ScoreKind

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.warning_types.FaithmapWarning")

Untouched = Callable[[nn.Module], nn.Module]


class Quadratic(nn.Module):
    """Score x'Ax / 2, whose optimum is the zero image."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return torch.einsum("ni,ij,nj->n", flat, self.matrix, flat).unsqueeze(1) / 2


def integrated_gradient(
    model: nn.Module, image: Tensor, mask: Tensor, points: int, baseline: float = 0.0, kind: ScoreKind = "logit"
) -> Tensor:
    """IG(M) without noise, through the code under test."""
    score = Score(kind, classes=torch.zeros(len(image), dtype=torch.long))
    probe = MaskProbe(model, score, image, torch.full_like(image, baseline))
    return IGOSObjective(probe, Regulariser(0.0, 0.0), points, noise=None).total_gradient(mask, torch.arange(len(image)))


@pytest.mark.parametrize("points", [1, 2, 20])
def test_on_a_quadratic_the_integrated_gradient_is_the_gradient_times_a_constant(points: int) -> None:
    """Proposition 1. The gradient at s/S M is s/S of the gradient at M, and the chain rule brings another s/S."""
    root = torch.randn(16, 16, dtype=torch.float64)
    image, mask = torch.rand(1, 1, 4, 4, dtype=torch.float64), torch.rand(1, 4, 4, dtype=torch.float64)
    model = Quadratic(root @ root.T)
    constant = sum((s / points) ** 2 for s in range(1, points + 1)) / points
    gradient = integrated_gradient(model, image, mask, 1)
    assert torch.allclose(integrated_gradient(model, image, mask, points), constant * gradient, rtol=1e-10, atol=1e-10)


def test_the_path_is_the_papers_sum_written_out(small_net: SmallNet) -> None:
    net, image = small_net.double().eval(), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    mask, points = torch.rand(1, 5, 5, dtype=torch.float64), 7
    expected = torch.zeros_like(mask)
    for s in range(1, points + 1):
        leaf = mask.clone().requires_grad_()
        composed = compose(image, torch.full_like(image, 0.2), upsample(s / points * leaf.unsqueeze(1), (32, 32)))
        expected += torch.autograd.grad(net(composed).softmax(1)[0, 0], leaf)[0] / points
    assert torch.allclose(integrated_gradient(net, image, mask, points, 0.2, "probability"), expected, atol=1e-12)


def test_the_integrated_gradients_of_a_full_mask_sum_to_the_change_of_the_score() -> None:
    """Completeness, the better the more points; the mask has the image's own resolution."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 2)).double()
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        change = (net(image) - net(torch.zeros_like(image)))[0, 0].item()
    gaps = []
    for points in (4, 16, 64):
        positions = torch.arange(1, points + 1, dtype=torch.float64) / points
        probe = MaskProbe(net, Score("logit", classes=torch.zeros(1, dtype=torch.long)), image, torch.zeros_like(image))
        composed = torch.ones(points, 8, 8, dtype=torch.float64) * positions.view(-1, 1, 1)
        slopes = [
            probe.gradients(one[None], torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.float64)) for one in composed
        ]
        gaps.append(abs(torch.cat(slopes).mean(0).sum().item() - change))
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.01 * abs(change)


def test_one_point_and_no_noise_is_the_plain_gradient(small_net: SmallNet) -> None:
    net, image = small_net.double().eval(), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    mask = torch.rand(1, 6, 6, dtype=torch.float64, requires_grad=True)
    score = net(compose(image, torch.zeros_like(image), upsample(mask.unsqueeze(1), (32, 32)))).softmax(1)[0, 0]
    expected = torch.autograd.grad(score, mask)[0]
    assert torch.allclose(integrated_gradient(net, image, mask.detach(), 1, kind="probability"), expected, atol=1e-12)


@pytest.mark.parametrize("lambdas", [(0.0, 0.0), (0.1, 2.0), (1.0, 20.0)])
def test_every_accepted_step_satisfies_equation_8(small_net: SmallNet, images: Tensor, lambdas: tuple[float, float]) -> None:
    class Checked(LineSearch):
        def take(self, evaluate: Evaluate, masks: Tensor, gradient: Tensor, objective: Tensor, index: Tensor) -> StepResult:
            step = super().take(evaluate, masks, gradient, objective, index)
            assert torch.allclose(objective, evaluate(masks, index), atol=1e-5), "F(M) of the last step is F(M) of this one"
            moved = (masks - step.size.view(-1, 1, 1) * gradient).clamp(0, 1)
            assert torch.equal(step.masks, torch.where(step.accepted.view(-1, 1, 1), moved, masks))
            decrease = step.size * self.beta * gradient.square().sum(dim=(1, 2))
            assert (step.objective <= objective - decrease)[step.accepted].all()
            taken.append(step)
            return step

    taken: list[StepResult] = []
    lambda1, lambda2 = lambdas
    explanation = IGOS(small_net, resolution=8, iterations=6, lambda1=lambda1, lambda2=lambda2, step=Checked(), average=False)(
        images
    )
    assert taken
    for image, report in enumerate(explanation.diagnostics):
        assert all(later <= earlier for earlier, later in itertools.pairwise(report["objective"]))
        parts = report["score"][-1] + lambda1 * report["size"][-1] + lambda2 * report["total_variation"][-1]
        assert report["objective"][-1] == pytest.approx(parts, abs=1e-5)
        assert report["size"][-1] == pytest.approx(explanation.heatmap[image].mean().item(), abs=1e-6)


def test_the_average_is_the_mean_over_all_iterations(small_net: SmallNet, images: Tensor) -> None:
    """A run of k iterations ends in mask k of a longer one; an image that has converged keeps its mask."""
    settings: dict[str, Any] = {"resolution": 6, "lambda1": 0.05, "lambda2": 0.5, "path_points": 3, "patience": 1}
    lasts = [IGOS(small_net, **settings, iterations=k, average=False)(images).heatmap for k in range(1, 7)]
    mean = IGOS(small_net, **settings, iterations=6)(images).heatmap
    assert torch.allclose(mean, torch.stack(lasts).mean(dim=0), atol=1e-5)


def test_a_converged_image_keeps_its_mask_in_the_average() -> None:
    """Removing all of it costs nothing: the first step does, no other is accepted, and the mean is that mask."""
    model = Linear(torch.full((1, 8, 8), 0.1))
    settings: dict[str, Any] = {"lambda1": 0.0, "lambda2": 0.0, "patience": 1, "noise_std": 0.0, "step": LineSearch(lower=1.0)}
    explanation = IGOS(model, resolution=4, **settings)(torch.ones(1, 1, 8, 8), 0, baseline="black")
    assert explanation.diagnostics[0]["step"] == [1000.0, 0.0]
    assert torch.equal(explanation.heatmap, torch.ones(1, 4, 4))


@pytest.mark.parametrize("resolution", [1, 7, (4, 9), 32])
def test_masks_stay_in_the_unit_interval_at_any_resolution(
    small_net: SmallNet, images: Tensor, resolution: int | tuple[int, int]
) -> None:
    explanation = IGOS(small_net, resolution=resolution, iterations=3, lambda1=0.01, lambda2=0.2)(images)
    assert explanation.heatmap.shape[1:] == ((resolution, resolution) if isinstance(resolution, int) else resolution)
    assert explanation.heatmap.min() >= 0
    assert explanation.heatmap.max() <= 1


@pytest.mark.parametrize("chunk_size", [1, 3, 50])
def test_a_map_does_not_depend_on_the_other_images(small_net: SmallNet, images: Tensor, chunk_size: int) -> None:
    settings: dict[str, Any] = {"resolution": 6, "iterations": 4, "lambda1": 0.05, "lambda2": 0.5, "path_points": 5}
    together = IGOS(small_net.double(), **settings)(images.double())
    other = IGOS(small_net, **settings, chunk_size=chunk_size)
    for i in (2, 0, 1):
        alone = other(images[i : i + 1].double(), generator=image_generators(0, [i]))
        assert torch.allclose(alone.heatmap, together.heatmap[i : i + 1], atol=1e-9)
        assert alone.diagnostics[0]["forward_passes"] == together.diagnostics[i]["forward_passes"]


def test_the_map_shows_the_patch_that_the_model_sees() -> None:
    model = Patch(slice(8, 16), slice(16, 24))
    image = torch.rand(1, 3, 32, 32) * 0.2 + 0.8
    explanation = IGOS(model, resolution=16, lambda1=0.05, lambda2=0.1)(image, 0, baseline="black")
    assert explanation.heatmap[0, 4:8, 8:12].min() > 0.5, "all 16 cells whose pixels are seen are removed"
    assert explanation.heatmap[0, 2:10, 6:14].sum() > 0.98 * explanation.heatmap.sum(), "and hardly a cell more than two away"
    peak = divmod(int(explanation.at()[0].argmax()), 32)
    assert 8 <= peak[0] < 16
    assert 16 <= peak[1] < 24


def test_each_ablation_of_the_paper_is_a_setting(small_net: SmallNet, images: Tensor) -> None:
    """Without TV the term does not count; without noise no random number is drawn; with a fixed step every step is that one."""
    settings: dict[str, Any] = {"resolution": 4, "iterations": 3, "lambda1": 0.01, "path_points": 4}
    image = images[:1]
    no_variation = IGOS(small_net, **settings, lambda2=0.0)(image)
    report = no_variation.diagnostics[0]
    assert report["objective"][-1] == pytest.approx(report["score"][-1] + 0.01 * report["size"][-1], abs=1e-6)
    noiseless = IGOS(small_net, **settings, lambda2=0.1, noise_std=0.0)
    assert torch.equal(noiseless(image, generator=image_generators(1, [0])).heatmap, noiseless(image).heatmap)
    fixed = IGOS(small_net, **settings, lambda2=0.1, step=3.0)(image)
    assert fixed.diagnostics[0]["step"] == [3.0] * 3
    assert fixed.diagnostics[0]["forward_passes"] == 2 + 1 + 3 * (4 + 1)


def test_the_diagnostics_count_all_passes(small_net: SmallNet, images: Tensor) -> None:
    """S forward and backward passes an iteration, at most 12 forward for the search; one each for the image, F(M) and b."""
    progress_calls: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor]) -> None:
        progress_calls.append(len(inputs[0]))

    hook = small_net.register_forward_pre_hook(count)
    explanation = IGOS(small_net, resolution=4, iterations=5, path_points=6, lambda1=0.01, lambda2=0.1)(images)
    hook.remove()
    for report in explanation.diagnostics:
        iterations = len(report["step"])
        assert report["backward_passes"] == 6 * iterations
        assert report["forward_passes"] <= 3 + (6 + 12) * iterations
    advice = sum(report.get("advice_passes", 0) for report in explanation.diagnostics)
    assert sum(progress_calls) == sum(report["forward_passes"] for report in explanation.diagnostics) + advice


def test_an_image_without_an_accepted_step_converges_after_patience() -> None:
    """A model that prefers the baseline: removing anything costs, no step is accepted, and the empty map is warned about."""
    model = Linear(torch.full((1, 8, 8), -1.0))
    with pytest.warns(EmptyHeatmapWarning), pytest.warns(LowConfidenceWarning), pytest.warns(BaselineWarning):
        explanation = IGOS(model, resolution=4, patience=2, baseline="black", lambda1=0.1, lambda2=0.1)(
            torch.ones(1, 1, 8, 8), 0
        )
    assert explanation.diagnostics[0]["step"] == [0.0, 0.0]
    assert explanation.diagnostics[0]["backward_passes"] == 2 * 20
    assert len(explanation.diagnostics[0]["warnings"]) == 3


def test_path_noise_is_in_the_units_of_the_images_and_drawn_row_by_row() -> None:
    images = torch.zeros(6, 3, 50, 50)
    index = torch.tensor([0, 0, 1, 1, 1, 2])
    noisy = PathNoise(0.3, image_generators(0, range(3)))(images, index)
    assert noisy.std(dim=(1, 2, 3)).tolist() == pytest.approx([0.3] * 6, rel=0.05)
    split = PathNoise(0.3, image_generators(0, range(3)))
    assert torch.equal(torch.cat([split(images[:1], index[:1]), split(images[1:], index[1:])]), noisy)
    assert images.abs().max() == 0


def test_same_seed_same_map_other_seed_other_map(small_net: SmallNet, images: Tensor) -> None:
    method = IGOS(small_net, resolution=6, iterations=2, lambda1=0.01, lambda2=0.1, path_points=3)
    first, second = method(images), method(images)
    assert torch.equal(first.heatmap, second.heatmap)
    method.seed = 1
    assert not torch.equal(method(images).heatmap, first.heatmap)
    drawn = [method(images, generator=torch.Generator().manual_seed(5)).heatmap for _ in range(2)]
    assert torch.equal(*drawn)


def test_an_unlikely_class_is_warned_about(small_net: SmallNet, images: Tensor) -> None:
    small_net.eval()
    with torch.no_grad():
        unlikely = int(small_net(images[:1]).argmin())
    with pytest.warns(LowConfidenceWarning, match=f"image 0: the explained class {unlikely} has probability 0.0") as caught:
        explanation = IGOS(small_net, resolution=4, iterations=1)(images[:1], unlikely)
    assert any("the model predicts " in str(w.message) for w in caught)
    assert "probability" in explanation.diagnostics[0]["warnings"][0]


def test_a_baseline_that_is_still_recognised_is_warned_about(images: Tensor) -> None:
    model = Patch(slice(0, 32), slice(0, 32))
    with pytest.warns(BaselineWarning, match=r"image 0: the baseline still scores 1.000 of the image's 1.000; for this image"):
        IGOS(model, resolution=2, iterations=1)(torch.ones(1, 3, 32, 32), 0, baseline="white")


@pytest.mark.parametrize("grad", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_frozen_models_and_callers_without_gradients_get_the_same_map(
    small_net: SmallNet, images: Tensor, grad: Callable[[], AbstractContextManager[object]], untouched: Untouched
) -> None:
    method = IGOS(small_net, resolution=4, iterations=2, lambda1=0.01, lambda2=0.1, path_points=3)
    expected = method(images).heatmap
    untouched(small_net.requires_grad_(False).eval())
    with grad():
        assert torch.equal(method(images.clone()).heatmap, expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_images_are_left_unchanged(
    small_net: SmallNet, images: Tensor, training: bool, untouched: Untouched
) -> None:
    untouched(small_net.train(training))
    small_net.norm.eval()
    small_net.norm.train(training)
    images.requires_grad_()
    initial = images.detach().clone()
    method = IGOS(small_net, resolution=4, iterations=2, lambda1=0.01, lambda2=0.1, path_points=3)
    first = method(images).heatmap
    assert images.grad is None
    assert images.requires_grad
    assert torch.equal(images.detach(), initial)
    assert not first.requires_grad
    assert torch.equal(method(images).heatmap, first)


@pytest.mark.parametrize("where", ["score", "progress", "baseline", "model"])
def test_a_failure_leaves_the_model_unchanged(small_net: SmallNet, images: Tensor, where: str, untouched: Untouched) -> None:
    untouched(small_net.train())
    small_net.drop.eval()
    small_net.drop.train()
    calls = iter(range(100))

    def fail(*_: object) -> NoReturn:
        raise ArithmeticError(where)

    def fail_later(output: Tensor) -> Tensor:
        return fail() if next(calls) > 1 else output[:, 0]

    options: dict[str, Any] = {"score": {"target": fail_later}, "progress": {"progress": fail}, "baseline": {"baseline": fail}}
    broken = images[:, :2] if where == "model" else images
    with pytest.raises((ArithmeticError, RuntimeError)):
        IGOS(small_net, resolution=4, iterations=2)(broken, **options.get(where, {}))


def test_a_callable_target_is_explained_in_parts_of_its_fall(small_net: SmallNet, images: Tensor) -> None:
    """The probability of a class as a callable has the map of the class, with weights in parts of its fall."""
    settings: dict[str, Any] = {"resolution": 4, "iterations": 2, "path_points": 3, "noise_std": 0.0}
    target = int(small_net.eval()(images[:1]).argmax())
    method = IGOS(small_net, lambda1=0.01, lambda2=0.1, step=50.0, **settings)
    by_callable = method(images[:1], lambda logits: logits.softmax(dim=1)[:, target])
    assert by_callable.score is not None
    fall = by_callable.diagnostics[0]["score_fall"]
    baseline = float(small_net(Blur()(images[:1])).detach().softmax(dim=1)[0, target])
    assert fall == pytest.approx(float(by_callable.score) - baseline, rel=1e-4)
    by_class = IGOS(small_net, lambda1=0.01 * fall, lambda2=0.1 * fall, step=50.0 / fall, **settings)(images[:1])
    assert by_class.score is not None
    assert by_class.heatmap.std() > 0.01
    assert torch.allclose(by_class.heatmap, by_callable.heatmap, atol=1e-5)
    assert by_callable.target is None
    assert torch.allclose(by_callable.score, by_class.score)
    assert by_callable.diagnostics[0]["score"][0] == pytest.approx(float(by_callable.score) / fall, rel=1e-5)


def test_the_defaults_are_those_of_the_docs(small_net: SmallNet) -> None:
    settings = IGOS(small_net).settings
    assert (settings["resolution"], settings["iterations"], settings["patience"], settings["path_points"]) == (28, 15, 3, 20)
    assert (settings["lambda1"], settings["lambda2"], settings["noise_std"], settings["average"]) == (0.1, 2.0, 0.02, True)
    assert settings["step"] == {"upper": 1000.0, "lower": 1e-5, "decay": 0.2, "beta": 1e-4, "wave": 4, "take_lowest": False}


def test_progress_rises_to_its_total(small_net: SmallNet, images: Tensor) -> None:
    progress_calls: list[tuple[int, int]] = []
    IGOS(small_net, resolution=4, iterations=4, lambda1=0.01, lambda2=0.1, path_points=2, chunk_size=2)(
        images, progress=lambda done, total: progress_calls.append((done, total))
    )
    assert progress_calls[-1] == (12, 12)
    assert [done for done, _ in progress_calls] == sorted(done for done, _ in progress_calls)


def test_maps_under_autocast_are_close(small_net: SmallNet, images: Tensor) -> None:
    settings: dict[str, Any] = {
        "resolution": 4,
        "iterations": 1,
        "lambda1": 0.0,
        "lambda2": 0.0,
        "noise_std": 0.0,
        "step": 100.0,
    }
    exact = IGOS(small_net, **settings)(images).heatmap
    rough = IGOS(small_net, **settings, autocast=torch.bfloat16)(images).heatmap
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert torch.nn.functional.cosine_similarity(exact.flatten(1), rough.flatten(1)).min() > 0.97


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resolution": 33}, "give 1 to 32 rows"),
        ({"resolution": 0}, "give 1 to 32 rows"),
        ({"iterations": 0}, "iterations is 0"),
        ({"lambda1": -1.0}, "at least 0"),
        ({"path_points": 0}, "path_points"),
        ({"noise_std": -0.1}, "noise_std"),
        ({"step": -1.0}, "give a LineSearch, a Nesterov, a StepRule or a number above 0"),
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"patience": 0}, "patience"),
        ({"baseline": "fog"}, "'fog' is unknown"),
        ({"score": "odds"}, "give one of probability, logit"),
    ],
)
def test_settings_outside_their_range_are_refused(
    small_net: SmallNet, images: Tensor, settings: dict[str, Any], words: str, untouched: Untouched
) -> None:
    untouched(small_net)
    with pytest.raises(ValueError, match=words):
        IGOS(small_net, **settings)(images)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (torch.rand(3, 32, 32), "give floating point"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "give floating point"),
        (torch.rand(0, 3, 32, 32), "give floating point"),
        (torch.full((1, 3, 32, 32), math.nan), "NaN"),
        (torch.full((1, 3, 32, 32), 255.0), "takes \\[0, 1\\]"),
    ],
)
def test_tensors_that_are_no_images_are_refused(small_net: SmallNet, broken: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        IGOS(Classifier(small_net))(broken)
