"""MI-FGSM against closed forms, properties, and torchattacks."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from oracles import Linear, SmallNet, Untouched, fails_from
from torch import Tensor, nn

from faithmap.metrics.functional import Attack, mi_fgsm
from faithmap.model import Classifier

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def images(images: Tensor) -> Tensor:
    return images[..., :16, :16]


class Drawn(nn.Module):
    """Given logits, whatever the image; one gradient of all pixels alike."""

    def __init__(self, *logits: float, slope: float = 0.0) -> None:
        super().__init__()
        self.logits, self.slope = torch.tensor(logits), slope

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.to(x) + self.slope * x.sum(dim=(1, 2, 3)).unsqueeze(1) * torch.arange(len(self.logits)).to(x)


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def clean() -> Tensor:
    return torch.rand(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("steps", [1, 7])
def test_the_attack_on_a_linear_model_follows_the_sign_of_its_weight(weight: Tensor, clean: Tensor, steps: int) -> None:
    """The gradient never turns: every pixel ends at radius times its sign, or at the end of [0, 1]."""
    for target, away in ((0, -1), (1, 1)):
        attack = mi_fgsm(Linear(weight), clean, target, radius=0.3, steps=steps)
        assert torch.allclose(attack.images, (clean + away * 0.3 * weight.sign()).clamp(0, 1), atol=1e-12)
        reached = mi_fgsm(Linear(weight), clean, 1 - target, radius=0.3, steps=steps, targeted=True)
        assert torch.allclose(reached.images, attack.images, atol=1e-12)


def test_the_class_flips_at_a_known_radius(weight: Tensor) -> None:
    """From grey nothing is clipped: the evidence falls by radius times the sum of all |w|, and is 0 at one radius."""
    image = torch.full((1, 3, 6, 6), 0.5, dtype=torch.float64) + 0.01 * weight.sign()
    flip = float((weight * image).sum() / weight.abs().sum())
    model, leave = Linear(weight), int(flip < 0)
    radius = abs(flip)
    assert 0.01 < radius < 0.4
    assert not bool(mi_fgsm(model, image, leave, radius=radius * 0.999).fooled)
    attack = mi_fgsm(model, image, leave, radius=radius * 1.001)
    assert bool(attack.fooled)
    assert (int(attack.clean_class), int(attack.adversarial_class)) == (leave, 1 - leave)
    evidence = radius * 0.001 * float(weight.abs().sum())
    assert float(attack.adversarial_probabilities[0, 1 - leave]) == pytest.approx(1 / (1 + math.exp(-2 * evidence)), rel=1e-9)


class Turning(nn.Module):
    """Two classes whose log odds are a parabola of one pixel: the gradient turns at its top."""

    def forward(self, x: Tensor) -> Tensor:
        at = x[:, 0, 0, 0]
        return torch.stack([torch.zeros_like(at), 1 - 100 * (at - 0.5).square()], dim=1)


@pytest.mark.parametrize(("decay", "wanted"), [(0.0, 0.45), (1.0, 0.65)])
def test_momentum_continues_when_the_gradient_changes_its_sign(decay: float, wanted: float) -> None:
    """0.35, 0.45, 0.55 is the way either way; the gradient then says back to 0.45, the momentum of three steps less one on."""
    start = torch.tensor([[[[0.25]]]], dtype=torch.float64)
    attack = mi_fgsm(Turning(), start, 1, radius=0.9, steps=4, step_size=0.1, decay=decay, targeted=True)
    assert float(attack.images) == pytest.approx(wanted, abs=1e-12)


def test_adversarial_images_stay_in_the_ball_and_in_the_range(small_net: SmallNet, images: Tensor) -> None:
    images[0, :, :4] = 0
    images[1, :, :4] = 1
    attack = mi_fgsm(small_net, images, radius=0.02, steps=5, step_size=0.3)
    assert (attack.images - images).abs().max().item() == pytest.approx(0.02, abs=1e-6)
    assert attack.images.min() >= 0
    assert attack.images.max() <= 1


def test_a_saturated_model_still_has_a_gradient(weight: Tensor) -> None:
    """At log odds of 2000 the cross-entropy has no gradient in any precision; that of the log odds is what it was."""
    image = torch.full((1, 3, 6, 6), 0.5, dtype=torch.float64) + 0.1 * weight.sign()
    model = Linear(weight * 1000 / float((weight * image).sum()))
    attack = mi_fgsm(model, image, 0, radius=0.1)
    assert float(attack.clean_probabilities[0, 1]) < 1e-100
    assert torch.allclose(attack.images, image - 0.1 * weight.sign() * torch.sign((weight * image).sum()), atol=1e-12)


@pytest.mark.filterwarnings("ignore::faithmap.warning_types.OutputsWarning")
def test_an_image_without_a_gradient_is_not_changed(clean: Tensor) -> None:
    attack = mi_fgsm(Drawn(1.0, 0.0), clean)
    assert torch.equal(attack.images, clean)
    assert not attack.fooled.any()


class Ramp(nn.Module):
    """Two classes; the evidence rises with the one pixel up to 0.3 and is level beyond."""

    def forward(self, x: Tensor) -> Tensor:
        evidence = x[:, 0, 0, 0].clamp(max=0.3)
        return torch.stack([evidence, -evidence], dim=1)


def test_momentum_continues_when_the_gradient_is_zero() -> None:
    start = torch.tensor([[[[0.2]]]], dtype=torch.float64)
    attack = mi_fgsm(Ramp(), start, 0, radius=0.5, steps=5, targeted=True)
    assert float(attack.images) == pytest.approx(0.7, abs=1e-12)


def test_failed_attacks_and_images_that_needed_none_are_distinguished() -> None:
    """Evidence of 0.3, 0.02 and -0.3 for class 0; a radius of 0.1 moves it by 0.1."""
    model = Linear(torch.ones(1, 1, 1))
    odds = Classifier(nn.Sequential(Shifted(model)))
    image = torch.tensor([0.8, 0.52, 0.2]).view(3, 1, 1, 1)
    left = mi_fgsm(odds, image, 0, radius=0.1)
    assert left.fooled.tolist() == [False, True, False]
    assert left.already_satisfied.tolist() == [False, False, True]
    reached = mi_fgsm(odds, image, [1, 1, 1], radius=0.1, targeted=True)
    assert reached.fooled.tolist() == [False, True, False]
    assert reached.already_satisfied.tolist() == [False, False, True]
    own = mi_fgsm(odds, image, radius=0.1)
    assert own.goal.tolist() == [0, 0, 1]
    assert own.fooled.tolist() == [False, True, False]
    assert not own.already_satisfied.any()
    assert [one.fooled.item() for one in (left[i] for i in range(3))] == [False, True, False]
    assert left[-1].goal.tolist() == [0]


class Shifted(nn.Module):
    """The model of the image minus 0.5."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x - 0.5)
        return logits


def test_early_stop_keeps_the_first_step_that_succeeds() -> None:
    """Steps of 0.01 from 0.525: the third is over the border. The first image is never over, the last always was."""
    odds = Shifted(Linear(torch.ones(1, 1, 1)))
    image = torch.tensor([0.8, 0.525, 0.2], dtype=torch.float64).view(3, 1, 1, 1)
    attack = mi_fgsm(odds, image, 0, radius=0.1, early_stop=True)
    assert torch.allclose(attack.images.flatten(), torch.tensor([0.7, 0.495, 0.2], dtype=torch.float64), atol=1e-12)
    goes_on = mi_fgsm(odds, image, 0, radius=0.1)
    assert torch.allclose(goes_on.images.flatten(), torch.tensor([0.7, 0.425, 0.1], dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 2, 32])
def test_the_attack_on_an_image_does_not_depend_on_the_other_images(
    small_net: SmallNet, images: Tensor, chunk_size: int, early_stop: bool
) -> None:
    small_net.double()
    together = mi_fgsm(small_net, images.double(), radius=0.03, early_stop=early_stop)
    alone = mi_fgsm(small_net, images[1:2].double(), radius=0.03, early_stop=early_stop)
    cut = mi_fgsm(small_net, images.double().flip(0), radius=0.03, early_stop=early_stop, chunk_size=chunk_size)
    assert torch.allclose(together.images[1:2], alone.images, atol=1e-9)
    assert torch.allclose(together.images, cut.images.flip(0), atol=1e-9)
    assert torch.allclose(together.adversarial_probabilities, cut.adversarial_probabilities.flip(0), atol=1e-9)


def test_probabilities_are_the_models(small_net: SmallNet, images: Tensor) -> None:
    attack = mi_fgsm(small_net, images, radius=0.3)
    with torch.no_grad():
        small_net.eval()
        assert torch.allclose(attack.clean_probabilities, small_net(images).softmax(1), atol=1e-6)
        assert torch.allclose(attack.adversarial_probabilities, small_net(attack.images).softmax(1), atol=1e-6)
    assert attack.fooled.tolist() == [True, False, True]
    assert torch.equal(attack.clean_class, attack.goal)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 4e-3)])
def test_half_precision_stays_within_its_spacing_of_the_ball(
    small_net: SmallNet, images: Tensor, dtype: torch.dtype, tolerance: float
) -> None:
    half = images.to(dtype)
    attack = mi_fgsm(small_net.to(dtype), half, radius=0.3)
    assert attack.images.dtype == dtype
    assert (attack.images.float() - half.float()).abs().max() <= 0.3 + tolerance
    assert attack.adversarial_probabilities.dtype == torch.float32
    assert attack.fooled.any()


def test_autocast_applies_to_the_passes(small_net: SmallNet, images: Tensor) -> None:
    assert mi_fgsm(small_net, images, radius=0.03, autocast=torch.bfloat16).images.dtype == torch.float32


def test_progress_counts_every_image_and_step(small_net: SmallNet, images: Tensor) -> None:
    updates: list[tuple[int, int]] = []
    mi_fgsm(small_net, images, steps=2, chunk_size=2, progress=lambda done, total: updates.append((done, total)))
    assert updates == [(2, 6), (4, 6), (5, 6), (6, 6)]


def test_model_and_images_are_left_unchanged(small_net: SmallNet, images: Tensor, untouched: Untouched) -> None:
    untouched(small_net.train())
    initial = images.clone()
    images.requires_grad_()
    with torch.no_grad():
        mi_fgsm(small_net, images)
    with pytest.raises(ZeroDivisionError):
        mi_fgsm(small_net, images, progress=fails_from(0))
    assert images.grad is None
    assert torch.equal(images, initial)
    expected = mi_fgsm(small_net, initial).images
    with torch.inference_mode():
        assert torch.equal(mi_fgsm(small_net, initial.clone()).images, expected)


class Undefined(nn.Module):
    """The square root of 0 has no finite slope."""

    def forward(self, x: Tensor) -> Tensor:
        root = (x - x).sum(dim=(1, 2, 3)).sqrt()
        return torch.stack([root + 1, -root], dim=1)


@pytest.mark.filterwarnings("ignore::faithmap.warning_types.OutputsWarning")
def test_a_gradient_that_is_not_finite_is_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match="gradient of image 0 contains NaN"):
        mi_fgsm(Undefined(), images)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"radius": 0}, "radius is 0; give more than 0"),
        ({"radius": 1.5}, "radius is 1.5"),
        ({"radius": math.nan}, "radius is nan"),
        ({"steps": 0}, "steps is 0"),
        ({"chunk_size": 0}, "chunk_size 0"),
        ({"decay": -1.0}, "decay is -1.0"),
        ({"decay": math.inf}, "decay is inf"),
        ({"step_size": 0.0}, "step_size is 0.0"),
        ({"targeted": True}, "needs the class to move towards"),
        ({"target": [1, 2]}, "2 entries for 3 images"),
        ({"target": 5}, "classes 0 to 4"),
    ],
)
def test_invalid_settings_are_refused(small_net: SmallNet, images: Tensor, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mi_fgsm(small_net, images, **settings)


def test_images_and_models_that_do_not_fit_are_refused(small_net: SmallNet, images: Tensor) -> None:
    with pytest.raises(ValueError, match="wrap the module in a Classifier"):
        mi_fgsm(small_net, images * 4 - 2)
    with pytest.raises(ValueError, match="NaN"):
        mi_fgsm(small_net, images.masked_fill(images > 0.5, math.nan))
    with pytest.raises(ValueError, match="give floating point"):
        mi_fgsm(small_net, images[0])
    with pytest.raises(ValueError, match="single class"):
        mi_fgsm(Drawn(1.0), images)
    with pytest.raises(TypeError, match="callable"):
        mi_fgsm(small_net, images, lambda output: output[:, 0])


@pytest.mark.parametrize("targeted", [False, True])
def test_adversarial_images_equal_those_of_torchattacks(small_net: SmallNet, images: Tensor, targeted: bool) -> None:
    """In double precision, of a net that is unsure: elsewhere its loss has lost its gradient in rounding."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchattacks = pytest.importorskip("torchattacks")
    model = Classifier(small_net.double().eval()).double()
    images = images.double()
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    goal = (labels + 1) % 5 if targeted else labels
    theirs = torchattacks.MIFGSM(model, eps=0.03, alpha=0.01, steps=6, decay=0.9)
    if targeted:
        theirs.set_mode_targeted_by_label(quiet=True)
    attack: Attack = mi_fgsm(model, images, goal, radius=0.03, steps=6, step_size=0.01, decay=0.9, targeted=targeted)
    assert torch.allclose(attack.images, theirs(images, goal), atol=1e-12)
