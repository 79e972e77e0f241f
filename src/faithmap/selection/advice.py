"""Advice: the result of a selection in sentences, none of which claims more than the images support."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from faithmap.errors import duration, quantity
from faithmap.selection.choice import MAX_IMAGES, Choice, Ranked

MAX_NAMED = 5
"""Maximum number of methods that a sentence names; for more it states their number."""


def advice(choice: Choice) -> Iterator[str]:
    r"""The best method, its cost, the methods indistinguishable from it, and how many images would distinguish them.

    Args:
        choice: the ranking of the methods.

    >>> import torch
    >>> from faithmap.methods.base import Passes
    >>> rows = [Ranked(name, False, torch.full((9,), score), Passes(1, 1), 0.1) for name, score in (("a", 0.5), ("b", 0.25))]
    >>> print(*advice(Choice("insertion", tuple(rows), (), budget=60.0, seconds=2.0)), sep="\n")
    use a: insertion 0.500 (0.500 to 0.500), 1 forward pass and 1 backward pass, 0.1 s per image
    """
    best = choice.best
    yield f"use {best.name}: {choice.score.replace('_', ' ')} {best.mean:.3f}{_range(best)}, {_cost(best)} per image"
    if choice.enough:
        yield from _indistinguishable(choice)
    ahead = [m for m in choice.unbeaten if choice.enough or choice.ranking.index(m) < choice.ranking.index(best)]
    if ahead:
        one = "a control, which ignores the model" if len(ahead) == 1 else "controls, which ignore the model"
        yield f"it is not significantly better than {_names(ahead, 'and')}: {one}"
    if not choice.enough:
        yield (
            f"{quantity(len(choice), 'image')} cannot show a difference between {len(choice.ranking)} methods: "
            f"the order may be random; give {choice.images_needed} or more"
        )
    yield from _needed(choice)


def _indistinguishable(choice: Choice) -> Iterator[str]:
    """The methods that are indistinguishable from the best, the cheapest with its cost."""
    best, cheaper = choice.best, choice.cheaper
    if cheaper is not None:
        p = choice.p(best.name, cheaper.name)
        yield f"it is indistinguishable from {cheaper.name} (p = {p:.2g}), which takes {_cost(cheaper)}"
    others = [method for method in choice.indistinguishable if method is not cheaper]
    if others:
        yield f"{'and from' if cheaper else 'it is indistinguishable from'} {_names(others, 'and')}"


def _needed(choice: Choice) -> Iterator[str]:
    """Number of images that would distinguish the best method from a control, and from the next methods."""
    best, cheaper = choice.best, choice.cheaper if choice.enough else None
    nearest = [method for method in choice.indistinguishable if method is not cheaper][:1]
    others = [*choice.unbeaten[:1], *([] if cheaper is None else [cheaper]), *nearest]
    numbers = [(method.name, choice.images_to_distinguish(best, method)) for method in others]
    phrases = [
        f"{f'about {n}' if n <= MAX_IMAGES else f'more than {MAX_IMAGES}'} from {name}" for name, n in numbers if n is not None
    ]
    if phrases:
        yield f"similar images that would distinguish {best.name}: {', '.join(phrases)}"


def _cost(method: Ranked) -> str:
    passes, seconds = method.passes, duration(method.seconds)
    forward = f"{passes.forward} forward pass{'es' * (passes.forward != 1)}"
    backward = f" and {passes.backward} backward pass{'es' * (passes.backward != 1)}" if passes.backward else ""
    return f"{forward}{backward}, {seconds}"


def _range(method: Ranked) -> str:
    return "" if method.interval is None else f" ({method.interval.low:.3f} to {method.interval.high:.3f})"


def _names(methods: Sequence[Ranked], word: str) -> str:
    return f"{len(methods)} others" if len(methods) > MAX_NAMED else _listed([m.name for m in methods], word)


def _listed(words: Sequence[str], last: str = "and") -> str:
    """Words as a list in a sentence.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
