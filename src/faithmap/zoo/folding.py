r"""Folding: batch normalisation merged into the convolution before it, the same function with fewer passes over memory.

In evaluation mode, normalisation is affine for each channel, and can be part of the convolution (Jacob et al. 2018,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", Eq. 14):

.. math:: W' = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} W, \qquad
          b' = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} (b - \mu) + \beta

Running the module once shows which convolution feeds which normalisation; comparing the outputs before and after shows
whether it feeds anything else.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.score import logits_of

_TOLERANCE = 1e-4  # of the largest logit
_Pairs: TypeAlias = list[tuple[str, str]]
_Observations: TypeAlias = dict[str, list[tuple[Tensor, int]]]


def fold_batch_norm(module: nn.Module, size: tuple[int, int, int]) -> nn.Module:
    """A copy of the module, for evaluation, with every BatchNorm2d folded that is the only reader of one Conv2d.

    Module names do not change, so that target layers are still found: an identity replaces a folded normalisation, and the
    activation inside replaces one of timm. The output of a folded convolution is already normalised. A module without any such
    pair is returned unchanged, and so is one whose logits would change by more than 1e-4 of the largest.

    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
    >>> fold_batch_norm(module, (3, 8, 8))[1]
    Identity()

    Args:
        module: a classifier; it is put in evaluation mode.
        size: (channels, height, width) of one input.
    """
    module = module.eval()
    if not any(isinstance(child, nn.BatchNorm2d) for child in module.modules()):
        return module
    first, second = _probes(module, size)
    with torch.no_grad():
        pairs = _pairs(module, first)
        if not pairs:
            return module
        folded = copy.deepcopy(module)
        _fold(folded, pairs)
        return folded if _agree(module, folded, second) else module


def _probes(module: nn.Module, size: tuple[int, int, int]) -> list[Float[Tensor, "1 c h w"]]:
    generator = torch.Generator().manual_seed(0)
    reference = next(module.parameters())
    return [torch.randn((1, *size), generator=generator).to(reference) for _ in range(2)]


def _pairs(module: nn.Module, image: Float[Tensor, "1 c h w"]) -> _Pairs:
    """Names of each convolution and the normalisation that reads exactly its unchanged output, once."""
    made, read = _observe(module, image)
    readers = defaultdict(list)
    for norm, inputs in read.items():
        for conv, outputs in made.items():
            if any(read_in is output and old == new for read_in, new in inputs for output, old in outputs):
                readers[conv].append(norm)
    return [(conv, norms[0]) for conv, norms in readers.items() if len(norms) == len(made[conv]) == len(read[norms[0]]) == 1]


def _observe(module: nn.Module, image: Float[Tensor, "1 c h w"]) -> tuple[_Observations, _Observations]:
    """Outputs of convolutions and inputs of normalisations, with the tensors' counters of in-place changes."""
    made: _Observations = defaultdict(list)
    read: _Observations = defaultdict(list)
    hooks = []
    for name, child in module.named_modules():
        if isinstance(child, nn.Conv2d) and "weight" in dict(child.named_parameters(recurse=False)):

            def after(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
                made[name].append((output, output._version))

            hooks.append(child.register_forward_hook(after))
        elif isinstance(child, nn.BatchNorm2d) and _replacement_of(child) is not None:

            def note_input(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                read[name].extend((value, value._version) for value in inputs)

            hooks.append(child.register_forward_pre_hook(note_input))
    try:
        module(image)
    finally:
        for hook in hooks:
            hook.remove()
    return made, read


def _replacement_of(norm: nn.BatchNorm2d) -> nn.Module | None:
    """The module that replaces a folded normalisation; None if unknown."""
    if norm.running_mean is None or norm.running_var is None:
        return None
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    children = dict(norm.named_children())
    if list(children) == ["drop", "act"]:  # timm.layers.BatchNormAct2d
        return nn.Sequential(OrderedDict(children))
    return None


def _fold(module: nn.Module, pairs: _Pairs) -> None:
    replacements: dict[nn.Module, nn.Module] = {}
    for conv_name, norm_name in pairs:
        conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and (rest := _replacement_of(norm)) is not None:
            conv.weight, conv.bias = _folded_parameters(conv, norm)
            replacements[norm] = rest.eval()
    for name, child in list(module.named_modules(remove_duplicate=False)):
        if child in replacements:
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, replacements[child])


def _folded_parameters(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    """The equation of the module docstring, in double precision; ``requires_grad`` does not change."""
    values = {key: value.detach().double() for key, value in norm.state_dict().items()}
    scale = (values["running_var"] + norm.eps).rsqrt() * values.get("weight", 1)
    conv_bias = 0 if conv.bias is None else conv.bias.double()
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    bias = scale * (conv_bias - values["running_mean"]) + values.get("bias", 0)
    dtype, needs_gradient = conv.weight.dtype, conv.weight.requires_grad
    return nn.Parameter(weight.to(dtype), needs_gradient), nn.Parameter(bias.to(dtype), needs_gradient)


def _agree(module: nn.Module, folded: nn.Module, image: Float[Tensor, "1 c h w"]) -> bool:
    expected, actual = logits_of(module(image)), logits_of(folded(image))
    return bool((expected - actual).abs().max() <= _TOLERANCE * expected.abs().max())
