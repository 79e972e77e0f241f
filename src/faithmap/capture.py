r"""Capture activations, operations and calls of a forward pass. The model is left unchanged; compiled models run uncompiled.

A pass is visible at three levels, and the library needs all of them:

layers
    :class:`Capture` keeps a layer's activation :math:`A` and the score's gradient :math:`\partial y / \partial A`.
operations
    Below autograd (:func:`intercept_operations`), where all modules, functions and operators call the same operations, and
    in-place changes are visible. Used to follow tensors, for the centres of cells (:class:`CellTracker`) and for Excitation
    Backprop.
calls
    Above autograd (:func:`intercept_calls`), as in the source of the model. Only at this level can a module with backward hooks
    replace a function, as the methods of captum require: below, the gradient of the function is already fixed.

At a layer the activation is cut out of the network and becomes the leaf of a new graph. Nothing below it requires a gradient
(:func:`faithmap.model.undisturbed` freezes the weights, images are detached), so that the graph begins at the layer and the
layers below cost a forward pass only: gradients are off up to the first layer, whose hook switches them on
(:meth:`Capture.late_gradients`). The kept activation and the one that the network continues with are two copies, so that an
in-place operation on one does not change the other. Several layers each get their own gradient: an activation that depends on a
lower layer's leaf stays in that graph.

**Placement.** A convolution or pooling of kernel :math:`k`, stride :math:`s`, dilation :math:`d` and padding :math:`p` centres
its output cell :math:`j` on its input's cell :math:`s j - p + d (k - 1) / 2`. From the image up,

.. math:: centre(j) = start + jump \cdot j, \qquad
    start \leftarrow start + jump \, \bigl(\tfrac{d (k - 1)}{2} - p\bigr), \qquad jump \leftarrow jump \cdot s

The last cells of a ResNet are centred at :math:`32 j`, while resizing its map places them at :math:`32 j + 15.5`. Networks
that pad one side more than the other ("SAME") have other centres.

The numbers are read from the operations of one forward pass, tensor by tensor, whichever module or function called them.
Where a tensor cannot be followed, as in a network that moves channels to the end and back or makes tokens of patches, the place
of the last tensor of that size is used.

Behind operations that are unknown, gradients give the places (:func:`probed`): a cell's centre is the centroid of the squared
gradient of its activation to the pixels,

.. math:: centre(j) = \frac{\sum_y y \, |\partial A_j / \partial x_y|^2}{\sum_y |\partial A_j / \partial x_y|^2}

with the channels summed with random signs, on noise. Cells away from the image's border, where the receptive field is cut off,
are put on one straight line :math:`start + jump \cdot j` for each axis, by least squares.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.weak import WeakIdKeyDictionary

from faithmap.score import summed_gradients
from faithmap.seeds import uniform

Replace = Callable[[Tensor], Tensor]
"""From a layer's activation to the tensor that the network continues with."""


class Capture:
    """Activations of some layers in one forward pass.

    Args:
        layers: name to module.
        parts: for each layer whose output has several tensors, the index of the captured one among its leaves; by default 0.

    Attributes:
        activations: of each layer in the last pass.
    """

    def __init__(self, layers: Mapping[str, nn.Module], parts: Mapping[str, int] | None = None) -> None:
        self.layers = dict(layers)
        self.parts = dict(parts or {})
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

    def gradients(self, scores: Float[Tensor, "*m"]) -> dict[str, Tensor]:
        """The gradient of the sum of scores to every activation; zero to one that they do not depend on.

        Raises:
            ValueError: if they depend on none.
        """
        found = summed_gradients(scores, list(self.activations.values()))
        return dict(zip(self.activations, found, strict=True))

    def _hook(self, name: str, replace: Replace | None, keep: bool) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            del module, arguments
            if name in self.activations:
                raise ValueError(
                    f"target layer {name!r} runs several times in one forward pass and has no single activation; "
                    "give a layer that runs once, such as the block around it"
                )
            leaves, structure = tree_flatten(output)
            part = self.parts.get(name, 0)
            known = name in self.parts or isinstance(output, (Tensor, tuple, list))
            value = leaves[part] if known and part < len(leaves) else None
            if not isinstance(value, Tensor) or not value.is_floating_point():
                raise ValueError(f"target layer {name!r} returns {type(output).__name__}; give a layer that returns a tensor")
            if self._late:
                torch.set_grad_enabled(True)
                self._late = False
            activation = value.clone() if value.requires_grad else value.detach().clone() if keep else value.detach()
            if value.is_inference():  # the model is in torch.inference_mode here, where no gradient can be taken
                with torch.inference_mode(False):
                    activation = value.clone()
            elif torch.is_grad_enabled():
                activation.requires_grad_()
            self.activations[name] = activation
            following = activation.clone() if replace is None else replace(activation)
            return tree_unflatten([*leaves[:part], following, *leaves[part + 1 :]], structure)

        return hook


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation or a call before it is run.

    Attributes:
        function: a torch operator, or the function that was called.
        args: its positional arguments.
        kwargs: its keyword arguments.
        name: the same in all forms: without overload, without the underscores of in-place forms, without ``aten``.

    >>> Operation(torch.ops.aten.relu_.default, (), {}).name, Operation(torch.Tensor.__iadd__, (), {}).name
    ('relu', 'iadd')
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self._name())

    def _name(self) -> str:
        schema = getattr(self.function, "_schema", None)
        if schema is None:
            return str(getattr(self.function, "__name__", "")).strip("_")
        space, name = schema.name.split("::")
        name = name[:-1] if self._in_place else name
        return name if space == "aten" else f"{space}::{name}"

    @property
    def pure(self) -> Any:
        """The operator in the form that writes into no argument; None if it has no such form."""
        if not self._in_place:
            return self.function
        space, name = self.function._schema.name.split("::")
        packet = getattr(getattr(torch.ops, space), name[:-1], None)
        return getattr(packet, self.function._overloadname, None)

    @property
    def written(self) -> list[Tensor]:
        """The tensors that the operator writes into."""
        found = []
        for place, argument in enumerate(self.function._schema.arguments):
            given = self.args[place] if place < len(self.args) else self.kwargs.get(argument.name)
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(given, Tensor):
                found.append(given)
        return found

    def run(self) -> Any:
        """Run it as it was called."""
        return self.function(*self.args, **self.kwargs)

    @property
    def _in_place(self) -> bool:
        name: str = self.function._schema.name
        return name.endswith("_") and not name.endswith("__")


Intercept: TypeAlias = Callable[[Operation], Any]
"""Runs an operation, by ``run`` or otherwise, and returns its result."""


@contextmanager
def intercept_operations(intercept: Intercept) -> Iterator[None]:
    """Send every operation below autograd inside the block through a function.

    >>> seen = []
    >>> with intercept_operations(lambda operation: (seen.append(operation.name), operation.run())[1]):
    ...     zero = torch.nn.ReLU()(torch.zeros(1))
    >>> seen
    ['zeros', 'relu']
    """
    with uncompiled(), _Operations(intercept):
        yield


@contextmanager
def intercept_calls(intercept: Intercept) -> Iterator[None]:
    """Send every call of a torch function inside the block through a function.

    >>> ones = torch.ones(2)
    >>> with intercept_calls(lambda call: call.run() + 1 if call.name == "relu" else call.run()):
    ...     torch.nn.functional.relu(ones)
    tensor([2., 2.])
    """
    with uncompiled(), _Calls(intercept):
        yield


@contextmanager
def note_outputs(modules: Iterable[nn.Module], note: Callable[[nn.Module, Any, Any], Any]) -> Iterator[None]:
    """Call a function with each module, its arguments and its output, whenever one of the modules has run inside the block.

    If the function returns something, it takes the place of the output.
    """
    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(note).remove)
        yield


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled models operation by operation inside the block, so that hooks are called."""
    if "torch._dynamo" not in sys.modules:  # nothing can have been compiled without it, and to load it takes seconds
        yield
        return
    _eager.begin()
    try:
        yield
    finally:
        _eager.end()


class _Eager:
    """The stance of torch's compiler, which all threads share: the first block sets it, the last one restores it."""

    def __init__(self) -> None:
        self.blocks, self.lock = 0, threading.Lock()
        self.stance: Any = None

    def begin(self) -> None:
        with self.lock:
            self.blocks += 1
            if self.blocks == 1:
                self.stance = torch.compiler.set_stance("force_eager")

    def end(self) -> None:
        with self.lock:
            self.blocks -= 1
            if self.blocks == 0:
                self.stance.__exit__(None, None, None)


_eager = _Eager()


class _Operations(TorchDispatchMode):
    def __init__(self, intercept: Intercept) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's own
        self.intercept = intercept

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if torch.is_inference_mode_enabled():  # then torch does not take composite operators apart before they come here
            with self:
                result = func.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        return self.intercept(Operation(func, args, kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self, intercept: Intercept) -> None:
        super().__init__()
        self.intercept = intercept

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return self.intercept(Operation(func, args, kwargs or {}))


Pair = tuple[float, float]

Placement: TypeAlias = Literal["strides", "gradients", "tiles"]
"""The centres of cells: of their windows (``strides``), of the network's gradients (``gradients``), or of equal
parts of the image (``tiles``)."""


@dataclass(frozen=True)
class Place:
    """The centres of the cells in a tensor's last two dimensions: start + jump * j, down and across, in pixels."""

    start: Pair = (0.0, 0.0)
    jump: Pair = (1.0, 1.0)

    def windowed(
        self, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int] = (1, 1)
    ) -> Place:
        """The place after a sliding window."""
        shifts = [d * (k - 1) / 2 - p for k, p, d in zip(kernel, padding, dilation, strict=True)]
        start = [a + b * shift for a, b, shift in zip(self.start, self.jump, shifts, strict=True)]
        jump = [b * s for b, s in zip(self.jump, stride, strict=True)]
        return Place((start[0], start[1]), (jump[0], jump[1]))

    def resampled(self, size: Sequence[int], new_size: Sequence[int]) -> Place:
        """The place after resizing from ``size`` to ``new_size`` cells."""
        ratios = [b / a for b, a in zip(size, new_size, strict=True)]
        start = [a + b * (r - 1) / 2 for a, b, r in zip(self.start, self.jump, ratios, strict=True)]
        jump = [b * r for b, r in zip(self.jump, ratios, strict=True)]
        return Place((start[0], start[1]), (jump[0], jump[1]))

    def centres(self, shape: tuple[int, int]) -> tuple[Float[Tensor, " r"], Float[Tensor, " c"]]:
        """The centres of the rows and of the columns, in pixels."""
        (top, left), (down, across) = self.start, self.jump
        rows, columns = (torch.arange(cells, dtype=torch.float64) for cells in shape)
        return top + down * rows, left + across * columns


def tiles(shape: tuple[int, int], image_size: tuple[int, int]) -> Place:
    """The place of cells that are equal parts of the image.

    >>> tiles((7, 7), (224, 224))
    Place(start=(15.5, 15.5), jump=(32.0, 32.0))
    """
    return Place().resampled(image_size, shape)


class CellTracker:
    """Tracks where the cells of tensors are centred, through all operations inside its block.

    Args:
        image: whose pixels the places are counted in.

    >>> image = torch.zeros(1, 1, 8, 8)
    >>> tracker = CellTracker(image)
    >>> with tracker.tracking():
    ...     pooled = torch.nn.functional.avg_pool2d(image, 4)
    >>> tracker.place(pooled)
    Place(start=(1.5, 1.5), jump=(4.0, 4.0))
    """

    def __init__(self, image: Float[Tensor, "n c h w"]) -> None:
        self._places: MutableMapping[Tensor, Place] = WeakIdKeyDictionary()
        self._latest: dict[tuple[int, ...], Place] = {}
        self._note(image, Place())

    def tracking(self) -> AbstractContextManager[None]:
        """Track the operations inside the block."""
        return intercept_operations(self._tracked)

    def place(self, tensor: Float[Tensor, "n k h w"]) -> Place | None:
        """The place of its cells, or of the last tensor of its size; None if there was none."""
        return self._places.get(tensor) or self._latest.get(tuple(tensor.shape[-2:]))

    def _tracked(self, operation: Operation) -> Any:
        result = operation.function(*operation.args, **operation.kwargs)
        output = result[0] if isinstance(result, (tuple, list)) and result else result
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] * output.shape[-2] > 1:
            place = self._after(operation.name, operation.args, output)
            if place is not None:
                self._note(output, place)
        return result

    def _after(self, name: str, args: tuple[Any, ...], output: Tensor) -> Place | None:
        source = args[0] if args and isinstance(args[0], Tensor) and args[0].ndim == 4 else None
        if name in _MOVES and source is not None:
            place = self.place(source)
            return None if place is None else _MOVES[name](place, args, source, output)
        tensors = (leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor))
        same = (t for t in tensors if t.ndim == 4 and t.shape[-2:] == output.shape[-2:] and t in self._places)
        return next((self._places[t] for t in same), None)

    def _note(self, tensor: Tensor, place: Place) -> None:
        self._places[tensor] = place
        self._latest[tuple(tensor.shape[-2:])] = place


def _convolved(place: Place, args: tuple[Any, ...], source: Tensor, output: Tensor) -> Place:
    _, weight, _, stride, padding, dilation, transposed = args[:7]
    if transposed:
        return place.resampled(source.shape[-2:], output.shape[-2:])
    return place.windowed(weight.shape[-2:], _both(stride), _both(padding), _both(dilation))


def _pooled(place: Place, args: tuple[Any, ...], source: Tensor, output: Tensor) -> Place:
    del source, output
    kernel = _both(args[1])
    stride = _both(args[2]) if len(args) > 2 and args[2] else kernel
    return place.windowed(kernel, stride, _both(args[3]) if len(args) > 3 else (0, 0))


def _padded(place: Place, args: tuple[Any, ...], source: Tensor, output: Tensor) -> Place:
    del source, output
    left, top = args[1][0], args[1][2] if len(args[1]) > 2 else 0
    return place.windowed((1, 1), (1, 1), (top, left))


def _resized(place: Place, args: tuple[Any, ...], source: Tensor, output: Tensor) -> Place:
    del args
    return place.resampled(source.shape[-2:], output.shape[-2:])


def _both(numbers: int | Sequence[int]) -> Sequence[int]:
    """One number for each of two directions."""
    numbers = [numbers] if isinstance(numbers, int) else numbers
    return numbers if len(numbers) == 2 else (numbers[0], numbers[0])


_MOVES: Mapping[str, Callable[[Place, tuple[Any, ...], Tensor, Tensor], Place]] = {
    "convolution": _convolved,
    **dict.fromkeys(("max_pool2d_with_indices", "max_pool2d", "avg_pool2d"), _pooled),
    **dict.fromkeys(("constant_pad_nd", "reflection_pad2d", "replication_pad2d"), _padded),
    **dict.fromkeys(("_adaptive_avg_pool2d", "adaptive_max_pool2d"), _resized),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "pixel_shuffle"), _resized),
}
"""The operations that move cells. All others leave their places unchanged."""


CELLS = 5
"""Cells of an axis whose gradients are taken, at most."""

Activate = Callable[[Tensor], Tensor]
"""From images to a layer's activation (n, k, h, w), differentiable."""


def probed(activate: Activate, image: Float[Tensor, "1 c h w"], shape: tuple[int, int]) -> Place:
    """The place of a layer's cells by gradients; equal parts of the image if gradients do not determine it.

    They do not if an axis has fewer than two cells away from the border, a gradient is 0, or the centres deviate from a rising
    straight line by more than half a cell.

    Args:
        activate: from images to the layer's activation.
        image: one of the size of the images.
        shape: rows and columns of cells.
    """
    size = (image.shape[-2], image.shape[-1])
    generator = torch.Generator().manual_seed(0)
    noise = uniform(image.shape, generator).to(image).requires_grad_()
    with torch.enable_grad():
        activation = activate(noise)
        signs = torch.randint(2, (1, activation.shape[1], 1, 1), generator=generator).to(activation) * 2 - 1
        cells = (activation * signs).sum(dim=1)[0]
        lines = [_line(cells, noise, axis, shape) for axis in (0, 1)]
    if lines[0] is None or lines[1] is None:
        return tiles(shape, size)
    (top, down), (left, across) = lines[0], lines[1]
    return Place((top, left), (down, across))


def _line(cells: Float[Tensor, "r c"], image: Tensor, axis: int, shape: tuple[int, int]) -> Pair | None:
    """Start and jump of one axis, from cells along the middle of the other."""
    count, middle = shape[axis], shape[1 - axis] // 2
    inner = torch.arange(count)[1:-1] if count > 3 else torch.arange(count)
    chosen = inner[torch.linspace(0, len(inner) - 1, min(CELLS, len(inner))).round().long()] if len(inner) > 1 else inner[:0]
    if len(chosen) < 2:
        return None
    centres = []
    for j in chosen.tolist():
        cell = cells[j, middle] if axis == 0 else cells[middle, j]
        if not cell.requires_grad:
            return None
        (gradient,) = torch.autograd.grad(cell, image, retain_graph=True)
        weight = gradient[0].double().square().sum(dim=(0, 2 - axis))
        if not bool(weight.sum() > 0) or not bool(weight.isfinite().all()):
            return None
        centres.append(float(weight @ torch.arange(len(weight), device=weight.device).double() / weight.sum()))
    points = torch.stack([torch.ones(len(chosen)), chosen.float()], dim=1).double()
    wanted = torch.tensor(centres, dtype=torch.float64)
    start, jump = torch.linalg.lstsq(points, wanted.unsqueeze(1)).solution.flatten().tolist()
    off = float((points @ torch.tensor([start, jump], dtype=torch.float64) - wanted).abs().max())
    return (start, jump) if jump > 0 and off <= jump / 2 else None
