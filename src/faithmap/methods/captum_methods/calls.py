"""Calls of torch functions, grouped by the rules of DeepLIFT, LRP and the modified gradients.

A module such as ``nn.ReLU`` calls a torch function, and so does ``F.relu`` or ``x.relu_()``, so that rules for calls apply to
all of them. A call has the name of its function, without the underscores of in-place and reflected operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import Tensor

from faithmap.capture import Operation

Place: TypeAlias = int | str
"""Position or keyword of an argument."""

_SAME_AS = {
    "iadd": "add", "radd": "add", "isub": "sub", "rsub": "sub", "subtract": "sub", "imul": "mul", "rmul": "mul",
    "multiply": "mul", "idiv": "div", "truediv": "div", "itruediv": "div", "true_divide": "div", "divide": "div",
    "negative": "neg", "clip": "clamp",
}  # fmt: skip


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


CURVED = _names("""elu selu celu gelu silu mish hardswish leaky_relu prelu rrelu softplus logsigmoid softsign
    hardshrink softshrink tanhshrink""")
"""Activations other than ReLU."""

ELEMENTWISE = CURVED | _names("""relu relu6 hardtanh clamp clamp_min clamp_max threshold sigmoid hardsigmoid tanh
    exp expm1 log log1p sqrt rsqrt square pow abs erf sin cos reciprocal""")
"""Elementwise functions."""

THROUGH_ZERO = _names("relu relu6 elu selu celu gelu silu mish hardswish leaky_relu prelu softsign tanh")
"""Activations that are 0 at 0, and pass relevance unchanged."""

MAX_POOLS = _names("max_pool1d max_pool2d max_pool3d")

WEIGHTED = _names("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear")
"""Linear functions whose second and third arguments are weight and bias."""

AFFINE = (
    WEIGHTED
    | MAX_POOLS
    | _names("""batch_norm avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
        interpolate mean sum add sub neg mul div matmul mm addmm""")
)
"""Functions that are affine in their input, or select from it, if no other argument depends on the image."""

KEEPS_SIGN = MAX_POOLS | _names("""pad flatten reshape view permute transpose contiguous clone to float dropout
    avg_pool2d adaptive_avg_pool2d mean""")
"""Functions whose output is not negative if the input is not; padding adds zeros, or repeats values."""

_SUMS = frozenset({"add", "sub"})


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a torch function with at least one tensor that depends on the image.

    Attributes:
        function: the function.
        name: its name.
        arguments: positional arguments.
        keywords: keyword arguments.
        places: of the arguments that depend on the image.
    """

    function: Callable[..., Any]
    name: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    places: tuple[Place, ...]

    @classmethod
    def of(cls, operation: Operation) -> Call | None:
        """The call; None if no argument is a tensor that depends on the image."""
        pairs: list[tuple[Place, Any]] = [*enumerate(operation.args), *operation.kwargs.items()]
        places = tuple(place for place, value in pairs if isinstance(value, Tensor) and value.requires_grad)
        if not places:
            return None
        name = _SAME_AS.get(operation.name, operation.name)
        return cls(operation.function, name, operation.args, operation.kwargs, places)

    @property
    def data(self) -> list[Tensor]:
        """The tensors that depend on the image."""
        return [self.get(place) for place in self.places]

    @property
    def elementwise(self) -> bool:
        """Whether this is an elementwise function of one tensor."""
        return self.name in ELEMENTWISE and self.places == (0,)

    @property
    def affine(self) -> bool:
        """Whether this is affine in the tensors that depend on the image."""
        if self.name == "batch_norm" and self.keywords.get("training", False):
            return False
        if self.name == "div" and self.places != (0,):
            return False
        return self.name in AFFINE and (self.name in _SUMS or len(self.places) == 1)

    def get(self, place: Place, name: str = "", default: Any = None) -> Any:
        """An argument by its position or keyword; by ``name`` if it was not given at the position."""
        if isinstance(place, str):
            return self.keywords[place]
        return self.arguments[place] if place < len(self.arguments) else self.keywords.get(name, default)

    def without_data(self) -> Call:
        """The call without the tensors that depend on the image."""
        arguments = tuple(None if i in self.places else value for i, value in enumerate(self.arguments))
        keywords = {key: None if key in self.places else value for key, value in self.keywords.items()}
        return replace(self, arguments=arguments, keywords=keywords)

    def __call__(self, *data: Tensor, replaced: Mapping[Place, Tensor] | None = None) -> Any:
        """The result for other tensors in place of the data; in-place functions do not change them."""
        first = data[0].clone() if self._in_place else data[0]
        new: dict[Place, Any] = dict(zip(self.places, (first, *data[1:]), strict=True)) | dict(replaced or {})
        arguments = [new.get(i, value) for i, value in enumerate(self.arguments)]
        return self.function(*arguments, **{key: new.get(key, value) for key, value in self.keywords.items()})

    @property
    def _in_place(self) -> bool:
        name = getattr(self.function, "__name__", "")
        return bool(self.keywords.get("inplace", False)) or name.endswith("_") or name.startswith("__i")


def bounds(call: Call) -> tuple[float, float | None] | None:
    """The lower and upper bound of a rectifier; None for any other call.

    >>> import torch
    >>> x = torch.zeros(1, requires_grad=True)
    >>> bounds(Call.of(Operation(torch.nn.functional.relu6, (x,), {})))
    (0.0, 6.0)
    """
    low: Any = None
    high: Any = None
    if call.name == "relu":
        low = 0
    elif call.name == "relu6":
        low, high = 0, 6
    elif call.name == "hardtanh":
        low, high = call.get(1, "min_val", -1), call.get(2, "max_val", 1)
    elif call.name == "clamp":
        low, high = call.get(1, "min"), call.get(2, "max")
    elif call.name == "clamp_min":
        low = call.get(1, "min")
    if isinstance(low, Tensor) or isinstance(high, Tensor) or low != 0:
        return None
    return 0.0, None if high is None else float(high)
