r"""Training of a masker for one classifier, which is left unchanged (Dabkowski and Gal, NeurIPS 2017).

Adam minimises, over images, the mean of

.. math::
    L(M) = \lambda_1 TV(M) + \lambda_2 \overline{M} - \log f_c(\Phi(I, M)) + \lambda_3 f_c(\Phi(I, 1 - M))^{\lambda_4}

for images with their class c, the first two terms for images with a class that is absent, whose mask should be empty, and for
all of them the log-loss of the masker's own log-odds that the class is present: without it, masks soon ignore the class. The
class is the one that the classifier predicts; the paper has labels.

The baseline is a blurred image, or a random colour with noise, drawn anew for each image and step, so that the masker cannot
use it. The weights are for means over the mask: the paper's are for sums over its pixels.

All random numbers of a step follow from the seed and the number of the step: a resumed training is bit for bit the training
that was never interrupted, on a CPU with the same number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.baselines import Blur, compose, upsample
from faithmap.methods.base import Progress
from faithmap.methods.masks.base import total_variation
from faithmap.methods.masks.masker import Masker, check_fit, identity
from faithmap.model import check_images, undisturbed, working_images
from faithmap.probe import outputs_of, run_model
from faithmap.score import log_probabilities_of, logits_of
from faithmap.seeds import derived, normal_draws, seeded, uniform


@dataclass(frozen=True)
class MaskerSettings:
    """Settings of the training of a masker.

    Args:
        channels: of the network's finest level, a multiple of 4.
        batch: number of images in a step, at least 1.
        learning_rate: step size of the optimiser Adam, above 0.
        variation: lambda1, at least 0, weight of the mean squared difference of neighbouring cells.
        area: lambda2, at least 0, weight of the mean of the mask.
        removed: lambda3, at least 0, weight of the class's probability without the mask's part of the image.
        exponent: lambda4, above 0; below 1 it presses that probability close to 0.
        presence: weight of the log-loss of the log-odds that the class is present, at least 0.
        absent: share of the images that get a class that is absent, at least 0 and below 1.
        seed: seed of all random numbers.

    Raises:
        ValueError: for values outside these ranges.

    >>> MaskerSettings(channels=6)
    Traceback (most recent call last):
        ...
    ValueError: channels is 6; give a multiple of 4
    """

    channels: int = 16
    batch: int = 8
    learning_rate: float = 1e-3
    variation: float = 10.0
    area: float = 3.0
    removed: float = 5.0
    exponent: float = 0.3
    presence: float = 1.0
    absent: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "variation", "area", "removed", "exponent", "presence", "absent"):
            object.__setattr__(self, name, float(getattr(self, name)))
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; give a finite number")
        if self.channels < 4 or self.channels % 4:
            raise ValueError(f"channels is {self.channels}; give a multiple of 4")
        if self.batch < 1 or not self.learning_rate > 0:
            raise ValueError("give a batch of at least 1 image, and a learning_rate above 0")
        if min(self.variation, self.area, self.removed, self.presence) < 0 or not self.exponent > 0 or not 0 <= self.absent < 1:
            raise ValueError("give weights of at least 0, an exponent above 0, and a share of absent classes below 1")

    def loss(
        self,
        masks: Float[Tensor, "n r c"],
        odds: Float[Tensor, " n"],
        present: Bool[Tensor, " n"],
        kept: Float[Tensor, " m"],
        removed: Float[Tensor, " m"],
    ) -> Float[Tensor, ""]:
        """The mean of L over the images.

        Args:
            masks: of all images.
            odds: the masker's log-odds that the class is present.
            present: whether it is.
            kept: log-probabilities of the class with the masks' parts alone, for the images in which it is present.
            removed: its log-probabilities with the rest alone.
        """
        form = self.variation * total_variation(masks) + self.area * masks.mean(dim=(1, 2))
        log_loss = F.binary_cross_entropy_with_logits(odds, present.to(odds), reduction="sum")
        score = self.removed * (self.exponent * removed).exp() - kept
        return (form.sum() + score.sum() + self.presence * log_loss) / len(masks)


def random_baselines(images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """For each image, with equal probability, its own blur of a random width, or a random colour with noise."""
    made = []
    for image in images:
        kind, width, spread = uniform((3,), generator).tolist()
        colour = uniform((len(image), 1, 1), generator)
        noise = normal_draws(1, image.shape, generator)[0] * 0.2 * spread
        blur = kind < 0.5
        made.append(Blur(None, 10 + 20 * width)(image[None])[0] if blur else (colour + noise).clamp(0, 1).to(image))
    return torch.stack(made)


class Photos(Protocol):
    """Images of one size, as the classifier takes them: a tensor, a list, or a class that reads them one by one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Float[Tensor, "c h w"]: ...


@dataclass
class Training:
    """A masker and the state of its training.

    Attributes:
        masker: the network.
        settings: of the training.
        done: steps so far.
        moments: Adam's first and second moments, by the names of the masker's parameters.
        losses: of the steps since the training was started or read.
        photos: an identifier of the images, stored so that a resumed training can be checked for the same images; or None.
    """

    masker: Masker
    settings: MaskerSettings
    done: int = 0
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    photos: str | None = None


def train_masker(
    model: nn.Module,
    photos: Photos,
    *,
    steps: int,
    settings: MaskerSettings | None = None,
    resume: Training | None = None,
    progress: Progress | None = None,
    every: int | None = None,
    save: Callable[[Training], None] | None = None,
) -> Training:
    """Train a masker for a classifier, which is left unchanged.

    Args:
        model: the classifier that the masker is trained for; its weights do not change.
        photos: images of one size, in the units that the model takes.
        steps: in all, at least 1, with those of a resumed training.
        settings: None for the defaults, or for those of the resumed training.
        resume: a training to resume; it is changed in place. None for a new one.
        progress: called with the number of steps done and the total.
        every: steps between two calls of ``save``, at least 1; None for a call at the end only.
        save: called with the training.

    Returns:
        The training, with the masker.

    Raises:
        ValueError: for images, settings or a resumed training that do not fit; the message names a remedy.

    >>> model, images = nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), torch.rand(4, 3, 16, 16)
    >>> training = train_masker(model, images, steps=2, settings=MaskerSettings(channels=4, batch=2))
    >>> training.done, len(training.losses)
    (2, 2)
    """
    if len(photos) < 1 or steps < 1 or (every is not None and every < 1):
        raise ValueError(f"{len(photos)} photos, {steps} steps, every {every}; give at least 1 of each")
    if resume is not None and resume.done > steps:
        raise ValueError(f"the training has done {resume.done} steps already; give more than {steps}")
    if resume is not None and settings is not None and settings != resume.settings:
        raise ValueError(f"the training was started with {resume.settings}; resume it with the same settings")
    with undisturbed(model):
        training = resume or begin(model, photos, settings or MaskerSettings())
        check_fit(training.masker, model)
        adam = _adam(training)
        try:
            while training.done < steps:
                training.losses.append(_step(model, photos, training, adam))
                training.done += 1
                training.masker.steps = training.done
                if progress is not None:
                    progress(training.done, steps)
                if save is not None and every is not None and training.done % every == 0 and training.done < steps:
                    save(_with_moments(training, adam))
        finally:
            _with_moments(training, adam)
    if save is not None:
        save(training)
    return training


def begin(model: nn.Module, photos: Photos, settings: MaskerSettings) -> Training:
    """An untrained masker, whose weights follow from the seed, on the images' device."""
    first = photos[0].unsqueeze(0)
    check_images(model, first)
    first = working_images(model, first)
    with torch.no_grad():
        classes = logits_of(run_model(model, first)).shape[1]
    if classes < 2:
        raise ValueError(f"the model has {classes} class; a masker is trained for one that has at least 2")
    with seeded(derived(settings.seed, "masker"), torch.device("cpu")):
        masker = Masker(classes, settings.channels, first.shape[1])
    masker.trained_for = identity(model)
    return Training(masker.to(first.device), settings)


def _step(model: nn.Module, photos: Photos, training: Training, adam: torch.optim.Adam) -> float:
    """One step of Adam; its loss."""
    settings, masker = training.settings, training.masker
    images = _batch(model, photos, training)
    generator = torch.Generator().manual_seed(derived(settings.seed, f"step {training.done}"))
    with torch.no_grad():
        predicted = logits_of(run_model(model, images)).argmax(dim=1)
    absent = (uniform((len(images),), generator) < settings.absent).to(images.device)
    shift = torch.randint(1, masker.classes, (len(images),), generator=generator).to(images.device)
    classes = torch.where(absent, (predicted + shift) % masker.classes, predicted)
    baseline = random_baselines(images, generator)
    masks, odds = masker.masks_and_odds(images.to(masker.head.weight.dtype), classes)
    present = (~absent).nonzero().flatten()
    kept = _log_probability(model, images[present], baseline[present], masks[present], classes[present])
    removed = _log_probability(model, images[present], baseline[present], 1 - masks[present], classes[present])
    loss = settings.loss(masks, odds, ~absent, kept, removed)
    if not bool(loss.isfinite()):
        raise ValueError(f"the loss of step {training.done} is {loss.item()}; give a smaller learning_rate")
    adam.zero_grad()
    loss.backward()
    adam.step()
    adam.zero_grad()
    return loss.item()


def _batch(model: nn.Module, photos: Photos, training: Training) -> Float[Tensor, "n c h w"]:
    """The images of a step: each image once in each round, in an order that follows from the seed."""
    count, batch = len(photos), training.settings.batch
    chosen = []
    for draw in range(training.done * batch, (training.done + 1) * batch):
        rounds, place = divmod(draw, count)
        seed = derived(training.settings.seed, f"round {rounds}")
        chosen.append(int(torch.randperm(count, generator=torch.Generator().manual_seed(seed))[place]))
    batch_images = [photos[i] for i in chosen]
    if len({image.shape for image in batch_images}) > 1:
        raise ValueError(
            f"photos have shapes {sorted({tuple(image.shape) for image in batch_images})}; give photos of one size"
        )
    images = torch.stack(batch_images)
    check_images(model, images)
    return working_images(model, images)


def _log_probability(
    model: nn.Module, images: Tensor, baseline: Tensor, masks: Float[Tensor, "m r c"], classes: Int[Tensor, " m"]
) -> Float[Tensor, " m"]:
    if len(images) == 0:
        return masks.new_zeros(0)
    up = upsample(masks.unsqueeze(1).to(images), (images.shape[-2], images.shape[-1]))
    composed = compose(images, baseline, up)
    logits = logits_of(run_model(model, composed))
    outputs = outputs_of(model, composed.detach(), logits)
    return log_probabilities_of(logits, outputs).gather(1, classes.unsqueeze(1)).squeeze(1)


def _adam(training: Training) -> torch.optim.Adam:
    """Adam, with the moments of the training."""
    named = dict(training.masker.named_parameters())
    adam = torch.optim.Adam(named.values(), lr=training.settings.learning_rate)
    for name, (first, second) in training.moments.items():
        step = torch.tensor(float(training.done))
        adam.state[named[name]] = {"step": step, "exp_avg": first.clone(), "exp_avg_sq": second.clone()}
    return adam


def _with_moments(training: Training, adam: torch.optim.Adam) -> Training:
    states = {name: adam.state[p] for name, p in training.masker.named_parameters() if p in adam.state}
    training.moments = {name: (s["exp_avg"].clone(), s["exp_avg_sq"].clone()) for name, s in states.items()}
    return training
