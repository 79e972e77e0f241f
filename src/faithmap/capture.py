r"""Capture: a layer's activation :math:`A`, and the score's gradient :math:`\partial y / \partial A` there, without a trace.

At the layer the activation is cut out of the network and becomes the leaf of a new graph. Nothing below it requires a gradient
(:func:`faithmap.model.undisturbed` freezes the weights, images are detached), so that the graph begins at the layer and the
trunk costs a bare forward pass: gradients are off on the way to the first layer, whose hook switches them on
(:meth:`Capture.late_gradients`). What is kept is a copy, and what flows on another: in-place operations reach neither of the
two from the other's side.

Of several layers each gets its own gradient: an activation that already hangs on a lower layer's leaf stays in that graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.intercept import uncompiled

Replace = Callable[[Tensor], Tensor]
"""What flows on instead of a layer's activation."""


class Capture:
    """Activations of some layers in one forward pass.

    Args:
        layers: name to module.

    Attributes:
        activations: what each layer returned in the pass that was watched.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self.layers = dict(layers)
        self.activations: dict[str, Tensor] = {}
        self._late = False

    @contextmanager
    def watch(self, replace: Replace | None = None, *, keep: bool = True) -> Iterator[None]:
        """Hooks on the layers inside the block, for one forward pass; none afterwards, whatever happens.

        Compiled models run uncompiled inside, since hooks on them are not called.

        Args:
            replace: makes what flows on, out of the activation; None lets the activation itself flow on.
            keep: whether the activations' values will be looked at. Gradients alone need no copy of a first layer's, whose
                memory the network may then write over.

        Raises:
            ValueError: where a layer runs several times in a pass, or not at all, or returns no tensor.
        """
        self.activations = {}
        with ExitStack() as stack:
            stack.enter_context(uncompiled())
            for name, layer in self.layers.items():
                stack.callback(layer.register_forward_hook(self._hook(name, replace, keep)).remove)
            yield
        missing = self.layers.keys() - self.activations.keys()
        if missing:
            raise ValueError(f"target layer {min(missing)!r} does not run in the model's forward pass; give one that does")

    @contextmanager
    def late_gradients(self) -> Iterator[None]:
        """Gradients are off inside the block until a watched layer has run; afterwards they are as they were.

        A model that sets the mode around the layer by itself sets it back behind it. Then gradients are off at the end of the
        model's pass (:func:`torch.is_grad_enabled`), the graph may have holes, and the pass has to be made again without this.
        """
        self._late = True
        try:
            with torch.no_grad():
                yield
        finally:
            self._late = False

    def gradients(self, score: Float[Tensor, ""]) -> dict[str, Tensor]:
        """Of a sum of scores, to every activation; zero where the score does not depend on it."""
        found = torch.autograd.grad(score, list(self.activations.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(self.activations, found, strict=True))

    def _hook(self, name: str, replace: Replace | None, keep: bool) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            del module, arguments
            if name in self.activations:
                raise ValueError(
                    f"target layer {name!r} runs several times in one forward pass and has no single activation; "
                    "give a layer that runs once, such as the block around it"
                )
            value = output[0] if isinstance(output, (tuple, list)) and output else output
            if not isinstance(value, Tensor) or not value.is_floating_point():
                raise ValueError(f"target layer {name!r} returns {type(value).__name__}; give a layer that returns a tensor")
            if self._late:
                torch.set_grad_enabled(True)
                self._late = False
            activation = value.clone() if value.requires_grad else value.detach().clone() if keep else value.detach()
            if torch.is_grad_enabled():
                activation.requires_grad_()
            self.activations[name] = activation
            flows_on = activation.clone() if replace is None else replace(activation)
            return flows_on if value is output else _first_replaced(output, flows_on)

        return hook


def _first_replaced(output: tuple[Any, ...] | list[Any], first: Tensor) -> Any:
    """The same sequence with another first element, named tuples included."""
    parts = (first, *output[1:])
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
