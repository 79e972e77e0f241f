r"""The adversarial check: how much of an image its class rests on (I-GOS, supplement IV).

An attack (:mod:`faithmap.metrics.functional.attacks`) changes an image until the model takes it for another class. Both
images are explained, each for the class that it is taken for, and insertion is played with both maps. The paper found that
a small part of the clean image's cells brings its class back, and that an adversarial image has to be inserted almost
whole: its class rests on no part of it. What is needed is the smallest fraction at which the score reaches a share of
the full image's,

.. math:: q = \min \{ x_k : f(x_k) \ge share \cdot f(1) \}

among the fractions that were played, so that it is as fine as the protocol's steps. The paper plots curves and names no share;
a half is taken here, the least at which the class beats all others together wherever the model was sure of the image. How
unlike the two maps are is told by Spearman's rank correlation of their cells.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from faithmap.baselines import Baseline
from faithmap.explanation import Explanation
from faithmap.metrics.functional.agreement import spearman
from faithmap.metrics.functional.attacks import Attack, Progress, mi_fgsm
from faithmap.metrics.functional.games import INSERTION, Game
from faithmap.metrics.functional.protocols import Curve, Protocol, ProtocolName
from faithmap.score import Target
from faithmap.seeds import Generators, resolve_generators


class Explains(typing.Protocol):
    """What is checked: an explainer of faithmap, or whatever can be called like one and names its model."""

    @property
    def model(self) -> nn.Module:
        """That is explained, and attacked."""

    def __call__(
        self,
        images: Float[Tensor, "n c h w"],
        target: Target = None,
        *,
        generator: Generators = None,
        progress: Progress | None = None,
    ) -> Explanation:
        """A map of each image, for its class."""


@dataclass(frozen=True, eq=False)
class AdversarialCheck:
    """What was found out about n images.

    Attributes:
        attack: the adversarial images, and what the model makes of both.
        clean: maps of the clean images, each for the class that the model predicts.
        adversarial: maps of the adversarial images, likewise.
        clean_insertion: curves with the clean images' maps.
        adversarial_insertion: likewise.
        protocol: by which insertion was played.
        resolution: rows and columns of the cells that were inserted.
        share: of the full image's score, that is to be reached.
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
        """The fraction of a clean image's cells that brings the share of its score back; NaN where its map is constant."""
        return self._needed(self.clean_insertion, self.clean)

    @property
    def adversarial_needed(self) -> Float[Tensor, " n"]:
        """Likewise, of the adversarial image's."""
        return self._needed(self.adversarial_insertion, self.adversarial)

    @property
    def difference(self) -> Float[Tensor, " n"]:
        """Adversarial minus clean, in [-1, 1]; high where only the clean image's class rests on few cells."""
        return self.adversarial_needed - self.clean_needed

    @property
    def correlation(self) -> Float[Tensor, " n"]:
        """Spearman's, of the cells of both maps: 1 for the same order, about 0 for unlike maps; NaN for a constant map."""
        both = _ranks(self.clean) & _ranks(self.adversarial)
        return spearman(self.clean.cells, self.adversarial.cells).where(both, torch.nan)

    @property
    def fooled(self) -> Bool[Tensor, " n"]:
        """Images for which the attack succeeded; the other numbers mean little where it did not."""
        return self.attack.fooled

    @property
    def judged(self) -> Bool[Tensor, " n"]:
        """Images whose attack succeeded and whose maps both rank: those whose difference says something."""
        return self.fooled & self.difference.isfinite()

    def _needed(self, curve: Curve, why: Explanation) -> Float[Tensor, " n"]:
        return fraction_needed(curve, self.share).where(_ranks(why), torch.nan)

    def __len__(self) -> int:
        return len(self.attack)

    def __getitem__(self, image: int) -> AdversarialCheck:
        """What was found out about one image, still with a leading dimension of 1."""
        curves = self.clean_insertion.of(image), self.adversarial_insertion.of(image)
        one = self.attack[image], self.clean[image], self.adversarial[image]
        return AdversarialCheck(*one, *curves, self.protocol, self.resolution, self.share)


def adversarial_check(
    explainer: Explains,
    images: Float[Tensor, "n c h w"],
    target: Target = None,
    *,
    radius: float = 8 / 255,
    steps: int = 10,
    decay: float = 1.0,
    step_size: float | None = None,
    targeted: bool = False,
    early_stop: bool = True,
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
    """Attack the images, explain them before and after, and see how much has to be inserted.

    Both maps of an image are made with the same random numbers: what differs is due to the attack.

    Args:
        explainer: with the model that is attacked; its own settings apply to both maps.
        images: in [0, 1].
        target: see :func:`mi_fgsm`, as are ``radius`` (in [0, 1] pixels), ``steps``, ``decay``, ``step_size`` and ``targeted``.
        radius: of the attack.
        steps: of the attack.
        decay: of the attack.
        step_size: of the attack.
        targeted: whether the target is to be reached.
        early_stop: attack an image no further once the model is fooled. An attack that goes on makes many models so sure of
            the wrong class that no small part of the image matters any more, and I-GOS finds no mask to begin with.
        share: of the full image's score, in (0, 1].
        protocol: of insertion.
        insertion_steps: parts into which the ranking is cut, instead of the protocol's.
        baseline: of insertion, instead of the protocol's; made from each image, the adversarial one's from the adversarial.
        generator: one for the run, or one per image; None for ``seed``.
        seed: of the run; each image gets its own from it and its index.
        chunk_size: images in one pass of attack and insertion at the most.
        autocast: a lower precision for these passes.
        progress: called with (thousandths done, thousandths in all) of the five parts of the work.

    Raises:
        ValueError: for images, targets or settings that do not fit; says what would.
        TypeError: for an explainer that names no model, or a callable target.
    """
    model = _model_of(explainer)
    _check_share(share)
    generators = resolve_generators(generator, seed, len(images), images.device)
    same = [_twin(one) for one in generators]
    attack = mi_fgsm(
        model,
        images,
        target,
        radius=radius,
        steps=steps,
        decay=decay,
        step_size=step_size,
        targeted=targeted,
        early_stop=early_stop,
        chunk_size=chunk_size,
        autocast=autocast,
        progress=_part(progress, 0),
    )
    clean = explainer(images, attack.clean_class, generator=generators, progress=_part(progress, 1))
    adversarial = explainer(attack.images, attack.adversarial_class, generator=same, progress=_part(progress, 2))
    game = Game(protocol, insertion_steps, baseline, chunk_size, autocast, _part(progress, 3))
    (before,), rules, resolution = game.play(model, images, clean, attack.clean_class, (INSERTION,))
    game = replace(game, progress=_part(progress, 4))
    (after,), _, _ = game.play(model, attack.images, adversarial, attack.adversarial_class, (INSERTION,))
    return AdversarialCheck(attack, clean, adversarial, before, after, rules, resolution, share)


def fraction_needed(curve: Curve, share: float) -> Float[Tensor, " n"]:
    """The smallest fraction played at which each image's score reaches a share of its last one.

    Args:
        curve: of insertion.
        share: in (0, 1].

    >>> fraction_needed(Curve(torch.tensor([0.0, 0.25, 1.0]), torch.tensor([[0.0, 0.5, 0.8], [0.0, 0.1, 0.8]])), 0.5)
    tensor([0.2500, 1.0000])

    Raises:
        ValueError: for a share outside (0, 1], or a negative last score, of which a share means nothing.
    """
    _check_share(share)
    if bool((curve.scores[:, -1] < 0).any()):
        raise ValueError(f"scores end at {float(curve.scores[:, -1].min()):.3g}; give curves of probabilities")
    reached = curve.scores >= share * curve.scores[:, -1:]
    return curve.fractions[reached.long().argmax(dim=1)]


def _model_of(explainer: Explains) -> nn.Module:
    model = getattr(explainer, "model", None)
    if not isinstance(model, nn.Module) or not callable(explainer):
        raise TypeError(f"{type(explainer).__name__} names no model that could be attacked; give such as IGOS(model)")
    return model


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; give more than 0 and at most 1, the full image's score")


def _twin(generator: torch.Generator) -> torch.Generator:
    """Another one that draws the same numbers."""
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    return twin


def _part(progress: Progress | None, part: int) -> Progress | None:
    """One of the five parts of the work, each as long as the others."""
    if progress is None:
        return None
    return lambda done, total: progress(200 * part + 200 * done // total, 1000)


def _ranks(why: Explanation) -> Bool[Tensor, " n"]:
    """Whether each map puts its cells in any order."""
    return why.heatmap.amax(dim=(1, 2)) > why.heatmap.amin(dim=(1, 2))
