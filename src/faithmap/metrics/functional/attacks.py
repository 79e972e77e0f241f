r"""MI-FGSM: images that a model takes for something else, close to the clean ones (Dong et al. 2018, Algorithm 1).

Sign steps along a momentum of the normalised gradient, inside the ball of radius :math:`\epsilon` around the image:

.. math::
    g_{t+1} = \mu g_t + \frac{\nabla_x J(x_t, y)}{\lVert \nabla_x J(x_t, y) \rVert_1}, \qquad
    x_{t+1} = clip_{x, \epsilon}\bigl(x_t + \alpha \, sign(g_{t+1})\bigr), \qquad
    \alpha = \epsilon / T

J is the cross-entropy of the class y that is to be left; of a class that is to be reached, its negative. With
:math:`m = z_y - \log \sum_{k \ne y} e^{z_k}` it is :math:`J = \log(1 + e^{-m})`, and
:math:`\nabla J = -(1 - p_y) \nabla m`. The norm takes the positive factor away, so that the gradient of m leads to the same
images; it does not vanish in rounding where the model is sure, as that of J does.

Own code: torchattacks 3.5.1 pins releases of requests that are years old, divides by the norm where the gradient may be 0,
and keeps settings of the user's model. A test holds both to the same images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from faithmap.model import check_images, undisturbed
from faithmap.probe import clean_scores, run_model
from faithmap.score import Target, at_least_single, logits_of

Progress: TypeAlias = Callable[[int, int], None]

SLACK = 1e-3
"""How far a pixel may lie outside [0, 1] before the attack, for the sake of interpolation; afterwards none does."""


@dataclass(frozen=True, eq=False)
class Attack:
    """What came of an attack on n images.

    Attributes:
        images: the adversarial ones, in [0, 1]; also of those for which it failed.
        before: probability of every class for the clean image.
        after: likewise, for the adversarial one.
        goal: the class that was to be left, or to be reached.
        targeted: whether it was to be reached.
    """

    images: Float[Tensor, "n c h w"]
    before: Float[Tensor, "n classes"]
    after: Float[Tensor, "n classes"]
    goal: Int[Tensor, " n"]
    targeted: bool

    @property
    def clean_class(self) -> Int[Tensor, " n"]:
        """What the model takes each clean image for."""
        return self.before.argmax(dim=1)

    @property
    def adversarial_class(self) -> Int[Tensor, " n"]:
        """What the model takes each adversarial image for."""
        return self.after.argmax(dim=1)

    @property
    def already(self) -> Bool[Tensor, " n"]:
        """Images for which the model's answer was where it should be led before anything was done."""
        return (self.clean_class == self.goal) == self.targeted

    @property
    def fooled(self) -> Bool[Tensor, " n"]:
        """Images for which the attack changed the model's answer as it should; it failed for the others, ``already`` aside."""
        return ((self.adversarial_class == self.goal) == self.targeted) & ~self.already

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, image: int) -> Attack:
        """What came of one image, still with a leading dimension of 1."""
        one = slice(image, None if image == -1 else image + 1)
        return Attack(self.images[one], self.before[one], self.after[one], self.goal[one], self.targeted)


def mi_fgsm(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    target: Target = None,
    *,
    radius: float = 8 / 255,
    steps: int = 10,
    decay: float = 1.0,
    step_size: float | None = None,
    targeted: bool = False,
    early_stop: bool = False,
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Attack:
    r"""Change each image by at most ``radius`` a pixel, so that the model's answer changes.

    Each image is attacked by itself. A pixel whose momentum is 0 up to rounding may step either way, however, and rounding
    depends on how many images share a pass.

    Args:
        model: a Classifier, or any module that takes images in [0, 1].
        images: in [0, 1].
        target: the class that is to be left, None for the predicted one; if ``targeted``, the one to be reached. An int for
            all, or one for each image.
        radius: :math:`\epsilon`, of the maximum norm, in the units of the [0, 1] image. The paper takes 16 / 255; half of it is
            enough for most networks, and harder to see.
        steps: T.
        decay: :math:`\mu` of the momentum; 0 is the iterative sign method, and that with one step FGSM.
        step_size: :math:`\alpha`; None for radius / steps, by which the last step just reaches the ball's surface.
        targeted: whether the target is to be reached.
        early_stop: leave an image as it is once the model is fooled; the paper's algorithm goes on to its last step.
        chunk_size: images in one pass at the most.
        autocast: a lower precision for the model's passes.
        progress: called with (image steps done, image steps in all).

    Raises:
        ValueError: for images outside [0, 1], settings out of their range, no class to reach, a model of a single class, or a
            gradient that is not finite.
        TypeError: for a callable target.
        RuntimeError: inside ``torch.inference_mode``.
    """
    images = images.detach()
    check_images(model, images)
    _check(images, target, radius, steps, decay, step_size, targeted, chunk_size)
    ascent = _Ascent(model, radius, steps, decay, step_size or radius / steps, targeted, early_stop, autocast)
    with undisturbed(model):
        before, score, _ = clean_scores(model, images, target, "logit", chunk_size, autocast)
        goal = score.classes
        assert before is not None  # noqa: S101 - both are known where the target is a class
        assert goal is not None  # noqa: S101
        if before.shape[1] < 2:
            raise ValueError("the model has a single class, which no image can leave; give a classifier of at least 2")
        attacked = torch.empty_like(images)
        for part in torch.arange(len(images), device=images.device).split(chunk_size):
            start = int(part[0])
            told = None if progress is None else _offset(progress, start * steps, len(part), len(images) * steps)
            attacked[part] = ascent(images[part], goal[part], told)
        _check_finite(attacked)
        after, _, _ = clean_scores(model, attacked, goal, "logit", chunk_size, autocast)
    assert after is not None  # noqa: S101
    return Attack(attacked, _probabilities(before), _probabilities(after), goal, targeted)


@dataclass(frozen=True)
class _Ascent:
    """The steps of a few images, all at once."""

    model: nn.Module
    radius: float
    steps: int
    decay: float
    step_size: float
    targeted: bool
    early_stop: bool
    autocast: torch.dtype | None

    def __call__(
        self, images: Float[Tensor, "m c h w"], goal: Int[Tensor, " m"], told: Callable[[int], None] | None
    ) -> Float[Tensor, "m c h w"]:
        low, high = ((images + offset).clamp(0, 1) for offset in (-self.radius, self.radius))
        x = images.clamp(0, 1)
        momentum = torch.zeros_like(at_least_single(images))
        for step in range(self.steps):
            gradient, led = self._gradient(x, goal)
            norm = gradient.abs().sum(dim=(1, 2, 3), keepdim=True)
            momentum = self.decay * momentum + gradient / norm.clamp(min=torch.finfo(norm.dtype).tiny)
            moved = torch.clamp(x + self.step_size * momentum.sign().to(x.dtype), low, high).where(norm.isfinite(), math.nan)
            x = torch.where(led.view(-1, 1, 1, 1) & self.early_stop, x, moved)
            if told is not None:
                told(step + 1)
        return x

    def _gradient(
        self, x: Float[Tensor, "m c h w"], goal: Int[Tensor, " m"]
    ) -> tuple[Float[Tensor, "m c h w"], Bool[Tensor, " m"]]:
        """Of -m, or of m for a class that is to be reached; and which images are where they should be led."""
        x = x.detach().requires_grad_()
        logits, own = at_least_single(logits_of(run_model(self.model, x, self.autocast))), goal.unsqueeze(1)
        m = logits.gather(1, own).squeeze(1) - logits.scatter(1, own, -math.inf).logsumexp(dim=1)
        slope = at_least_single(torch.autograd.grad(m.sum(), x)[0])
        return slope if self.targeted else -slope, (logits.argmax(dim=1) == goal) == self.targeted


def _check(
    images: Tensor,
    target: Target,
    radius: float,
    steps: int,
    decay: float,
    step_size: float | None,
    targeted: bool,
    chunk_size: int,
) -> None:
    """Raise ValueError where a setting is out of its range, TypeError for a target that is no class."""
    low, high = float(images.min()), float(images.max())
    if low < -SLACK or high > 1 + SLACK:
        raise ValueError(f"pixels range from {low:.3g} to {high:.3g}; an attack takes [0, 1]: wrap the module in a Classifier")
    if not 0 < radius <= 1:
        raise ValueError(f"radius is {radius}; give more than 0 and at most 1, in [0, 1] pixels, such as 8 / 255")
    if step_size is not None and not 0 < step_size <= 1:
        raise ValueError(f"step_size is {step_size}; give more than 0 and at most 1, or None for radius / steps")
    if steps < 1 or chunk_size < 1:
        raise ValueError(f"steps is {steps} and chunk_size {chunk_size}; give at least 1 of both")
    if not 0 <= decay < math.inf:
        raise ValueError(f"decay is {decay}; give at least 0, and a finite number")
    if targeted and target is None:
        raise ValueError("a targeted attack needs the class to be reached; give target, or targeted=False")
    if callable(target) and not isinstance(target, Tensor):
        raise TypeError("target is a callable, but an attack leaves or reaches a class; give its index")


def _check_finite(attacked: Float[Tensor, "n c h w"]) -> None:
    broken = (~attacked.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if broken:
        raise ValueError(f"the gradient of image {broken[0]} holds NaN or infinite values; try single precision")


def _probabilities(logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    return at_least_single(logits).softmax(dim=1)


def _offset(progress: Progress, before: int, images: int, total: int) -> Callable[[int], None]:
    """Steps of some images, counted among those of all."""
    return lambda step: progress(before + step * images, total)
