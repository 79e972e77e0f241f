"""Names of classes: short, so that a figure has room for them, and unique, so that one can be asked for.

Of the lists of ImageNet's 1000 classes that come with dependencies, torchvision's is both: it tells ``crane`` from
``crane bird`` and ``maillot`` from ``maillot tank suit``, where the first WordNet lemma, which timm has, names two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def imagenet() -> tuple[str, ...]:
    """ImageNet-1k, in the order of the classes that every library here uses.

    >>> imagenet()[282], len(set(imagenet()))
    ('tiger cat', 1000)
    """
    from torchvision.models import ResNet18_Weights  # noqa: PLC0415 - a second that importing the zoo need not take

    return tuple(ResNet18_Weights.DEFAULT.meta["categories"])


def readable(names: Sequence[str]) -> tuple[str, ...]:
    """Only the first of a class's synonyms, except where that alone would be the name of two classes.

    >>> readable(["tench, Tinca tinca", "crane", "crane, bird"])
    ('tench', 'crane', 'crane, bird')
    """
    firsts = [name.split(",")[0].strip() for name in names]
    count = Counter(firsts)
    return tuple(first if count[first] == 1 else name for first, name in zip(firsts, names, strict=True))
