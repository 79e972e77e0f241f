r"""Adversarial check: attack an image (MI-FGSM), explain the clean and the adversarial image, and compare the explanations.

:func:`mi_fgsm` (Dong et al. 2018, Algorithm 1) takes sign steps along a momentum of the normalised gradient, inside the ball of
radius :math:`\epsilon` around the image:

.. math::
    g_{t+1} = \mu g_t + \frac{\nabla_x J(x_t, y)}{\lVert \nabla_x J(x_t, y) \rVert_1}, \qquad
    x_{t+1} = clip_{x, \epsilon}\bigl(x_t + \alpha \, sign(g_{t+1})\bigr), \qquad
    \alpha = \epsilon / T

J is the cross-entropy of the class y that the attack moves away from, or its negative for a class that it moves towards. With
:math:`m = z_y - \log \sum_{k \ne y} e^{z_k}` it is :math:`J = \log(1 + e^{-m})`, and :math:`\nabla J = -(1 - p_y) \nabla m`.
The norm removes the positive factor, so that the gradient of m leads to the same images; unlike the gradient of J, it does not
underflow for a confident model. The implementation is our own: torchattacks 3.5.1 pins old releases of requests, divides by the
norm of a gradient that may be 0, and stores settings on the user's model. A test compares the images of both.

:func:`adversarial_check` (I-GOS, supplement IV) then measures on how much of each image its class depends. Both images are
explained, each for its predicted class, and the insertion curve of each map is evaluated. The paper found that few cells of the
clean image restore the score of its class, whereas an adversarial image has to be inserted almost completely. The fraction
needed is the smallest one at which the score reaches a share of the full image's score,

.. math:: q = \min \{ x_k : f(x_k) \ge share \cdot f(1) \}

among the removal steps of the protocol. The paper plots curves and states no share; the default is one half, the smallest share
at which the class has a higher score than all others together if the model was certain of the image. The similarity of the two
maps is Spearman's rank correlation of their cells.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from faithmap.baselines import Baseline
from faithmap.explanation import Explanation
from faithmap.metrics.functional.agreement import spearman
from faithmap.metrics.functional.curves import INSERTION, Curve, Progress, Protocol, ProtocolName, evaluate_curves
from faithmap.model import check_images, undisturbed, working_images
from faithmap.probe import clean_scores, run_model
from faithmap.score import OutputKind, Target, at_least_single, log_probabilities_of, logits_of, probabilities_of
from faithmap.seeds import Generators, resolve_generators

PAPER_RADIUS = 16 / 255
"""The largest change of a pixel that Dong et al. (2018) use, with 10 steps, a momentum of 1 and no early stop. I-GOS cites
this attack and names no other values."""

PIXEL_TOLERANCE = 1e-3
"""How far a pixel may lie outside [0, 1] before the attack, because of interpolation; no pixel does afterwards."""


@dataclass(frozen=True, eq=False)
class Attack:
    """Result of an attack on n images.

    >>> clean, adversarial = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.2, 0.8]])
    >>> Attack(torch.rand(1, 3, 4, 4), clean, adversarial, goal=torch.tensor([0]), targeted=False).fooled
    tensor([True])

    Attributes:
        images: the adversarial images in [0, 1], also those for which the attack failed.
        clean_probabilities: probabilities of every class for each clean image.
        adversarial_probabilities: of every class for each adversarial image.
        goal: the class that the attack moves away from, or towards if ``targeted``.
        targeted: whether the attack moves towards the goal.
    """

    images: Float[Tensor, "n c h w"]
    clean_probabilities: Float[Tensor, "n classes"]
    adversarial_probabilities: Float[Tensor, "n classes"]
    goal: Int[Tensor, " n"]
    targeted: bool

    @property
    def clean_class(self) -> Int[Tensor, " n"]:
        """Predicted class of each clean image."""
        return self.clean_probabilities.argmax(dim=1)

    @property
    def adversarial_class(self) -> Int[Tensor, " n"]:
        """Predicted class of each adversarial image."""
        return self.adversarial_probabilities.argmax(dim=1)

    @property
    def already_satisfied(self) -> Bool[Tensor, " n"]:
        """Images whose clean prediction already satisfied the goal, so that no attack was needed."""
        return (self.clean_class == self.goal) == self.targeted

    @property
    def fooled(self) -> Bool[Tensor, " n"]:
        """Images for which the attack succeeded: only the adversarial prediction satisfies the goal."""
        return ((self.adversarial_class == self.goal) == self.targeted) & ~self.already_satisfied

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, image: int) -> Attack:
        """The result of one image, still with a leading dimension of 1."""
        one = slice(image, None if image == -1 else image + 1)
        return Attack(
            self.images[one],
            self.clean_probabilities[one],
            self.adversarial_probabilities[one],
            self.goal[one],
            self.targeted,
        )


def mi_fgsm(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    target: Target = None,
    *,
    radius: float = PAPER_RADIUS,
    steps: int = 10,
    decay: float = 1.0,
    step_size: float | None = None,
    targeted: bool = False,
    early_stop: bool = False,
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Attack:
    r"""Change each pixel of each image by at most ``radius``, so that the model's prediction changes.

    Each image is attacked independently of the others. The step direction of a pixel whose momentum is 0 up to rounding is
    undetermined, however, and rounding depends on the number of images in a pass.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> images = torch.rand(2, 3, 4, 4)
    >>> attack = mi_fgsm(model, images, radius=0.25)
    >>> bool((attack.images - images).abs().max() < 0.2501)
    True

    Args:
        model: a Classifier, or any module that takes images in [0, 1].
        images: in [0, 1].
        target: the class to move away from, None for the predicted class; if ``targeted``, the class to move towards. An int
            for all images, or one class per image.
        radius: :math:`\epsilon`, of the maximum norm, in [0, 1] pixel units; by default the paper's. Half of it is enough for
            most networks, and less visible.
        steps: number T of steps, at least 1.
        decay: :math:`\mu` of the momentum, at least 0; 0 is the iterative sign method, and that with one step is FGSM.
        step_size: :math:`\alpha`, in [0, 1] pixel units; None for radius / steps, with which the last step just reaches the
            surface of the ball.
        targeted: whether the attack moves towards the target.
        early_stop: leave an image unchanged after its prediction satisfies the goal; the paper's algorithm takes all steps.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (image steps done, number of image steps).

    Raises:
        ValueError: for images outside [0, 1], settings out of their range, a targeted attack without a target, a model of a
            single class, or a gradient that is not finite.
        TypeError: for a callable target.
    """
    check_images(model, images)
    given, images = images.dtype, working_images(model, images)
    _check_pixels_and_target(images, target, targeted)
    _check_attack_settings(radius, steps, decay, step_size, chunk_size)
    with undisturbed(model):
        clean, score, _ = clean_scores(model, images, target, "logit", chunk_size, autocast)
        step_size = step_size or radius / steps
        ascent = _Ascent(model, radius, steps, decay, step_size, targeted, early_stop, autocast, score.outputs)
        goal = score.classes
        assert clean is not None  # noqa: S101 - both are known because the target is a class
        assert goal is not None  # noqa: S101
        if clean.shape[1] < 2:
            raise ValueError(
                "the model has a single class, which no attack can change; give a classifier of at least 2 classes"
            )
        attacked = torch.empty_like(images)
        for part in torch.arange(len(images), device=images.device).split(chunk_size):
            on_step = None if progress is None else _step_callback(progress, part, steps, len(images))
            attacked[part] = ascent(images[part], goal[part], on_step)
        _check_finite(attacked)
        attacked = attacked.to(given)
        adversarial, _, _ = clean_scores(model, attacked, goal, "logit", chunk_size, autocast)
    assert adversarial is not None  # noqa: S101
    probabilities, attacked_probabilities = (probabilities_of(values, score.outputs) for values in (clean, adversarial))
    return Attack(attacked, probabilities, attacked_probabilities, goal, targeted)


@dataclass(frozen=True)
class _Ascent:
    """The steps of Algorithm 1 for a few images together."""

    model: nn.Module
    radius: float
    steps: int
    decay: float
    step_size: float
    targeted: bool
    early_stop: bool
    autocast: torch.dtype | None
    outputs: OutputKind

    def __call__(
        self, images: Float[Tensor, "m c h w"], goal: Int[Tensor, " m"], on_step: Callable[[int], None] | None
    ) -> Float[Tensor, "m c h w"]:
        low, high = ((images + offset).clamp(0, 1) for offset in (-self.radius, self.radius))
        x = images.clamp(0, 1)
        momentum = torch.zeros_like(at_least_single(images))
        for step in range(self.steps):
            gradient, satisfied = self._gradient(x, goal)
            norm = gradient.abs().sum(dim=(1, 2, 3), keepdim=True)
            momentum = self.decay * momentum + gradient / norm.clamp(min=torch.finfo(norm.dtype).tiny)
            moved = torch.clamp(x + self.step_size * momentum.sign().to(x.dtype), low, high).where(norm.isfinite(), math.nan)
            x = torch.where(satisfied.view(-1, 1, 1, 1) & self.early_stop, x, moved)
            if on_step is not None:
                on_step(step + 1)
        return x

    def _gradient(
        self, x: Float[Tensor, "m c h w"], goal: Int[Tensor, " m"]
    ) -> tuple[Float[Tensor, "m c h w"], Bool[Tensor, " m"]]:
        """Gradient of -m, or of m if targeted; and the images whose prediction satisfies the goal."""
        x = x.detach().requires_grad_()
        logits, own = at_least_single(logits_of(run_model(self.model, x, self.autocast))), goal.unsqueeze(1)
        logits = log_probabilities_of(logits, self.outputs) if self.outputs == "probabilities" else logits
        m = logits.gather(1, own).squeeze(1) - logits.scatter(1, own, -math.inf).logsumexp(dim=1)
        gradient = at_least_single(torch.autograd.grad(m.sum(), x)[0])
        return gradient if self.targeted else -gradient, (logits.argmax(dim=1) == goal) == self.targeted


class AttackableExplainer(typing.Protocol):
    """An explainer of faithmap, or any callable with the same parameters and a ``model`` that can be attacked.

    >>> from faithmap import Gradient
    >>> explainer: AttackableExplainer = Gradient(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)))
    """

    @property
    def model(self) -> nn.Module:
        """The model that is attacked and explained."""

    def __call__(
        self,
        images: Float[Tensor, "n c h w"],
        target: Target = None,
        *,
        generator: Generators = None,
        progress: Progress | None = None,
    ) -> Explanation:
        """One heatmap per image, for its target.

        Args:
            images: the images that are explained.
            target: the class of each image.
            generator: one random generator for each image.
            progress: called with the number of steps done and the total.
        """


@dataclass(frozen=True, eq=False)
class AdversarialCheck:
    """Result of the adversarial check of n images, as :func:`adversarial_check` returns it.

    Attributes:
        attack: the adversarial images, and the predictions for both images.
        clean: explanations of the clean images, each for its predicted class.
        adversarial: explanations of the adversarial images, each for its predicted class.
        clean_insertion: insertion curves of the clean images.
        adversarial_insertion: insertion curves of the adversarial images.
        protocol: protocol of both curves.
        resolution: (rows, columns) of the cells that were inserted.
        share: of the full image's score that the insertion has to reach.

    >>> from faithmap import Gradient
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> _ = nn.init.eye_(model[1].weight)
    >>> image = torch.tensor([[[[0.6, 0.5], [0.5, 0.5]]]])
    >>> check = adversarial_check(Gradient(model), image, radius=0.1)
    >>> check.attack.clean_class, check.attack.adversarial_class, check.fooled
    (tensor([0]), tensor([1]), tensor([True]))
    """

    attack: Attack
    clean: Explanation
    adversarial: Explanation
    clean_insertion: Curve
    adversarial_insertion: Curve
    protocol: Protocol
    resolution: tuple[int, int]
    share: float

    @property
    def clean_needed(self) -> Float[Tensor, " n"]:
        """Fraction of a clean image's cells that restores the share of its score; NaN for a constant map."""
        return self._needed(self.clean_insertion, self.clean)

    @property
    def adversarial_needed(self) -> Float[Tensor, " n"]:
        """Fraction of an adversarial image's cells that restores the share of its score; NaN for a constant map."""
        return self._needed(self.adversarial_insertion, self.adversarial)

    @property
    def difference(self) -> Float[Tensor, " n"]:
        """Adversarial minus clean fraction, in [-1, 1]; high if few cells suffice for the clean image's class only."""
        return self.adversarial_needed - self.clean_needed

    @property
    def correlation(self) -> Float[Tensor, " n"]:
        """Spearman's rank correlation of the cells of both maps: 1 for the same order; NaN for a constant map."""
        both = _is_ranked(self.clean) & _is_ranked(self.adversarial)
        return spearman(self.clean.heatmap, self.adversarial.heatmap).where(both, torch.nan)

    @property
    def fooled(self) -> Bool[Tensor, " n"]:
        """Images for which the attack succeeded; the other numbers are meaningless for the rest."""
        return self.attack.fooled

    @property
    def valid(self) -> Bool[Tensor, " n"]:
        """Images whose attack succeeded and whose two maps are not constant: their difference is meaningful."""
        return self.fooled & self.difference.isfinite()

    def _needed(self, curve: Curve, explanation: Explanation) -> Float[Tensor, " n"]:
        return fraction_needed(curve, self.share).where(_is_ranked(explanation), torch.nan)

    def __len__(self) -> int:
        return len(self.attack)

    def __getitem__(self, image: int) -> AdversarialCheck:
        """The result of one image, still with a leading dimension of 1."""
        return AdversarialCheck(
            self.attack[image],
            self.clean[image],
            self.adversarial[image],
            self.clean_insertion.of(image),
            self.adversarial_insertion.of(image),
            self.protocol,
            self.resolution,
            self.share,
        )


def adversarial_check(
    explainer: AttackableExplainer,
    images: Float[Tensor, "n c h w"],
    target: Target = None,
    *,
    radius: float = PAPER_RADIUS,
    steps: int = 10,
    decay: float = 1.0,
    step_size: float | None = None,
    targeted: bool = False,
    early_stop: bool = False,
    share: float = 0.5,
    protocol: ProtocolName | Protocol = "igos",
    insertion_steps: int | None = None,
    baseline: Baseline | None = None,
    generator: Generators = None,
    seed: int = 0,
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> AdversarialCheck:
    r"""Attack the images, explain the clean and the adversarial images, and measure how much of each has to be inserted.

    Both maps of an image use the same random numbers, so that only the attack makes them differ.

    >>> from faithmap import Gradient
    >>> explainer = Gradient(nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5)))
    >>> check = adversarial_check(explainer, torch.rand(2, 3, 4, 4), radius=0.5)
    >>> tuple(check.difference.shape), tuple(check.clean_insertion.scores.shape)
    ((2,), (2, 17))

    Args:
        explainer: its ``model`` is attacked; its own settings apply to both maps.
        images: in [0, 1].
        target: the class to move away from, None for the predicted class; if ``targeted``, the class to move towards.
        radius: :math:`\epsilon` of the attack, the largest change of a pixel, in [0, 1] pixel units.
        steps: number of steps of the attack, at least 1.
        decay: of the attack's momentum, at least 0.
        step_size: of the attack, in [0, 1] pixel units; None for radius / steps.
        targeted: whether the attack moves towards the target.
        early_stop: leave an image unchanged after its prediction satisfies the goal; the paper's attack takes all steps. It
            ends near the decision boundary, where the image still has the evidence of its own class.
        share: of the full image's score that the insertion has to reach, in (0, 1].
        protocol: protocol of the insertion curves: its name, or one of your own.
        insertion_steps: parts into which the ranking is divided; None for the protocol's steps.
        baseline: of insertion, computed from each clean and each adversarial image; None for the protocol's baseline.
        generator: one for the run, or one per image; None for ``seed``.
        seed: of the run; the seed of each image is derived from it and the image's index.
        chunk_size: maximum number of images per pass of attack and insertion.
        autocast: a lower precision for these passes; None for full precision.
        progress: called with (thousandths done, 1000); the five parts of the work count equally.

    Raises:
        ValueError: for images, targets or settings that do not fit.
        TypeError: for an explainer without a ``model``, or a callable target.
    """
    model = _model_of(explainer)
    _check_share(share)
    generators = resolve_generators(generator, seed, len(images), images.device)
    same = [_copied(one) for one in generators]
    passes: dict[str, Any] = {"chunk_size": chunk_size, "autocast": autocast}
    goal: dict[str, Any] = {"targeted": targeted, "early_stop": early_stop}
    step: dict[str, Any] = {"radius": radius, "steps": steps, "decay": decay, "step_size": step_size}
    attack = mi_fgsm(model, images, target, **step, **goal, **passes, progress=_part(progress, 0))
    clean = explainer(images, attack.clean_class, generator=generators, progress=_part(progress, 1))
    adversarial = explainer(attack.images, attack.adversarial_class, generator=same, progress=_part(progress, 2))
    test: dict[str, Any] = {"protocol": protocol, "steps": insertion_steps, "baseline": baseline, **passes}
    (clean_curve,), resolved, resolution = evaluate_curves(
        model, images, clean, attack.clean_class, (INSERTION,), **test, progress=_part(progress, 3)
    )
    (adversarial_curve,), _, _ = evaluate_curves(
        model, attack.images, adversarial, attack.adversarial_class, (INSERTION,), **test, progress=_part(progress, 4)
    )
    return AdversarialCheck(attack, clean, adversarial, clean_curve, adversarial_curve, resolved, resolution, share)


def fraction_needed(curve: Curve, share: float) -> Float[Tensor, " n"]:
    """The smallest fraction of cells at which each image's score reaches a share of its last score.

    Args:
        curve: the insertion curve.
        share: share of the score at the end of the curve, in (0, 1].

    >>> fraction_needed(Curve(torch.tensor([0.0, 0.25, 1.0]), torch.tensor([[0.0, 0.5, 0.8], [0.0, 0.1, 0.8]])), 0.5)
    tensor([0.2500, 1.0000])

    Raises:
        ValueError: for a share outside (0, 1], or a negative last score, which has no meaningful share.
    """
    _check_share(share)
    if bool((curve.scores[:, -1] < 0).any()):
        raise ValueError(f"scores end at {float(curve.scores[:, -1].min()):.3g}; give curves of probabilities")
    reached = curve.scores >= share * curve.scores[:, -1:]
    return curve.fractions[reached.long().argmax(dim=1)]


def _check_pixels_and_target(images: Tensor, target: Target, targeted: bool) -> None:
    low, high = float(images.min()), float(images.max())
    if low < -PIXEL_TOLERANCE or high > 1 + PIXEL_TOLERANCE:
        raise ValueError(f"pixels range from {low:.3g} to {high:.3g}; an attack takes [0, 1]: wrap the module in a Classifier")
    if targeted and target is None:
        raise ValueError("a targeted attack needs the class to move towards; give target, or targeted=False")
    if callable(target) and not isinstance(target, Tensor):
        raise TypeError("target is a callable, but an attack changes the predicted class; give the index of a class")


def _check_attack_settings(radius: float, steps: int, decay: float, step_size: float | None, chunk_size: int) -> None:
    if not 0 < radius <= 1:
        raise ValueError(f"radius is {radius}; give more than 0 and at most 1, in [0, 1] pixels, such as 8 / 255")
    if step_size is not None and not 0 < step_size <= 1:
        raise ValueError(f"step_size is {step_size}; give more than 0 and at most 1, or None for radius / steps")
    if steps < 1 or chunk_size < 1:
        raise ValueError(f"steps is {steps} and chunk_size {chunk_size}; give at least 1 of both")
    if not 0 <= decay < math.inf:
        raise ValueError(f"decay is {decay}; give at least 0, and a finite number")


def _check_finite(attacked: Float[Tensor, "n c h w"]) -> None:
    broken = (~attacked.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if broken:
        raise ValueError(f"the gradient of image {broken[0]} contains NaN or infinite values; try single precision")


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; give more than 0 and at most 1, the full image's score")


def _model_of(explainer: AttackableExplainer) -> nn.Module:
    model = getattr(explainer, "model", None)
    if not isinstance(model, nn.Module) or not callable(explainer):
        raise TypeError(
            f"{type(explainer).__name__} has no model that could be attacked; give an explainer such as IGOS(model)"
        )
    return model


def _copied(generator: torch.Generator) -> torch.Generator:
    """Another generator that draws the same numbers."""
    copy = torch.Generator(generator.device)
    copy.set_state(generator.get_state())
    return copy


def _step_callback(progress: Progress, part: Int[Tensor, " m"], steps: int, images: int) -> Callable[[int], None]:
    """Counts the steps of a part of the images among those of all images."""
    done = int(part[0]) * steps
    return lambda step: progress(done + step * len(part), images * steps)


def _part(progress: Progress | None, part: int) -> Progress | None:
    """The progress callback of one of the five parts of the work."""
    if progress is None:
        return None
    return lambda done, total: progress(200 * part + 200 * done // total, 1000)


def _is_ranked(explanation: Explanation) -> Bool[Tensor, " n"]:
    """Maps that are not constant."""
    return explanation.heatmap.amax(dim=(1, 2)) > explanation.heatmap.amin(dim=(1, 2))
