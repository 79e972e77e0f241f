"""A map depends on the model and the image, not on how they are stored or called: one sweep over the whole registry."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import pytest
import torch
from method_tools import TinyNet, cheap, small_images
from torch import Tensor, nn
from torch.nn import functional as F

import faithmap as fm
from faithmap.methods.cams import CAM, Expected, Integrated
from faithmap.methods.registry import METHODS

pytestmark = pytest.mark.sweep

Context = Callable[[], AbstractContextManager[object]]

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
CONTEXTS: dict[str, Context] = {
    "plain": nullcontext,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}
LAYOUTS = (torch.contiguous_format, torch.channels_last)
CHUNKS = (1, 2, 7, 33)


class Case(NamedTuple):
    """One way to store and call the same model and images."""

    dtype: torch.dtype
    context: str
    chunk_size: int
    layout: torch.memory_format
    in_place: bool
    probabilities: bool

    @property
    def precise(self) -> bool:
        """Whether the model's passes are in single precision or better."""
        return self.dtype == torch.float64 or (self.dtype == torch.float32 and self.context != "autocast")


def cases() -> list[Case]:
    """Every pair of two factors' values, in as few cases as the two longest factors need."""
    found = []
    for i, j in itertools.product(range(len(DTYPES)), range(len(CONTEXTS))):
        layout, in_place = LAYOUTS[(j + i // 2) % 2], bool((j + i // 2 + j // 2 + i * j) % 2)
        probabilities = bool((i + j // 2) % 2)
        found.append(Case(DTYPES[i], list(CONTEXTS)[j], CHUNKS[(i + j) % 4], layout, in_place, probabilities))
    return found


LOW_PRECISION = {"extremal": 0.98, "vargrad": 0.98, "scorecam": 0.98, "guided_backprop": 0.98}
"""Least correlation of a map in half precision with the one in single precision; 0.99 for the other methods.

An extremal mask is one of few areas, a variance is a difference of squares, Score-CAM's weights are a softmax, and guided
backpropagation passes a softmax in half precision, in which the gradients of the classes nearly cancel.
"""

REFUSED = {"lrp": "half precision and a final softmax are known causes"}
"""Methods that refuse half precision and probabilities, and the words of the reason."""

OF_THE_LOGIT = ("excitation_backprop", "contrastive_excitation_backprop")
"""Methods that explain the logit, also of a model that returns probabilities. All others explain the probability then."""


DRAWN_BY_CAPTUM = ("lime", "gradientshap")
"""Methods whose random numbers captum draws in the default dtype: other numbers in double precision."""


def correlation(a: Tensor, b: Tensor) -> float:
    """The least correlation of two maps of an image."""
    pairs = zip(a.double().flatten(1), b.double().flatten(1), strict=True)
    return min(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs)


def test_the_cases_have_every_pair_of_values() -> None:
    for first, second in itertools.combinations(range(len(Case._fields)), 2):
        pairs = {(case[first], case[second]) for case in cases()}
        assert len(pairs) == len({case[first] for case in cases()}) * len({case[second] for case in cases()})


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", METHODS)
def test_precision_layout_mode_chunk_in_place_models_and_probabilities_do_not_change_a_map(name: str) -> None:
    """The map of a model that returns probabilities is that of its logits with the probability as the score."""
    images = small_images()
    of_logits = cheap(name, TinyNet())(images, 0).heatmap
    of_probabilities = of_logits if name in OF_THE_LOGIT else cheap(name, TinyNet(), score="probability")(images, 0).heatmap
    for case in cases():
        reference = of_probabilities if case.probabilities else of_logits
        given = images.clone(memory_format=case.layout)
        model = TinyNet(in_place=case.in_place, probabilities=case.probabilities).to(case.dtype)
        explain = cheap(name, model, chunk_size=case.chunk_size)
        with CONTEXTS[case.context]():
            try:
                heatmap = explain(given, 0).heatmap
            except ValueError as refused:
                if (case.precise and not case.probabilities) or REFUSED.get(name, "?") not in str(refused):
                    raise
                continue
        assert torch.equal(given, images), case
        assert heatmap.dtype in (torch.float32, torch.float64), case
        if case.precise:
            assert (heatmap - reference).abs().max() <= 1e-4 * reference.abs().max(), case
        else:
            assert correlation(heatmap, reference) >= LOW_PRECISION.get(name, 0.99), case


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", METHODS)
def test_double_precision_of_images_or_of_the_default_dtype_does_not_change_a_map(name: str) -> None:
    images, explain = small_images(1), cheap(name, TinyNet())
    reference = explain(images, 0).heatmap
    heatmaps = [explain(images.double(), 0).heatmap]
    torch.set_default_dtype(torch.float64)
    try:
        in_double = explain(images, 0).heatmap
    finally:
        torch.set_default_dtype(torch.float32)
    heatmaps += [] if name in DRAWN_BY_CAPTUM else [in_double]
    for heatmap in heatmaps:
        assert (heatmap - reference).abs().max() <= 1e-4 * reference.abs().max()
    assert bool(in_double.isfinite().all())


class Coarse(nn.Module):
    """A small network that takes images of 224x224 pixels in milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.stem = nn.Conv2d(3, 8, 16, stride=16)
        self.body = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.head = nn.Linear(12, 3)
        for name, parameter in self.named_parameters():
            scale = 0.1 if name.endswith("bias") else (2 / parameter[0].numel()) ** 0.5
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(torch.relu(self.stem((x - 0.5) * 4))))
        logits: Tensor = 6 * self.head(x.mean(dim=(2, 3)))
        return logits


AT_224: dict[str, dict[str, Any]] = {
    "rank_descent": {"resolution": 28},
    "extremal": {"step": 128.0},
    "occlusion": {"patch": 56, "stride": 28},
}
"""Settings for an image of 224x224 pixels."""


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", [name for name in METHODS if name not in REFUSED])
def test_half_precision_at_224_pixels_gives_the_map_of_single_precision(name: str) -> None:
    """Where sums over pixels overflow in half precision, and 784 ranks have too few numbers between 0 and 1."""
    photo = F.interpolate(fm.read_image(fm.sample_photo()), (224, 224), mode="bilinear", antialias=True)
    image = photo.clamp(0, 1).half()
    settings = AT_224.get(name, {})
    reference = cheap(name, Coarse(), **settings)(image.float(), 2).heatmap
    for model, given, least in ((Coarse().half(), image, 0.99), (Coarse().bfloat16(), image.float(), 0.97)):
        heatmap = cheap(name, model, **settings)(given, 2).heatmap
        assert correlation(heatmap, reference) >= least
        if name == "rank_descent":
            assert len(heatmap.unique()) == 28 * 28


@pytest.mark.parametrize("name", ["rank_descent", "smoothgrad", "expected_fusedcam", "expected_gradcam", "igos"])
@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
def test_noise_is_drawn_in_logical_order_whatever_the_layout(name: str) -> None:
    images = small_images()
    last = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # as a photograph of rows, columns, colours is
    explain = cheap(name, TinyNet())
    assert torch.equal(explain(images, 0).heatmap, explain(last, 0).heatmap)


@pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")
@pytest.mark.parametrize("difference", ["reference", "path", "increment"])
@pytest.mark.parametrize("pool", ["contribution", "slope", "map"])
@pytest.mark.parametrize("kind", [Expected, Integrated])
def test_differences_do_not_depend_on_the_chunk_size(difference: str, pool: str, kind: type[Expected | Integrated]) -> None:
    estimator = kind(samples=5, difference=difference, pool=pool)  # type: ignore[arg-type] # of the parameters
    images, model = small_images(), TinyNet().double()  # a slope divides by differences near 0
    maps = [CAM(model, gradient=estimator, chunk_size=chunk, relu=False)(images, 0).heatmap for chunk in (33, 1, 2, 7)]
    for heatmap in maps[1:]:
        assert torch.allclose(heatmap, maps[0], rtol=1e-4, atol=1e-6)


def test_the_model_s_pass_is_in_the_caller_s_autocast_and_all_else_is_not() -> None:
    autocast = []

    class Noting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            autocast.append(torch.is_autocast_enabled("cpu"))
            return x.flatten(1)

    def target(output: Tensor) -> Tensor:
        autocast.append(torch.is_autocast_enabled("cpu"))
        return output[:, 0]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        fm.RankDescent(Noting(), resolution=4, iterations=1, prior=None)(small_images(1), target)
        assert torch.is_autocast_enabled("cpu")
    assert autocast[::2] == [True] * (len(autocast) // 2)
    assert autocast[1::2] == [False] * (len(autocast) // 2)
