r"""Model parameter randomisation (Adebayo et al. 2018, "Sanity Checks for Saliency Maps", Section 4).

A heatmap that explains what a model has learned cannot stay the same when the model forgets it. Layers lose their trained
weights, the images are explained again, and the new maps are compared with the first ones:

.. math:: s_l = similarity\bigl(\Phi_{f}(x), \Phi_{f_l}(x)\bigr)

:cascading: in :math:`f_l` all layers from the output down to l are random; after the last one the whole model is.
:independent: in :math:`f_l` layer l alone is random.

The similarity is Spearman's rank correlation of the cells, and SSIM of the maps at the images' size, each scaled to [0, 1]
(:mod:`faithmap.metrics.functional.agreement`). How values are drawn: :mod:`faithmap.metrics.functional.reinitialise`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.metrics.functional.agreement import resampled, spearman, ssim
from faithmap.metrics.functional.examined import explained
from faithmap.metrics.functional.reinitialise import Draw, Order, Trained, randomise
from faithmap.model import check_images, plain_name, undisturbed
from faithmap.probe import clean_scores
from faithmap.score import Target
from faithmap.seeds import seeded
from faithmap.warning_types import suppressed

Mode: TypeAlias = Literal["cascading", "independent"]
Progress: TypeAlias = Callable[[int, int], None]
Stage: TypeAlias = tuple[str, list[tuple[str, nn.Module]]]
"""A name, and the layers with their own names that lose their weights."""


class ModelExplainer(Protocol):
    """What is checked: any callable that turns images and a target into heatmaps, and says which model it asks."""

    @property
    def model(self) -> nn.Module:
        """Whose weights are made random."""

    def __call__(self, images: Tensor, target: Any, /) -> Explanation | Tensor:
        """One map for each image."""


@dataclass(frozen=True, eq=False)
class Randomisation:
    """How like the first heatmaps of n images those of l random models are.

    Attributes:
        layers: names of the stages, from the output down.
        spearman: in [-1, 1]; 0 for a map with one value everywhere.
        ssim: in [-1, 1].
        flat: where the random model's map has one value everywhere: it ranks nothing, and its similarities mean little.
        original: the maps of the trained model.
        heatmaps: of each stage, where they were kept.
        mode: cascading or independent.
        draw: how values were drawn.
        absolute: whether absolute values were compared.
    """

    layers: tuple[str, ...]
    spearman: Float[Tensor, "n l"]
    ssim: Float[Tensor, "n l"]
    flat: Bool[Tensor, "n l"]
    original: Explanation
    heatmaps: tuple[Explanation, ...]
    mode: Mode
    draw: Draw
    absolute: bool

    def __len__(self) -> int:
        return len(self.spearman)

    def __getitem__(self, image: int) -> Randomisation:
        """Of one image, still with a leading dimension of 1."""
        rows = {name: getattr(self, name)[image].unsqueeze(0) for name in ("spearman", "ssim", "flat")}
        return replace(self, **rows, original=self.original[image], heatmaps=tuple(why[image] for why in self.heatmaps))


def randomisation(
    explainer: ModelExplainer,
    images: Float[Tensor, "n c h w"],
    target: Target = None,
    *,
    mode: Mode = "cascading",
    layers: Sequence[str | nn.Module] | None = None,
    draw: Draw = "initialiser",
    absolute: bool = False,
    seed: int = 0,
    generator: Sequence[torch.Generator] | None = None,
    keep_heatmaps: bool = False,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> Randomisation:
    """Explain the images again and again while the model forgets.

    The model is as it was afterwards, bit for bit, also after an error; no state of torch's random generators changes. What an
    explainer draws from these is the same at every stage. The target is resolved once, by the trained model.

    Args:
        explainer: of this library, or any callable ``explainer(images, target)`` with a ``.model``.
        images: as for the explainer.
        target: likewise.
        mode: cascading or independent.
        layers: one stage each: a module or its dotted name; all layers in it lose their weights together. They are sorted
            from the output down. None takes every layer.
        draw: by each layer's own initialiser, or by permuting the trained values.
        absolute: compare the absolute values of the maps, so that a map whose signs were turned counts as the same.
        seed: of the draws.
        generator: one for each image, handed to the explainer at every stage in the same state; None hands over nothing.
        keep_heatmaps: put the maps of every stage into the result.
        chunk_size: images in one pass at the most while the target is resolved.
        progress: called with (explanations done, explanations in all).

    Raises:
        ValueError: for images, targets or layers that do not fit, or maps with NaN.
        TypeError: for an explainer without a model.
    """
    model = _checked(explainer, images, mode, draw, chunk_size)
    order = Order(model)
    with undisturbed(model), order.watch():
        _, score, _ = clean_scores(model, images, target, "logit", chunk_size)
    stages = _stages(model, order.layers, layers)
    ask = _Asked(explainer, images.detach(), target if score.classes is None else score.classes, seed, generator)
    trained = Trained(model)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    kept: list[Explanation] = []
    tell = progress or _silent
    with trained.put_back():
        original = ask(clean=True)
        tell(1, len(stages) + 1)
        for i, (_, members) in enumerate(stages):
            if mode == "independent":
                trained.restore()
            for name, layer in members:
                randomise(name, layer, seed, draw)
            why = ask(clean=False)
            found.append(_similarity(original, why, absolute=absolute))
            kept += [why] * keep_heatmaps
            tell(i + 2, len(stages) + 1)
    rank, structure, flat = (torch.stack(values, dim=1) for values in zip(*found, strict=True))
    names = tuple(name for name, _ in stages)
    return Randomisation(names, rank, structure, flat, original, tuple(kept), mode, draw, absolute)


@dataclass
class _Asked:
    """The explainer, asked the same question each time."""

    explainer: ModelExplainer
    images: Float[Tensor, "n c h w"]
    target: Target
    seed: int
    generator: Sequence[torch.Generator] | None

    def __post_init__(self) -> None:
        self.states = [generator.get_state() for generator in self.generator or ()]

    def __call__(self, *, clean: bool) -> Explanation:
        """The maps. What is known to make maps of random models fail is not said: that is what they are for."""
        for generator, state in zip(self.generator or (), self.states, strict=True):
            generator.set_state(state)
        settings = {} if self.generator is None else {"generator": self.generator}
        explain: Any = self.explainer
        with seeded(self.seed, self.images.device), nullcontext() if clean else suppressed():
            return explained(explain(self.images, self.target, **settings), self.images)


def _silent(done: int, total: int) -> None:
    del done, total


def _similarity(first: Explanation, second: Explanation, *, absolute: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Spearman and SSIM of each pair of maps, and whether the second of them is constant."""
    maps = second.heatmap.detach()
    flat = maps.amax(dim=(1, 2)) == maps.amin(dim=(1, 2))
    a, b = (replace(why, heatmap=why.heatmap.abs()) if absolute else why for why in (first, second))
    return spearman(a, b), ssim(*(resampled(why, why.image_size) for why in (a, b))), flat


def _checked(explainer: ModelExplainer, images: Tensor, mode: str, draw: str, chunk_size: int) -> nn.Module:
    model = getattr(explainer, "model", None)
    if not callable(explainer) or not isinstance(model, nn.Module):
        raise TypeError(f"{type(explainer).__name__} is no explainer; give a callable with the attribute model, a torch module")
    check_images(model, images)
    for name, value, known in (("mode", mode, ("cascading", "independent")), ("draw", draw, ("initialiser", "permutation"))):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; give {known[0]!r} or {known[1]!r}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; give at least 1")
    return model


def _stages(model: nn.Module, ordered: dict[str, nn.Module], given: Sequence[str | nn.Module] | None) -> list[Stage]:
    """What becomes random at every stage, from the output down."""
    if not ordered:
        raise ValueError(f"{type(model).__name__} has no parameters; there is nothing to make random")
    if given is None:
        return [(name, [(name, layer)]) for name, layer in ordered.items()]
    names = {plain_name(name): module for name, module in model.named_modules(remove_duplicate=False)}
    stages: list[Stage] = []
    for entry in dict.fromkeys([given] if isinstance(given, (str, nn.Module)) else given):
        module = names.get(plain_name(entry)) if isinstance(entry, str) else entry
        inside = {id(m) for m in module.modules()} if module is not None else set()
        members = [(name, layer) for name, layer in ordered.items() if id(layer) in inside]
        if not members:
            known = ", ".join(list(ordered)[:3])
            raise ValueError(f"layers names {entry!r}, which is no module of the model with parameters; its last are {known}")
        found = entry if isinstance(entry, str) else next((n for n, m in names.items() if m is module), type(module).__name__)
        stages.append((plain_name(found) or "the whole model", members))
    if not stages:
        raise ValueError("layers is empty; give modules or their names, or None for all")
    places = {name: i for i, name in enumerate(ordered)}
    return sorted(stages, key=lambda stage: places[stage[1][0][0]])
