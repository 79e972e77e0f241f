r"""Baselines: what a removed pixel becomes, and images of which a part is removed.

A baseline should have no evidence for the explained class, :math:`f_c(b) \\approx 0`, and should not be so far from the
training images that the model's output for it is arbitrary. I-GOS uses a strong blur. Both public I-GOS codes use a Gaussian
with kernel 51 and sigma 50 at 224 pixels. The kernel is cut at half a sigma, so that it is almost a box. :class:`Blur` has
both numbers as settings; the untruncated Gaussian, a stronger baseline, has another name.

Baselines have the units of the images, [0, 1] pixels for a Classifier. The baseline of an image does not depend on the others.

A mask M shows the image where it is 1, and the baseline b where it is 0 (I-GOS, Eqs. 2 and 9):

.. math:: \Phi(I, M) = I \cdot up(M) + b \, (1 - up(M))

with :math:`up` the bilinear upsampling to the image's size, corners aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

REFERENCE_SIZE = 224
"""The image side, in pixels, at which kernel sizes and sigmas are given; they scale with the shorter side."""


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with mirrored borders. The defaults are those of both public I-GOS codes.

    Args:
        kernel_size: side of the kernel, in pixels at 224; an odd number of at least 1. None for a kernel of three sigmas on
            either side, or as large as the image allows.
        sigma: standard deviation of the Gaussian, in pixels at 224, above 0.

    Raises:
        ValueError: for a kernel_size below 1, or a sigma that is not above 0.

    >>> dot = torch.zeros(1, 1, 1, 5)
    >>> dot[..., 2] = 1
    >>> Blur(sigma=224.0)(dot)  # scaled to this image, a kernel of one pixel
    tensor([[[[0., 0., 1., 0., 0.]]]])
    """

    family: ClassVar[str] = "blur"
    kernel_size: int | None = 51
    sigma: float = 50.0

    def __post_init__(self) -> None:
        if self.kernel_size is not None and self.kernel_size < 1:
            raise ValueError(f"kernel_size is {self.kernel_size}; give an odd number of pixels, 1 or more, or None")
        if not self.sigma > 0:
            raise ValueError(f"sigma is {self.sigma}; give a number of pixels above 0")

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The blurred images."""
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
    """Median filter, then :class:`Blur`: the median removes thin lines and edges, which a blur only spreads.

    Args:
        window: side of the square whose median is taken, in pixels at 224; an odd number of at least 1. At the default of 11,
            lines of up to 5 pixels disappear.
        blur: the blur after the median filter.

    Raises:
        ValueError: for a window below 1.

    >>> line = torch.zeros(1, 1, 224, 224)
    >>> line[..., 112] = 1
    >>> MedianBlur()(line).max()
    tensor(0.)
    """

    family: ClassVar[str] = "blur"
    window: int = 11
    blur: Blur = Blur()

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window is {self.window}; give an odd number of pixels, 1 or more")

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The filtered and blurred images."""
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
    """One value for all pixels, or one value for each channel.

    Args:
        value: in the units of the images, [0, 1] for a Classifier; one number, or one for each channel. The default is a medium
            grey.

    >>> Constant((0.1, 0.2, 0.3))(torch.zeros(1, 3, 1, 1)).flatten()
    tensor([0.1000, 0.2000, 0.3000])
    """

    family: ClassVar[str] = "colour"
    value: float | tuple[float, ...] = 0.5

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The constant, in the shape of the images."""
        values = torch.as_tensor(self.value, device=images.device, dtype=images.dtype)
        return values.view(-1, 1, 1).expand(images.shape[1:]).expand(images.shape).clone()


@dataclass(frozen=True)
class Mean:
    """The mean colour of each image.

    >>> Mean()(torch.tensor([[[[0.0, 1.0]]]]))
    tensor([[[[0.5000, 0.5000]]]])
    """

    family: ClassVar[str] = "colour"

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The mean of each channel, in the shape of the images."""
        return images.mean(dim=(2, 3), keepdim=True).expand(images.shape).clone()


@dataclass(frozen=True)
class Noise:
    """Gaussian noise, clipped to [0, 1]. All images have the same noise, so that it does not depend on the batch.

    Args:
        mean: mean of the noise, in pixel values; the default is the middle of [0, 1].
        std: standard deviation, in pixel values, at least 0. At the default, few values are clipped.
        seed: seed of the random numbers.

    >>> Noise(std=0.0)(torch.zeros(1, 1, 1, 2))
    tensor([[[[0.5000, 0.5000]]]])
    """

    family: ClassVar[str] = "noise"
    mean: float = 0.5
    std: float = 0.2
    seed: int = 0

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The noise, in the shape of the images."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(images.shape[1:], generator=generator, dtype=torch.float32).mul(self.std).add(self.mean).clamp(0, 1)
        return noise.to(images).expand(images.shape).clone()


@dataclass(frozen=True)
class Shuffled:
    """The patches of each image in another order: its colours and textures without its shapes. No patch stays at its place.

    Args:
        patches: number along each side, at least 2; an image is extended by mirroring until they fit, and cut afterwards.
        seed: seed of the order, which all images share.

    Raises:
        ValueError: for fewer than 2 patches.

    >>> Shuffled(patches=2)(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    tensor([[[[3., 1.],
              [4., 2.]]]])
    """

    family: ClassVar[str] = "patches"
    patches: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.patches < 2:
            raise ValueError(f"patches is {self.patches}; give at least 2 along each side")

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images with their patches in another order."""
        height, width = images.shape[-2:]
        rows, columns = min(self.patches, height), min(self.patches, width)
        tall, wide = -(-height // rows), -(-width // columns)
        extended = F.pad(images, (0, wide * columns - width, 0, tall * rows - height), mode="replicate")
        patches = extended.unflatten(-2, (rows, tall)).unflatten(-1, (columns, wide)).transpose(-3, -2).flatten(2, 3)
        walk = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(self.seed)).to(images.device)
        order = torch.empty_like(walk).scatter_(0, walk, walk.roll(1))  # one cycle through all patches
        shuffled = patches[:, :, order].unflatten(2, (rows, columns)).transpose(-3, -2).flatten(-4, -3).flatten(-2)
        cut: Tensor = shuffled[..., :height, :width].contiguous()
        return cut


Baseline: TypeAlias = str | float | Tensor | Blur | MedianBlur | Constant | Mean | Noise | Shuffled | Callable[[Tensor], Tensor]
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


def family_of(baseline: Baseline) -> str:
    """The kind of removal that a baseline is: blur, colour, noise or patches; "own" for a tensor or any other callable.

    >>> family_of("strong_blur"), family_of(0.5), family_of("zero"), family_of(torch.zeros(3, 2, 2))
    ('blur', 'colour', 'colour', 'own')

    Args:
        baseline: in any form that :func:`make_baseline` takes, or "zero". A callable may have an attribute ``family``.
    """
    if isinstance(baseline, (int, float)):
        return Constant.family
    made = BASELINES.get(baseline, Constant()) if isinstance(baseline, str) else baseline
    return str(getattr(made, "family", "own"))


BaselineT = TypeVar("BaselineT")


def with_zero(baseline: BaselineT, zero: Constant) -> BaselineT | Constant:
    """The baseline; for "zero" the pixel value that is 0 in the model's normalised space.

    >>> with_zero("zero", Constant(0.4)), with_zero("black", Constant(0.4))
    (Constant(value=0.4), 'black')

    Args:
        baseline: in any form.
        zero: this pixel value.
    """
    return zero if isinstance(baseline, str) and baseline == "zero" else baseline


def make_baseline(baseline: Baseline, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The baseline image of each image.

    Args:
        baseline: a name from :data:`BASELINES`, a constant pixel value, a tensor that broadcasts to the images, or a
            callable that makes one from them.
        images: the explained images.

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
        raise ValueError("the baseline has NaN or infinite values")
    return made.expand(images.shape)


def describe_baseline(baseline: Any) -> dict[str, Any]:
    """A baseline, in any form that :func:`make_baseline` takes, as plain data for a result file."""
    if isinstance(baseline, str):
        return {"name": baseline, **(describe_baseline(BASELINES[baseline]) if baseline in BASELINES else {})}
    if isinstance(baseline, (int, float)):
        return {"kind": "Constant", "value": baseline}
    settings = asdict(baseline) if is_dataclass(baseline) and not isinstance(baseline, type) else {}
    return {"kind": getattr(baseline, "__name__", type(baseline).__name__), **settings}


RECOGNISED = 0.2
"""A baseline is recognised if it keeps more than this share of the image's probability, both less an uninformed model's."""


STILL_SCORES = "the baseline still scores"
"""The beginning of the message about a baseline that is recognised."""


def is_recognised(
    of_baseline: Float[Tensor, " n"], of_image: Float[Tensor, " n"], uninformed: float = 0.0
) -> Bool[Tensor, " n"]:
    """Whether the model still recognises a class in the baseline: by more than a share of the image's, or by no less than it.

    Of two classes one is always at least a half: shares are of what exceeds the probability of an uninformed model.

    Args:
        of_baseline: probabilities of the class in the baselines.
        of_image: its probabilities in the images.
        uninformed: its probability if the model knows nothing.

    >>> half, nearly_one = torch.tensor([0.5]), torch.tensor([0.98])
    >>> is_recognised(half, nearly_one, uninformed=0.5), is_recognised(half, nearly_one, uninformed=0.001)
    (tensor([False]), tensor([True]))
    """
    return (of_baseline - uninformed > RECOGNISED * (of_image - uninformed).clamp(min=0)) | (of_baseline >= of_image)


def recognised_message(
    probability: Callable[[Float[Tensor, "m c h w"]], Float[Tensor, " m"]],
    image: Float[Tensor, "1 c h w"],
    of_baseline: float,
    of_image: float,
    uninformed: float = 0.0,
) -> str:
    """What is wrong with a baseline that is still recognised, and which of :data:`BASELINES` would be best for this image.

    Args:
        probability: of the explained class, for some images; called with all named baselines.
        image: the explained image.
        of_baseline: probability of the class in the baseline.
        of_image: probability of the class in the image.
        uninformed: its probability if the model knows nothing.

    >>> recognised_message(lambda z: z.mean(dim=(1, 2, 3)), torch.ones(1, 1, 8, 8), 1.0, 1.0)
    "the baseline still scores 1.000 of the image's 1.000; for this image baseline='black' leaves 0.000"
    """
    still = f"{STILL_SCORES} {of_baseline:.3f} of the image's {of_image:.3f}"
    try:
        scores = probability(torch.cat([make_baseline(name, image) for name in BASELINES]))
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError):  # of the model, for one of these images
        return f"{still}; give one that removes the class"
    name, least = list(BASELINES)[int(scores.argmin())], float(scores.min())
    if not is_recognised(scores.min(), scores.new_tensor(of_image), uninformed):
        return f"{still}; for this image baseline={name!r} leaves {least:.3f}"
    return (
        f"{still}; no named baseline removes the class from this image, {name!r} leaves the least, {least:.3f}: give your own"
    )


def upsample(mask: Float[Tensor, "m 1 r c"], size: tuple[int, int]) -> Float[Tensor, "m 1 h w"]:
    """The mask at the size (height, width), bilinear with aligned corners; a mask of that size is returned unchanged.

    >>> upsample(torch.tensor([[[[0.0, 1.0]]]]), (1, 3))
    tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    if tuple(mask.shape[-2:]) == size:
        return mask
    return F.interpolate(mask, size, mode="bilinear", align_corners=True)


def compose(
    image: Float[Tensor, "m c h w"], baseline: Float[Tensor, "m c h w"], mask: Float[Tensor, "m 1 h w"]
) -> Float[Tensor, "m c h w"]:
    """Phi: the image where the upsampled mask is 1, the baseline where it is 0.

    >>> compose(torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.25]]]]))
    tensor([[[[1.0000, 0.2500]]]])
    """
    return torch.addcmul(baseline, mask, image - baseline)
