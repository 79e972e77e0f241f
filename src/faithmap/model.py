"""Classifier: any torch module, made to take [0, 1] pixels.

The preprocessing of a model has two parts. Its *geometry* (resize, then crop the centre) decides which part of an image the
model is given. Both steps are affine in pixel coordinates: the input corresponds to a rectangular window of the original image,
and a heatmap is drawn in that window. Its *normalisation*, :math:`(x - mean) / std` for each channel, becomes part of the
Classifier: its input is always in [0, 1].
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.baselines import Constant
from faithmap.locks import locked
from faithmap.score import OutputKind, at_least_single, logits_of


class Window(NamedTuple):
    """A rectangle on the original image, in pixels from its top left corner; it exceeds the image if the crop was padded."""

    top: float
    left: float
    height: float
    width: float


@dataclass(frozen=True)
class Geometry:
    """Resize, then crop the centre.

    Args:
        resize: length of the shorter side in pixels, or (height, width); None keeps the size.
        crop: (height, width) of the crop of the centre, in pixels, padded with black if the image is smaller; None keeps the
            whole image.
        interpolation: interpolation of the resize, with antialiasing.

    >>> geometry = Geometry(resize=256, crop=(224, 224))
    >>> geometry(torch.zeros(1, 3, 300, 400)).shape
    torch.Size([1, 3, 224, 224])
    >>> geometry.resized((300, 400))
    (256, 341)
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __call__(self, photo: Float[Tensor, "n c H W"]) -> Float[Tensor, "n c h w"]:
        """The model's input for original images; values stay in [0, 1].

        Args:
            photo: in [0, 1], of any size.
        """
        size = self.resized(photo.shape[-2:])
        if size != tuple(photo.shape[-2:]):
            photo = F.interpolate(photo, size, mode=self.interpolation, antialias=True, align_corners=False).clamp(0, 1)
        if self.crop is None:
            return photo
        top, left = self._offset(size, self.crop)
        height, width = self.crop
        return F.pad(photo, (-left, left + width - size[1], -top, top + height - size[0]))

    def resized(self, size: tuple[int, int] | torch.Size) -> tuple[int, int]:
        """The size of an original image after the resize, before the crop.

        Args:
            size: (height, width) of the original image, in pixels.
        """
        height, width = size
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        longer = max(1, self.resize * max(height, width) // min(height, width))
        return (self.resize, longer) if height <= width else (longer, self.resize)

    def window(self, size: tuple[int, int] | torch.Size) -> Window:
        """The part of an original image that becomes the model's input.

        Args:
            size: (height, width) of the original image, in pixels.
        """
        height, width = self.resized(size)
        crop = self.crop or (height, width)
        top, left = self._offset((height, width), crop)
        down, across = size[0] / height, size[1] / width
        return Window(top * down, left * across, crop[0] * down, crop[1] * across)

    def place(self, heatmap: Float[Tensor, "n h w"], size: tuple[int, int] | torch.Size) -> Float[Tensor, "n H W"]:
        """A heatmap of the model's input, resampled to the original image; NaN outside the model's window.

        Args:
            heatmap: values at the pixels of the model's input.
            size: (height, width) of the original image, in pixels.
        """
        top, left, height, width = self.window(size)
        rows = (torch.arange(size[0], device=heatmap.device) + 0.5 - top) / height
        columns = (torch.arange(size[1], device=heatmap.device) + 0.5 - left) / width
        grid = torch.stack(torch.meshgrid(2 * columns - 1, 2 * rows - 1, indexing="xy"), dim=-1)
        grid = grid.to(heatmap.dtype).expand(len(heatmap), -1, -1, -1)
        placed = F.grid_sample(heatmap.unsqueeze(1), grid, padding_mode="border", align_corners=False).squeeze(1)
        outside = (grid.abs() > 1).any(dim=-1)
        return placed.masked_fill(outside, math.nan)

    @staticmethod
    def _offset(size: tuple[int, int], crop: tuple[int, int]) -> tuple[int, int]:
        return round((size[0] - crop[0]) / 2), round((size[1] - crop[1]) / 2)


class Classifier(nn.Module):
    """A module that takes images in [0, 1] and returns logits, or an output for a callable target.

    Args:
        module: takes normalised images (n, c, h, w) in its own dtype; returns logits, or a tuple, dict or Hugging Face
            output with logits.
        mean: of each channel, in [0, 1] pixel units, as the module was trained with.
        std: standard deviation of each channel, likewise, above 0.
        labels: one name per class.
        geometry: resize and crop of an image to the module's input; None for the whole image.
        name: of the model in reports; None for the module's class.
        digest: of the weights, if they were read from a file.
        whole_output: return the module's whole output, such as a segmenter's dict, a detector's list or a single number per
            image, for callable targets such as those of :mod:`faithmap.targets`.
        outputs: what the module returns for its classes: ``logits`` of a softmax; ``probabilities``, as after a final softmax
            or sigmoid; or ``sigmoid``, logits with a sigmoid for each class, as of a model with several labels or with a single
            logit. None for logits, unless the outputs are seen to be probabilities, which is a warning.

    Raises:
        ValueError: for a wrong number of means, a std that is not above 0, or an unknown kind of outputs.

    >>> model = Classifier(nn.Flatten(), mean=(0.5,), std=(0.25,), labels=("dark", "light"))
    >>> model(torch.tensor([[[[0.5, 1.0]]]])), model.label(1)
    (tensor([[0., 2.]]), 'light')
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        labels: Sequence[str] | None = None,
        geometry: Geometry | None = None,
        name: str | None = None,
        digest: str | None = None,
        whole_output: bool = False,
        outputs: OutputKind | None = None,
    ) -> None:
        super().__init__()
        if outputs not in (None, *get_args(OutputKind)):
            raise ValueError(f"outputs is {outputs!r}; give 'logits', 'probabilities' or 'sigmoid', or None")
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"mean has {len(mean)} channels and std {tuple(std)}; give one positive std for each mean")
        self.module = module
        self.labels = None if labels is None else tuple(labels)
        self.geometry = geometry or Geometry()
        self.name = name or type(module).__name__
        self.digest = digest
        self.whole_output = whole_output
        self.outputs = outputs
        reference = next(module.parameters(), torch.empty(0))
        for key, values in (("mean", mean), ("std", std)):
            self.register_buffer(key, torch.tensor(values, device=reference.device).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """The device that images have to be on."""
        return self.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the module. Images of any floating dtype are converted."""
        return weights_dtype(self.module) or self.mean.dtype

    def forward(self, images: Float[Tensor, "n c h w"]) -> Any:
        """Logits (n, classes) of [0, 1] images, in single precision or better; or the module's whole output.

        Args:
            images: in [0, 1], on the model's device, of the size that the module takes.
        """
        normalised = (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)
        output = self.module(normalised.to(self.dtype))
        return output if self.whole_output else at_least_single(logits_of(output))

    def preprocess(self, photo: Float[Tensor, "n c H W"]) -> Float[Tensor, "n c h w"]:
        """Resize and crop images for the model; still in [0, 1], on the model's device.

        Args:
            photo: RGB in [0, 1], of any size.
        """
        return self.geometry(photo.to(self.device))

    def read(self, path: str | os.PathLike[str]) -> Float[Tensor, "1 3 h w"]:
        """Read an image and preprocess it.

        Args:
            path: an image file, in any format that :func:`faithmap.read_image` reads.

        Raises:
            faithmap.data.ImageError: for a file that is no image, or cannot be read safely.
        """
        from faithmap.data import read_image  # noqa: PLC0415 - only this method reads files

        return self.preprocess(read_image(path))

    def label(self, index: int) -> str:
        """The name of a class, or ``class 7`` without names.

        Args:
            index: of the class, from 0.
        """
        return self.labels[index] if self.labels and index < len(self.labels) else f"class {index}"

    def find(self, name: str) -> int:
        """The class of that name, in any letter case, or of that index.

        Args:
            name: name of a class, or its index as text.

        Raises:
            ValueError: if there is none, with the nearest names, or if there are several.
        """
        if name.isdecimal() and (self.labels is None or int(name) < len(self.labels)):
            return int(name)
        labels = [_plain(label) for label in self.labels or ()]
        hits = [i for i, label in enumerate(labels) if label == _plain(name)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise ValueError(f"{name!r} names {len(hits)} classes: {', '.join(map(str, hits))}; give one of these numbers")
        near = difflib.get_close_matches(_plain(name), labels, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else "give a class name or its number"
        raise ValueError(f"{name!r} is no class of {self.name}; {hint}")


def weights_dtype(model: nn.Module) -> torch.dtype | None:
    """The dtype of a model's weights; None for a model without weights in floating point.

    >>> weights_dtype(nn.Linear(1, 1).half()), weights_dtype(nn.Flatten())
    (torch.float16, None)
    """
    return next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), None)


def plain_name(name: str) -> str:
    """A module's dotted name in the innermost model, without the prefixes of a Classifier, ``compile`` or parallel training.

    >>> plain_name("module._orig_mod.layer4")
    'layer4'
    """
    while (wrapper := next((w for w in ("module.", "_orig_mod.") if name.startswith(w)), None)) is not None:
        name = name.removeprefix(wrapper)
    return name


def plain_names(model: nn.Module) -> dict[str, nn.Module]:
    """Every module by its dotted names in the innermost model; a module that is used in two places has two names.

    Only modules around the whole model are left out of the names, not a member that happens to be called ``module``.

    >>> list(plain_names(nn.DataParallel(nn.Sequential(nn.ReLU()))))
    ['', '0']
    """
    prefix, inner = "", model
    while len(inner._modules) == 1 and (name := next(iter(inner._modules))) in ("module", "_orig_mod"):
        prefix, inner = f"{prefix}{name}.", inner.get_submodule(name)
    return dict(inner.named_modules(remove_duplicate=False))


def module_named(model: nn.Module, name: str) -> nn.Module | None:
    """The module of that name, which counts from the innermost model, or the model itself, or another model around it.

    >>> model = nn.Sequential(nn.ReLU())
    >>> module_named(nn.DataParallel(model), "0") is module_named(model, "module.0") is model[0]
    True
    """
    names, whole = plain_names(model), dict(model.named_modules(remove_duplicate=False))
    for known, key in ((names, name), (whole, name), (names, plain_name(name))):
        if key and key in known:
            return known[key]
    return None


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without weight gradients inside the block; all flags are restored afterwards, also after an error.

    Gradients to the input are enabled, also inside ``torch.no_grad`` and ``torch.inference_mode``. The library's arithmetic is
    not autocast: inside the caller's ``torch.autocast`` only the passes of the model are (:func:`pass_autocast`).

    One thread at a time, see :func:`exclusive`.

    >>> model = nn.Linear(1, 1)
    >>> with undisturbed(model):
    ...     model.training, model.weight.requires_grad
    (False, False)
    >>> model.training, model.weight.requires_grad
    (True, True)
    """
    modules = modules_of(model)
    with locked(modules), ExitStack() as stack:
        stack.enter_context(_evaluated(modules))
        stack.enter_context(_outside_autocast())
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield


@contextmanager
def _evaluated(modules: Sequence[nn.Module]) -> Iterator[None]:
    training = [module for module in modules if getattr(module, "training", False)]  # a frozen TorchScript has no mode
    own = (parameter for module in modules for parameter in module._parameters.values() if parameter is not None)
    trained = [parameter for parameter in own if parameter.requires_grad]
    try:
        for module in training:
            module.training = False
        for parameter in trained:
            parameter.requires_grad = False
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in trained:
            parameter.requires_grad = True


@contextmanager
def unrestricted(model: nn.Module) -> Iterator[None]:
    """Inside the block, modules that let only a part of the image through let all of it through.

    Such modules have a flag ``restricts``, see :mod:`faithmap.metrics.known_truth.regions`. Layers are found in this way, since
    they are recognised by changes at all places of an image.
    """
    restricting = [module for module in modules_of(model) if getattr(module, "restricts", False)]
    try:
        for module in restricting:
            module.__dict__["restricts"] = False
        yield
    finally:
        for module in restricting:
            module.__dict__["restricts"] = True


@contextmanager
def exclusive(model: nn.Module) -> Iterator[None]:
    """One thread at a time inside the block of one model, or of models that share a module; others wait until the block ends.

    A thread can enter the block of one model several times, and the block of another model inside it.

    Raises:
        RuntimeError: if two threads would wait for each other (:func:`faithmap.locks.locked`).
    """
    with locked(modules_of(model)):
        yield


_callers_autocast: ContextVar[Mapping[str, torch.dtype]] = ContextVar("callers_autocast", default=MappingProxyType({}))


@contextmanager
def _outside_autocast() -> Iterator[None]:
    """No autocast inside the block; what the caller had is kept for the model's passes."""
    enabled = {kind: torch.get_autocast_dtype(kind) for kind in _autocast_devices() if torch.is_autocast_enabled(kind)}
    token = _callers_autocast.set({**_callers_autocast.get(), **enabled})
    try:
        with ExitStack() as stack:
            for kind in enabled:
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        _callers_autocast.reset(token)


def _autocast_devices() -> tuple[str, ...]:
    accelerator = torch.accelerator.current_accelerator()
    return ("cpu",) if accelerator is None else ("cpu", accelerator.type)


def pass_autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Autocast for one pass of the model on the device, inside the block of :func:`undisturbed`.

    Args:
        device: of the images.
        dtype: the lower precision; None for that of the caller's ``torch.autocast`` around the block, if there is one.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16), undisturbed(nn.Identity()):
    ...     with pass_autocast(torch.device("cpu"), None):
    ...         within = torch.is_autocast_enabled("cpu")
    ...     torch.is_autocast_enabled("cpu"), within
    (False, True)
    """
    wanted = dtype or _callers_autocast.get().get(device.type)
    return nullcontext() if wanted is None else torch.autocast(device.type, dtype=wanted)


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Every module once. ``model.modules()`` also computes names, which takes longer than all other work around a pass."""
    found, visited = [model], {model}
    for module in found:
        for child in module._modules.values():
            if child is not None and child not in visited:
                visited.add(child)
                found.append(child)
    return found


def normalised_zero(model: nn.Module) -> Constant:
    """The pixel value that is 0 after the model's normalisation: a Classifier's mean colour.

    >>> normalised_zero(Classifier(nn.Flatten(), mean=(0.5,), std=(0.25,)))
    Constant(value=(0.5,))
    """
    return Constant(tuple(model.mean.flatten().tolist()) if isinstance(model, Classifier) else 0.0)


def working_images(model: nn.Module, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The images as the library computes with them: detached, contiguous, in single precision or better.

    In double precision for a model in double precision. Contiguous, so that random numbers added to them are drawn in the same
    order for every memory layout.

    >>> working_images(nn.Flatten(), torch.ones(1, 1, 1, 1, dtype=torch.float16)).dtype
    torch.float32
    """
    dtype = torch.float64 if torch.float64 in (images.dtype, weights_dtype(model)) else torch.float32
    with torch.inference_mode(False):
        images = images.detach().to(dtype).contiguous()
        return images.clone() if images.is_inference() else images


def check_images(model: nn.Module, images: Tensor) -> None:
    """Raise ValueError for images of a wrong shape, dtype, range or device, or with NaN."""
    if images.ndim != 4 or not images.is_floating_point() or 0 in images.shape:
        shape, dtype = tuple(images.shape), str(images.dtype).removeprefix("torch.")
        raise ValueError(f"images have shape {shape} and dtype {dtype}; give floating point (images, channels, height, width)")
    low, high = map(float, images.detach().aminmax())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError("images hold NaN or infinite values")
    if isinstance(model, Classifier):
        if images.device != model.device:
            raise ValueError(f"images are on {images.device}, the model is on {model.device}; move one of them")
        if low < -1e-3 or high > 1 + 1e-3:
            raise ValueError(f"pixels range from {low:.3g} to {high:.3g}; a Classifier takes [0, 1] and normalises by itself")


def check_observable(model: nn.Module, *, calls: bool = False) -> None:
    """Raise ValueError for a model whose layers cannot be observed: TorchScript, and static int8, whose tensors are no floats.

    Args:
        model: any.
        calls: whether the calls of torch functions have to be observed too, of which dynamic int8 has some of its own.

    >>> check_observable(nn.ReLU(), calls=True)
    """
    for name, module in model.named_modules():
        script, kind = isinstance(module, torch.jit.ScriptModule), type(module)
        home = kind.__module__ if kind.__name__ != "LinearPackedParams" else ""  # of static and of dynamic int8
        quantised = home.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized"))
        if script or (quantised and (calls or ".dynamic" not in home)):
            gradients = ", or one of gradients to the pixels, such as I-GOS, rank descent or Integrated Gradients"
            raise ValueError(
                f"module {name!r} is {'TorchScript' if script else 'quantised'}, whose layers and calls cannot be intercepted; "
                "give the original model, or a method that needs only scores: RISE, Occlusion, LIME or KernelSHAP"
                f"{gradients if script else ''}"
            )


def describe(model: nn.Module) -> dict[str, Any]:
    """Name, weight digest and number of labels, as plain data for a result file."""
    if isinstance(model, Classifier):
        return {"name": model.name, "digest": model.digest, "classes": len(model.labels) if model.labels else None}
    return {"name": type(model).__name__, "digest": None, "classes": None}
