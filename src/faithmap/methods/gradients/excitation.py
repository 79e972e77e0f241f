r"""Excitation Backprop: how likely it is that a walk from winner to winner, down from the class, passes a cell.

The walk begins at the class's output unit, with probability 1, and goes from each unit to one of those below that excite it,
with a probability in proportion to what each contributes (:mod:`faithmap.methods.gradients.winning`). The heatmap is the
*marginal winning probability* (MWP) at a layer, summed over the channels (Zhang et al. 2016, 2018), given that the walk comes
there: it may end before, at a unit that its bias alone drives, or go round the layer. The map sums to 1.

The contrastive map (c-MWP) sets against it the walk from the dual unit, which has the class's weights with the other sign:

.. math:: relu\Bigl(\sum_k P_k - \bar P_k\Bigr)

Every step is linear in P, so that the difference of the two walks is one walk of the difference, taken at the layer right below
the output unit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.capture import Capture
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request
from faithmap.methods.gradients.steps import Value
from faithmap.methods.gradients.stops import Stop, find_stop
from faithmap.methods.gradients.tape import Tape
from faithmap.methods.gradients.winning import Mass, Walk
from faithmap.probe import run_model
from faithmap.score import ScoreKind, logits_of
from faithmap.warning_types import FaithmapWarning

NO_DUAL = (
    "nothing inhibits the score, and the contrastive map is the plain one; so it is where a model rectifies behind its last "
    "weights, as SqueezeNet does"
)


@dataclass(eq=False)
class ExcitationBackprop(Explainer):
    """Excitation Backprop: the marginal winning probability of a layer's cells.

    Args:
        target_layer: where the walk stops: a module, its dotted name, ``"input"`` for the pixels, or None: the first layer at
            the second coarsest resolution that every path passes and that is never negative, as the authors' pool4 of VGG-16
            and res4a of ResNet.

    Networks of weighted sums and rectifications are covered, listed in docs/methods/excitation_backprop.md; another operation
    between the layer and the score is a ValueError that names it. The walk begins at the class's logit whatever the ``score``;
    a callable target has to be a weighted sum of logits. Cells stand where the layer looks, the rest is explained at
    :class:`faithmap.methods.Explainer`.
    """

    score: ScoreKind = "logit"
    target_layer: nn.Module | str | None = None
    _stops: dict[Any, Stop] = field(default_factory=dict, init=False, repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data; the layer by its name."""
        found = next(reversed(self._stops.values()), None)
        given = self.target_layer
        name = found.name if found is not None else given if given is None or isinstance(given, str) else type(given).__name__
        return {**super().settings, "target_layer": name}

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean one, and one that is followed and walked down."""
        del image
        return Passes(2, 1)

    def _explain(self, request: Request) -> RawHeatmap:
        stop, count = self._stop(request.images[:1]), len(request.images)
        maps, found = [], []
        for numbers in torch.arange(count, device=request.images.device).split(self.chunk_size):
            mass = list(self._winning(request, numbers, stop).values())
            if not mass:
                raise ValueError(f"target_layer {stop.name!r} does not feed the score; give a layer that does")
            heatmap, said = self._mapped(torch.stack(mass).sum(dim=(0, 2)))
            maps.append(heatmap)
            found += said
            request.progress(int(numbers[-1]) + 1, count)
        passes = {"forward_passes": 2, "backward_passes": 1, "target_layer": [stop.name]}
        return RawHeatmap(torch.cat(maps), [{**passes, **said} for said in found], stop.rows, stop.columns)

    def _stop(self, image: Float[Tensor, "1 c h w"]) -> Stop:
        given = self.target_layer
        key = (str(given) if isinstance(given, (str, list)) else id(given), tuple(image.shape))
        if key not in self._stops:
            self._stops[key] = find_stop(self.model, self.target_layer, image)
        return self._stops[key]

    def _winning(self, request: Request, numbers: Tensor, stop: Stop) -> Mass:
        """The mass at the layer, for some of the images."""
        images = request.images[numbers]
        tape = Tape(images)
        entered: list[Value] = [] if stop.layer is not None else [tape.images]

        def enter(activation: Tensor) -> Tensor:
            entered.append(tape.enter(activation))
            return activation

        capture = Capture({} if stop.layer is None else {stop.name: stop.layer})
        with torch.no_grad(), tape.naming(self.model), capture.watch(enter, keep=False), tape:
            output = run_model(self.model, images, self.autocast)
            explained = logits_of(output) if request.score.function is None else request.score(output, numbers)
            top = tape.of(explained)
        if top is None:
            raise ValueError("the score does not hang on the image through operations that can be followed")
        start = torch.ones_like(explained)
        if request.score.classes is not None:
            start = torch.zeros_like(explained).scatter(1, request.score.classes[numbers].unsqueeze(1), 1)
        return self._walk(request, numbers, top, start, entered[0])

    def _walk(self, request: Request, numbers: Tensor, top: Value, start: Tensor, stop: Value) -> Mass:
        """The mass that arrives of one that starts at the top."""
        del request, numbers
        return Walk().down(top, {True: start}, stop)

    def _mapped(self, winning: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, "n h w"], list[dict[str, float]]]:
        """The heatmap of what arrived, and what there is to say of it."""
        mass = winning.sum(dim=(1, 2), keepdim=True)
        return (winning / mass).where(mass > 0, 0), [{"mass": value} for value in mass.flatten().tolist()]


@dataclass(eq=False)
class ContrastiveExcitationBackprop(ExcitationBackprop):
    """Contrastive Excitation Backprop: what wins for the class, less what wins for its dual unit.

    Args:
        relu: take away what is negative, as the paper does; False gives signed maps, which sum to about 0.
    """

    relu: bool = True

    def _walk(self, request: Request, numbers: Tensor, top: Value, start: Tensor, stop: Value) -> Mass:
        walk = Walk()
        inhibition = walk.excitation(top, False)
        none = torch.zeros_like(start) if inhibition is None else inhibition
        for row in (~((none * start).view(len(numbers), -1).sum(dim=1) > 0)).nonzero().flatten().tolist():
            request.warn(int(numbers[row]), NO_DUAL, FaithmapWarning)
        return walk.down(top, {True: start, False: -start}, stop)

    def _mapped(self, winning: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, "n h w"], list[dict[str, float]]]:
        return winning.relu() if self.relu else winning, [{} for _ in winning]


MWP = ExcitationBackprop
"""The name that tables of the pointing game have for it."""

ContrastiveMWP = ContrastiveExcitationBackprop
"""c-MWP, likewise."""
