"""Sensitivity against closed forms and captum; the same class and random numbers on both sides."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import Linear, SmallNet, Untouched, fails_from
from torch import Tensor, nn

from faithmap import GradCAM, Smooth, SmoothGradCAM
from faithmap.explanation import Explanation
from faithmap.metrics.functional import sensitivity
from faithmap.model import Classifier
from faithmap.seeds import image_generators, uniform_draws
from faithmap.warning_types import EmptyHeatmapWarning, FaithmapWarning, warn

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.warning_types.LowConfidenceWarning")


def itself(images: Tensor) -> Tensor:
    return images[:, 0]


def gradient(model: nn.Module, images: Tensor, target: Tensor | int) -> Tensor:
    """Gradient of the logit, as captum's Saliency makes it, without the absolute value."""
    images = images.detach().requires_grad_()
    classes = torch.as_tensor(target).expand(len(images))
    return torch.autograd.grad(model(images).gather(1, classes.unsqueeze(1)).sum(), images)[0]


def noise_of(seed: int, image: int, count: int, shape: tuple[int, ...]) -> Tensor:
    """The draws of an image: its generator gives the explainer's seed first, and then one disturbance after the other."""
    generator = image_generators(seed, [image])[0]
    torch.randint(2**62, (), generator=generator)
    return uniform_draws(count, shape, generator) * 2 - 1


def test_a_map_that_is_the_image_moves_as_the_image_does() -> None:
    """||e|| / ||x|| with x = 0.5: r / sqrt(3) / 0.5 in the mean square."""
    images = torch.full((2, 1, 40, 40), 0.5)
    found = sensitivity(itself, images, radius=0.1, draws=20)
    assert found.changes.shape == (2, 20)
    assert torch.allclose(found.changes, torch.full((), 0.2 / math.sqrt(3)).double(), rtol=0.05)
    wanted = torch.stack([noise_of(0, i, 20, (1, 40, 40)).flatten(1).norm(dim=1) * 0.1 / 20 for i in range(2)])
    assert torch.allclose(found.changes, wanted.double(), rtol=1e-5)
    assert torch.equal(found.maximum, found.changes.max(1).values)
    assert torch.equal(found.mean, found.changes.mean(1))
    assert (found.maximum > found.mean).all()


def test_twice_the_radius_moves_a_linear_map_twice_as_far(images: Tensor) -> None:
    one, two = (sensitivity(itself, images, radius=r, limits=None).changes for r in (0.02, 0.04))
    assert torch.allclose(two, 2 * one, rtol=1e-4)


def test_nothing_moves_without_a_disturbance_or_an_answer_to_it(images: Tensor) -> None:
    assert sensitivity(itself, images, radius=0).maximum.tolist() == [0, 0, 0]
    assert sensitivity(lambda x: torch.ones(len(x), 4, 4), images).maximum.tolist() == [0, 0, 0]


def test_disturbed_images_stay_in_the_ball_and_in_the_range(images: Tensor) -> None:
    images[0] = (images[0] > 0.5).float()
    images[1, 0, 0, 0] = 1.0005
    inputs: list[Tensor] = []

    def explain(x: Tensor) -> Tensor:
        inputs.append(x)
        return x

    sensitivity(explain, images, radius=0.1, draws=4)
    clean, disturbed = inputs[0], inputs[1].view(3, 4, *images.shape[1:])
    assert torch.equal(clean, images)
    assert (disturbed - images.unsqueeze(1)).abs().max() <= 0.1 + 1e-6
    assert disturbed.min() >= 0
    assert disturbed.max() <= 1.0005
    assert (disturbed[1, :, 0, 0, 0] > 0.9).all()
    sensitivity(explain, images, radius=0.1, draws=4, limits=None)
    free = inputs[3].view(3, 4, *images.shape[1:]) - images.unsqueeze(1)
    assert inputs[3].min() < -0.09
    assert inputs[3].max() > 1.09
    assert float(free.mean()) == pytest.approx(0, abs=1e-3)
    assert float(free.std()) == pytest.approx(0.1 / math.sqrt(3), rel=0.01)


def test_captum_agrees(small_net: SmallNet, images: Tensor) -> None:
    metrics, attr = pytest.importorskip("captum.metrics"), pytest.importorskip("captum.attr")
    saliency = attr.Saliency(small_net.eval())
    noise = torch.cat([noise_of(3, i, 5, (3, 32, 32)) for i in range(3)]) * 0.02
    classes = torch.tensor([0, 3, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum says that it sets requires_grad
        wanted = metrics.sensitivity_max(
            saliency.attribute, images, lambda x: x + noise, n_perturb_samples=5, target=classes, abs=False
        )
        explain = functools.partial(saliency.attribute, abs=False)
        found = sensitivity(explain, images, classes, draws=5, seed=3, limits=None)
    assert torch.allclose(found.maximum.float(), wanted, rtol=1e-3)
    assert (found.maximum > 0).all()


@pytest.mark.parametrize("chunk_size", [1, 5])
def test_the_values_of_an_image_do_not_depend_on_the_other_images(small_net: SmallNet, images: Tensor, chunk_size: int) -> None:
    explain = SmoothGradCAM(Classifier(small_net), target_layer="conv2", gradient=Smooth(samples=2))
    together = sensitivity(explain, images, draws=3)
    alone = sensitivity(explain, images[1:2], draws=3, chunk_size=chunk_size, generator=image_generators(0, [1]))
    assert torch.allclose(together.changes[1:2], alone.changes, rtol=1e-4, atol=1e-6)
    assert torch.equal(together[1].maximum, together.maximum[1:2])
    assert len(together) == 3


def test_an_explainer_that_draws_draws_the_same_on_both_sides(small_net: SmallNet, images: Tensor) -> None:
    def noise(images: Tensor, generator: list[torch.Generator]) -> Tensor:
        return torch.stack([torch.randn(5, 5, generator=g) for g in generator])

    assert sensitivity(noise, images, draws=3, chunk_size=2).maximum.tolist() == [0, 0, 0]
    first, second, third = sensitivity_seen(noise, images)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    explain = SmoothGradCAM(small_net, target_layer="conv2", gradient=Smooth(samples=3, noise_std=0.3))
    assert float(sensitivity(explain, images, radius=0, draws=3).maximum.max()) < 1e-5


def sensitivity_seen(explain: Callable[..., Any], images: Tensor) -> Tensor:
    """The clean maps that the metric saw."""
    inputs: list[Tensor] = []

    def watched(images: Tensor, generator: list[torch.Generator]) -> Tensor:
        inputs.append(explain(images, generator))
        return inputs[-1]

    sensitivity(watched, images, draws=1)
    return inputs[0]


def test_the_class_is_settled_on_the_clean_images() -> None:
    """Evidence within reach of the radius: the predicted class flips, and so would the sign of its gradient."""
    weight = torch.ones(3, 4, 4, dtype=torch.float64)
    model = Linear(weight)
    images = torch.full((2, 3, 4, 4), 1e-6, dtype=torch.float64)

    def explain_with_target(images: Tensor, target: Tensor | None = None) -> Explanation:
        classes = model(images).argmax(1) if target is None else target
        return Explanation(gradient(model, images, classes).mean(1), (4, 4), target=classes)

    found = sensitivity(explain_with_target, images, draws=20, limits=(-1.0, 1.0))
    assert found.maximum.tolist() == [0, 0]
    with pytest.raises(ValueError, match="chose another class for a perturbed image"):
        sensitivity(lambda images: explain_with_target(images, None), images, draws=20, limits=(-1.0, 1.0))


def test_each_image_keeps_its_class(small_net: SmallNet, images: Tensor) -> None:
    model = small_net.eval()
    explain = functools.partial(gradient, model)
    several = sensitivity(explain, images, [0, 3, 1], draws=4, chunk_size=3)
    for i, target in enumerate([0, 3, 1]):
        alone = sensitivity(explain, images[i : i + 1], target, draws=4, generator=image_generators(0, [i]))
        assert torch.allclose(alone.changes, several.changes[i : i + 1], rtol=1e-3)


def test_a_callable_target_is_passed_on(small_net: SmallNet, images: Tensor) -> None:
    explain = GradCAM(small_net, target_layer="conv2", score="logit")
    changes = sensitivity(explain, images, lambda logits: logits[:, 2], draws=2)
    assert torch.allclose(changes.changes, sensitivity(explain, images, 2, draws=2).changes, rtol=1e-4)


def test_a_map_of_zeros_has_no_scale(images: Tensor) -> None:
    with pytest.warns(EmptyHeatmapWarning, match="image 0: the clean heatmap is zero"):
        found = sensitivity(lambda x: x * (x - images[0]).abs().flatten(1).sum(1).gt(0).view(-1, 1, 1, 1), images[:1], draws=2)
    assert found.changes.tolist() == [[math.inf, math.inf]]
    with pytest.warns(EmptyHeatmapWarning):
        assert sensitivity(lambda x: x * 0, images, draws=2).maximum.tolist() == [0, 0, 0]


def test_gradients_are_there_where_the_caller_has_none(small_net: SmallNet, images: Tensor) -> None:
    explain = functools.partial(gradient, small_net.eval())
    outside = sensitivity(explain, images, 1, draws=2)
    with torch.no_grad():
        inside = sensitivity(explain, images, 1, draws=2)
    assert torch.equal(inside.changes, outside.changes)
    attached = sensitivity(lambda x: x * torch.ones(1, requires_grad=True), images, draws=2)
    assert not attached.changes.requires_grad


def test_half_precision_is_close(images: Tensor) -> None:
    full = sensitivity(itself, images, radius=0.05)
    assert torch.allclose(sensitivity(itself, images.half(), radius=0.05).maximum, full.maximum, rtol=0.01)


def test_a_module_is_known_by_its_forward(images: Tensor) -> None:
    class Channel(nn.Module):
        def forward(self, images: Tensor, target: Tensor) -> Tensor:
            return images[torch.arange(len(images)), target]

    assert sensitivity(nn.Identity(), images, draws=2).maximum.max() < 0.1
    changes = sensitivity(Channel(), images, [0, 0, 0], draws=2)
    assert torch.equal(changes.changes, sensitivity(itself, images, draws=2).changes)


def test_the_callers_graph_is_left_unchanged(images: Tensor) -> None:
    inputs: list[Tensor] = []

    def explain(x: Tensor) -> Tensor:
        inputs.append(x)
        return x

    sensitivity(explain, images.requires_grad_(), draws=2)
    assert [x.requires_grad for x in inputs] == [False, False]


def test_cautions_are_given_once(images: Tensor) -> None:
    def doubtful(images: Tensor) -> Tensor:
        warn("not sure", FaithmapWarning)
        return images

    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        sensitivity(doubtful, images, draws=4, chunk_size=3)
    assert [str(w.message) for w in given] == ["not sure"]


def test_progress_counts_disturbed_maps(images: Tensor) -> None:
    inputs: list[tuple[int, int]] = []
    sensitivity(itself, images, draws=5, chunk_size=8, progress=lambda done, total: inputs.append((done, total)))
    assert inputs == [(8, 15), (15, 15)]


def test_model_and_images_are_left_unchanged_also_after_an_error(
    small_net: SmallNet, images: Tensor, untouched: Untouched
) -> None:
    untouched(small_net.train())
    initial = images.clone()
    explain = GradCAM(small_net, target_layer="conv2")
    sensitivity(explain, images, draws=2)
    with pytest.raises(ZeroDivisionError):
        sensitivity(explain, images, draws=2, progress=fails_from(0))
    assert torch.equal(images, initial)
    assert not images.requires_grad


@pytest.mark.parametrize(
    ("explain", "options", "words"),
    [
        (itself, {"radius": -0.1}, "-0.1, 10, 32; give 0 or more"),
        (itself, {"radius": math.nan}, "give 0 or more"),
        (itself, {"draws": 0}, "at least 1"),
        (itself, {"chunk_size": 0}, "at least 1"),
        (itself, {"limits": (0.0, 0.5)}, "outside the limits"),
        (itself, {"target": 1}, "takes images; name a parameter 'target'"),
        (itself, {"generator": [torch.Generator()]}, "for 3 images"),
        (lambda images, target: images, {}, "does not return the class"),
        (lambda images, target: images, {"target": [1, 2]}, "target has 2 entries for 3 images"),
        (lambda images: images[:1], {}, r"maps of shape \(1, 3, 32, 32\) for 3 images"),
        (lambda images: images / 0, {}, "or NaN"),
        (lambda images: images.log() if len(images) > 3 else images, {"radius": 1.0}, "or NaN"),
    ],
)
def test_invalid_explainers_and_settings_are_refused(
    images: Tensor, explain: Callable[..., Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        sensitivity(explain, images, **options)


def test_images_are_checked() -> None:
    with pytest.raises(ValueError, match="give floating point"):
        sensitivity(itself, torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="NaN"):
        sensitivity(itself, torch.full((1, 1, 2, 2), math.nan))
