r"""The layer that is explained if none is given: the last whose positions are still those of the image.

What a layer does decides, not the shape of its output. A noise image and copies with one changed place are shown to the model
(:mod:`faithmap.layout`), and the gradient of a random projection of the scores is taken once (:class:`Graph`). A *candidate*
is the output of a module

- that runs once in a pass,
- whose positions follow the changed places,
- whose positions the score depends on: of a vision transformer's last block, only the class token has a gradient,
- that is not the model's output itself, and not a pooling or resizing of another candidate.

Attention matrices, auxiliary heads and text towers fall out by these, stems because they are not the last. Of the candidates,
the last is chosen. If other paths lead around it, as around a part of a block, it is the last norm (no batch norm), or the last
one that all paths pass, instead. One convention of the field overrules this: in blocks with attention, the norm before the
attention of the last block is explained, as in ViT and Swin; where the norms are behind the attention, as in Swin V2, the last
block itself. An MLP over the tokens, as in MLP-Mixer, counts as attention.

Random weights can hide the places from a layer on. If the model's library names a last feature map behind the chosen layer
(:func:`named_feature_map`), this is explained, with a warning, and its shape tells its rows and columns.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from faithmap.capture import note_outputs, uncompiled
from faithmap.layout import Layout, Observed, Output
from faithmap.model import Classifier
from faithmap.probe import run_model
from faithmap.score import tensor_in

LAST = "the last layer whose positions follow the image"
BEFORE_ATTENTION = "the norm before the last attention"
BEHIND_ATTENTION = "the last block, which normalises behind its attention"
BEFORE_TOKENS = "the norm before the last MLP over tokens"
FEATURE_INFO = "the last entry of timm's feature_info"
HIDDEN_STATE = "the last hidden state of a Transformers model"
BY_SHAPE = "the last layer of the image's proportions; local changes did not show"


@dataclass(frozen=True, eq=False)
class ChosenLayer:
    """A module, and what is known of its output.

    Attributes:
        module: the module.
        part: index of the tensor among the leaves of its output.
        layout: of this tensor; None if it was not found.
        found_by: the rule.
    """

    module: nn.Module
    part: int
    layout: Layout | None
    found_by: str


Edge = tuple[Any, int]
"""An operation of autograd's graph, and the number of one of its results."""


class Graph:
    """The graph from an image to the scores: which outputs the scores depend on, and which of them all paths pass.

    Args:
        model: in evaluation mode, its weights frozen.
        image: one.
    """

    def __init__(self, model: nn.Module, image: Float[Tensor, "1 c h w"]) -> None:
        self.edges: dict[tuple[nn.Module, int], Edge] = {}
        self._positions: dict[Edge, list[Tensor]] = {}
        self.pixels = image.detach().clone().requires_grad_()
        inner = [module for module in model.modules() if not isinstance(module, Classifier)]
        with torch.enable_grad(), uncompiled(), note_outputs(inner, self._note):
            output = run_model(model, self.pixels * 1)
        scores = _score_tensors(output)
        self.exists, self.silent = bool(scores), False
        self.reached: set[Any] = set()
        self.passed: set[Edge] = set()
        self.results: set[Any] = set()
        if scores:
            self._walk([(score.grad_fn, score.output_nr) for score in scores])
            self.results = _unchanged_from([score.grad_fn for score in scores])
            self._differentiate(scores)

    def reaches(self, output: Output) -> bool:
        """Whether the scores were computed from an output, by more than resizing."""
        edge = self.edges.get((output.module, output.part))
        return edge is not None and edge[0] in self.reached and edge[0] not in self.results

    def depends(self, output: Output, layout: Layout) -> bool:
        """Whether the score has a gradient to positions of an output."""
        edge = self.edges.get((output.module, output.part))
        if edge is None or not self.reaches(output):
            return False
        if self.silent:
            return True
        positions = self._positions.get(edge)
        if positions is None:
            return False
        along = positions[layout.order[2]]
        rows, columns = layout.grid
        return bool((along[layout.prefix : layout.prefix + rows * columns] if layout.is_tokens else along).any())

    def all_paths_pass(self, output: Output) -> bool:
        """Whether the scores depend on the image through this output alone."""
        return self.edges.get((output.module, output.part)) in self.passed

    def ancestors(self, output: Output) -> set[Any]:
        """The operations that an output was computed by."""
        edge = self.edges[output.module, output.part]
        found, waiting = {edge[0]}, [edge[0]]
        while waiting:
            for node, _ in waiting.pop().next_functions:
                if node is not None and node not in found:
                    found.add(node)
                    waiting.append(node)
        return found

    def _note(self, module: nn.Module, arguments: Any, output: Any) -> Any:
        """Note the edges of an output. Of several tensors each gets one of its own, which a use inside the module is not."""
        del arguments
        leaves, structure = tree_flatten(output)
        several = sum(isinstance(leaf, Tensor) for leaf in leaves) > 1
        if several:
            leaves = [leaf.view_as(leaf) if isinstance(leaf, Tensor) and leaf.requires_grad else leaf for leaf in leaves]
        for part, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
                self.edges[module, part] = leaf.grad_fn, leaf.output_nr
        return tree_unflatten(leaves, structure) if several else None

    def _walk(self, waiting_edges: list[Edge]) -> None:
        """Visit the operations from the scores down, the latest first; when no other waits, all paths pass this one."""
        serial, order = count(), list[tuple[int, int, Any]]()
        results: dict[Any, set[int]] = {}

        def wait(node: Any, number: int) -> None:
            variable = getattr(node, "variable", None)
            if node is None or node in self.reached or (variable is not None and variable is not self.pixels):
                return
            if node not in results:
                results[node] = set()
                heapq.heappush(order, (1 if variable is not None else -node._sequence_nr(), next(serial), node))
            results[node].add(number)

        for node, number in waiting_edges:
            wait(node, number)
        while order:
            _, _, node = heapq.heappop(order)
            self.reached.add(node)
            if not order and len(results[node]) == 1:
                self.passed.add((node, *results[node]))
            for following, number in node.next_functions:
                wait(following, number)

    def _differentiate(self, scores: Sequence[Tensor]) -> None:
        """Take the gradient of a random projection of the scores once, and note where it is not 0."""
        handles = [node.register_prehook(self._noting(node)) for node in {edge[0] for edge in self.edges.values()}]
        generator = torch.Generator().manual_seed(0)
        signs = [(torch.randint(2, score.shape, generator=generator) * 2 - 1).to(score) for score in scores]
        try:
            (gradient,) = torch.autograd.grad(list(scores), self.pixels, signs, allow_unused=True)
            self.silent = gradient is None or not bool(gradient.any())
        finally:
            for handle in handles:
                handle.remove()

    def _noting(self, node: Any) -> Any:
        def note(gradients: Sequence[Tensor | None]) -> None:
            for number, gradient in enumerate(gradients):
                if gradient is not None:
                    other = [[d for d in range(gradient.ndim) if d != dim] for dim in range(gradient.ndim)]
                    touched = gradient.detach() != 0
                    self._positions[node, number] = [touched.sum(dim=dims).bool() if dims else touched for dims in other]

        return note


def _score_tensors(output: Any) -> list[Tensor]:
    """The logits in an output, otherwise all its tensors; only those with a gradient."""
    try:
        found = [tensor_in(output)]
    except TypeError:
        found = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return [tensor for tensor in found if tensor.requires_grad and tensor.grad_fn is not None]


_REARRANGING: tuple[str, ...] = (
    *("Upsample", "View", "UnsafeView", "Reshape", "Permute", "Transpose", "Squeeze", "Unsqueeze", "Clone", "ToCopy", "Alias"),
    *("Slice", "Select", "Unbind", "Softmax", "LogSoftmax", "Sigmoid"),
)
"""Operations that only resize, rearrange or normalise."""


def _unchanged_from(nodes: Sequence[Any]) -> set[Any]:
    """The operations whose results are the scores themselves, at most resized, rearranged or normalised."""
    found, waiting = set(nodes), list(nodes)
    while waiting:
        node = waiting.pop()
        if node.name().startswith(_REARRANGING):
            following = [n for n, _ in node.next_functions if n is not None and n not in found]
            found.update(following)
            waiting += following
    return found


def default_layer(model: nn.Module, image: Float[Tensor, "1 c h w"], scales: int = 1) -> tuple[list[ChosenLayer], str | None]:
    """The layer, and the last of each finer resolution before it, ``scales`` in all; and a warning if another one is near.

    At the finer resolutions a layer after a nonlinearity is preferred: before it, most of a channel is negative or cancels out.

    Args:
        model: in evaluation mode, its weights frozen.
        image: one of the size of the images.
        scales: number of resolutions.

    Raises:
        ValueError: where no layer is a candidate.
    """
    search = _Search(model, image)
    unseen = search.by_shape()
    if unseen is not None:
        return [search.chosen(*unseen, BY_SHAPE)], UNSEEN
    last = search.last()
    conventional = search.conventional()
    if conventional is not None and (conventional[1].cells == last[1].cells or search.in_one_block(conventional[0], last[0])):
        return [search.chosen(*conventional)], search.doubt(conventional[0])
    named = search.named(last[0])
    if named is not None:
        return [search.chosen(*named)], search.not_seen(named[0], last[0])
    finer = search.finer(last, scales - 1) if search.whole(last[0]) else []
    return [search.chosen(*entry, LAST) for entry in (last, *finer)], search.doubt(last[0]) or search.unseen_behind(last[0])


class _Search:
    """The candidates of one model, examined from the last one back."""

    def __init__(self, model: nn.Module, image: Float[Tensor, "1 c h w"]) -> None:
        self.model = model
        self.observed = Observed(model, image)
        self.graph = Graph(model, self.observed.images[:1])
        self.outputs = [output for output in self.observed.once() if not output.pooled and output.changes]
        self._layouts: dict[int, Layout | None] = {}

    def layout(self, output: Output) -> Layout | None:
        """The layout of a candidate; None for an output that is none."""
        if id(output) not in self._layouts:
            self._layouts[id(output)] = self._examined(output)
        return self._layouts[id(output)]

    def _examined(self, output: Output) -> Layout | None:
        if self.graph.exists and not self.graph.reaches(output):
            return None
        found = self.observed.found(output)
        if found is None or not found.local or found.layout.cells == 1:
            return None
        return found.layout if not self.graph.exists or self.graph.depends(output, found.layout) else None

    def last(self) -> tuple[Output, Layout]:
        """The last candidate; where paths lead around it, the last norm or layer that all paths pass, if one is near."""
        first: tuple[int, Output, Layout] | None = None
        for place, output in reversed(list(enumerate(self.outputs))):
            layout = self.layout(output)
            if layout is None:
                continue
            first = first or (place, output, layout)
            if place < first[0] / 2:
                break
            if self.whole(output) or is_norm_of_positions(output.module):
                return output, layout
        if first is None:
            raise ValueError(NO_LAYER)
        return first[1:]

    def by_shape(self) -> tuple[Output, Layout] | None:
        """The last output of the image's proportions, where no change shows in any; None if one shows, or there is none."""
        if any(self.observed.found(output) is not None for output in self.outputs):
            return None
        for output in reversed(self.outputs):
            layout = output.layout_by_proportions(self.observed.size) if len(output.shape) == 4 else None
            if layout is not None and (not self.graph.exists or self.graph.reaches(output)):
                return output, layout
        return None

    def named(self, last: Output) -> tuple[Output, Layout, str] | None:
        """The last feature map by the model's library, if it is behind the last candidate, since no change shows there.

        Where the score is computed from it inside the module that returns it, the module is taken that it comes from.
        """
        module, rule = named_feature_map(self.model) or (None, "")
        behind = self.outputs[self.outputs.index(last) + 1 :]
        for output in behind:
            layout = output.layout_by_proportions(self.observed.size) if output.module is module and output.part == 0 else None
            if layout is not None and self.layout(output) is None:
                same = (other for other in reversed(behind) if other.changes is output.changes)
                used = (o for o in (output, *same) if not self.graph.exists or self.graph.depends(o, layout))
                found = next(used, None)
                return None if found is None else (found, layout, rule)
        return None

    def whole(self, output: Output) -> bool:
        """Whether no path leads around an output, as far as it is known."""
        return not self.graph.exists or self.graph.all_paths_pass(output)

    def conventional(self) -> tuple[Output, Layout, str] | None:
        """The layer that is explained by convention in the last block with attention, if it is a candidate."""
        order = {module: place for place, module in enumerate(self.observed.finished)}
        rules = dict(found for block in self.model.modules() if (found := _in_block(block, order)) is not None)
        last = next((output for output in reversed(self.outputs) if output.module in rules), None)
        layout = None if last is None else self.layout(last)
        return None if last is None or layout is None else (last, layout, rules[last.module])

    def in_one_block(self, conventional: Output, last: Output) -> bool:
        """Whether the last candidate is a part of the block whose layer is explained by convention."""
        blocks = (block for block in self.model.modules() if conventional.module in (block, *block.children()))
        return any(last.module in set(block.modules()) for block in blocks if block is not self.model)

    def finer(self, last: tuple[Output, Layout], number: int) -> list[tuple[Output, Layout]]:
        """The last candidate of each resolution before, rectified if there is one."""
        chosen: list[tuple[Output, Layout]] = []
        grids = [last[1].grid]
        for output in reversed(self.outputs[: self.outputs.index(last[0])]):
            layout = self.layout(output) if number > 0 else None
            if layout is None:
                continue
            if layout.grid not in grids:
                if len(chosen) == number:
                    break
                grids.append(layout.grid)
                chosen.append((output, layout))
            elif chosen and layout.grid == chosen[-1][1].grid and output.rectified and not chosen[-1][0].rectified:
                chosen[-1] = output, layout
        return chosen

    def doubt(self, chosen: Output) -> str | None:
        """A warning if another candidate is as near to the scores, on a path that does not lead through the chosen one."""
        if self.whole(chosen):
            return None
        below = self.graph.ancestors(chosen)
        for output in reversed(self.outputs[: self.outputs.index(chosen)]):
            edge = self.graph.edges.get((output.module, output.part))
            if edge is not None and edge[0] not in below and self.layout(output) is not None:
                names = {module: name for name, module in self.model.named_modules()}
                return (
                    f"two layers are the last ones, each of its own path: {names[chosen.module]!r}, which is explained, and "
                    f"{names[output.module]!r}; give target_layer to choose, or both"
                )
        return None

    def unseen_behind(self, chosen: Output) -> str | None:
        """A warning if no change shows at a map behind the chosen layer, which is then not known to be the last."""
        for output in reversed(self.outputs[self.outputs.index(chosen) + 1 :]):
            layout = output.layout_by_shape
            if layout is not None and layout.cells > 1 and self.observed.found(output) is None and self.graph.reaches(output):
                names = {module: name for name, module in self.model.named_modules()}
                return (
                    f"local changes of noise do not show behind {names[chosen.module]!r}, which is explained, as at "
                    f"{names[output.module]!r}; give target_layer for another layer"
                )
        return None

    def not_seen(self, chosen: Output, last: Output) -> str:
        """A warning that the chosen layer is known by its name alone."""
        names = {module: name for name, module in self.model.named_modules()}
        return (
            f"local changes of noise do not show at {names[chosen.module]!r}, which is explained because the model's library "
            f"names it; the last layer at which they show is {names[last.module]!r}; give target_layer to choose"
        )

    def chosen(self, output: Output, layout: Layout, rule: str) -> ChosenLayer:
        """What is known of a candidate."""
        return ChosenLayer(output.module, output.part, layout, rule)


UNSEEN = (
    "local changes of noise show at no layer of the model; the last layer of the image's proportions is explained, whose cells "
    "may not be those of the image"
)

NO_LAYER = (
    "no layer of the model has a spatial output: none that runs once, and that the score depends on, follows a local change of "
    "the image; name a target_layer and a reshape_transform"
)


def named_feature_map(model: nn.Module) -> tuple[nn.Module, str] | None:
    """The module whose first output is the last feature map by the model's library, and how it is named; None if it is not.

    timm's models have a list ``feature_info``; the base model of a classifier of Transformers returns its last hidden state.

    Args:
        model: the model, or one around it.
    """
    for module in model.modules():
        info = getattr(module, "feature_info", None)
        if isinstance(info, list) and info and isinstance(info[-1], dict):
            named = dict(module.named_modules()).get(info[-1].get("module", ""))
            return None if named is None else (named, FEATURE_INFO)
        prefix = getattr(module, "base_model_prefix", None)
        base = getattr(module, prefix, None) if isinstance(prefix, str) and prefix else None
        if isinstance(base, nn.Module):
            return base, HIDDEN_STATE
    return None


def is_norm_of_positions(module: nn.Module) -> bool:
    """Whether a module is a norm such as that before an attention; a batch norm is a part of a convolution.

    >>> is_norm_of_positions(nn.LayerNorm(2)), is_norm_of_positions(nn.BatchNorm2d(2))
    (True, False)

    Args:
        module: any.
    """
    name = type(module).__name__.lower()
    return name.rstrip("123d").endswith("norm") and not name.startswith(("batch", "instance", "frozenbatch", "syncbatch"))


def _in_block(block: nn.Module, order: dict[nn.Module, int]) -> tuple[nn.Module, str] | None:
    """Of a block with attention and norms, by the order in which they run: the norm in front, else the block itself."""
    children = {name: child for name, child in block.named_children() if child in order}
    tokens = [order[child] for name, child in children.items() if name == "mlp_tokens"]
    attention = tokens or [order[child] for name, child in children.items() if "attn" in name or "attention" in name]
    norms = [child for child in children.values() if type(child).__name__.endswith(("LayerNorm", "RMSNorm", "LayerNorm2d"))]
    if not attention or not norms or block not in order:
        return None
    first = min(norms, key=lambda norm: order[norm])
    rule = BEFORE_TOKENS if tokens else BEFORE_ATTENTION
    return (first, rule) if order[first] < min(attention) else (block, BEHIND_ATTENTION)
