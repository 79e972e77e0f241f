"""Which operations Excitation Backprop can pass, by which rule; all others are refused, by name, once mass comes to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from faithmap.methods.gradients.rules import Mixed, Moved, Rectified, Rule, Scaled, Summed
from faithmap.methods.gradients.steps import FACTORS, MAKES_UNITS, NORMS, TAKES_UNITS, UNCHANGED, Step, Value

MOVES = (
    *("view", "_unsafe_view", "permute", "transpose", "t", "squeeze", "unsqueeze", "expand", "repeat", "flip", "roll"),
    *("select", "slice", "split", "split_with_sizes", "unbind", "index", "index_select", "gather", "cat", "stack"),
    *("constant_pad_nd", "reflection_pad2d", "replication_pad2d", "upsample_nearest2d", "pixel_shuffle", "pixel_unshuffle"),
    *("channel_shuffle", "native_channel_shuffle", "max_pool2d_with_indices", "adaptive_max_pool2d", *UNCHANGED),
)

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(MOVES, Moved()),
        **dict.fromkeys(("mul", "div", *NORMS), Scaled()),
        **dict.fromkeys(("add", "sub", "rsub", "neg"), Summed()),
        **dict.fromkeys(TAKES_UNITS, Mixed()),
        **dict.fromkeys(MAKES_UNITS, Rectified()),
    }
)
"""By the operation's name in torch's dispatcher, without its overload."""


def rule_for(step: Step) -> Rule:
    """The rule of an operation.

    Raises:
        ValueError: where there is none; names the operation and the module that calls it.
    """
    rule = RULES.get(step.name)
    if rule is None or step.func is None:
        problem: str | None = "it is neither a weighted sum nor a rectification of units"
    else:
        problem = _CHECKS[step.name](step) if step.name in _CHECKS else None
    if rule is None or problem is not None:
        raise ValueError(
            f"excitation backprop cannot pass {step.name} in {step.where}: {problem}; "
            "give a target_layer behind it, or take another method"
        )
    return rule


def _weights_vary(step: Step) -> str | None:
    one = len(step.inputs) == 1 and any(isinstance(step.argument(name), Value) for name in FACTORS[step.name])
    return None if one else "it multiplies two tensors that both hang on the image, or adds another to them"


def _factor_varies(step: Step) -> str | None:
    if len(step.inputs) != 1:
        return "it multiplies two tensors that both hang on the image"
    divides = step.name == "div" and (
        step.argument("rounding_mode") is not None or not isinstance(step.argument("self"), Value)
    )
    return "it divides by what hangs on the image, or rounds" if divides else None


def _normalises_the_batch(step: Step) -> str | None:
    fixed = step.argument("running_mean") is not None and not step.argument("training", False) and len(step.inputs) == 1
    return None if fixed else "it normalises by the batch's own statistics"


def _is_no_rectification(step: Step) -> str | None:
    low, high = {
        "hardtanh": (step.argument("min_val", -1), step.argument("max_val", 1)),
        "clamp": (step.argument("min"), step.argument("max")),
        "clamp_min": (step.argument("min"), None),
        "threshold": (step.argument("threshold") or step.argument("value"), None),
        "leaky_relu": (min(step.argument("negative_slope", 0.01), 0), None),
    }[step.name]
    numbers = isinstance(low, (int, float)) and (high is None or isinstance(high, (int, float)))
    rectifies = numbers and low == 0 and (high is None or high > 0)
    return None if rectifies else "it does not begin to respond at 0, and rectifies nothing"


def _reads_other_bits(step: Step) -> str | None:
    return "it reads the numbers as another type" if step.argument("dtype") is not None else None


_CHECKS: Mapping[str, Callable[[Step], str | None]] = MappingProxyType(
    {
        **dict.fromkeys(FACTORS, _weights_vary),
        **dict.fromkeys(("mul", "div"), _factor_varies),
        **dict.fromkeys(NORMS, _normalises_the_batch),
        **dict.fromkeys(MAKES_UNITS - {"relu"}, _is_no_rectification),
        "view": _reads_other_bits,
    }
)
