"""Pictures of explanations: overlay, panel, curves, strip, animation, sanity check. Nothing here uses pyplot.

This package needs explanations and plain numbers only: it imports methods and metrics for type checking, not at run time.
"""

from faithmap.viz.adversarial import adversarial_panel, insertion_curves
from faithmap.viz.comparison import compare
from faithmap.viz.figure import (
    colourise,
    curves,
    flaw,
    limits,
    overlay,
    placed,
    saturation_curves,
    save_figure,
    save_image,
    scaled,
)
from faithmap.viz.panel import show
from faithmap.viz.ranking import ranking
from faithmap.viz.removal_steps import animation, strip
from faithmap.viz.sanity import sanity

__all__ = [
    "adversarial_panel",
    "animation",
    "colourise",
    "compare",
    "curves",
    "flaw",
    "insertion_curves",
    "limits",
    "overlay",
    "placed",
    "ranking",
    "sanity",
    "saturation_curves",
    "save_figure",
    "save_image",
    "scaled",
    "show",
    "strip",
]
