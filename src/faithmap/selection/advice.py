"""Advice: what a choice comes to, in sentences; none claims more than the photographs show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from faithmap.selection.choice import MOST, Choice, Ranked
from faithmap.text import spoken

NAMED = 5
"""Methods that a sentence names; of more it gives the number."""


def advice(choice: Choice) -> Iterator[str]:
    """What to use, what it costs, what it cannot be told from, and what more photographs would tell."""
    best = choice.best
    yield f"use {best.name}: {choice.score.replace('_', ' ')} {best.mean:.3f}{_range(best)}, {_cost(best)} an image"
    if choice.enough:
        yield from _alike(choice)
    ahead = [m for m in choice.unbeaten if choice.enough or choice.ranking.index(m) < choice.ranking.index(best)]
    if ahead:
        one = "a control, which knows" if len(ahead) == 1 else "controls, which know"
        yield f"it is not shown to beat {_names(ahead, 'and')}: {one} nothing of the model"
    if not choice.enough:
        yield (
            f"{_photographs(len(choice))} cannot show a difference between {len(choice.ranking)} methods: "
            f"the order may be chance; give {choice.photographs_needed} or more"
        )
    yield from _needed(choice)


def _alike(choice: Choice) -> Iterator[str]:
    """Which methods are not shown to be worse, the cheapest with its cost."""
    best, cheaper = choice.best, choice.cheaper
    if cheaper is not None:
        p = choice.p(best.name, cheaper.name)
        yield f"it cannot be told from {cheaper.name} (p = {p:.2g}), which takes {_cost(cheaper)}"
    others = [method for method in choice.alike if method is not cheaper]
    if others:
        yield f"{'nor from' if cheaper else 'it cannot be told from'} {_names(others, 'or')}"


def _needed(choice: Choice) -> Iterator[str]:
    """How many photographs would tell the best from a control, and from the next method: the questions that are left open."""
    best, cheaper = choice.best, choice.cheaper if choice.enough else None
    asked = [*choice.unbeaten[:1], *([] if cheaper is None else [cheaper]), *[m for m in choice.alike if m is not cheaper][:1]]
    told = [(method.name, choice.photographs_to_tell(best, method)) for method in asked]
    phrases = [f"{f'about {n}' if n <= MOST else f'more than {MOST}'} from {name}" for name, n in told if n is not None]
    if phrases:
        yield f"photographs like these that would tell {best.name} from others: {', '.join(phrases)}"


def _cost(method: Ranked) -> str:
    passes, seconds = method.passes, spoken(method.seconds)
    forward = f"{passes.forward} forward pass{'es' * (passes.forward != 1)}"
    return f"{forward} and {passes.backward} backward, {seconds}" if passes.backward else f"{forward}, {seconds}"


def _range(method: Ranked) -> str:
    return "" if method.interval is None else f" ({method.interval.low:.3f} to {method.interval.high:.3f})"


def _photographs(count: int) -> str:
    return f"{count} photograph{'s' * (count > 1)}"


def _names(methods: Sequence[Ranked], word: str) -> str:
    return f"{len(methods)} others" if len(methods) > NAMED else _listed([m.name for m in methods], word)


def _listed(words: Sequence[str], last: str = "and") -> str:
    """Words in a row.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
