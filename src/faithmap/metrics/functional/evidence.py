r"""Evidence: the verdict of a jury on heatmaps, of which measures that the method optimised have no vote.

A map has support if its values exceed those of three control maps (:mod:`faithmap.control_maps`), ranked at the same cells, for
most jurors that have a vote (:mod:`faithmap.metrics.functional.jurors`). The rules, for one image, in this order:

============  ==========================================================================================================
unrecognised  the class has at most the probability :data:`UNRECOGNISED`, or that of a model that knows nothing
undecided     fewer than :data:`QUORUM` jurors have a vote
unsupported   the map does not exceed the random map for the share :data:`MAJORITY` of the jurors and in the mean
mixed         it does, but not the centred map or the edges; or the removal that the method optimised is exploited
supported     it exceeds all three
============  ==========================================================================================================

"Exploited": insertion exceeds the image's own score under a removal that the method optimised, by more than under any other.
The panels and the rules are our choices; ``benchmarks/jury.py`` measures what the jurors say of the methods, of control maps
and of absent classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.baselines import Blur, Shuffled
from faithmap.control_maps import centred_map, edge_map
from faithmap.explanation import Explanation
from faithmap.metrics.functional.curves import PreparedInputs, prepared_inputs
from faithmap.metrics.functional.jurors import (
    UNRECOGNISED,
    Case,
    Falls,
    Imputation,
    Judgement,
    Juror,
    Magnitudes,
    Removal,
    other_photograph,
)
from faithmap.model import Classifier, undisturbed
from faithmap.score import Target
from faithmap.seeds import Generators, derived, resolve_generators, uniform
from faithmap.warning_types import suppressed

CONTROLS = ("a random map", "a centred map", "edges")
"""The control maps, in the order of the results."""

QUORUM = 3
"""Fewer jurors give no verdict."""

MAJORITY = 0.75
"""Share of the jurors that have to prefer the map to a control."""

EXPLOITED = 0.05
"""An optimised removal is exploited if insertion exceeds the image's own score by so much more than for the others."""

Level: TypeAlias = Literal["unrecognised", "undecided", "unsupported", "mixed", "supported"]
PanelName: TypeAlias = Literal["quick", "full"]


@dataclass(frozen=True)
class Panel:
    """Jurors, and the fractions of cells that their curves remove.

    Args:
        jurors: with different names.
        fractions: ascending, between 0 and 1, without these.

    >>> PANELS["quick"].passes()
    205
    """

    jurors: tuple[Juror, ...]
    fractions: tuple[float, ...]

    def passes(self, maps: int = 1 + len(CONTROLS)) -> int:
        """Forward passes for one image, at most.

        Args:
            maps: number of maps, by default the heatmap and the control maps.
        """
        return 1 + sum(juror.passes(maps, len(self.fractions)) for juror in self.jurors)


_QUICK: tuple[Juror, ...] = (
    Removal("blur", ("blur",)),
    Removal("grey", ("grey",)),
    Removal("noise", ("noise",)),
    Removal("another photograph", (other_photograph,)),
    Removal("shuffled patches", (Shuffled(),)),
    Removal("mirrored image", ("blur", "grey", other_photograph), view="mirrored"),
)

PANELS: Mapping[PanelName, Panel] = MappingProxyType(
    {
        "quick": Panel(_QUICK, (0.05, 0.15, 0.35, 0.65)),
        "full": Panel(
            (
                *_QUICK,
                Removal("weak blur", (Blur(None, 12.0),)),
                Removal("strong blur", ("strong_blur",)),
                Removal("mean colour", ("mean",)),
                Removal("black", ("black",)),
                Removal("shifted image", ("blur", "grey", other_photograph), view="shifted"),
                Imputation(),
                Magnitudes(),
                Falls(),
            ),
            (0.02, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5, 0.65, 0.8),
        ),
    }
)
"""``quick`` takes about 200 forward passes for an image, ``full`` about 1,200. A second model adds a juror to both."""


def free_panel(optimised: Collection[str], panel: PanelName | Panel = "quick") -> Panel:
    """The jurors that can judge several methods alike: whose removal, or one that they can take instead, none optimised.

    >>> [juror.name for juror in free_panel({"blur", "colour"}).jurors]
    ['noise', 'another photograph', 'shuffled patches', 'mirrored image']

    Args:
        optimised: all kinds of removal that any of the methods optimised.
        panel: by name, or a :class:`Panel`.
    """
    found = PANELS[panel] if isinstance(panel, str) else panel
    return replace(found, jurors=tuple(juror for juror in found.jurors if not juror.optimised_by(optimised)))


@dataclass(frozen=True)
class Verdict:
    """The verdict on the map of one image.

    >>> Verdict("supported", "better than the control maps", 6, (6, 6, 5), (0.4, 0.2, 0.1), exploited=0.0).level
    'supported'

    Attributes:
        level: see the top of this file.
        sentence: for people, without the name of the class.
        votes: number of jurors that have a vote.
        preferred: for each control, the number of them for which the map's value is higher.
        gain: for each control, the mean difference of the values, in units of the score.
        exploited: by how much insertion exceeds the image's own score under the removal that the method optimised, beyond what
            it exceeds it by for any juror with a vote; at least 0.
    """

    level: Level
    sentence: str
    votes: int
    preferred: tuple[int, ...]
    gain: tuple[float, ...]
    exploited: float


@dataclass(frozen=True, eq=False)
class JuryResult:
    """What a jury says of the heatmaps of n images. :func:`evidence` makes it.

    >>> voting = torch.tensor([[True], [True], [True]])
    >>> values = torch.tensor([[[0.5, 0.0, 0.1, 0.2]], [[0.4, 0.0, 0.2, 0.1]], [[0.3, 0.1, 0.1, 0.1]]])
    >>> nothing, names, reasons = torch.zeros(3, 1), ("blur", "grey", "noise"), [[""], [""], [""]]
    >>> own, recognised = torch.tensor([0.9]), torch.tensor([True])
    >>> result = JuryResult(names, values, voting, reasons, ~voting[:, 0], nothing, nothing, own, recognised)
    >>> result.verdicts[0].level, result.value
    ('supported', tensor([0.4000]))

    Attributes:
        jurors: names.
        values: of each juror for the heatmap and the control maps; high is good.
        vote: whether each juror can judge each image.
        reasons: why a juror cannot, for each juror and image; empty where it can.
        optimised: whether the method optimised the juror's measure.
        scope: see :class:`~faithmap.metrics.functional.jurors.Judgement`.
        excess: likewise.
        own: the score of each image.
        recognised: whether the model recognises the class in the image; always for a callable target.
    """

    jurors: tuple[str, ...]
    values: Float[Tensor, "j n m"]
    vote: Bool[Tensor, "j n"]
    reasons: Sequence[Sequence[str]]
    optimised: Bool[Tensor, " j"]
    scope: Float[Tensor, "j n"]
    excess: Float[Tensor, "j n"]
    own: Float[Tensor, " n"]
    recognised: Bool[Tensor, " n"]

    @property
    def gain(self) -> Float[Tensor, "n c"]:
        """Mean over the jurors that have a vote of the map's value minus that of each control; NaN without a vote."""
        return _mean_of(self.values[..., :1] - self.values[..., 1:], self.vote)

    @property
    def value(self) -> Float[Tensor, " n"]:
        """Mean value of the map over the jurors that have a vote; NaN without one."""
        return _mean_of(self.values[..., :1], self.vote).squeeze(-1)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict on each image."""
        return tuple(_verdict(self[image]) for image in range(len(self)))

    def __len__(self) -> int:
        return len(self.own)

    def __getitem__(self, image: int) -> JuryResult:
        """The evidence for one image, still with a dimension of 1."""
        one = slice(image, None if image == -1 else image + 1)
        return replace(
            self,
            values=self.values[:, one],
            vote=self.vote[:, one],
            reasons=[reasons[one] for reasons in self.reasons],
            scope=self.scope[:, one],
            excess=self.excess[:, one],
            own=self.own[one],
            recognised=self.recognised[one],
        )


def _mean_of(values: Float[Tensor, "j n c"], vote: Bool[Tensor, "j n"]) -> Float[Tensor, "n c"]:
    """The mean over the jurors that have a vote; NaN without one."""
    voting = vote.unsqueeze(-1).to(values.dtype)
    return (values * voting).sum(dim=0) / voting.sum(dim=0)


def _verdict(result: JuryResult) -> Verdict:
    """The verdict on one image."""
    voting = result.vote[:, 0]
    votes = int(voting.sum())
    values = result.values[voting, 0]
    preferred = tuple((values[:, :1] > values[:, 1:]).sum(dim=0).tolist())
    gain = tuple(result.gain[0].tolist())
    optimised, others = result.excess[result.optimised, 0], result.excess[voting, 0]
    beyond = max(0.0, float(optimised.max() - others.max())) if len(optimised) and len(others) else 0.0
    level, sentence = _level(result, votes, preferred, gain, beyond)
    return Verdict(level, sentence, votes, preferred, gain, beyond)


def _level(result: JuryResult, votes: int, preferred: Sequence[int], gain: Sequence[float], beyond: float) -> tuple[Level, str]:
    if not bool(result.recognised[0]):
        return (
            "unrecognised",
            f"the model does not recognise this class here (its score is {float(result.own[0]):.4f}): no map to trust",
        )
    if votes < QUORUM:
        return "undecided", f"only {votes} of {len(result.jurors)} jurors have a vote: no verdict"
    exceeds = [wins >= MAJORITY * votes and mean > 0 for wins, mean in zip(preferred, gain, strict=True)]
    if not exceeds[0]:
        return "unsupported", f"no better than {CONTROLS[0]}: {preferred[0]} of {votes} jurors prefer the map"
    if beyond > EXPLOITED:
        return "mixed", (
            f"under the removal that the method optimised, insertion exceeds the image's own score by {beyond:.3f} more than "
            "under any other: the removal itself is being exploited"
        )
    behind = [f"{CONTROLS[i]} ({preferred[i]} of {votes})" for i in (1, 2) if not exceeds[i]]
    if behind:
        return "mixed", f"better than {CONTROLS[0]} for {preferred[0]} of {votes} jurors, but not than {' or '.join(behind)}"
    least = min(preferred)
    return "supported", f"better than a random map, a centred map and edges for at least {least} of {votes} jurors"


def evidence(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target = None,
    *,
    panel: PanelName | Panel = "quick",
    second: nn.Module | None = None,
    seed: int = 0,
    generator: Generators = None,
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> JuryResult:
    """Ask a jury whether heatmaps are better than maps that know nothing of the model.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    >>> found = evidence(model, torch.rand(2, 3, 8, 8), torch.rand(2, 4, 4))
    >>> found.jurors[:3], tuple(found.values.shape)
    (('blur', 'grey', 'noise'), (6, 2, 4))

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: high where it matters, ranked at their own cells; a tensor of the maps alone, or an Explanation, whose target
            is then the default and which says what its method optimised.
        target: the class whose softmax probability is the score, or a callable; None for the Explanation's target, or else the
            predicted class.
        panel: the jurors: "quick", about 200 forward passes for each image; "full", about 1,200; or a :class:`Panel`.
        second: another model with the same classes, for one more juror; it sees the images at its own size.
        seed: of the random map and of random perturbations; the seed of each image is derived from it and the image's index.
        generator: one for the random maps of the run, or one per image; None for ``seed``.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the passes; None for full precision.
        progress: called with (jurors done, number of jurors).

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, an unknown panel, or a second model with other classes.
    """
    chosen = _panel(panel, second)
    _check_classes(model, second)
    with ExitStack() as stack:
        if second is not None:
            stack.enter_context(undisturbed(second))
        inputs = stack.enter_context(prepared_inputs(model, images, heatmaps, target, chunk_size=chunk_size, autocast=autocast))
        stack.enter_context(suppressed())
        stack.enter_context(torch.no_grad())
        generators = resolve_generators(generator, derived(seed, "control maps"), len(images), images.device)
        maps = [inputs.explanation, *controls_of(inputs, generators)]
        case = Case(model, inputs, maps, chosen.fractions, second, seed, chunk_size, autocast)
        judgements = []
        for number, juror in enumerate(chosen.jurors, start=1):
            judgements.append(juror.judge(case))
            if progress is not None:
                progress(number, len(chosen.jurors))
    return _gathered(chosen, judgements, inputs)


def jury_values(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target = None,
    *,
    optimised: Collection[str] = (),
    panel: PanelName | Panel = "quick",
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
) -> Float[Tensor, " n"]:
    """The mean value of each heatmap over the jurors of :func:`free_panel`, to compare several methods; without control maps.

    A juror without a vote for an image does not count, unless none has one.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    >>> tuple(jury_values(model, torch.rand(2, 3, 8, 8), torch.rand(2, 4, 4), optimised={"blur"}).shape)
    (2,)

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: high where it matters, ranked at their own cells.
        target: the class whose softmax probability is the score, or a callable; None for the Explanation's target, or else the
            predicted class.
        optimised: all kinds of removal that any of the compared methods optimised.
        panel: the jurors, of whom the free ones are asked.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the passes; None for full precision.

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, or if no juror is free.
    """
    free = free_panel(optimised, panel)
    if not free.jurors:
        raise ValueError(f"no juror is free of {', '.join(sorted(optimised))}, which the methods optimise; give other jurors")
    with (
        prepared_inputs(model, images, heatmaps, target, chunk_size=chunk_size, autocast=autocast) as inputs,
        suppressed(),
        torch.no_grad(),
    ):
        of_all = replace(inputs.explanation, optimises=tuple(sorted(optimised)))
        case = Case(
            model, replace(inputs, explanation=of_all), [of_all], free.fractions, chunk_size=chunk_size, autocast=autocast
        )
        judgements = [juror.judge(case) for juror in free.jurors]
    values, vote = (torch.stack([getattr(judgement, name) for judgement in judgements]) for name in ("values", "vote"))
    return _mean_of(values, vote | ~vote.any(dim=0)).squeeze(-1)


def _panel(panel: PanelName | Panel, second: nn.Module | None) -> Panel:
    if isinstance(panel, str) and panel not in PANELS:
        raise ValueError(f"panel {panel!r} is unknown; give one of {', '.join(PANELS)}, or a Panel")
    found = PANELS[panel] if isinstance(panel, str) else panel
    if second is None:
        return found
    return replace(found, jurors=(*found.jurors, Removal("second model", ("blur", "grey", other_photograph), second=True)))


def _check_classes(model: nn.Module, second: nn.Module | None) -> None:
    """Raise ValueError if the labels of two classifiers differ: a class would be another thing for the second."""
    if isinstance(model, Classifier) and isinstance(second, Classifier) and model.labels and second.labels:
        differ = [i for i, (a, b) in enumerate(zip(model.labels, second.labels, strict=False)) if a != b]
        if differ or len(model.labels) != len(second.labels):
            what = f"class {differ[0]} is {second.labels[differ[0]]!r}" if differ else f"it has {len(second.labels)} classes"
            raise ValueError(f"the second model has other classes: {what}; give one that was trained for the same")


def controls_of(inputs: PreparedInputs, generators: Sequence[torch.Generator]) -> list[Explanation]:
    """The control maps at the heatmap's resolution, in the order of :data:`CONTROLS`.

    Args:
        inputs: images and heatmaps.
        generators: one for each image.
    """
    shape, images = inputs.explanation.resolution, inputs.images
    drawn = torch.stack([uniform(shape, generator) for generator in generators]).to(images.device)
    centred = centred_map(shape, inputs.size, device=images.device).expand(len(images), -1, -1)
    edges = F.adaptive_avg_pool2d(edge_map(images).unsqueeze(1), shape).squeeze(1)
    return [Explanation(heatmap, inputs.size) for heatmap in (drawn, centred, edges)]


def _gathered(panel: Panel, judgements: Sequence[Judgement], inputs: PreparedInputs) -> JuryResult:
    """The judgements of all jurors."""
    known = inputs.score.is_class_probability
    recognised = (
        inputs.clean > max(UNRECOGNISED, inputs.uninformed) if known else torch.ones_like(inputs.clean, dtype=torch.bool)
    )
    values, vote, scope, excess = (
        torch.stack([getattr(judgement, name) for judgement in judgements]) for name in ("values", "vote", "scope", "excess")
    )
    excess = excess[..., 0]
    optimised = torch.tensor([judgement.optimised for judgement in judgements], device=vote.device)
    reasons = [judgement.reason for judgement in judgements]
    return JuryResult(
        tuple(juror.name for juror in panel.jurors), values, vote, reasons, optimised, scope, excess, inputs.clean, recognised
    )
