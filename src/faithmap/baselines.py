r"""Baselines: what a removed pixel becomes.

A baseline must hold nothing of the explained class, :math:`f_c(b) \\approx 0`, and must not be so strange that the model
answers to the strangeness. I-GOS blurs the image heavily. Both public I-GOS codes use a Gaussian of kernel 51 and sigma
50 at 224 pixels, which the kernel cuts at half a sigma: in effect a box. :class:`Blur` names both numbers, so that the
untruncated Gaussian, a stronger baseline, has its own name.

All baselines work in the units of the images that they are given, [0, 1] pixels for a Classifier, and one image at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

REFERENCE_SIZE = 224
"""The image side, in pixels, at which kernel sizes and sigmas are given; they scale with the shorter side."""


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with mirrored borders.

    Args:
        kernel_size: in pixels at 224; odd. None keeps three sigmas on either side, or all that the image has.
        sigma: in pixels at 224.

    Raises:
        ValueError: for a kernel without a pixel, or a sigma that is not above 0.
    """

    kernel_size: int | None = 51
    sigma: float = 50.0

    def __post_init__(self) -> None:
        if self.kernel_size is not None and self.kernel_size < 1:
            raise ValueError(f"kernel_size is {self.kernel_size}; give an odd number of pixels, 1 or more, or None")
        if not self.sigma > 0:
            raise ValueError(f"sigma is {self.sigma}; give a number of pixels above 0")

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images, blurred."""
        scale = min(images.shape[-2:]) / REFERENCE_SIZE
        wanted = 3 * self.sigma if self.kernel_size is None else self.kernel_size // 2
        radius = min(round(wanted * scale), min(images.shape[-2:]) - 1)
        at = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (at / (self.sigma * scale)).square())
        kernel = (kernel / kernel.sum()).to(images.dtype)
        planes = F.pad(images.flatten(0, 1).unsqueeze(1), (radius,) * 4, mode="reflect")
        blurred = F.conv2d(F.conv2d(planes, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
        return blurred.view(images.shape)


@dataclass(frozen=True)
class MedianBlur:
    """Median filter, then :class:`Blur`: the median takes out the edges that a blur only spreads.

    Args:
        window: side of the median's square, in pixels at 224; odd.
        blur: what follows.

    Raises:
        ValueError: for a window without a pixel.
    """

    window: int = 11
    blur: Blur = Blur()

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window is {self.window}; give an odd number of pixels, 1 or more")

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images, filtered and blurred."""
        radius = round(self.window // 2 * min(images.shape[-2:]) / REFERENCE_SIZE)
        medians = [
            _windows(F.pad(plane[None, None], (radius,) * 4, mode="reflect"), radius).median(dim=1).values
            for plane in images.flatten(0, 1)
        ]
        return self.blur(torch.stack(medians).view(images.shape))


def _windows(plane: Float[Tensor, "1 1 h w"], radius: int) -> Float[Tensor, "1 k p"]:
    return F.unfold(plane, 2 * radius + 1)


@dataclass(frozen=True)
class Constant:
    """One value everywhere, or one for each channel."""

    value: float | tuple[float, ...] = 0.5

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The constant, in the images' shape."""
        values = torch.as_tensor(self.value, device=images.device, dtype=images.dtype)
        return values.view(-1, 1, 1).expand(images.shape[1:]).expand(images.shape).clone()


@dataclass(frozen=True)
class Mean:
    """Each image's own mean colour."""

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Each image's mean, in its shape."""
        return images.mean(dim=(2, 3), keepdim=True).expand(images.shape).clone()


@dataclass(frozen=True)
class Noise:
    """Gaussian noise, cut to [0, 1]; one draw for all images, so that a batch has no say in it.

    Args:
        mean: in pixel units.
        std: in pixel units.
        seed: of the draw.
    """

    mean: float = 0.5
    std: float = 0.2
    seed: int = 0

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The draw, in the images' shape."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(images.shape[1:], generator=generator).mul(self.std).add(self.mean).clamp(0, 1)
        return noise.to(images).expand(images.shape).clone()


Baseline: TypeAlias = str | float | Tensor | Blur | MedianBlur | Constant | Mean | Noise | Callable[[Tensor], Tensor]
"""A name from :data:`BASELINES`, a pixel value, a tensor, one of the classes above, or a callable."""

BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "blur": Blur(),
        "strong_blur": Blur(kernel_size=None),
        "median_blur": MedianBlur(),
        "black": Constant(0.0),
        "grey": Constant(0.5),
        "white": Constant(1.0),
        "mean": Mean(),
        "noise": Noise(),
    }
)


def make_baseline(baseline: Baseline, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The baseline image of each image.

    Args:
        baseline: a name from :data:`BASELINES`, a constant pixel value, a tensor that broadcasts to the images, or a
            callable that makes one from them.
        images: what is explained.

    Raises:
        ValueError: for an unknown name, a shape that does not fit, or values that are not finite.
    """
    if isinstance(baseline, str):
        if baseline not in BASELINES:
            raise ValueError(f"baseline {baseline!r} is unknown; give one of {', '.join(BASELINES)}")
        made = BASELINES[baseline](images)
    elif isinstance(baseline, Tensor):
        made = baseline.detach().to(images)
    elif callable(baseline):
        made = baseline(images).detach()
    else:
        made = Constant(float(baseline))(images)
    if torch.broadcast_shapes(made.shape, images.shape) != images.shape:
        raise ValueError(f"the baseline has shape {tuple(made.shape)}, which does not broadcast to {tuple(images.shape)}")
    if not bool(made.isfinite().all()):
        raise ValueError("the baseline holds NaN or infinite values")
    return made.expand(images.shape)


def describe_baseline(baseline: Any) -> dict[str, Any]:
    """A baseline, in any form that :func:`make_baseline` takes, as plain data for a result file."""
    if isinstance(baseline, str):
        return {"name": baseline, **(describe_baseline(BASELINES[baseline]) if baseline in BASELINES else {})}
    if isinstance(baseline, (int, float)):
        return {"kind": "Constant", "value": baseline}
    settings = asdict(baseline) if is_dataclass(baseline) and not isinstance(baseline, type) else {}
    return {"kind": getattr(baseline, "__name__", type(baseline).__name__), **settings}
