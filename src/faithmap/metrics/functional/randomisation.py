r"""Model parameter randomisation (Adebayo et al. 2018, "Sanity Checks for Saliency Maps", Section 4).

A heatmap that explains what a model has learned must change if the model's weights are randomised. Layers lose their trained
weights, the images are explained again, and the new maps are compared with the original ones:

.. math:: s_l = similarity\bigl(\Phi_{f}(x), \Phi_{f_l}(x)\bigr)

:cascading: in :math:`f_l` all layers from the output down to l are random; after the last stage the whole model is.
:independent: in :math:`f_l` only layer l is random.

The similarity is Spearman's rank correlation of the cells, and SSIM of the maps at the images' size, each scaled to [0, 1]
(:mod:`faithmap.metrics.functional.agreement`).

A layer is a module with parameters of its own. Its new values are drawn in a copy of it, on the CPU, with a generator whose
seed is derived from the run's seed and the layer's name: a layer gets the same values whichever other layers are random.

:initialiser: the layer's ``reset_parameters``, or ``_reset_parameters`` of torch's attention. Buffers that it resets are reset
    with it: the statistics of a batch norm become mean 0 and variance 1. Parameters that it does not reset, such as class
    tokens, position embeddings and LayerScale, are permuted.
:permutation: the trained values of every parameter in random order; buffers stay. The scale of a layer, and with it the scale
    of the signal, stays the same. A parameter with a single value does not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from faithmap.capture import uncompiled
from faithmap.explanation import Explanation
from faithmap.metrics.functional.agreement import resampled, spearman, ssim
from faithmap.metrics.functional.curves import Progress, as_explanation
from faithmap.model import check_images, exclusive, module_named, plain_names, undisturbed
from faithmap.probe import clean_scores
from faithmap.score import Target
from faithmap.seeds import derived, seeded
from faithmap.warning_types import suppressed

RandomisationMode: TypeAlias = Literal["cascading", "independent"]
WeightDraw: TypeAlias = Literal["initialiser", "permutation"]


class ModelExplainer(Protocol):
    """Any callable that returns heatmaps for images and a target, with the model that it explains.

    >>> from faithmap import Gradient
    >>> explainer: ModelExplainer = Gradient(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)))
    """

    @property
    def model(self) -> nn.Module:
        """The model whose weights are randomised."""

    def __call__(self, images: Tensor, target: Any, /) -> Explanation | Tensor:
        """One map per image.

        Args:
            images: the images that are explained.
            target: the target of the call, a class for each image where it was None.
        """


@dataclass(frozen=True, eq=False)
class Randomisation:
    """Similarity of the original heatmaps of n images to those of l randomised models, as :func:`randomisation` returns it.

    Attributes:
        layers: names of the stages, from the output down.
        spearman: rank correlation with the original map, in [-1, 1]; 0 for a constant map.
        ssim: structural similarity to the original map, in [-1, 1].
        flat: whether the randomised model's map is constant: it has no order, and its similarities mean little.
        original: the explanations of the trained model.
        heatmaps: the explanations of each stage, if they were kept.
        mode: cascading or independent.
        draw: how the random values were drawn.
        absolute: whether absolute values were compared.

    >>> from faithmap import Gradient
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    >>> result = randomisation(Gradient(model), torch.rand(2, 3, 8, 8))
    >>> result.layers, result.spearman.shape
    (('1',), torch.Size([2, 1]))
    """

    layers: tuple[str, ...]
    spearman: Float[Tensor, "n l"]
    ssim: Float[Tensor, "n l"]
    flat: Bool[Tensor, "n l"]
    original: Explanation
    heatmaps: tuple[Explanation, ...]
    mode: RandomisationMode
    draw: WeightDraw
    absolute: bool

    def __len__(self) -> int:
        return len(self.spearman)

    def __getitem__(self, image: int) -> Randomisation:
        """The result of one image, still with a leading dimension of 1."""
        rows = {name: getattr(self, name)[image].unsqueeze(0) for name in ("spearman", "ssim", "flat")}
        heatmaps = tuple(explanation[image] for explanation in self.heatmaps)
        return replace(self, **rows, original=self.original[image], heatmaps=heatmaps)


def randomisation(
    explainer: ModelExplainer,
    images: Float[Tensor, "n c h w"],
    target: Target = None,
    *,
    mode: RandomisationMode = "cascading",
    layers: Sequence[str | nn.Module] | None = None,
    draw: WeightDraw = "initialiser",
    absolute: bool = False,
    seed: int = 0,
    generator: Sequence[torch.Generator] | None = None,
    keep_heatmaps: bool = False,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> Randomisation:
    """Explain the images with the trained model and after each stage of randomisation.

    Afterwards the model is bit for bit the same, also after an error, and so are the states of torch's random generators. All
    stages start from the same state of these generators. The target is resolved once, by the trained model.

    >>> from faithmap import Gradient
    >>> torch.manual_seed(0) and None
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
    >>> result = randomisation(Gradient(model), torch.rand(2, 3, 8, 8))
    >>> result.layers, tuple(result.spearman.shape)
    (('3', '0'), (2, 2))

    Args:
        explainer: of this library, or any callable ``explainer(images, target)`` with a ``model``.
        images: as the explainer takes them.
        target: as the explainer takes it; None for the predicted class of the trained model.
        mode: ``cascading`` randomises all layers from the output down to each one, ``independent`` one layer at a time.
        layers: one stage each: a module or its dotted name; all layers inside it are randomised together. They are sorted from
            the output down. None makes every layer a stage.
        draw: by each layer's own initialiser, or by permuting the trained values.
        absolute: compare the absolute values of the maps, so that a map with inverted signs counts as the same.
        seed: seed of the random values.
        generator: one per image, passed to the explainer at every stage in the same state; None passes nothing.
        keep_heatmaps: return the maps of every stage.
        chunk_size: maximum number of images per pass while the target is resolved.
        progress: called with (explanations done, number of explanations).

    Raises:
        ValueError: for images, targets or layers that do not fit, or maps with NaN.
        TypeError: for an explainer without a model.
    """
    model = _checked_model(explainer, images, mode, draw, chunk_size)
    order = LayerOrder(model)
    with undisturbed(model), order.watch():
        _, score, _ = clean_scores(model, images, target, "logit", chunk_size)
    stages = _stages(model, order.layers, layers)
    resolved = target if score.classes is None else score.classes
    explain = _RepeatedExplainer(explainer, images.detach(), resolved, seed, generator)
    trained = TrainedState(model)
    similarities: list[tuple[Tensor, Tensor, Tensor]] = []
    kept: list[Explanation] = []
    report = progress or _no_progress
    with exclusive(model), trained.restored():
        original = explain(clean=True)
        report(1, len(stages) + 1)
        for i, (_, members) in enumerate(stages):
            if mode == "independent":
                trained.write_back()
            for name, layer in members:
                randomise_layer(name, layer, seed, draw)
            explanation = explain(clean=False)
            similarities.append(_similarity(original, explanation, absolute=absolute))
            kept += [explanation] * keep_heatmaps
            report(i + 2, len(stages) + 1)
    rank, structure, flat = (torch.stack(values, dim=1) for values in zip(*similarities, strict=True))
    names = tuple(name for name, _ in stages)
    return Randomisation(names, rank, structure, flat, original, tuple(kept), mode, draw, absolute)


@dataclass
class _RepeatedExplainer:
    """Explains the same images with the same target and the same random numbers at every stage."""

    explainer: ModelExplainer
    images: Float[Tensor, "n c h w"]
    target: Target
    seed: int
    generator: Sequence[torch.Generator] | None

    def __post_init__(self) -> None:
        self.states = [generator.get_state() for generator in self.generator or ()]

    def __call__(self, *, clean: bool) -> Explanation:
        """The maps. Warnings about maps of random models are suppressed, since such maps are expected to fail."""
        for generator, state in zip(self.generator or (), self.states, strict=True):
            generator.set_state(state)
        arguments = {} if self.generator is None else {"generator": self.generator}
        explain: Any = self.explainer
        with seeded(self.seed, self.images.device), nullcontext() if clean else suppressed():
            return as_explanation(explain(self.images, self.target, **arguments), self.images)


def _no_progress(done: int, total: int) -> None:
    del done, total


def _similarity(first: Explanation, second: Explanation, *, absolute: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Spearman and SSIM of each pair of maps, and whether the second map is constant."""
    maps = second.heatmap.detach()
    flat = maps.amax(dim=(1, 2)) == maps.amin(dim=(1, 2))
    a, b = (replace(one, heatmap=one.heatmap.abs()) if absolute else one for one in (first, second))
    return spearman(a, b), ssim(*(resampled(one, one.image_size) for one in (a, b))), flat


def _checked_model(explainer: ModelExplainer, images: Tensor, mode: str, draw: str, chunk_size: int) -> nn.Module:
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


Stage: TypeAlias = tuple[str, list[tuple[str, nn.Module]]]
"""A name, and the named layers that are randomised together."""

WHOLE = "the whole model"
"""Name of a stage in which all layers are randomised."""


def _stages(model: nn.Module, ordered: dict[str, nn.Module], given: Sequence[str | nn.Module] | None) -> list[Stage]:
    """The layers that become random at each stage, from the output down."""
    if not ordered:
        raise ValueError(f"{type(model).__name__} has no parameters; there is nothing to randomise")
    if given is None:
        return [(name, [(name, layer)]) for name, layer in ordered.items()]
    names = plain_names(model)
    stages: list[Stage] = []
    for entry in dict.fromkeys([given] if isinstance(given, (str, nn.Module)) else given):
        module = module_named(model, entry) if isinstance(entry, str) else entry
        inside = {id(m) for m in module.modules()} if module is not None else set()
        members = [(name, layer) for name, layer in ordered.items() if id(layer) in inside]
        if not members:
            known = ", ".join(list(ordered)[:3])
            raise ValueError(f"layers names {entry!r}, which is no module of the model with parameters; its last are {known}")
        own = [name for name, known in names.items() if known is module]
        stages.append((str(entry) if entry in own else next(iter(own), "") or WHOLE, members))
    if not stages:
        raise ValueError("layers is empty; give modules or their names, or None for all")
    positions = {name: i for i, name in enumerate(ordered)}
    return sorted(stages, key=lambda stage: positions[stage[1][0][0]])


class LayerOrder:
    """Layers by their dotted names, in the order in which a forward pass runs them.

    A layer that runs several times is placed where it runs last. A layer that is not called as a module, such as the projection
    whose weights torch's attention reads, is placed right behind its parent module.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._last: dict[nn.Module, int] = {}
        self._calls = 0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Record the calls of all modules inside the block; the hooks are removed afterwards."""
        handles = [module.register_forward_pre_hook(self._record) for module in self.model.modules()]
        try:
            with uncompiled():
                yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def layers(self) -> dict[str, nn.Module]:
        """All layers with parameters, from the output down."""
        modules = dict(self.model.named_modules())
        times: dict[str, int] = {}
        for name, module in modules.items():
            times[name] = self._last.get(module, times.get(name.rpartition(".")[0], 0))
        ascending = sorted(modules, key=times.__getitem__)  # stable: a module stays behind its parent
        inner = {module: name for name, module in reversed(plain_names(self.model).items())}
        with_own = [name for name in reversed(ascending) if next(modules[name].parameters(recurse=False), None) is not None]
        return {inner.get(modules[name], name): modules[name] for name in with_own}

    def _record(self, module: nn.Module, arguments: object) -> None:
        del arguments
        self._calls += 1
        self._last[module] = self._calls


class TrainedState:
    """A copy of a model's values, training modes and gradient flags, to restore them."""

    def __init__(self, model: nn.Module) -> None:
        self.values = [(t, t.detach().clone()) for t in (*model.parameters(), *model.buffers()) if _is_writable(t)]
        self.modes = [(module, module.training) for module in model.modules()]
        self.flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Evaluation mode and gradients enabled inside the block; afterwards everything is restored, also after an error."""
        try:
            for module, _ in self.modes:
                module.training = False
            with torch.enable_grad():
                yield
        finally:
            self.write_back()
            for module, mode in self.modes:
                module.training = mode
            for parameter, flag in self.flags:
                parameter.requires_grad_(flag)

    def write_back(self) -> None:
        """Restore the values only. They bypass autograd, so that a graph that the user built before stays valid."""
        for tensor, value in self.values:
            tensor.data.copy_(value)


def randomise_layer(name: str, layer: nn.Module, seed: int, draw: WeightDraw) -> None:
    """Write new values into a layer's own parameters, and into the buffers that its initialiser resets."""
    seed = derived(seed, name)
    new = _initialised(layer, seed) if draw == "initialiser" else {}
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in layer.named_parameters(recurse=False):
        trained = _on_cpu(parameter)
        unchanged = key not in new or torch.equal(trained, new[key])
        parameter.data.copy_(_permuted(trained, generator) if unchanged else new[key])
    for key, buffer in layer.named_buffers(recurse=False):
        if key in new and not torch.equal(_on_cpu(buffer), new[key]):
            buffer.data.copy_(new[key])


def _initialised(layer: nn.Module, seed: int) -> dict[str, Tensor]:
    """New values of the layer's own parameters and buffers by its initialiser; empty without an initialiser."""
    name = next((n for n in ("reset_parameters", "_reset_parameters") if callable(getattr(layer, n, None))), None)
    if name is None:
        return {}
    copy = _copied_to_cpu(layer)
    with seeded(seed, torch.device("cpu")), torch.no_grad():
        getattr(copy, name)()
    own = (*copy.named_parameters(recurse=False), *copy.named_buffers(recurse=False))
    return {key: value.detach() for key, value in own}


def _permuted(values: Tensor, generator: torch.Generator) -> Tensor:
    return values.flatten()[torch.randperm(values.numel(), generator=generator)].view(values.shape)


def _copied_to_cpu(module: nn.Module) -> nn.Module:
    """A copy on the CPU that shares no tensor, in single precision or better, but shares hooks and all other attributes."""
    copy = object.__new__(type(module))
    copy.__dict__.update(module.__dict__)
    parameters = {key: None if p is None else nn.Parameter(_on_cpu(p), False) for key, p in module._parameters.items()}
    buffers = {key: None if b is None else _on_cpu(b) for key, b in module._buffers.items()}
    children = {key: None if child is None else _copied_to_cpu(child) for key, child in module._modules.items()}
    copy.__dict__.update(_parameters=parameters, _buffers=buffers, _modules=children)
    return copy


def _on_cpu(value: Tensor) -> Tensor:
    half = value.dtype in (torch.float16, torch.bfloat16)
    return value.detach().to("cpu", torch.float32 if half else value.dtype, copy=True)


def _is_writable(tensor: Tensor) -> bool:
    """Whether every element has its own place in memory; an expanded tensor does not."""
    return all(size <= 1 or stride != 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
