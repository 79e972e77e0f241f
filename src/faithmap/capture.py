r"""Capture: a layer's activation :math:`A` and the score's gradient :math:`\partial y / \partial A`. The model stays unchanged.

At the layer the activation is cut out of the network and becomes the leaf of a new graph. Nothing below it requires a gradient
(:func:`faithmap.model.undisturbed` freezes the weights, images are detached), so that the graph begins at the layer and the
layers below cost a forward pass only: gradients are off up to the first layer, whose hook switches them on
(:meth:`Capture.late_gradients`). The kept activation and the one that the network continues with are two copies, so that an
in-place operation on one does not change the other.

Several layers each get their own gradient: an activation that depends on a lower layer's leaf stays in that graph.
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
"""From a layer's activation to the tensor that the network continues with."""


class Capture:
    """Activations of some layers in one forward pass.

    Args:
        layers: name to module.

    Attributes:
        activations: of each layer in the last pass.
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
            replace: from the activation to the tensor that the network continues with; None for the activation itself.
            keep: whether the values of the activations are needed. Gradients alone need no copy of the first layer's
                activation, whose memory the network may then overwrite.

        Raises:
            ValueError: for a layer that runs several times in a pass, or not at all, or returns no tensor.
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
        """Switch gradients off inside the block until a captured layer has run, and restore the mode afterwards.

        A model that sets the mode itself around the layer restores it after the layer. Then gradients are off at the end of the
        pass (:func:`torch.is_grad_enabled`), the graph may be incomplete, and the pass has to be repeated without this block.
        """
        self._late = True
        try:
            with torch.no_grad():
                yield
        finally:
            self._late = False

    def gradients(self, score: Float[Tensor, ""]) -> dict[str, Tensor]:
        """The gradient of a sum of scores to every activation; zero if the score does not depend on it."""
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
            following = activation.clone() if replace is None else replace(activation)
            return following if value is output else _first_replaced(output, following)

        return hook


def _first_replaced(output: tuple[Any, ...] | list[Any], first: Tensor) -> Any:
    """The same sequence with another first element, named tuples included."""
    parts = (first, *output[1:])
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
